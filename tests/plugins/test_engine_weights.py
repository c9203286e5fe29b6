"""Finding weights, naming them by their digest, and loading them through the plugins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.errors import BadInput
from harness.records import Decoding, LoadRequest, Picture, Prompt, PromptGroup
from plugins import engine, weights
from plugins.checkpoint import Checkpoint
from plugins.engine.emit import EmitWiring
from plugins.families import emit, internvl3
from tests import tiny


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save(tmp_path / "weights", *tiny.internvl())


def request(place: Path | str | None, **options: object) -> LoadRequest:
    return LoadRequest(world="mini", weights=None if place is None else str(place), **options)  # type: ignore[arg-type]


def test_a_folder_loads_and_answers(folder: Path) -> None:
    model = internvl3.BASE.spec().load(request(folder))
    picture = Picture("d", tiny.image(0))
    group = PromptGroup("", (picture,), (), picture, (Prompt("p", "Any?", {"A": "Yes", "B": "No"}, False),))
    (response,) = model.answer(group, Decoding("logits", 1))
    assert response.text in ("A", "B")
    assert model.counters()["images_encoded"] == 1
    model.close()


def test_ablations_change_the_loaded_model(tmp_path: Path) -> None:
    place = tiny.save(tmp_path / "emit", *tiny.emit())
    checkpoint = Checkpoint(**{**emit.EMIT.__dict__, "contrast": {"use_soft_prompt": False}})
    model, full = checkpoint.spec().load(request(place)), emit.EMIT.spec().load(request(place))
    assert isinstance(model.wiring, EmitWiring) and isinstance(full.wiring, EmitWiring)  # type: ignore[attr-defined]
    assert (model.model.config.placeholders, full.model.config.placeholders) == (4, 7)
    prints = [c.spec().fingerprint(request(place)) for c in (checkpoint, emit.EMIT)]
    assert prints[0]["weights"] == prints[1]["weights"]
    assert prints[0] != prints[1]


def test_the_fingerprint_follows_every_decisive_file_and_nothing_else(folder: Path) -> None:
    def digest() -> str:
        return str(internvl3.BASE.spec().fingerprint(request(folder))["weights"])

    first = digest()
    assert digest() == first
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    assert internvl3.BASE.spec().fingerprint(request(copy))["weights"] == first
    (folder / "README.md").write_text("words")
    (folder / "optimizer.pt").write_bytes(b"state")
    assert digest() == first
    seen = {first}
    for name in (
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "processor_config.json",
    ):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content.replace(b"0", b"1", 1) if b"0" in content else content + b" ")
        if name == "config.json":  # the type must stay readable
            path.write_text(json.dumps({**json.loads(content), "note": 1}))
        seen.add(digest())
    assert len(seen) == 6


def test_an_edit_that_keeps_the_size_is_seen(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    first = weights.resolve("m", "internvl", request(folder), {}).digest()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b" ")
    os.utime(path, ns=(1, 1))
    assert weights.resolve("m", "internvl", request(folder), {}).digest() != first
    known = json.loads(Path(os.environ["EMIT_BENCH_CACHE"], "weights.json").read_text())
    assert len({key.split("|")[0] for key in known}) == len(known)  # the old entry is gone


def test_digests_are_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = weights.resolve("m", "internvl", request(folder), {})
    first = found.digest()

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        assert self.suffix != ".safetensors", "the file was hashed again"

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: refuse(self) or opened(self, *a, **k))
    assert found.digest() == first
    monkeypatch.undo()


def test_a_damaged_memory_is_only_slow(folder: Path) -> None:
    found = weights.resolve("m", "internvl", request(folder), {})
    first = found.digest()
    Path(os.environ["EMIT_BENCH_CACHE"], "weights.json").write_text("{broken")
    assert found.digest() == first


def test_a_cache_that_cannot_be_made_is_only_slow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = weights.resolve("m", "internvl", request(folder), {})
    first = found.digest()
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(folder / "config.json" / "x"))
    assert found.digest() == first


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("packaged:nothing", "packaged:nothing is not part of this installation"),
        ("./nowhere/at/all", "does not exist"),
        (None, "no default weights for the mini world"),
    ],
)
def test_missing_weights_are_one_sentence(place: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        weights.resolve("some-model", "internvl", request(place), {})
    assert "\n" not in str(caught.value)
    assert "--weights some-model=FOLDER" in str(caught.value) or "hub id" in str(caught.value)


def test_a_hub_id_that_cannot_be_fetched_names_id_and_command(tmp_path: Path) -> None:
    """In a process of its own: the hub reads its environment once."""
    code = (
        "from harness.records import LoadRequest\nfrom plugins.families import internvl3\n"
        "try:\n    internvl3.BASE.spec().fingerprint(LoadRequest(world='real'))\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("BadInput weights of internvl3-base: there is no folder OpenGVLab/")
    assert "as a hub id (about 16 GB)" in result.stdout
    assert "hf download OpenGVLab/InternVL3-8B-hf" in result.stdout
    assert result.stdout.count("\n") == 1


def test_incomplete_or_wrong_folders_are_one_sentence(folder: Path) -> None:
    def message() -> str:
        with pytest.raises(BadInput) as caught:
            internvl3.BASE.spec().load(request(folder))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with pytest.raises(BadInput, match="type 'internvl', but 'emit' is needed"):
        emit.EMIT.spec().load(request(folder))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')
    assert "lacks model-2.safetensors" in message()
    for broken in ("[]", '{"weight_map": []}', '{"weight_map": {"a": {}}}'):
        (folder / "model.safetensors.index.json").write_text(broken)
        assert "index.json names no weight files" in message()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled weights are refused" in message()
    (folder / "config.json").write_text("{")
    assert "broken JSON" in message()
    (folder / "config.json").unlink()
    assert "holds no config.json" in message()


def test_emit_has_no_real_weights_to_guess() -> None:
    with pytest.raises(
        BadInput, match=r"has not been trained here: .*run `emit-bench train emit --data DIR` first, or pass"
    ):
        emit.EMIT.spec().fingerprint(LoadRequest(world="real"))


def test_devices_and_dtypes() -> None:
    cpu = engine.pick_device("cpu")
    assert engine.pick_dtype("auto", cpu) == torch.float32
    assert engine.pick_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert engine.pick_dtype("float16", cpu) == torch.float16
    with pytest.raises(BadInput, match="dtype 'int8'"):
        engine.pick_dtype("int8", cpu)
    with pytest.raises(BadInput, match="device 'abacus'"):
        engine.pick_device("abacus")
    if not torch.cuda.is_available():
        assert engine.pick_device("auto") == cpu
        with pytest.raises(BadInput, match="no CUDA GPU"):
            engine.pick_device("cuda")


def test_the_fingerprint_names_the_precision_that_loading_picks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dtype(**options: str) -> object:
        return internvl3.BASE.spec().fingerprint(request(folder, **options))["dtype"]

    assert dtype(device="cpu") == "float32"
    assert dtype(dtype="bfloat16") == "bfloat16"
    monkeypatch.setattr(engine, "_may_have_gpu", lambda: False)
    assert dtype() == "float32"
    monkeypatch.setattr(engine, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert dtype() == dtype(device="cuda:0") == "bfloat16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dtype() == "float32"


def test_other_backends_are_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="'emit' does not run on the backend 'server'; pass --backend"):
        emit.EMIT.spec().load(request(folder, backend="server"))


def test_discovery_imports_nothing_heavy() -> None:
    code = (
        "import sys, plugins.engine, plugins.families.internvl3, plugins.families.emit\n"
        "plugins.families.internvl3.emit_bench_models(); plugins.families.emit.emit_bench_models()\n"
        "plugins.engine.emit_bench_backends()[0].available()\n"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub', 'emit_model'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    def message(place: Path) -> str:
        with pytest.raises(BadInput, match=r"cannot be loaded|does not load|lacks") as caught:
            internvl3.BASE.spec().load(request(place))
        assert "\n" not in str(caught.value)
        assert "--weights internvl3-base=FOLDER" in str(caught.value)
        return str(caught.value)

    model, parts = tiny.internvl()
    cut = tiny.save(tmp_path / "cut", model, parts)
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[: len(content) // 2])
    message(cut)

    silent = tiny.save(tmp_path / "silent", model, parts)
    (silent / "tokenizer.json").write_text("{}")
    message(silent)

    partial = tmp_path / "partial"
    state = {k: v for k, v in model.state_dict().items() if "layers.1.mlp" not in k and k != "lm_head.weight"}
    tiny.save(partial, model, parts)
    model.save_pretrained(partial, state_dict=state)
    assert "layers.1.mlp" in message(partial)


@pytest.mark.parametrize("place", ["foo/bar..baz", "a--b/c", "foo/-x"])
def test_what_is_neither_folder_nor_hub_id_is_one_sentence(place: str) -> None:
    with pytest.raises(BadInput, match=r"is neither a folder here nor a hub id|does not exist"):
        internvl3.BASE.spec().fingerprint(LoadRequest(world="real", weights=place))


def test_a_damaged_header_is_one_sentence(folder: Path) -> None:
    assert internvl3.BASE.resolve(request(folder)).parameters() > 10_000
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(BadInput, match=r"model\.safetensors is damaged"):
        internvl3.BASE.resolve(request(folder)).parameters()

"""Writing the folder: shards, dtypes, tokenizers; whole or not at all; one sentence on a bad checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from emit_model import COMP_TOKEN, EmitForConditionalGeneration, importing, load_processor
from emit_model.conversion import convert_state
from emit_model.importing import import_released
from tests import released
from tests.released import same, stored

TOWER = "vision_model.encoder.layers.2."


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EmitForConditionalGeneration]:
    folder = tmp_path_factory.mktemp("released")
    return folder, released.write_checkpoint(folder)


@pytest.fixture(scope="module")
def imported(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_released(original[0], tmp_path_factory.mktemp("imported") / "emit").folder


@pytest.fixture
def folder(original: Any, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original[0], tmp_path / "source"))


def test_shards_are_read_by_their_index_and_written_with_one(
    original: Any, folder: Path, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.safetensors").unlink()
    released.write_weights(folder, released.tensors_of(original[1]), shards=3)
    save_file({"left.over": torch.zeros(1)}, folder / "consolidated.safetensors")  # not in the index
    monkeypatch.setattr(importing, "SHARD_BYTES", 100_000)
    told: list[tuple[int, int]] = []
    out = tmp_path / "out"

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        assert not out.exists()  # so a kill at any moment leaves nothing there

    done = import_released(folder, out, progress=progress)
    files = sorted(out.glob("*.safetensors"))
    assert told == [(i + 1, len(files)) for i in range(len(files))] and len(files) > 2
    assert all(path.stat().st_size < 130_000 for path in files)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert all(name in load_file(out / file) for name, file in index["weight_map"].items())
    assert same(stored(out), stored(imported))
    assert done.values == sum(value.numel() for value in stored(out).values())
    assert same(EmitForConditionalGeneration.from_pretrained(out).state_dict(), original[1].state_dict())


def test_stored_dtypes_are_kept(folder: Path, original: Any, tmp_path: Path) -> None:
    half = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in released.tensors_of(original[1]).items()
    }
    released.write_weights(folder, half)
    config = import_released(folder, tmp_path / "out").config
    assert config.dtype == torch.bfloat16
    assert {value.dtype for value in stored(tmp_path / "out").values()} == {torch.bfloat16, torch.int64}
    assert same(stored(tmp_path / "out"), convert_state(half))
    loaded = EmitForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    assert (loaded.dtype, loaded.contrast.conv.weight.dtype) == (torch.bfloat16, torch.float32)


def test_a_tokenizer_from_before_the_training_learns_the_placeholder(folder: Path, tmp_path: Path) -> None:
    released.write_tokenizer(folder, released.ADDED[:-1])
    config = import_released(folder, tmp_path / "out").config
    assert config.comparison.comp_token_id == 409
    assert load_processor(tmp_path / "out").tokenizer.convert_tokens_to_ids(COMP_TOKEN) == 409


def test_nothing_is_left_of_an_import_that_was_cut_short(
    folder: Path, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, beside = tmp_path / "out", tmp_path / ".out.partial"

    def interrupt(done: int, total: int) -> None:
        assert beside.is_dir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_released(folder, out, progress=interrupt)
    assert not out.exists() and not beside.exists()
    beside.mkdir()  # a process that was killed could not clean up
    (beside / "model-00001-of-00009.safetensors").write_bytes(b"half")
    out.mkdir()
    import_released(folder, out)
    assert not beside.exists()
    assert {path.name for path in out.iterdir()} == {path.name for path in imported.iterdir()}


def rewrite(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return spoil


def configure(section: str | None, **changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        part = config if section is None else config[section]
        part.update(changes)
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(text)

    return spoil


def swap(tensors: dict[str, Tensor], name: str, *shape: int) -> None:
    tensors[name] = torch.zeros(shape)


BAD: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "missing",
        rewrite(lambda t: [t.pop(TOWER + "attn.qkv.weight"), t.pop("soft_prompt.weight")]),
        r"2 tensor\(s\) that config.json describes are missing, such as soft_prompt.weight",
    ),
    (
        "extra",
        rewrite(lambda t: swap(t, "vision_model.encoder.layers.4.ls1", 32)),
        r"1 tensor\(s\) are unknown to the EMIT .* such as vision_model.encoder.layers.4.ls1",
    ),
    (
        "misshapen",
        rewrite(lambda t: swap(t, TOWER + "attn.qkv.weight", 96, 31)),
        r"1 tensor\(s\) have another shape .*qkv.weight with \(96, 31\) in place of \(96, 32\)",
    ),
    (
        "older projector",
        rewrite(lambda t: swap(t, "projector.2.weight", 48, 24, 4, 4)),
        "such as projector.2.weight",
    ),
    (
        "rows",
        rewrite(
            lambda t: [
                swap(t, f"language_model.{n}.weight", 408, 48) for n in ("lm_head", "model.embed_tokens")
            ]
        ),
        "ids up to 408, but .* has 408 rows",
    ),
    ("quantised", rewrite(lambda t: t.update(x=torch.zeros(1, dtype=torch.int8))), "x is stored as I8"),
    (
        "twice",
        rewrite(lambda t: swap(t, "projector.projector.0.bias", 1)),
        "is there twice",
    ),
    ("no weights", remove("model.safetensors"), r"no .safetensors file \(pickled weights are refused\)"),
    ("damaged", write("model.safetensors", "{}"), "model.safetensors: it cannot be read as safetensors"),
    (
        "shard gone",
        write("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'),
        "there is no b.safetensors, which model.safetensors.index.json names",
    ),
    (
        "shard elsewhere",
        write("model.safetensors.index.json", '{"weight_map": {"a": "../source/model.safetensors"}}'),
        "there is no ../source/model.safetensors",
    ),
    ("empty index", write("model.safetensors.index.json", "{}"), "names no shards"),
    ("no config", remove("config.json"), "there is no config.json"),
    ("config no JSON", write("config.json", "{"), "config.json: it cannot be read as JSON"),
    ("config a list", write("config.json", "[]"), "must hold a JSON object"),
    ("no chat config", configure(None, llm_config="gone"), "no InternVL chat config"),
    ("ours already", write("config.json", '{"model_type": "emit"}'), "of type 'emit' and no InternVL chat"),
    (
        "other language model",
        configure("llm_config", architectures=["LlamaForCausalLM"]),
        "'LlamaForCausalLM'",
    ),
    ("no architecture", configure("llm_config", architectures=[]), "llm_config.architectures None"),
    ("other chat", configure(None, template="phi3-chat"), "template 'phi3-chat'; only 'internvl2_5'"),
    ("old pixel shuffle", configure(None, ps_version="gone"), "ps_version 'v1'; only 'v2'"),
    (
        "size gone",
        configure("vision_config", num_attention_heads=None),
        "lacks vision_config.num_attention_heads",
    ),
    ("rope gone", configure("llm_config", rope_theta=None), "lacks llm_config.rope_theta"),
    ("size a text", configure("llm_config", hidden_size="48"), "config.json cannot be converted"),
    ("patch a text", configure("vision_config", patch_size="14"), "config.json cannot be converted"),
    ("no tokenizer", remove("merges.txt"), "there is no tokenizer"),
    ("tokenizer no JSON", write("vocab.json", "{"), "its tokenizer cannot be read"),
    (
        "plain Qwen2",
        lambda folder: released.write_tokenizer(folder, released.ADDED[:5]),
        "its tokenizer lacks <img>",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_checkpoint_is_one_sentence(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        import_released(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_not_written_to(original: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="exists and is no empty folder"):
            import_released(original[0], out)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

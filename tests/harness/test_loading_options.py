"""How models are loaded, from the command line to the request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.errors import BadInput
from harness.keys import model_digest
from harness.loading_options import load_request, pairs
from harness.plugins import load_registry
from harness.records import LoadRequest
from tests.builders import write_mmad

NOTHING = {
    **dict.fromkeys(("concurrency", "timeout", "device_map", "quantize")),
    **dict.fromkeys(("device", "dtype"), "auto"),
    **dict.fromkeys(("base_url", "backend_arg"), ()),
    "trust_remote_code": False,
}


def request(backend: str = "transformers", **options: object) -> LoadRequest:
    return load_request(load_registry(), "mini", backend, {**NOTHING, **options})


def test_arguments_of_a_backend_are_read_as_toml_or_text() -> None:
    found = request(
        "vllm", backend_arg=("memory=0.5", "size=4", "name=plain text", "flag=true", "list=[1, 2]")
    )
    assert found.resources == {"memory": 0.5, "size": 4, "name": "plain text", "flag": True, "list": [1, 2]}
    assert found.options == {}


def test_what_changes_answers_is_part_of_their_key_and_what_does_not_is_not() -> None:
    plain = request("server")
    elsewhere = request("server", base_url=("http://a/v1",), concurrency=4, timeout=3.0)
    smaller = request("server", backend_arg=("image_max_side=512",))
    assert elsewhere.resources == {"base_urls": ("http://a/v1",), "concurrency": 4, "timeout_s": 3.0}
    assert smaller.options == {"image_max_side": 512}
    digest = {model_digest("m", {}, one) for one in (plain, elsewhere)}
    assert len(digest) == 1
    assert model_digest("m", {}, smaller) not in digest
    assert model_digest("m", {}, request(quantize="nf4")) != model_digest("m", {}, request())


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"backend_arg": ("typo=3",)}, "--backend-arg typo"),
        ({"backend_arg": ("worker=5",)}, "--backend-arg worker"),
        ({"base_url": ("http://h",)}, "--base-url"),
        ({"concurrency": 3}, "--concurrency"),
    ],
)
def test_arguments_of_another_backend_are_refused_and_dropped_where_two_are_asked(
    given: dict[str, object], named: str
) -> None:
    with pytest.raises(
        BadInput, match=f"{named}: the backend 'transformers' has no such argument; it has device"
    ):
        request(**given)
    loose = load_request(load_registry(), "mini", "transformers", {**NOTHING, **given}, strict=False)
    assert loose.resources == {}


@pytest.mark.parametrize("argument", ["size", "=4", "a b=1", "9=1"])
def test_a_malformed_argument_is_one_sentence(argument: str) -> None:
    with pytest.raises(BadInput, match=r"--backend-arg .*: write a name, an equals sign and a value"):
        request(backend_arg=(argument,))


def test_an_unknown_backend_names_the_near_ones() -> None:
    with pytest.raises(BadInput, match="there is no backend 'sever'; did you mean server"):
        request("sever")


def test_pairs_name_each_model_once() -> None:
    assert pairs("--adapter", ("a=b", "c=d=e")) == {"a": "b", "c": "d=e"}
    with pytest.raises(BadInput, match="--adapter a=c: a is given twice"):
        pairs("--adapter", ("a=b", "a=c"))
    with pytest.raises(BadInput, match="--weights a: write a model's id"):
        pairs("--weights", ("a",))


def test_an_adapter_of_a_model_that_is_not_asked_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_mmad(tmp_path / "mmad"))
    command = ["run", "--models", "random-choice", "--data", data, "--out", str(tmp_path / "out")]
    assert run_cli([*command, "--adapter", "emit=somewhere"]) == 2
    assert "--adapter emit: this model is not among --models random-choice" in capsys.readouterr().err


def test_the_list_says_what_would_run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run_cli(["models", "--check", "--format", "json"]) == 0
    rows = {(row["id"], row["world"]): row for row in json.loads(capsys.readouterr().out)}
    ready = rows["emit", "mini"]
    assert "transformers" in ready["runs"] and ready["weights"] == "packaged:emit"
    lost = rows["qwen2.5-vl", "real"]
    assert (lost["runs"], lost["memory"]) == ("nothing", "22.6 GB")
    wanted = "not on this machine (about 17 GB): hf download Qwen/Qwen2.5-VL-7B-Instruct"
    assert lost["missing"] == wanted
    assert rows["emit-wo-sp", "mini"]["weights"] == "packaged:emit-wo-sp"
    assert rows["emit", "real"]["missing"] == "not trained here: emit-bench train emit --data DIR"
    assert rows["random-choice", "real"]["runs"] == "anywhere"
    assert ("qwen2.5-vl", "mini") not in rows
    assert run_cli(["models", "--check", "--world", "real", "--quantize", "nf4", "--format", "json"]) == 0
    small = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert small["qwen2.5-vl"]["memory"] == "11.8 GB"
    served = [
        "models",
        "--check",
        "--models",
        "qwen*",
        "--base-url",
        "http://localhost:1/v1",
        "--format",
        "json",
    ]
    assert run_cli(served) == 0
    assert [row["runs"] for row in json.loads(capsys.readouterr().out)] == ["server"]
    (tmp_path / "empty").mkdir()
    own = ["--world", "real", "--models", "pixtral", "--weights", f"pixtral={tmp_path / 'empty'}"]
    assert run_cli(["models", "--check", *own]) == 0
    said = capsys.readouterr().out
    assert "holds no config.json" in said and "Backend server: with --base-url" in said

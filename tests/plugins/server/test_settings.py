"""What the command line says about servers, what decides an answer, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import BadInput
from harness.keys import model_digest
from harness.plugins import load_registry
from harness.records import LoadRequest
from plugins.checkpoint import Chat, Checkpoint
from plugins.server import fingerprint, load, served
from plugins.server.settings import read_settings

KEY = "sk-do-not-tell-anyone"
MODEL = Checkpoint("m", "M", "m", "-", "m", {"mini": "packaged:m", "real": "owner/model"})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMIT_BENCH_API_KEY", KEY)


def request(options: dict[str, Any] | None = None, **resources: Any) -> LoadRequest:
    return LoadRequest("mini", backend="server", options=options or {}, resources=resources)


def test_what_decides_an_answer_is_in_the_fingerprint_and_nothing_else() -> None:
    plain = fingerprint(MODEL, request())
    assert plain == {
        "served": "owner/model",
        "image": {"max_side": 1024, "detail": "auto", "format": "png"},
    }
    work = {
        "base_urls": ("http://h", "http://i"),
        "concurrency": 9,
        "timeout_s": 2.5,
        "attempts": 3,
        "price_per_million": [1, 2.5],
        "token_field": "max_completion_tokens",
    }
    assert fingerprint(MODEL, request(**work)) == plain
    assert model_digest("m", plain, request(**work)) == model_digest("m", plain, request())
    for option, value in (("image_max_side", 512), ("image_detail", "low"), ("image_format", "jpeg")):
        other = fingerprint(MODEL, request({option: value}))
        assert other["image"] != plain["image"] and value in other["image"].values()
    named = replace(request(), weights="another")
    assert fingerprint(MODEL, named)["served"] == "another"
    roomy = replace(MODEL, chat=Chat(room={"direct": 900}))
    assert fingerprint(roomy, request()) == {**plain, "room": {"direct": 900}}


def test_settings_are_read() -> None:
    given = {"base_urls": ("http://h", "http://i/v1/", "http://h/v1"), "concurrency": 9, "timeout_s": 2.5}
    settings = read_settings(MODEL, request(**given, attempts=3, price_per_million=[1, 2.5]))
    assert [endpoint.url for endpoint in settings.endpoints] == [
        "http://h/v1/chat/completions",  # named twice, and one server all the same
        "http://i/v1/chat/completions",
    ]
    assert {endpoint.model for endpoint in settings.endpoints} == {"owner/model"}
    asking = settings.asking
    assert (asking.concurrency, asking.timeout, asking.tries) == (9, 2.5, 3)
    assert settings.prices == (1.0, 2.5)
    assert KEY not in repr(settings) and settings.endpoints[0].key == KEY
    assert read_settings(MODEL, request(base_urls="http://h")).endpoints == settings.endpoints[:1]


@pytest.mark.parametrize(("workers", "share"), [(1, 10), (3, 3), (4, 2), (64, 1)])
def test_workers_share_what_may_be_on_its_way(workers: int, share: int) -> None:
    found = read_settings(MODEL, replace(request(concurrency=10), worker=(0, workers)))
    assert found.asking.concurrency == share


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"foo": 1},
            "--backend-arg foo: the backend 'server' knows no such argument; it knows image_max_side",
        ),
        ({"base_urls": ("nowhere",)}, "--base-url: it is no address"),
        ({"base_urls": (1,)}, "--base-url: it is no address"),
        ({"base_urls": (f"http://me:{KEY}@h",)}, "--base-url: leave user and password out"),
        ({"base_urls": (f"http://h?api-key={KEY}",)}, "--base-url: leave the parameter api-key out"),
        ({"attempts": 0}, "--backend-arg attempts=0: write a whole number above 0, such as 8"),
        ({"attempts": 1.5}, "attempts=1.5: write a whole number"),
        ({"attempts": "many"}, "attempts=many: write a whole number"),
        ({"timeout_s": float("nan")}, "timeout_s=nan: write a number above 0"),
        ({"concurrency": True}, "concurrency=True: write a whole number"),
        ({"token_field": "tokens"}, "token_field=tokens: it is one of max_tokens, max_completion_tokens"),
        ({"price_per_million": [1]}, "price_per_million: write the price"),
        ({"price_per_million": [1, -1]}, "price_per_million: write the price"),
        ({"price_per_million": "cheap"}, "price_per_million: write the price"),
        ({"options": {"image_max_side": 0}}, "image_max_side=0: write a whole number above 0, such as 1024"),
        ({"options": {"image_detail": "best"}}, "image_detail=best: it is one of auto, low, high"),
        ({"options": {"image_format": "gif"}}, "image_format=gif: it is one of png, jpeg"),
    ],
)
def test_what_is_unfit_is_one_sentence(given: dict[str, Any], sentence: str) -> None:
    options = given.pop("options", None)
    with pytest.raises(BadInput) as error:
        fingerprint(MODEL, request(options, **given))
    assert sentence in str(error.value) and KEY not in str(error.value)


def test_names_weights_and_addresses_that_are_missing() -> None:
    with pytest.raises(BadInput, match="'m' on the backend 'server': name the server with --base-url"):
        load(MODEL, request())
    with pytest.raises(BadInput, match="pass --weights served=NAME with the name under which it is served"):
        fingerprint(served(), request())
    trained = replace(MODEL, weights={"real": "trained:m"})
    with pytest.raises(BadInput, match="pass --weights m=NAME"):
        fingerprint(trained, request())
    for field in ("adapter", "quantize"):
        with pytest.raises(
            BadInput, match=f"--{field}: on the backend 'server' the server holds the weights"
        ):
            fingerprint(MODEL, replace(request(), **{field: "x"}))


def test_the_registry_knows_the_backend_and_its_model() -> None:
    registry = load_registry()
    backend = registry.backends["server"]
    assert backend.available() is None
    assert backend.deciding == ("image_max_side", "image_detail", "image_format")
    spec = registry.models["served"]
    assert spec.backends == ("server",) and "endpoint" in spec.summary
    assert spec.check is not None
    row = spec.check(replace(request(), weights="name"))
    assert row == {"runs": "server", "weights": "name", "memory": "-", "missing": ""}
    model = spec.load(replace(request(base_urls=("http://127.0.0.1:9",)), weights="name"))
    assert model.counters()["requests"] == 0  # nobody has been asked
    model.close()


def test_finding_the_plugin_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'PIL', 'numpy', 'httpx2', 'asyncio'}"
    code = (
        "import sys, plugins.server as server; server.emit_bench_backends(); server.emit_bench_models(); "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"

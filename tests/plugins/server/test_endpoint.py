"""Addresses and keys, as the command line and the environment give them."""

from __future__ import annotations

import pytest

from harness.errors import BadInput
from plugins.server import endpoint as endpoints
from plugins.server.endpoint import read_endpoint


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/", "http://localhost:8000/v1/chat/completions"),
        ("https://host/v1/", "https://host/v1/chat/completions"),
        ("https://host/api/v1/chat/completions", "https://host/api/v1/chat/completions"),
        ("https://host/d/m?api-version=3", "https://host/d/m/chat/completions?api-version=3"),
    ],
)
def test_endpoints_are_completed(url: str, full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in endpoints.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    endpoint = read_endpoint(url, "m")
    assert endpoint.url == full and endpoint.key == ""
    assert "?" not in endpoint.shown


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    monkeypatch.setenv("EMIT_BENCH_API_KEY", "")
    assert read_endpoint("http://h", "m").key == "second"
    monkeypatch.setenv("EMIT_BENCH_API_KEY", " first\n")
    endpoint = read_endpoint("http://h", "m")
    assert endpoint.key == "first" and "first" not in repr(endpoint)
    for bad in ("k\u00e9y-secret", "key secret", "key\nsecret"):
        monkeypatch.setenv("EMIT_BENCH_API_KEY", bad)
        with pytest.raises(BadInput, match="EMIT_BENCH_API_KEY: it holds a character") as error:
            read_endpoint("http://h", "m")
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://h/v1",
        "http://",
        "http://h:99999",
        "http://me:pw@h",
        "http://h/v1?api_key=pw",
        "http://h/v1?version=1&Subscription-Key=pw",
    ],
)
def test_unfit_addresses_are_refused(url: str) -> None:
    with pytest.raises(BadInput, match="--endpoint") as error:
        read_endpoint(url, "m")
    assert "pw" not in str(error.value)

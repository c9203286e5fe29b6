"""What a manifest says of a model."""

from __future__ import annotations

import pytest

from harness.hookspecs import ModelSpec
from harness.manifest import _scale
from harness.records import LoadRequest, Model


@pytest.mark.parametrize(
    ("world", "weights", "expected"),
    [
        ("mini", None, "4M"), ("real", None, "8B"), ("real", "checkpoints/own", "7.9B"),
        ("real", "packaged:x", "4M"), ("mini", "Hub/X-8B", "8B"),
    ],
)  # fmt: skip
def test_a_mini_model_is_never_printed_as_an_8b_one(world: str, weights: str | None, expected: str) -> None:
    spec = ModelSpec(
        "x",
        "X",
        "x",
        "",
        load=lambda request: Model(),
        fingerprint=lambda request: {},
        weights={"mini": "packaged:x", "real": "Hub/X-8B"},
        scale={"mini": "4M", "real": "8B"},
        measure=lambda request: 7_940_000_000,
    )
    assert _scale(spec, LoadRequest(world, weights)) == expected  # type: ignore[arg-type]

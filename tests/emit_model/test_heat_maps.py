"""Eq. 1 of the paper against a double loop written from it, and its invariants."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emit_model import heat_map

Layers = tuple[list[Tensor], list[Tensor]]


def features(seed: int, layers: int, batch: int, views: int, height: int, width: int) -> Layers:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    depths = [3 + layer for layer in range(layers)]  # a width of its own for each layer
    query = [draw(batch, height, width, depth) for depth in depths]
    return query, [draw(batch, views, height, width, depth) for depth in depths]


def naive(layers: Layers, window: int, outside: str) -> Tensor:
    """Eq. 1 word by word: (B, L, H, W); ``zero`` compares with everything and blanks what is outside."""
    query, reference = layers
    batch, height, width, _ = query[0].shape
    views = reference[0].shape[1]
    heat = torch.empty(batch, len(query), height, width, dtype=torch.float64)
    for b, layer, i, j in itertools.product(range(batch), range(len(query)), range(height), range(width)):
        distances = []
        for r, i2, j2 in itertools.product(range(views), range(height), range(width)):
            q, p = query[layer][b, i, j], reference[layer][b, r, i2, j2]
            similarity = float(q @ p / (q.norm() * p.norm()))
            if abs(i - i2) <= window and abs(j - j2) <= window:
                distances.append(1 - similarity)
            elif outside == "zero":
                distances.append(1.0)
        heat[b, layer, i, j] = min(distances)
    return heat


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    layers=st.integers(1, 3),
    batch=st.integers(1, 2),
    views=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    window=st.integers(0, 6),
    outside=st.sampled_from(["exclude", "zero"]),
)
def test_it_is_equation_1(
    seed: int, layers: int, batch: int, views: int, height: int, width: int, window: int, outside: str
) -> None:
    pair = features(seed, layers, batch, views, height, width)
    each = naive(pair, window, outside)
    expected = {"mean": each.mean(1), "max": each.amax(1), "min": each.amin(1)}
    for fuse, wanted in expected.items():
        heat = heat_map(*pair, window=window, outside=outside, fuse=fuse)  # type: ignore[arg-type]
        assert heat.shape == (batch, 1, height, width)
        torch.testing.assert_close(heat[:, 0], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("outside", ["exclude", "zero"])
@pytest.mark.parametrize(("height", "width", "window"), [(9, 19, 3), (17, 8, 1), (20, 20, 40)])
def test_grids_larger_than_a_block(height: int, width: int, window: int, outside: str) -> None:
    query, reference = features(1, 2, 2, 2, height, width)
    rows, columns = torch.arange(height), torch.arange(width)
    near = ((rows[:, None] - rows).abs() <= window)[:, None, :, None] & (
        (columns[:, None] - columns).abs() <= window
    )[None, :, None, :]
    wanted = []
    for q, r in zip(query, reference, strict=True):
        similarity = torch.einsum(
            "bijd,brkld->bijrkl", q / q.norm(dim=-1)[..., None], r / r.norm(dim=-1)[..., None]
        )
        filler = 0.0 if outside == "zero" else -torch.inf
        similarity = torch.where(near[None, :, :, None], similarity, filler)
        wanted.append(1 - similarity.amax((3, 4, 5)))
    heat = heat_map(query, reference, window=window, outside=outside)  # type: ignore[arg-type]
    torch.testing.assert_close(heat[:, 0], torch.stack(wanted).mean(0), rtol=0, atol=1e-12)


def test_an_image_does_not_differ_from_itself() -> None:
    query, _ = features(2, 2, 1, 1, 6, 7)
    heat = heat_map(query, [layer[:, None] for layer in query], window=0)
    torch.testing.assert_close(heat, torch.zeros_like(heat), atol=1e-12, rtol=0)


def test_a_shift_within_the_window_costs_nothing_and_beyond_it_does() -> None:
    query, _ = features(3, 1, 1, 1, 8, 8)
    shifted = [torch.roll(layer, (2, 1), (1, 2))[:, None] for layer in query]
    inside = heat_map(query, shifted, window=2)[0, 0, :6, :7]
    outside = heat_map(query, shifted, window=1)[0, 0, :6, :7]
    assert inside.max() < 1e-12
    assert outside.min() > 1e-3


def test_one_changed_patch_is_one_hot_spot() -> None:
    reference = torch.ones(1, 1, 8, 8, 4, dtype=torch.float64)
    query = reference[:, 0].clone()
    query[0, 5, 2] = torch.tensor([1.0, -1.0, 1.0, -1.0])  # orthogonal to all ones
    heat = heat_map([query], [reference], window=3)[0, 0]
    assert heat[5, 2] == pytest.approx(1.0)
    heat[5, 2] = 0
    assert heat.abs().max() < 1e-12


def test_only_patches_with_something_outside_their_window_are_capped() -> None:
    query = torch.ones(1, 3, 1, 2, dtype=torch.float64)
    opposite = -query[:, None]
    for window, wanted in ((0, [1, 1, 1]), (1, [1, 2, 1]), (2, [2, 2, 2])):
        heat = heat_map([query], [opposite], window=window, outside="zero").flatten()
        torch.testing.assert_close(heat, torch.tensor(wanted, dtype=torch.float64))
        across = heat_map([query.transpose(1, 2)], [opposite.transpose(2, 3)], window=window, outside="zero")
        torch.testing.assert_close(across.flatten(), heat)
        free = heat_map([query], [opposite], window=window)
        torch.testing.assert_close(free, torch.full_like(free, 2))


def test_order_and_number_of_views_only_take_the_minimum() -> None:
    query, reference = features(4, 2, 1, 3, 5, 5)
    whole = heat_map(query, reference, window=1)
    turned = heat_map(query, [layer[:, [2, 0, 1]] for layer in reference], window=1)
    torch.testing.assert_close(whole, turned, atol=0, rtol=0)
    single = [heat_map(query[:1], [reference[0][:, [r]]], window=1) for r in range(3)]
    joint = heat_map(query[:1], reference[:1], window=1)
    torch.testing.assert_close(joint, torch.stack(single).amin(0), atol=1e-15, rtol=0)


def test_release_and_paper_fuse_layers_to_the_same_map() -> None:
    """Mean of per-layer minimal distances (paper) = 1 - mean of per-layer maximal similarities (release)."""
    query, reference = features(5, 4, 1, 2, 6, 6)
    single = [heat_map([q], [r], window=2) for q, r in zip(query, reference, strict=True)]
    best = [1 - heat for heat in single]
    torch.testing.assert_close(
        heat_map(query, reference, window=2), 1 - torch.stack(best).mean(0), atol=1e-12, rtol=0
    )


def test_scale_of_features_does_not_matter() -> None:
    query, reference = features(6, 1, 1, 1, 4, 4)
    torch.testing.assert_close(
        heat_map([query[0] * 7], [reference[0] * 0.01], window=1), heat_map(query, reference, window=1)
    )


def test_half_precision_is_compared_in_single() -> None:
    query, reference = features(7, 1, 1, 1, 4, 4)
    heat = heat_map([query[0].bfloat16()], [reference[0].bfloat16()], window=1)
    assert heat.dtype == torch.float32
    exact = heat_map([query[0].bfloat16().double()], [reference[0].bfloat16().double()], window=1)
    torch.testing.assert_close(heat.double(), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("outside", ["exclude", "zero"])
def test_gradients(outside: str) -> None:
    query, reference = features(8, 1, 1, 2, 3, 3)
    inputs = (query[0].requires_grad_(), reference[0].requires_grad_())
    assert torch.autograd.gradcheck(
        lambda q, r: heat_map([q], [r], window=1, outside=outside),  # type: ignore[arg-type]
        inputs,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": -1}, "window is -1"),
        ({"outside": "wrap"}, "outside is 'wrap'"),
        ({"fuse": "sum"}, "fuse is 'sum'"),
        ({"query": []}, "0 query and 1 reference layers"),
        ({"reference": [torch.zeros(1, 4, 4, 3)]}, "reference layers"),
        ({"reference": [torch.zeros(1, 0, 4, 4, 3)]}, "R >= 1"),
        ({"reference": [torch.zeros(1, 1, 4, 5, 3)]}, "reference layers"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, object], message: str) -> None:
    good = {"query": [torch.ones(1, 4, 4, 3)], "reference": [torch.ones(1, 1, 4, 4, 3)], "window": 1}
    with pytest.raises(ValueError, match=message):
        heat_map(**{**good, **change})  # type: ignore[arg-type]

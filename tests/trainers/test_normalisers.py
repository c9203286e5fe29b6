"""What a loss is divided by: one number an update, whatever it is split into."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainers.losses import NORMALISERS, Batch, batch, close
from trainers.loss import policy_loss
from trainers.settings import Normalise

#: Two groups of two; at ratio 1 and without a reference, a token's loss is minus its advantage.
UNEVEN = torch.tensor([[[1, 1, 1], [1, 0, 0]], [[1, 0, 0], [1, 0, 0]]])
GAINS = torch.tensor([[1.0, -1.0], [2.0, 0.0]]).double()


def plain(mask: Tensor, gains: Tensor = GAINS, **options: object) -> float:
    logps = torch.full(mask.shape, -1.0, dtype=torch.float64)
    return policy_loss(logps, None, None, gains, mask, beta=0, **options).item()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        ("group", (-(3 - 1) / 4 - 2 / 2) / 2),
        ("batch", -(3 - 1 + 2) / 6),
        ("sequence", (-1 + 1 - 2 + 0) / 4),
    ],
)
def test_normalisers_by_hand(normalise: Normalise, expected: float) -> None:
    assert plain(UNEVEN, normalise=normalise) == pytest.approx(expected, abs=1e-12)


def test_equation_3_is_the_default() -> None:
    assert plain(UNEVEN) == plain(UNEVEN, normalise="group")


def test_normalisers_agree_on_equal_lengths() -> None:
    work = replace(batch(), mask=(torch.arange(6) < 4).expand(8, 4, 6))
    for normalise in NORMALISERS:
        close(work.loss(normalise=normalise), work.loss())
        close(work.gradient(normalise=normalise), work.gradient())


def test_one_group_is_a_batch() -> None:
    work = batch(groups=1)
    close(work.gradient(normalise="group"), work.gradient(normalise="batch"))


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_micro_batches_add_up(normalise: Normalise, size: int) -> None:
    """8 x 1, 4 x 2, 2 x 4 and 1 x 8 groups, in any order, are one update."""
    work = batch()
    total = work.divisor(normalise)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(size)).tolist()
    parts = [order[i : i + size] for i in range(0, 8, size)]
    losses = [work.part(part).loss(normalise=normalise, total=total) for part in parts]
    close(torch.stack(losses).sum(), work.loss(normalise=normalise))
    found = torch.zeros_like(work.logps)
    for loss in losses:
        found += torch.autograd.grad(loss, work.logps)[0]
    close(found, work.gradient(normalise=normalise))


def test_quotients_of_micro_batches_would_not_add_up() -> None:
    """Otherwise the test above would pass without ``total``."""
    work = batch()
    means = [work.part([i]).loss(normalise="batch").item() for i in range(8)]
    assert abs(sum(means) / 8 - work.loss(normalise="batch").item()) > 1e-3


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_order_of_groups_and_responses_does_not_matter(normalise: Normalise) -> None:
    work = batch()
    groups, responses = [3, 7, 0, 2, 6, 1, 5, 4], [2, 0, 3, 1]
    moved = Batch(*(value[groups][:, responses] for value in vars(work).values()))
    close(moved.loss(normalise=normalise), work.loss(normalise=normalise))


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [("group", -2 / 4 / 3), ("batch", -2 / 4), ("sequence", 0.0)],
)
def test_empty_groups_and_responses(normalise: Normalise, expected: float) -> None:
    """What has no token adds nothing, is counted, and makes no NaN."""
    mask = torch.tensor([[[1, 1, 1], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    gains = torch.tensor([[1.0, -1.0], [2.0, 0.0], [3.0, 3.0]]).double()
    assert plain(mask, gains, normalise=normalise) == pytest.approx(expected, abs=1e-12)
    work = replace(batch(groups=3, size=2, length=3), mask=mask)
    found = work.gradient(normalise=normalise)
    assert bool(found.isfinite().all())
    assert not found[~mask.bool()].any()


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 0), (0, 3, 4)])
def test_nothing_at_all_is_zero(normalise: Normalise, shape: tuple[int, int, int]) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    assert plain(mask, torch.ones(shape[:2]).double(), normalise=normalise) == 0

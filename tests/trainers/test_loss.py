"""The losses in float64: hand values, gradients in closed form, and what must not change them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import trainers
from trainers.advantage import group_advantages
from trainers.loss import answer_loss, kl_divergence, policy_loss, policy_statistics
from trainers.settings import Kl, Normalise

NORMALISERS = get_args(Normalise)
KINDS = get_args(Kl)


@dataclass(frozen=True)
class Batch:
    """What a loss is made of; log-probabilities (groups, G, T)."""

    logps: Tensor
    old: Tensor
    ref: Tensor
    advantages: Tensor
    mask: Tensor

    def part(self, groups: list[int]) -> Batch:
        return Batch(*(value[groups] for value in vars(self).values()))

    def loss(self, **options: object) -> Tensor:
        return policy_loss(self.logps, self.old, self.ref, self.advantages, self.mask, **options)  # type: ignore[arg-type]

    def gradient(self, **options: object) -> Tensor:
        (found,) = torch.autograd.grad(self.loss(**options), self.logps)
        return found

    def divisor(self, normalise: str) -> int:
        groups, size, _ = self.mask.shape
        return {"group": groups, "batch": int(self.mask.sum()), "sequence": groups * size}[normalise]


def batch(groups: int = 8, size: int = 4, length: int = 6, seed: int = 0, drift: float = 0.25) -> Batch:
    """Groups of uneven responses, drifted far enough that some ratios are clipped."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    logps = -1 - normal(groups, size, length).abs()
    lengths = torch.randint(1, length + 1, (groups, size, 1), generator=generator)
    return Batch(
        logps.requires_grad_(),
        logps.detach() + drift * normal(groups, size, length),
        logps.detach() + drift * normal(groups, size, length),
        normal(groups, size),
        torch.arange(length) < lengths,
    )


def close(found: Tensor, expected: Tensor | float, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected).to(found), rtol=0, atol=tolerance)


def token(logp: float, old: float, advantage: float, clip: float = 0.2) -> tuple[float, float]:
    """Loss and gradient of one token without a KL penalty."""
    logps = torch.full((1, 1, 1), logp, dtype=torch.float64, requires_grad=True)
    gain = torch.full((1, 1), advantage, dtype=torch.float64)
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    loss = policy_loss(logps, torch.full_like(logps, old).detach(), None, gain, mask, clip=clip, beta=0)
    return loss.item(), torch.autograd.grad(loss, logps)[0].item()


# ── KL divergence ────────────────────────────────────────────────────────────────────────────────────────


def test_divergence_by_hand() -> None:
    """A token that is half, and one that is twice as likely under the reference."""
    logps, ref = torch.tensor([[0.5, 0.25], [0.25, 0.5]], dtype=torch.float64).log()
    k3 = torch.tensor([0.5 + math.log(2) - 1, 2 - math.log(2) - 1], dtype=torch.float64)
    close(kl_divergence(logps, ref), k3)
    close(kl_divergence(logps, ref, "k2"), torch.full_like(k3, math.log(2) ** 2 / 2))


@pytest.mark.parametrize("kind", KINDS)
def test_no_divergence_from_oneself(kind: Kl) -> None:
    """Freshly initialised adapters change nothing: value and gradient are exactly 0."""
    logps = torch.linspace(-9, -0.01, 50, dtype=torch.float64, requires_grad=True)
    found = kl_divergence(logps, logps.detach(), kind)
    assert not found.any()
    assert not torch.autograd.grad(found.sum(), logps)[0].any()
    assert bool((kl_divergence(logps + 0.01, logps.detach(), kind) > 0).all())


@settings(derandomize=True, deadline=None)
@given(
    pair=st.tuples(st.floats(-30, 0, width=32), st.floats(-30, 0, width=32)),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_divergence_is_never_negative(pair: tuple[float, float], kind: Kl, dtype: torch.dtype) -> None:
    logps, ref = torch.tensor(pair, dtype=dtype)
    assert kl_divergence(logps, ref, kind) >= 0


def test_small_divergences_are_not_rounding() -> None:
    """In float32, exp(d) - d - 1 of d = 1e-4 is off by a factor; d^2 / 2 is the truth."""
    found = kl_divergence(torch.tensor([-1.0]), torch.tensor([-1.0001]))
    truth = torch.tensor([-1.0]).double() - torch.tensor([-1.0001]).double()
    torch.testing.assert_close(found.double(), truth**2 / 2, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("kind", "slope"),
    [("k3", lambda d: 1 - d.exp()), ("k2", lambda d: -d)],
)
def test_divergence_gradient(kind: Kl, slope: Callable[[Tensor], Tensor]) -> None:
    """In closed form, and against finite differences."""
    logps = torch.tensor([-0.1, -1.0, -2.0, -5.0], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([-0.4, -0.9, -2.0, -3.5], dtype=torch.float64)
    (found,) = torch.autograd.grad(kl_divergence(logps, ref, kind).sum(), logps)
    close(found, slope(ref - logps.detach()))
    assert torch.autograd.gradcheck(lambda values: kl_divergence(values, ref, kind), logps)


def test_what_the_estimates_estimate() -> None:
    """Expected over the policy's own tokens: k3 has the value of KL(policy || reference), k2 its gradient.

    The expected gradient of k3 is that of KL(reference || policy).
    """
    scores = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([0.5, 0.2, -0.7, 0.0], dtype=torch.float64).log_softmax(-1)
    logps = scores.log_softmax(-1)
    drawn = logps.detach().exp()
    forward, backward = (ref.exp() * (ref - logps)).sum(), (logps.exp() * (logps - ref)).sum()

    def gradient(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, scores, retain_graph=True)[0]

    close((drawn * kl_divergence(logps, ref, "k3")).sum(), backward)
    close(gradient((drawn * kl_divergence(logps, ref, "k2")).sum()), gradient(backward))
    close(gradient((drawn * kl_divergence(logps, ref, "k3")).sum()), gradient(forward))


def test_another_estimate_is_an_error() -> None:
    with pytest.raises(ValueError, match="k3 or k2"):
        kl_divergence(torch.zeros(1), torch.zeros(1), "k1")  # type: ignore[arg-type]


# ── Policy gradient ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_first_update_has_ratio_one(normalise: Normalise) -> None:
    """A group of zero mean and equal lengths: nothing but the KL term is left of the value."""
    work = replace(batch(), mask=torch.ones(8, 4, 6, dtype=torch.bool))
    gains = work.advantages - work.advantages.mean(1, keepdim=True)
    options = {"beta": 0.05, "normalise": normalise}
    found = policy_loss(work.logps, None, work.ref, gains, work.mask, **options)  # type: ignore[arg-type]
    close(found, 0.05 * kl_divergence(work.logps, work.ref).mean().detach())
    sums = policy_statistics(work.logps, None, work.ref, gains, work.mask)
    assert (sums["clipped_low"], sums["clipped_high"]) == (0, 0)


def test_policy_that_drew_needs_no_old_log_probs() -> None:
    work = batch()
    given = replace(work, old=work.logps.detach())
    omitted = policy_loss(work.logps, None, work.ref, work.advantages, work.mask)
    assert torch.equal(omitted, given.loss())
    assert torch.equal(torch.autograd.grad(omitted, work.logps)[0], given.gradient())


def test_gradient_at_ratio_one_is_that_of_reinforce() -> None:
    work = batch()
    found = policy_loss(work.logps, None, None, work.advantages, work.mask, beta=0, normalise="batch")
    reinforce = -(work.advantages[..., None] * work.logps * work.mask).sum() / work.mask.sum()
    close(*(torch.autograd.grad(value, work.logps)[0] for value in (found, reinforce)))


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_equal_rewards_leave_the_divergence_alone(normalise: Normalise) -> None:
    """Constant-reward groups: the policy gradient is exactly 0, whatever the ratios."""
    advantages = group_advantages([0.1] * 4, [False] * 4).expand(8, 4)
    work = replace(batch(), advantages=advantages)
    assert not work.gradient(beta=0, normalise=normalise).any()
    one, two = (work.gradient(beta=beta, normalise=normalise) for beta in (0.01, 0.02))
    assert bool(one.any())
    close(two, 2 * one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.01, 0.5])
def test_the_penalty_is_beta_times_the_divergence(kind: Kl, beta: float) -> None:
    """And adds to the clipped objective, whatever the ratios."""
    work = batch()
    divergence = kl_divergence(work.logps, work.ref, kind)[work.mask].mean()
    with_penalty = work.loss(beta=beta, kl=kind, normalise="batch")
    close(with_penalty - work.loss(beta=0, normalise="batch"), beta * divergence.detach())


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_constant_weight_scales_the_policy_gradient(weight: float) -> None:
    rewards, correct = [4.5, -0.5, 5.0, -3.0], [True, False, True, False]
    plain = group_advantages(rewards, correct, weighted=False).expand(8, 4)
    scaled = group_advantages(rewards, correct, weight=lambda _: weight).expand(8, 4)
    work = batch()
    close(
        replace(work, advantages=scaled).gradient(beta=0),
        weight * replace(work, advantages=plain).gradient(beta=0),
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [  # slope: of the loss by the log-probability; the ratio's own slope is the ratio
        (0.5, 2.0, -1.0, -1.0),  # a better token became rarer: pulled back
        (0.5, 0.0, 0.0, 0.0),
        (0.5, -2.0, 1.6, 0.0),  # a worse token became rarer: clipped at 0.8
        (0.9, 2.0, -1.8, -1.8),
        (0.9, 0.0, 0.0, 0.0),
        (0.9, -2.0, 1.8, 1.8),
        (1.1, 2.0, -2.2, -2.2),
        (1.1, -2.0, 2.2, 2.2),
        (1.5, 2.0, -2.4, 0.0),  # a better token became more frequent: clipped at 1.2
        (1.5, 0.0, 0.0, 0.0),
        (1.5, -2.0, 3.0, 3.0),  # a worse token became more frequent: pushed back
    ],
)
def test_clipping_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    found = token(-1 + math.log(ratio), -1, advantage)
    assert found == pytest.approx((loss, slope), abs=1e-12)
    if slope == 0:
        assert found[1] == 0  # exactly: no epsilon of gradient leaks through


def test_clip_is_an_option() -> None:
    assert token(-1 + math.log(1.5), -1, 2.0, clip=0.6) == pytest.approx((-3.0, -3.0), abs=1e-12)


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_against_finite_differences(normalise: Normalise, kind: Kl) -> None:
    """No log-ratio of this batch lies within 1e-3 of a kink."""
    work = batch(groups=2, size=3, length=4)
    ratio = (work.logps - work.old).exp().detach()
    assert min((ratio - edge).abs().min().item() for edge in (0.8, 1.2)) > 1e-3
    assert bool(((ratio - 1).abs() > 0.2).any())

    def loss(logps: Tensor) -> Tensor:
        return replace(work, logps=logps).loss(beta=0.3, normalise=normalise, kl=kind)

    assert torch.autograd.gradcheck(loss, work.logps)


def test_only_the_policy_has_a_gradient() -> None:
    work = batch()
    constants = (work.old.requires_grad_(), work.ref.requires_grad_())
    found = torch.autograd.grad(work.loss(), (work.logps, *constants), allow_unused=True)
    assert found[0] is not None
    assert found[1:] == (None, None)


# ── Normalisation ────────────────────────────────────────────────────────────────────────────────────────

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


# ── Mask ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [7.0, 1e300, torch.inf, -torch.inf, torch.nan])
def test_garbage_outside_the_mask_changes_nothing(normalise: Normalise, kind: Kl, garbage: float) -> None:
    """Not a bit of value and gradient, wherever the garbage is."""
    work = batch()
    options: dict[str, object] = {"normalise": normalise, "kl": kind, "beta": 0.1}
    loss, gradient = work.loss(**options), work.gradient(**options)
    assert not gradient[~work.mask].any()
    for name in ("logps", "old", "ref"):
        value = getattr(work, name).detach().masked_fill(~work.mask, garbage)
        spoilt = replace(work, **{name: value.requires_grad_(name == "logps")})
        assert torch.equal(spoilt.loss(**options), loss)
        assert torch.equal(spoilt.gradient(**options), gradient)
        assert policy_statistics(*vars(spoilt).values()) == policy_statistics(*vars(work).values())


def test_an_advantage_without_tokens_changes_nothing() -> None:
    work = batch()
    work.mask[2, 1] = False
    spoilt = replace(work, advantages=work.advantages.clone())
    spoilt.advantages[2, 1] = torch.nan
    assert torch.equal(spoilt.loss(), work.loss())
    assert torch.equal(spoilt.gradient(), work.gradient())


def test_garbage_inside_the_mask_is_not_hidden() -> None:
    work = batch()
    value = work.logps.detach().clone()
    value[0, 0, 0] = torch.nan
    assert bool(replace(work, logps=value).loss().isnan())


def test_every_token_in_the_mask_learns() -> None:
    """The last one, which ends the response, included."""
    work = batch(drift=0.01)
    assert torch.equal(work.gradient() != 0, work.mask)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float64])
def test_a_mask_may_be_of_any_type(kind: torch.dtype) -> None:
    work = batch()
    assert torch.equal(replace(work, mask=work.mask.to(kind)).loss(), work.loss())


def test_advantages_do_not_change_the_precision() -> None:
    work = batch()
    single = Batch(
        *(value.detach() if value.dtype == torch.bool else value.float() for value in vars(work).values())
    )
    found = replace(single, advantages=work.advantages).loss()
    assert found.dtype == torch.float32
    close(found.double(), work.loss(), 1e-6)


# ── Wrong calls ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("old", (2, 3, 1)),
        ("ref", (1, 3, 4)),
        ("mask", (2, 1, 4)),
        ("advantages", (2, 3, 1)),
        ("advantages", (2, 1)),
    ],
)
def test_shapes_that_would_broadcast_are_errors(name: str, shape: tuple[int, ...]) -> None:
    work = replace(batch(groups=2, size=3, length=4), **{name: torch.ones(shape).double()})
    with pytest.raises(ValueError, match=name):
        work.loss()
    with pytest.raises(ValueError, match=name):
        policy_statistics(*vars(work).values())


def test_log_probs_have_three_dimensions() -> None:
    flat = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="groups, G, T"):
        policy_loss(flat, None, None, torch.zeros(3), flat, beta=0)


def test_a_penalty_needs_a_reference() -> None:
    work = batch()
    with pytest.raises(ValueError, match="reference"):
        policy_loss(work.logps, work.old, None, work.advantages, work.mask)
    without = policy_loss(work.logps, work.old, None, work.advantages, work.mask, beta=0)
    assert torch.equal(without, work.loss(beta=0))


@pytest.mark.parametrize("total", [0, -1])
@pytest.mark.parametrize("normalise", NORMALISERS)
def test_a_divisor_is_positive(normalise: Normalise, total: int) -> None:
    with pytest.raises(ValueError, match="divided"):
        batch().loss(normalise=normalise, total=total)
    with pytest.raises(ValueError, match="divided"):
        answer_loss(torch.zeros(3), total)


def test_another_normaliser_is_an_error() -> None:
    with pytest.raises(ValueError, match="group, batch or sequence"):
        batch().loss(normalise="token")


def test_public_name() -> None:
    assert trainers.policy_loss is policy_loss


# ── Statistics ───────────────────────────────────────────────────────────────────────────────────────────


def test_statistics_by_hand() -> None:
    ratio = torch.tensor([[[0.5, 0.9, 1.5, 0.5], [0.5, 1.1, 1.5, 1.5]]], dtype=torch.float64)
    mask = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1]]])
    gains = torch.tensor([[1.0, -1.0]]).double()
    old = torch.full_like(ratio, -2.0)
    found = policy_statistics(old + ratio.log(), old, old, gains, mask)
    kl = sum(1 / r - 1 + math.log(r) for r in (0.5, 0.9, 1.5, 0.5, 1.1, 1.5, 1.5))
    assert found == pytest.approx(
        {"tokens": 7, "kl": kl, "clipped_low": 1, "clipped_high": 1}, abs=1e-12, rel=0
    )


def test_clipped_tokens_are_those_without_gradient() -> None:
    work = batch()
    sums = policy_statistics(*vars(work).values())
    still = (work.gradient(beta=0) == 0) & work.mask
    assert sums["clipped_low"] + sums["clipped_high"] == int(still.sum())
    assert min(sums["clipped_low"], sums["clipped_high"]) > 0


def test_statistics_add_up() -> None:
    work = batch()
    whole = policy_statistics(*vars(work).values())
    parts = [policy_statistics(*vars(work.part(part)).values()) for part in ([0, 3], [1], [2, 4, 5, 6, 7])]
    assert {name: sum(part[name] for part in parts) for name in whole} == pytest.approx(whole, abs=1e-12)


def test_statistics_without_old_and_reference() -> None:
    work = batch()
    found = policy_statistics(work.logps, None, None, work.advantages, work.mask)
    tokens = int(work.mask.sum())
    assert found == {"tokens": tokens, "kl": 0, "clipped_low": 0, "clipped_high": 0}


# ── Supervised ───────────────────────────────────────────────────────────────────────────────────────────


def test_answer_loss_is_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(7, (12,), generator=generator)
    logps = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    found, expected = answer_loss(logps, 12), F.cross_entropy(logits, targets)
    close(found, expected)
    close(*(torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (found, expected)))
    close(answer_loss(logps[:5], 12) + answer_loss(logps[5:], 12), expected)


def test_no_answers_are_no_loss() -> None:
    assert answer_loss(torch.zeros(0), 12) == 0

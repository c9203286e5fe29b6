"""The losses in float64: hand values, gradients in closed form, and what must not change them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import trainers
from tests.trainers.losses import KINDS, NORMALISERS, Batch, batch, close
from trainers.advantage import group_advantages
from trainers.loss import answer_loss, kl_divergence, policy_loss, policy_statistics
from trainers.settings import Kl, Normalise


def token(logp: float, old: float, advantage: float, clip: float = 0.2) -> tuple[float, float]:
    """Loss and gradient of one token without a KL penalty."""
    logps = torch.full((1, 1, 1), logp, dtype=torch.float64, requires_grad=True)
    gain = torch.full((1, 1), advantage, dtype=torch.float64)
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    loss = policy_loss(logps, torch.full_like(logps, old).detach(), None, gain, mask, clip=clip, beta=0)
    return loss.item(), torch.autograd.grad(loss, logps)[0].item()


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

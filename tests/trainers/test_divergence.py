"""The estimates of the KL divergence: never negative, right in expectation, right in slope."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.losses import KINDS, close
from trainers.loss import kl_divergence
from trainers.settings import Kl


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

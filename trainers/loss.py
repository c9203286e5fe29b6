"""The losses of all trainers: the clipped objective with KL penalty (Eq. 3-4), and cross-entropy.

Every loss is a sum divided once. ``total`` is the divisor of the whole update, counted before its first
micro-batch: then micro-batches, and ranks whose gradients are summed, add up to the loss of one batch. A
quotient of each micro-batch's own would weigh a token by the company it keeps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.settings import Kl, Normalise


def kl_divergence(logps: Tensor, ref_logps: Tensor, kind: Kl = "k3") -> Tensor:
    """Estimates of ``D_KL(policy || reference)`` of Eq. 3, one a token, from tokens that the policy drew.

    With ``d = ref_logps - logps``: ``k3 = exp(d) - d - 1`` has the right expectation and is never negative,
    but its expected gradient is that of ``D_KL(reference || policy)``; that of ``k2 = d^2 / 2`` is right.

    Args:
        logps: log-probabilities of the tokens under the policy, of any shape.
        ref_logps: the same under the reference.
        kind: ``k3``, as the release and its framework have it, or ``k2``.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: another kind.
    """
    difference = ref_logps - logps
    if kind == "k3":
        return torch.expm1(difference) - difference  # expm1: near 0, exp(d) - 1 is nothing but rounding
    if kind == "k2":
        return difference.square() / 2
    raise ValueError(f"there is no KL estimate {kind!r}; use k3 or k2")


def policy_loss(
    logps: Tensor,
    old_logps: Tensor | None,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    beta: float = 0.01,
    normalise: Normalise = "group",
    kl: Kl = "k3",
    total: float | None = None,
) -> Tensor:
    """Minus the objective of Eq. 3: clipped policy gradient (Eq. 4) with KL penalty, averaged over tokens.

    Slots outside the mask change neither value nor gradient, whatever they hold.

    Args:
        logps: (groups, G, T) log-probabilities of the responses' tokens under the policy.
        old_logps: (groups, G, T) the same under the policy that drew them; None: it is this very policy, the
            ratio is 1, and the gradient is that of ``advantage * logp``.
        ref_logps: (groups, G, T) the same under the reference; None only if ``beta`` is 0.
        advantages: (groups, G) one a response.
        mask: (groups, G, T) which slots hold tokens of a response, the one that ends it included.
        clip: epsilon of Eq. 4.
        beta: weight of the KL divergence.
        normalise: ``group``: each group's sum by its own tokens, then the mean over groups, as Eq. 3 is
            printed. ``batch``: the sum of all by all tokens. ``sequence``: each response's sum by its own
            tokens, then the mean over responses, as released.
        kl: see :func:`kl_divergence`.
        total: groups (``group``), tokens (``batch``) or responses (``sequence``) of the whole update; None:
            of this batch.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not fit, a KL penalty without a reference, a ``total`` below 1.
    """
    _check(logps, old_logps, ref_logps, advantages, mask)
    if ref_logps is None and beta != 0:
        raise ValueError(f"beta is {beta}, but there are no log-probabilities of the reference")
    held = mask.bool()
    ratio, gains = _ratio(logps, old_logps, held), advantages.to(logps.dtype)[..., None]
    losses = -torch.min(ratio * gains, ratio.clamp(1 - clip, 1 + clip) * gains)  # Eq. 4
    if ref_logps is not None and beta != 0:
        losses = losses + beta * kl_divergence(_fill(logps, held), _fill(ref_logps.detach(), held), kl)
    return _average(_fill(losses, held), held, normalise, total)


def policy_statistics(
    logps: Tensor,
    old_logps: Tensor | None,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 0.2,
) -> dict[str, float]:
    """What :func:`policy_loss` did, as sums over tokens that add up over micro-batches and ranks.

    Args:
        logps: (groups, G, T), as ``old_logps``, ``ref_logps`` and ``mask``; see :func:`policy_loss`.
        old_logps: None: nothing is clipped.
        ref_logps: None: no divergence.
        advantages: (groups, G).
        mask: which slots hold tokens.
        clip: epsilon of Eq. 4.

    Returns:
        ``tokens``; ``kl``, the sum of k3; ``clipped_low`` and ``clipped_high``, the tokens without a policy
        gradient: worse ones that became rarer than ``1 - clip`` allows, better ones more frequent than
        ``1 + clip``.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(logps, old_logps, ref_logps, advantages, mask)
    with torch.no_grad():
        held = mask.bool()
        ratio, gains = _ratio(logps, old_logps, held), advantages[..., None]
        reference = logps if ref_logps is None else ref_logps
        sums = {
            "tokens": held.sum(),
            "kl": kl_divergence(_fill(logps, held), _fill(reference, held)).sum(),
            # Outside the mask the ratio is 1, which no clip is beyond.
            "clipped_low": ((ratio < 1 - clip) & (gains < 0)).sum(),
            "clipped_high": ((ratio > 1 + clip) & (gains > 0)).sum(),
        }
        found = torch.stack([value.double() for value in sums.values()]).tolist()
    return dict(zip(sums, found, strict=True))


def answer_loss(logps: Tensor, total: float) -> Tensor:
    """Cross-entropy of supervised fine-tuning: the sum of ``-log p`` by the update's number of tokens.

    Args:
        logps: (N,) log-probabilities of the answers' tokens.
        total: answer tokens of the whole update, over all micro-batches and ranks.

    Returns:
        A scalar.

    Raises:
        ValueError: a ``total`` below 1.
    """
    _check_total(total)
    return -logps.sum() / total


def _ratio(logps: Tensor, old_logps: Tensor | None, held: Tensor) -> Tensor:
    """(groups, G, T) how much likelier a token is than when it was drawn; 1 where no token is."""
    new = _fill(logps, held)
    return torch.exp(new - (new.detach() if old_logps is None else _fill(old_logps.detach(), held)))


def _fill(values: Tensor, held: Tensor) -> Tensor:
    """Zero outside the mask. Not a product: garbage times zero may be NaN, in the gradient too."""
    return torch.where(held, values, torch.zeros_like(values))


def _average(losses: Tensor, held: Tensor, normalise: Normalise, total: float | None) -> Tensor:
    """The one division; what has no token adds 0 and counts as a group or response all the same."""
    if total is not None:
        _check_total(total)
    if normalise == "batch":
        return losses.sum() / (total or max(int(held.sum()), 1))
    if normalise not in ("group", "sequence"):
        raise ValueError(f"there is no normaliser {normalise!r}; use group, batch or sequence")
    within = (1, 2) if normalise == "group" else (2,)
    means = losses.sum(within) / held.sum(within).clamp(min=1)
    return means.sum() / (total or max(means.numel(), 1))


def _check_total(total: float) -> None:
    if total < 1:
        raise ValueError(f"a loss cannot be divided by {total}")


def _check(
    logps: Tensor, old_logps: Tensor | None, ref_logps: Tensor | None, advantages: Tensor, mask: Tensor
) -> None:
    """Shapes are equal, not merely alike: broadcasting would turn a mistake into a number."""
    if logps.ndim != 3:
        raise ValueError(f"log-probabilities must be (groups, G, T), not {tuple(logps.shape)}")
    given = {"old_logps": old_logps, "ref_logps": ref_logps, "mask": mask}
    wanted = {name: (value, logps.shape) for name, value in given.items() if value is not None}
    wanted["advantages"] = (advantages, logps.shape[:2])
    for name, (value, shape) in wanted.items():
        if value.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)}, not {tuple(value.shape)}")

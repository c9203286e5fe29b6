"""Our losses and advantages equal TRL's on the same tensors, digit by digit.

TRL's trainer is one class; its loss is reached on a bare object, with a stub for each thing the loss asks
for, and our tensors in place of a model's log-probabilities. TRL is no dependency of the project: without it,
these tests are skipped.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers.advantage import group_advantages
from trainers.loss import answer_loss, policy_loss, policy_statistics
from trainers.settings import Normalise

SIZE, LENGTH = 4, 6
BETAS, CLIPS = (0.0, 0.01, 0.5), (0.2, 0.05)
pytestmark = pytest.mark.slow  # TRL takes seconds to import


@pytest.fixture(scope="module")
def trl() -> Any:
    """TRL's GRPO trainer and helpers, imported when the first of these tests runs, not at collection."""
    reason = "parity needs TRL: pip install -c constraints.txt trl"
    pytest.importorskip("trl", reason=reason)
    trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason=reason)
    utils = pytest.importorskip("trl.trainer.utils", reason=reason)
    return SimpleNamespace(
        GRPOTrainer=trainer.GRPOTrainer,
        nanstd=utils.nanstd,
        selective_log_softmax=utils.selective_log_softmax,
    )


def tensors(groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Leaf log-probabilities, old, reference (groups, G, T), advantages (groups, G), uneven mask."""
    generator = torch.Generator().manual_seed(3)  # clips tokens on both sides, whatever the groups

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    logps = -1 - normal(groups, SIZE, LENGTH).abs()
    old, ref = (logps + 0.3 * normal(groups, SIZE, LENGTH) for _ in range(2))
    lengths = torch.randint(1, LENGTH + 1, (groups, SIZE, 1), generator=generator)
    return (
        logps.requires_grad_(),
        old.detach(),
        ref.detach(),
        normal(groups, SIZE),
        torch.arange(LENGTH) < lengths,
    )


def bare_trainer(trl: Any, loss_type: str, beta: float, clip: float) -> Any:
    """A trainer without model, data and arguments: only what its loss reads."""
    trainer = trl.GRPOTrainer.__new__(trl.GRPOTrainer)
    trainer.loss_type, trainer.beta = loss_type, beta
    trainer.epsilon_low = trainer.epsilon_high = clip
    trainer.importance_sampling_level = "token"
    trainer.top_entropy_quantile = 1.0
    trainer.off_policy_mask_threshold = None
    trainer.use_vllm = trainer.aux_loss_enabled = trainer._entropy_bonus_enabled = False
    trainer.current_gradient_accumulation_steps = 1
    trainer.model = SimpleNamespace(training=True)
    trainer.args = SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
    trainer.accelerator = SimpleNamespace(
        num_processes=1, gather=lambda value: value, reduce=lambda value, reduction: value
    )
    trainer._metrics = {"train": defaultdict(list)}
    return trainer


def their_loss(
    trl: Any,
    loss_type: str,
    logps: Tensor,
    old: Tensor | None,
    ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    beta: float,
    clip: float,
) -> tuple[Tensor, dict[str, list[float]]]:
    """The loss of TRL's trainer, and the metrics it notes beside it."""
    trainer = bare_trainer(trl, loss_type, beta, clip)
    flat = logps.flatten(0, 1)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (flat, torch.zeros_like(flat), None)
    held = mask.flatten(0, 1).to(logps.dtype)
    prompt = torch.ones(len(flat), 2, dtype=torch.long)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": torch.ones(flat.shape, dtype=torch.long),
        "completion_mask": held,
        "advantages": advantages.flatten(),
        "old_per_token_logps": None if old is None else old.flatten(0, 1),
        "ref_per_token_logps": ref.flatten(0, 1),
        "num_items_in_batch": held.sum(),
    }
    return trainer._compute_loss(None, inputs), trainer._metrics["train"]


def assert_same(found: Tensor, expected: Tensor, logps: Tensor) -> None:
    """Equal losses, and equal gradients that are not nothing."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(loss, logps)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert float(theirs.abs().max()) > 1e-3


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("groups", [1, 2, 5])
@pytest.mark.parametrize(
    ("loss_type", "normalise"), [("dapo", "batch"), ("bnpo", "batch"), ("grpo", "sequence")]
)
def test_loss_and_gradient(
    trl: Any, loss_type: str, normalise: Normalise, groups: int, beta: float, clip: float
) -> None:
    work = tensors(groups)
    expected, metrics = their_loss(trl, loss_type, *work, beta=beta, clip=clip)
    assert_same(policy_loss(*work, beta=beta, clip=clip, normalise=normalise), expected, work[0])
    sums = policy_statistics(*work, clip=clip)
    for ours, theirs in (("clipped_low", "clip_ratio/low_mean"), ("clipped_high", "clip_ratio/high_mean")):
        assert sums[ours] > 0
        assert sums[ours] / sums["tokens"] == pytest.approx(metrics[theirs][0], abs=1e-6)
    if beta:
        assert sums["kl"] / sums["tokens"] == pytest.approx(metrics["kl"][0], abs=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_group_is_the_mean_over_batches_of_one_group(trl: Any, groups: int, beta: float) -> None:
    """Eq. 3 as printed is their token-level loss, one group at a time."""
    work = tensors(groups)
    alone = [
        their_loss(trl, "dapo", *(value[i : i + 1] for value in work), beta=beta, clip=0.2)[0]
        for i in range(groups)
    ]
    assert_same(policy_loss(*work, beta=beta, normalise="group"), torch.stack(alone).mean(), work[0])


@pytest.mark.parametrize(("loss_type", "normalise"), [("dapo", "batch"), ("grpo", "sequence")])
def test_policy_that_drew(trl: Any, loss_type: str, normalise: Normalise) -> None:
    """Neither needs old log-probabilities for the first update."""
    logps, _, ref, advantages, mask = tensors(3)
    expected, _ = their_loss(trl, loss_type, logps, None, ref, advantages, mask, beta=0.01, clip=0.2)
    assert_same(policy_loss(logps, None, ref, advantages, mask, normalise=normalise), expected, logps)


def test_accumulation(trl: Any) -> None:
    """``total`` is their ``num_items_in_batch``: two micro-batches of ours are one batch of theirs."""
    work = tensors(4)
    expected, _ = their_loss(trl, "dapo", *work, beta=0.01, clip=0.2)
    total = int(work[-1].sum())
    halves = [
        policy_loss(*(value[half] for value in work), normalise="batch", total=total)
        for half in (slice(0, 1), slice(1, 4))
    ]
    assert_same(torch.stack(halves).sum(), expected, work[0])


@pytest.mark.parametrize(("size", "tolerance"), [(2, 1e-12), (3, 1e-12), (5, 1e-12), (8, 1e-6), (9, 1e-12)])
def test_advantages(trl: Any, size: int, tolerance: float) -> None:
    """Their deviation, and their quotient with it.

    They compute ``G / (G - 1)`` in float32, which is exact where G - 1 is a power of two.
    """
    rewards = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    expected = (rewards - rewards.mean()) / (trl.nanstd(rewards) + 1e-4)
    found = group_advantages(rewards, [False] * size, weighted=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_answer_loss_of_their_log_probs_is_cross_entropy(trl: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (3, 5), generator=generator)
    theirs = trl.selective_log_softmax(logits, targets)
    ours = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert_same(answer_loss(theirs.flatten(), targets.numel()), expected, logits)

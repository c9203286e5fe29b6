"""Stage 1: what moves, what stays, and that packed pairs are what the model computes alone."""

from __future__ import annotations

import pytest
import torch

from emit_model import EmitForConditionalGeneration
from tests import tiny
from trainers.alignment import AlignmentSettings, ComparedPair, align, aligned_logits, with_placeholders
from trainers.packing import Suffix

TAIL = (2, 3)


@pytest.fixture
def model() -> EmitForConditionalGeneration:
    torch.manual_seed(0)
    return tiny.emit()[0]


def pair(model: EmitForConditionalGeneration, seed: int, questions: int = 2) -> ComparedPair:
    """A random pair: two images in the prefix, each question with the model's placeholders."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    image = (config.image_token_id,) * config.image_seq_length

    def words(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(20, 90, (count,), generator=generator).tolist())

    comp = config.comparison.comp_token_id
    suffixes = tuple(
        with_placeholders(Suffix((*words(3 + n), *TAIL), words(1 + n)), TAIL, comp, config.placeholders)
        for n in range(questions)
    )
    size = config.vision_config.image_size[0]
    pixels = torch.randn(2, 3, size, size, generator=generator)
    return ComparedPair((*words(4), *image, *words(2), *image, *words(1)), suffixes, pixels)


def test_placeholders_stand_at_the_end_of_the_users_turn() -> None:
    moved = with_placeholders(Suffix((7, 8, *TAIL), (9,)), TAIL, 5, 3)
    assert moved == Suffix((7, 8, 5, 5, 5, *TAIL), (9,))


def test_a_prompt_that_ends_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="user's turn"):
        with_placeholders(Suffix((7, 8), (9,)), TAIL, 5, 3)


def test_packed_pairs_equal_the_models_own_forward(model: EmitForConditionalGeneration) -> None:
    model.eval()
    pairs = [pair(model, 1), pair(model, 2, questions=1)]
    logits, batch = aligned_logits(model, pairs, pad=0)
    alone = []
    for one in pairs:
        for suffix in one.suffixes:
            tokens = torch.tensor([[*one.prefix, *suffix.prompt, *suffix.completion]])
            out = model(
                input_ids=tokens,
                pixel_values=one.pixel_values,
                comparison_pixel_values=one.pixel_values.flip(0)[None],
            ).logits[0]
            first = len(one.prefix) + len(suffix.prompt) - 1
            alone.append(out[first : first + len(suffix.completion)])
    assert len(batch.targets) == len(logits)
    torch.testing.assert_close(logits, torch.cat(alone), rtol=0, atol=2e-5)


def test_only_the_contrast_head_learns(model: EmitForConditionalGeneration) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seeds = iter(range(1000))
    lines: list[str] = []
    align(
        model,
        lambda: pair(model, next(seeds)),
        AlignmentSettings(steps=3, pairs=2, learning_rate=1e-2, report_every=1),
        lines.append,
        pad=0,
    )
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("contrast.")}
    assert len(lines) == 3


def test_batch_norm_is_frozen_ever_after(model: EmitForConditionalGeneration) -> None:
    seeds = iter(range(1000))
    align(model, lambda: pair(model, next(seeds)), AlignmentSettings(2, 2, 1e-2), lambda _: None, pad=0)
    mean = model.contrast.norm.running_mean.clone()
    model.train()
    model.contrast(torch.rand(4, 1, 4, 4))
    assert torch.equal(model.contrast.norm.running_mean, mean)


def test_alignment_fits_two_pairs(model: EmitForConditionalGeneration) -> None:
    """Enough steps on two fixed pairs of unequal answers bring the loss down by half, the base frozen."""
    torch.manual_seed(1)
    fixed = [pair(model, 1), pair(model, 2)]
    turn = iter(range(10_000))
    lines: list[str] = []
    align(
        model,
        lambda: fixed[next(turn) % 2],
        AlignmentSettings(steps=60, pairs=2, learning_rate=3e-2, report_every=1),
        lines.append,
        pad=0,
    )
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.75 * losses[0]

"""The exercises of pre-training: what they state is true, and what they start from is what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plugins.mini.render import GRID
from trainers.pretraining.architecture import model_config, put_induction_within_reach
from trainers.pretraining.exercises import Speaker, list_row, recall_row
from trainers.pretraining.pointers import SIGNS, random_mark, sign_map
from trainers.pretraining.words import build_tokenizer


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return Speaker(build_tokenizer(), 36)


def test_letters_and_options_are_single_tokens(speaker: Speaker) -> None:
    tokens = [speaker.tokenizer.decode([i]) for i in speaker.ids("\nA. Wrong part.\nB. Crack.\n")]
    assert tokens == ["\n", "A.", " Wrong part.", "\n", "B.", " Crack.", "\n"]


def test_any_text_survives_the_tokenizer(speaker: Speaker) -> None:
    text = "Zażółć 12 gęślą jaźń? (B) A-E: <odd> &  two  spaces\n\n\tend"
    assert speaker.tokenizer.decode(speaker.tokenizer(text).input_ids) == text


def test_recall_answers_follow_the_list(speaker: Speaker) -> None:
    rng = np.random.RandomState(3)
    for _ in range(20):
        prefix, suffixes = recall_row(speaker, rng, 8)
        lines = speaker.tokenizer.decode(list(prefix)).strip().splitlines()
        listed = {line[3:]: line[0] for line in lines}
        for line in speaker.tokenizer.decode(list(suffixes[0].completion)).strip().splitlines():
            text, letter = line.removeprefix("I see: ").rsplit(" ", 1)
            assert listed[text] == letter[0]


def test_list_answers_name_the_right_line(speaker: Speaker) -> None:
    _, suffixes = list_row(speaker, np.random.RandomState(4), 30)
    for suffix in suffixes:
        question = speaker.tokenizer.decode(list(suffix.prompt))
        truth = question.split("Which line says this: ")[1].split("\n")[0]
        answer = speaker.tokenizer.decode(list(suffix.completion)).removesuffix("<|im_end|>")
        letter = answer.split("<answer>")[1][0] if "<answer>" in answer else answer
        assert f"\n{letter}. {truth}\n" in question


def test_a_mark_lies_mostly_in_its_cell() -> None:
    rng = np.random.RandomState(5)
    for _ in range(200):
        share, cell = random_mark(rng)
        sums = share.reshape(3, GRID // 3, 3, GRID // 3).sum((1, 3)).flatten()
        assert (cell is None) == (sums.max() == 0)
        assert cell is None or sums[cell] == sums.max()


def test_maps_hold_one_sign_a_pair_of_patches(speaker: Speaker) -> None:
    share = np.zeros((GRID, GRID), np.float32)
    share[4:6, 10:12] = 1
    text = sign_map(np.random.RandomState(0), share)
    assert len(text) == 36 and len(speaker.ids(text)) == 36 and set(text) <= set(SIGNS)
    assert text[2 * 6 + 5] == "#"


def test_some_heads_start_looking_one_token_back() -> None:
    from transformers import InternVLForConditionalGeneration

    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(model_config(300, 5, 0, 2)).eval()
    language_model = model.model.language_model
    put_induction_within_reach(language_model)
    language_model.config._attn_implementation = "eager"
    with torch.no_grad():
        seen = language_model(input_ids=torch.randint(10, 300, (1, 40)), output_attentions=True).attentions
    for depth in (0, 1):
        last = seen[depth][0, -1]
        assert last.diagonal(-1).mean() > 2 * last.diagonal(0).mean()
    assert seen[2][0, -1].diagonal(-1).mean() < 0.2

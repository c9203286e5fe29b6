from __future__ import annotations

from collections import Counter

import pytest
from PIL import Image

from harness.extraction import read_letter
from harness.records import MODES, Decoding, LoadRequest, Mode, Picture, Prompt, PromptGroup
from plugins.random_choice import fingerprint, load

OPTIONS = {letter: "text" for letter in "ABCD"}


def group(ids: list[str]) -> PromptGroup:
    picture = Picture("0", Image.new("RGB", (1, 1)))
    prompts = tuple(Prompt(name, "?", OPTIONS, False) for name in ids)
    return PromptGroup("", (picture,), (), picture, prompts)


def letters(ids: list[str], seed: int = 0, mode: Mode = "direct") -> list[str | None]:
    responses = load(LoadRequest("mini", seed=seed)).answer(group(ids), Decoding(mode, 16))
    return [read_letter(r.text, r.option_logprobs, OPTIONS, mode) for r in responses]


def test_the_seed_and_the_question_decide_and_nothing_else() -> None:
    ids = [str(i) for i in range(50)]
    assert letters(ids) == letters(ids) == letters(ids[::-1])[::-1]
    assert letters(ids) == [letters([one])[0] for one in ids]
    assert letters(ids) != letters(ids, seed=1)
    assert fingerprint(LoadRequest("mini", seed=0)) != fingerprint(LoadRequest("mini", seed=1))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_letter(mode: Mode) -> None:
    ids = [str(i) for i in range(20)]
    assert letters(ids, mode=mode) == letters(ids)


def test_options_are_equally_likely() -> None:
    drawn = Counter(letters([str(i) for i in range(4000)]))
    assert all(abs(drawn[letter] - 1000) < 110 for letter in "ABCD")  # four standard deviations

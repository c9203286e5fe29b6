"""Rewards: hand values of both readings, and what holds for any text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainers
from harness import extract_letter
from trainers.presets import PRESETS, PresetName
from trainers.rewards import (
    RULES,
    Reward,
    correct,
    cosine_reward,
    format_reward,
    repetition_reward,
    reward,
)

YES_NO = {"A": "Yes.", "B": "No."}
KINDS = {"A": "A scratch.", "B": "A dent.", "C": "Contamination.", "D": "Missing part."}
BOTH: tuple[PresetName, ...] = ("paper", "release")
#: Texts with the marks that matter: any characters would almost never hit one.
RESPONSES = st.lists(
    st.one_of(
        st.sampled_from(
            ["<think>", "</think>", "<answer>", "</answer>", "A", "B", "b", "E", "B. No.", " ", "\n", "no "]
        ),
        st.text(max_size=8),
    ),
    max_size=12,
).map("".join)


def response(letter: str, thought: str = "A crack.") -> str:
    return f"<think>{thought}</think><answer>{letter}</answer>"


# ── Total ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("preset", BOTH)
@pytest.mark.parametrize(
    ("text", "classification", "cosine", "form"),
    [
        (response("B"), 1, 1.0, 1),
        (response("A"), 0, -0.5, 1),
        (response("?"), -1, -1.0, 1),
        ("B", 1, 1.0, 0),
        ("A", 0, -0.5, 0),
        ("", -1, -1.0, 0),
    ],
)
def test_parts_and_their_weighted_sum(
    preset: PresetName, text: str, classification: int, cosine: float, form: int
) -> None:
    """Three times the classification, once all else; no token is long enough to tell."""
    total = 3 * classification + cosine + form
    assert reward(text, "B", YES_NO, 0, preset) == Reward(form, classification, cosine, 0.0, total)


def test_a_repetitive_thought_lowers_the_total() -> None:
    plain = reward(response("B", "a b c d e f"), "B", YES_NO, 8)
    stuck = reward(response("B", "so so so so so so"), "B", YES_NO, 8)
    assert stuck.repetition < 0 == plain.repetition
    assert stuck.total == pytest.approx(plain.total + stuck.repetition, abs=1e-12)


def test_correct_is_the_right_option_only() -> None:
    verdicts = [correct(reward(response(letter), "B", YES_NO, 9)) for letter in "BA?"]
    assert verdicts == [True, False, False]


@pytest.mark.parametrize(("answer", "tokens"), [("C", 3), ("", 3), ("b", 3), ("B", -1)])
def test_a_wrong_call_is_an_error(answer: str, tokens: int) -> None:
    with pytest.raises(ValueError, match=r"option|tokens"):
        reward(response("B"), answer, YES_NO, tokens)


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(ValueError, match="paper or release"):
        reward("", "B", YES_NO, 0, "papier")  # type: ignore[arg-type]


def test_every_preset_has_rules() -> None:
    assert set(RULES) == set(PRESETS)
    assert trainers.reward is reward


# ── Classification ───────────────────────────────────────────────────────────────────────────────────────


@settings(derandomize=True, deadline=None)
@given(text=RESPONSES, answer=st.sampled_from("ABCD"))
def test_paper_reads_as_the_benchmark_does(text: str, answer: str) -> None:
    letter = extract_letter(text, KINDS)
    expected = -1.0 if letter is None else float(letter == answer)
    assert reward(text, answer, KINDS, 0).classification == expected


@pytest.mark.parametrize(
    ("text", "paper", "release"),
    [
        (response("b"), 1, 1),
        (response(" _B._ "), 1, 1),
        (response("B. No."), 1, -1),  # a right letter with its text is invalid to the released comparison
        (response("(B)"), 1, -1),
        (response("\nB\n"), 1, -1),  # a line break defeats its tag, and the whole text is no letter
        (response("c"), -1, 0),  # no option of this question, but a letter from a to d
        (response("E"), -1, -1),
        (response("A or B"), -1, -1),
        (response("A") + "<answer>B</answer>", 1, 0),  # the last answer counts; there, the first
        ("<think>B</think>", -1, -1),
        ("<think></think>B", 1, -1),
        ("The answer is B.", 1, -1),
        ("B.\n", 1, 1),
        ("<ANSWER>B</ANSWER>", 1, -1),
        (response("\uff22"), -1, -1),
        (response("Β"), -1, -1),  # noqa: RUF001 a Greek capital beta
        ("🙂" * 50, -1, -1),
    ],
)
def test_what_counts_as_the_right_answer(text: str, paper: int, release: int) -> None:
    found = tuple(reward(text, "B", YES_NO, 0, preset).classification for preset in BOTH)
    assert found == (paper, release)


def test_released_comparison_has_no_fifth_letter() -> None:
    """Its test of validity comes last and takes back a right E."""
    five = {**KINDS, "E": "A stain."}
    found = tuple(reward(response("E"), "E", five, 0, preset).classification for preset in BOTH)
    assert found == (1, -1)


# ── Format ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        (response("B"), 1, 1),
        ("<think></think><answer></answer>", 1, 1),
        ("<think>two\nlines</think>\n \n<answer>\nB\n</answer>", 1, 1),
        (" " + response("B"), 0, 0),
        (response("B") + "\n", 0, 0),
        (response("B") + " or A", 0, 0),
        ("So: " + response("B"), 0, 0),
        ("<think>A crack.</think> so <answer>B</answer>", 0, 0),
        ("<answer>B</answer><think>A crack.</think>", 0, 0),
        ("<think>A crack.<answer>B</answer>", 0, 0),
        ("<think>A crack.</think><answer>B", 0, 0),
        ("<answer>B</answer>", 0, 0),
        ("<Think>A crack.</Think><answer>B</answer>", 0, 0),
        (response("A") + "<answer>B</answer>", 0, 1),
        (response("A</answer> <answer>B"), 0, 1),
        (response("< Answer >A</ANSWER>B"), 0, 1),  # the extractor reads these tags too
        ("<think>a</think><think>b</think><answer>B</answer>", 0, 1),
        ("<think>a" + response("B"), 0, 1),
        (response("B</answer>"), 0, 1),
        ("", 0, 0),
    ],
)
def test_format(text: str, strict: int, lenient: int) -> None:
    assert (format_reward(text), format_reward(text, one_of_each_tag=False)) == (strict, lenient)
    assert (reward(text, "B", YES_NO, 0).format, reward(text, "B", YES_NO, 0, "release").format) == (
        strict,
        lenient,
    )


# ── Cosine ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tokens", "right", "wrong"),
    [
        (0, 1.0, -0.5),
        (256, 1.0, -0.5),
        (320, 0.9268, -0.4268),
        (384, 0.75, -0.25),
        (448, 0.5732, -0.0732),
        (512, 0.5, 0.0),
        (560, 0.5, 0.0),  # the released formula turns back here, to 0.5421 and -0.0421
        (768, 0.5, 0.0),  # and would give 1.0 and -0.5 again
    ],
)
def test_released_cosine(tokens: int, right: float, wrong: float) -> None:
    found = [reward(response(letter), "B", YES_NO, tokens, "release").cosine for letter in "BA?"]
    assert found == pytest.approx([right, wrong, -1.0], abs=5e-5)


@pytest.mark.parametrize(
    ("tokens", "right", "wrong"),
    [
        (0, 1.0, -0.5),
        (128, 0.9268, -0.4268),
        (256, 0.75, -0.25),
        (384, 0.5732, -0.0732),
        (512, 0.5, 0.0),
        (10**400, 0.5, 0.0),  # no float holds it
    ],
)
def test_paper_cosine_has_no_free_tokens(tokens: int, right: float, wrong: float) -> None:
    found = [reward(response(letter), "B", YES_NO, tokens).cosine for letter in "BA?"]
    assert found == pytest.approx([right, wrong, -1.0], abs=5e-5)


def test_cosine_ends_at_the_limit_of_the_response() -> None:
    assert cosine_reward(1, 64, RULES["paper"], max_tokens=128) == pytest.approx(0.75, abs=1e-12)


@pytest.mark.parametrize("max_tokens", [0, 1, 255, 256])
def test_where_all_tokens_are_free_length_plays_no_part(max_tokens: int) -> None:
    rules = RULES["release"]
    assert {cosine_reward(1, tokens, rules, max_tokens) for tokens in (0, 256, 999)} == {1.0}


@settings(derandomize=True, deadline=None)
@given(a=st.integers(0, 2000), b=st.integers(0, 2000), limit=st.integers(1, 1024))
@pytest.mark.parametrize("preset", BOTH)
def test_right_answers_earn_less_by_length_and_wrong_ones_more(
    preset: PresetName, a: int, b: int, limit: int
) -> None:
    short, long = sorted((a, b))
    rules = RULES[preset]
    right = [cosine_reward(1, tokens, rules, limit) for tokens in (short, long)]
    wrong = [cosine_reward(0, tokens, rules, limit) for tokens in (short, long)]
    assert 1.0 >= right[0] >= right[1] >= 0.5
    assert -0.5 <= wrong[0] <= wrong[1] <= 0.0
    if long > short + limit // 4 and rules.free_tokens <= short and long <= limit:
        assert right[0] > right[1]
        assert wrong[0] < wrong[1]


@settings(derandomize=True, deadline=None)
@given(beyond=st.integers(0, 10**6))
@pytest.mark.parametrize("preset", BOTH)
def test_length_is_clamped_at_the_limit(preset: PresetName, beyond: int) -> None:
    found = [cosine_reward(1, 512 + more, RULES[preset], 512) for more in (0, beyond)]
    assert found[0] == found[1]


# ── Repetition ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "ngram", "expected"),
    [
        ("", 3, 0),
        ("   ", 3, 0),
        ("so so", 3, 0),  # fewer words than an n-gram: the best value, although every word repeats
        ("so so so", 3, 0),
        ("so so so so", 3, -1 / 2),
        ("so So SO so so", 3, -2 / 3),
        ("so so so so so", 4, -1 / 2),
        ("a b c d e", 3, 0),
        ("a b c a b c", 3, -1 / 4),
        ("a\nb\tc  a b c", 3, -1 / 4),
        ("a b c a b c", 4, 0),
        ("ä ö ü ä ö ü", 3, -1 / 4),
        ("A, b c a b c", 3, 0),  # words are what white space separates
    ],
)
def test_repetition(text: str, ngram: int, expected: float) -> None:
    assert repetition_reward(text, ngram) == pytest.approx(expected, abs=1e-12)


def test_presets_count_their_own_ngrams() -> None:
    text = "so so so so so"
    found = [reward(text, "B", YES_NO, 5, preset).repetition for preset in BOTH]
    assert found == pytest.approx([-2 / 3, -1 / 2], abs=1e-12)


@settings(derandomize=True, deadline=None)
@given(words=st.lists(st.sampled_from(["a", "b", "A"]), max_size=12), ngram=st.integers(1, 5))
def test_repetition_is_the_share_of_ngrams_seen_before(words: list[str], ngram: int) -> None:
    lowered = [word.lower() for word in words]
    grams = [lowered[i : i + ngram] for i in range(len(words) - ngram + 1)]
    again = sum(gram in grams[:i] for i, gram in enumerate(grams))
    expected = -again / len(grams) if grams else 0.0
    assert repetition_reward(" ".join(words), ngram) == pytest.approx(expected, abs=1e-12)


# ── Any text ─────────────────────────────────────────────────────────────────────────────────────────────


@settings(derandomize=True, deadline=None)
@given(
    text=RESPONSES,
    tokens=st.integers(0, 10**9),
    answer=st.sampled_from("AB"),
    limit=st.integers(0, 1024),
)
@pytest.mark.parametrize("preset", BOTH)
def test_any_text_has_a_reward_within_its_range(
    preset: PresetName, text: str, tokens: int, answer: str, limit: int
) -> None:
    found = reward(text, answer, YES_NO, tokens, preset, max_tokens=limit)
    assert found.format in (0, 1)
    assert found.classification in (-1, 0, 1)
    low, high = {1: (0.5, 1.0), 0: (-0.5, 0.0), -1: (-1.0, -1.0)}[int(found.classification)]
    assert low <= found.cosine <= high
    assert -1 < found.repetition <= 0
    parts = (found.format, 3 * found.classification, found.cosine, found.repetition)
    assert math.isclose(found.total, math.fsum(parts), abs_tol=1e-12)
    assert correct(found) == (found.classification == 1)

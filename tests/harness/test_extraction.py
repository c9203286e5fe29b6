from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import extract_letter
from harness.extraction import read_letter

YES_NO = {"A": "Yes.", "B": "No."}
KINDS = {"A": "A scratch.", "B": "A dent.", "C": "Contamination.", "D": "Missing part."}

STATED = [
    ("B", "B"),
    ("b", "B"),
    (" B.\n", "B"),
    ("(B)", "B"),
    ("[B]", "B"),
    ("**B**", "B"),
    ("B<|im_end|>", "B"),
    ("B: No.", "B"),
    ("B. No.", "B"),
    ("(B) No.", "B"),
    ("B) because it is whole", "B"),
    ("B\nThe part is whole.", "B"),
    ("Answer: B", "B"),
    ("answer: b", "B"),
    ("Answer: B. No.", "B"),
    ("The answer is B.", "B"),
    ("The correct answer is (B)", "B"),
    ("The correct option is B.", "B"),
    ("The correct answer is option B: No.", "B"),
    ("I choose option B.", "B"),
    ("no", "B"),
    ("No!", "B"),
    ("The answer is: No.", "B"),
    ("A Yes.", "A"),
    ("Answer: A because of the crack", "A"),
    ("<answer>B</answer>", "B"),
    ("< Answer >\n B \n</ ANSWER >", "B"),
    ("<think>A? No, A is wrong.</think><answer>B</answer>", "B"),
    ("<think>The form is <answer>A</answer>.</think>\n<answer>B</answer>", "B"),
    ("<answer>A</answer> wait <answer>B</answer>", "B"),
    ("<think>A</think>B", "B"),
    ("The prompt opened the thought: A</think>\n\nB", "B"),
    ("<think>never closed <answer>B</answer>", "B"),
    ("<answer>B", "B"),
    ("<|begin_of_box|>B<|end_of_box|>", "B"),
    ("Seen: option A. <|begin_of_box|>B<|end_of_box|>", "B"),
    ("B is the correct answer.", "B"),
    ("B is the best option, because it is whole.", "B"),
    ("A is the correct answer: the part is cracked.", "A"),
    ("Option B is the right one.", "B"),
    ("I see (A) and more, but B is the answer.", "B"),
    ("\\boxed{B}", "B"),
    ("So the final answer is $\\boxed{\\text{B}}$.", "B"),
    ("\\boxed{B. No.}", "B"),
    ("\\boxed{A}, or rather \\boxed{B}", "B"),
    ("A. Yes.\nB. No.\nAnswer: B", "B"),
    ("Option A is wrong. The answer is B.", "B"),
    ("The answer is B, not A.", "B"),
    ("Answer: B\nExplanation: option A is wrong because it is whole.", "B"),
]

NOT_STATED = [
    "",
    "   ",
    "C",
    "The answer is C",
    "A or B",
    "A, B",
    "The answer is A or B.",
    "The answer is A. No, B.",
    "A. No.",  # the letter of one option, the text of the other
    "A. Yes.\nB. No.",
    "It is not option B.",
    "B is not the correct answer.",
    "B is the wrong answer.",
    "A is correct and B is correct.",
    "\\boxed{}",
    "It isn\u2019t option B.",
    "Option A is wrong.",
    "Not A, not B.",
    "The answer is B. No wait, B is wrong.",
    "(A) is not the case",
    "Perhaps.",
    "yes and no",
    "<think>B",
    "<think>option B <answer>B</answer> or rather",
    "<think>B</think>",
    "<think>B</think><answer></answer>",
    "B<answer></answer>",
    "<answer>I cannot tell.</answer> B",
]


@pytest.mark.parametrize(("text", "letter"), STATED)
def test_a_stated_letter_is_read(text: str, letter: str) -> None:
    assert extract_letter(text, YES_NO) == letter


@pytest.mark.parametrize("text", NOT_STATED)
def test_nothing_is_read_where_nothing_is_stated(text: str) -> None:
    assert extract_letter(text, YES_NO) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A scratch is visible on the left.", None),
        ("A scratch.", "A"),
        ("a dent", "B"),
        ("Answer: A dent", "B"),
        ("<answer>A dent.</answer>", "B"),
        ("A", "A"),
        ("A.", "A"),
        ("A. A scratch.", "A"),
        ("A: scratched surface", "A"),
        ("Type C connector", None),
        ("The USB-C port is bent", None),
        ("I think option C", "C"),
        ("missing  PART", "D"),
        ("contaminatoin", None),
    ],
)
def test_article_and_option_texts(text: str, letter: str | None) -> None:
    assert extract_letter(text, KINDS) == letter


def test_same_text_twice_is_ambiguous() -> None:
    assert extract_letter("Left", {"A": "Left.", "B": "left"}) is None


@given(st.text(max_size=200), st.dictionaries(st.sampled_from("ABCDE"), st.text(max_size=12), min_size=2))
def test_never_a_letter_outside_the_options(text: str, options: dict[str, str]) -> None:
    assert extract_letter(text, options) in {None, *options}


@given(st.sampled_from("ABCD"), st.text(alphabet=st.characters(exclude_characters="<>"), max_size=80))
def test_a_marked_answer_is_read_whatever_was_thought(letter: str, thought: str) -> None:
    assert extract_letter(f"<think>{thought}</think><answer>{letter}</answer>", KINDS) == letter


@given(st.text(alphabet=st.characters(exclude_characters="<>"), max_size=80))
def test_an_unclosed_thought_is_never_an_answer(thought: str) -> None:
    assert extract_letter(f"<think>{thought}", KINDS) is None


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"))
def test_two_different_letters_are_no_answer(first: str, second: str) -> None:
    expected = first if first == second else None
    assert extract_letter(f"option {first} or option {second}", KINDS) == expected


def test_log_probabilities_decide_in_logits_mode() -> None:
    assert read_letter("B", {"A": -0.1, "B": -2.0}, YES_NO, "logits") == "A"
    assert read_letter("B", {"A": -1.0, "B": -1.0}, YES_NO, "logits") is None
    with pytest.raises(ValueError, match="option B"):
        read_letter("A", {"A": -0.1}, YES_NO, "logits")
    with pytest.raises(ValueError, match="option A"):
        read_letter("A", {"A": float("nan"), "B": -1.0}, YES_NO, "logits")

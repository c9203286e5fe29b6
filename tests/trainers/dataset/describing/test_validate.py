"""Untrusted text: each way of being wrong is told from the others, and what passes is clean."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.raw import TextKind, TextRequest
from trainers.dataset.describing.prompts import WORDS, chat
from trainers.dataset.describing.validate import Fault, check

SOUND = "The tube is grey and smooth, with a straight outline and no mark on it."
KIND = TextKind.NORMAL_TEXT
OWN = chat(TextRequest(KIND, "MPDD", "tubes", "metal tube", ())).own


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("", Fault.EMPTY),
        (" \n\t ", Fault.EMPTY),
        ("<think>The tube is grey and so on.</think>", Fault.EMPTY),
        (None, Fault.NO_TEXT),
        (["text"], Fault.NO_TEXT),
        (7, Fault.NO_TEXT),
        ("I'm sorry, I cannot help with this picture of a tube.", Fault.REFUSED),
        ("I\u2019m sorry, but I can\u2019t assist with that request at all.", Fault.REFUSED),
        ("Unfortunately the picture is too dark to be described by me.", Fault.REFUSED),
        ("Well, I cannot provide a description of this product today.", Fault.REFUSED),
        ("As an AI, descriptions of products are beyond what is possible.", Fault.REFUSED),
        ("I am unable to see the picture that you speak of.", Fault.REFUSED),
        ("A grey tube.", Fault.TOO_SHORT),
        ("word " * 201, Fault.TOO_LONG),
        ("x" * 300_000, Fault.TOO_LONG),
        (f"<think>{SOUND}", Fault.MARKUP),
        (f"{SOUND} <|im_end|>", Fault.MARKUP),
        (f"```\n{SOUND}\n```", Fault.MARKUP),
        (f"<p>{SOUND}</p>", Fault.MARKUP),
        (f"{SOUND} <IMG_CONTEXT>", Fault.MARKUP),
        (f"### Tube\n{SOUND}", Fault.MARKUP),
        (f"{SOUND}\x00", Fault.CONTROL_CHARACTER),
        (f"{SOUND}\x1b[31m", Fault.CONTROL_CHARACTER),
        (f"\u202e{SOUND}", Fault.CONTROL_CHARACTER),
        (f"{SOUND}\ud800", Fault.CONTROL_CHARACTER),
        (f"{SOUND}\ufffc", Fault.CONTROL_CHARACTER),
        (f"Sure. {OWN[100:400]}", Fault.REPEATS_PROMPT),
    ],
)
def test_faults(reply: object, fault: Fault) -> None:
    found = check(reply, KIND, OWN)
    assert found.fault is fault and found.text == "" and found.reason
    assert found.reason.isprintable()


def test_a_cut_a_filtered_and_a_leaking_reply() -> None:
    assert check(SOUND, KIND, OWN, "length").fault is Fault.CUT
    assert check(SOUND, KIND, OWN, "content_filter").fault is Fault.REFUSED
    found = check(f"{SOUND} sk-123456789", KIND, OWN, secret="sk-123456789")
    assert found.fault is Fault.SECRET and "sk-" not in found.reason
    # A placeholder such as local servers take is a common word and no secret.
    assert check("The bottle is empty and clear.", KIND, OWN, secret="empty").fault is None


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (f"  {SOUND}\n", SOUND),
        (f"<think>Should I say grey?\nYes.</think>\n\n{SOUND}", SOUND),
        (f"Should I say grey? Yes.</think>{SOUND}", SOUND),
        (f'"{SOUND}"', SOUND),
        (
            "- Shape: **long** and round.\n- Colour: grey.\n2. No mark.",
            "Shape: long and round. Colour: grey. No mark.",
        ),
        ('The label "A" is on the left and "B"', 'The label "A" is on the left and "B"'),
        ("A rim wider than 3 < 4 mm cannot be turned.", "A rim wider than 3 < 4 mm cannot be turned."),
        (
            "Das Rohr ist grau, die Fl\u00e4che v\u00f6llig eben.",
            "Das Rohr ist grau, die Fl\u00e4che v\u00f6llig eben.",
        ),
    ],
)
def test_form_is_tidied_and_words_are_kept(reply: str, text: str) -> None:
    assert check(reply, KIND, OWN).text == text


def test_quoted_knowledge_may_come_back() -> None:
    entry = "A large piece of the rim is gone, which leaves a sharp and irregular edge behind."
    request = TextRequest(TextKind.DEFECT_TEXT, "d", "o", "bottle", (), place="top", context=(entry,))
    assert check(f"On the top, {entry}", request.kind, chat(request).own).fault is None


def test_limits_depend_on_the_kind() -> None:
    for kind, limit in WORDS.items():
        assert check("word " * (2 * limit), kind, "").fault is None
        assert check("word " * (2 * limit + 1), kind, "").fault is Fault.TOO_LONG


@given(st.text(), st.text(st.sampled_from('<>/ab|\n \x00\u202e*-1.#`"think')))
def test_what_passes_is_clean(one: str, other: str) -> None:
    found = check(f"{one} {SOUND} {other}", KIND, OWN)
    if found.fault is None:
        assert found.text == found.text.strip() and "\n" not in found.text
        assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in found.text)
        assert "<think>" not in found.text and "</a>" not in found.text
        found.text.encode("utf-8")
        assert check(found.text, KIND, OWN).fault is None  # and stays so when it is read again
    else:
        assert found.text == ""

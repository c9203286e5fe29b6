"""What the page's script reads: whole, compact, and inert whatever a model wrote."""

from __future__ import annotations

import base64
import gzip
import json
import random
from typing import Any

import pytest

from harness.records import Outcome
from reports.explorer.catalogue import Catalogue, state_of
from reports.explorer.data import CHUNK, LIMIT, chunks, columns, inert, pack, wordings
from reports.explorer.groups import dimensions
from reports.explorer.pictures import Shown
from reports.explorer.places import NORMAL, UNNAMED, place_of
from tests.reports.explorer.worlds import answers_of, questions, subject_of, synthetic

HOSTILE = (
    "<script>alert(1)</script>", "</script><script>alert(2)</script>", "<!--<script>",
    "<img src=x onerror=alert(3)>",
    "\u202ereversed\u2066", "a\u2028b\u2029c", "{{ 7 * 7 }}", "&lt;b&gt;", "\ud800", "\x00",
)  # fmt: skip


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("DS-MVTec/bottle/image/contamination/000.png", "contamination"),
        ("DS-MVTec/bottle/image/good/000.png", NORMAL),
        ("MVTec-LOCO/juice_bottle/test/structural_anomalies/012.png", "structural_anomalies"),
        ("VisA/cashew/test/bad/000.JPG", "bad"),
        ("GoodsAD/cigarette_box/test/opened/003.jpg", "opened"),
        ("GoodsAD/cigarette_box/test/003.jpg", UNNAMED),
        ("somewhere/003.jpg", UNNAMED),
        ("003.jpg", UNNAMED),
    ],
)  # fmt: skip
def test_keys_of_every_layout_tell_the_kind_of_defect(key: str, kind: str) -> None:
    assert place_of(key).kind == kind
    assert place_of(key).dataset == key.split("/")[0]


def test_every_question_has_its_place_whatever_order_the_answers_come_in() -> None:
    asked = questions(40)
    one, other = (answers_of(name, asked, 0.5, seed) for seed, name in enumerate("mn"))
    shuffled = random.Random(0).sample(other, len(other))
    straight, mixed = (Catalogue(subject_of([one, second])) for second in (other, shuffled))
    assert straight.images == tuple(dict.fromkeys(key for key, *_ in asked))
    assert [(q.key, q.number) for q in straight.questions] == [(key, number) for key, number, _ in asked]
    assert straight.answers == mixed.answers and straight.states == mixed.states
    assert all(
        straight.images[i] == q.key for i, q in zip(straight.image_of, straight.questions, strict=True)
    )


def test_columns_say_what_the_answers_say() -> None:
    subject = synthetic(60)
    catalogue = Catalogue(subject)
    shown = {catalogue.images[3]: Shown(size=(640, 480), area=0.01234567)}
    found = columns(catalogue, dimensions(catalogue, shown), shown)
    n = len(catalogue.questions)
    assert sum(found["images"]["questions"]) == n == len(found["questions"]["subtask"])
    assert found["images"]["area"][3] == 0.012346 and found["images"]["size"][3] == (640, 480)
    assert found["groups"]["area"]["labels"][found["groups"]["area"]["of"][3]] == "0.5 to 2 %"
    for place, entry in enumerate(subject.entries):
        assert found["states"][place].count("r") == subject.panel.right[place].sum()
        by_question = {(a.key, a.number): a for a in entry.answers}
        given = [by_question[q.key, q.number] for q in catalogue.questions]
        assert [a.letter or "-" for a in given] == list(found["letters"][place])
        assert found["states"][place].count("f") == sum(a.outcome == Outcome.FAILED for a in given)
    texts = wordings(catalogue)
    assert [texts["texts"][i] for i in texts["of"]] == [q.question for q in catalogue.questions]
    assert len(set(texts["texts"])) == len(texts["texts"])


def test_models_that_answered_other_questions_stand_side_by_side() -> None:
    asked = questions(20)
    one, other = answers_of("m", asked[:30], 0.5, 0), answers_of("n", asked[10:], 0.5, 1)
    catalogue = Catalogue(subject_of([one, other]))
    assert len(catalogue.questions) == len(asked)
    assert catalogue.states[0][30:] == " " * (len(asked) - 30) and catalogue.states[1][:10] == " " * 10


def test_states_are_those_of_the_scorers() -> None:
    answer = answers_of("m", questions(1), 1.0, 0)[0]
    states = {
        "r": answer,
        "w": answer._replace(letter="E"),
        "u": answer._replace(letter=None, outcome=Outcome.UNPARSED),
        "f": answer._replace(letter=None, outcome=Outcome.FAILED),
        " ": None,
    }
    assert [state_of(given) for given in states.values()] == list(states)
    assert state_of(answer._replace(letter="F")) == state_of(answer._replace(correct="?")) == "u"


def test_details_come_back_as_they_were_and_long_ones_are_cut() -> None:
    subject = synthetic(150, 2, logprobs=True)
    entry = subject.entries[0]
    long = entry.answers[0]._replace(text="x" * 1_000_000, option_logprobs={"A": -0.5, "B": float("-inf")})
    bare = entry.answers[1]._replace(options={}, option_logprobs=None, text="", completion_tokens=0)
    changed = subject_of([(long, bare, *entry.answers[2:]), subject.entries[1].answers])
    catalogue = Catalogue(changed)
    shown = {catalogue.images[0]: Shown(query="images/q.jpg", heat=((1, "images/h.png", 0.5),))}
    packed = chunks(catalogue, shown)
    details = [question for chunk in packed for question in unpacked(chunk)["questions"]]
    assert len(packed) == -(-len(details) // CHUNK) > 1
    text, cut, tokens, reason, logs = details[0]["said"][0]
    assert (text, cut, reason, logs) == ("x" * LIMIT, 1_000_000 - LIMIT, "", {"A": -0.5})
    assert tokens == entry.answers[0].completion_tokens
    assert details[1]["said"][0] == ["", 0, 0, "", {}]
    for question, found in zip(catalogue.questions[2:], details[2:], strict=True):
        assert found["options"] == [list(pair) for pair in question.options.items()]
    assert unpacked(packed[0])["images"]["0"] == {"query": "images/q.jpg", "heat": [[1, "images/h.png", 0.5]]}
    assert chunks(catalogue, shown) == packed


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_ends_its_script_element(text: str) -> None:
    content = {text: [text]}
    said = inert(content)
    assert json.loads(said) == content and json.loads(said.encode()) == content
    assert not set(said) & set("<>&\u2028\u2029") and said.isascii()
    assert unpacked(pack(content)) == content and set(pack(content)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
    )

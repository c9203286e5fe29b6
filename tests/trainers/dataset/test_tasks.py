"""The four tasks by rule: truths recomputed here from the mask, letters balanced, distractors false."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.grid import PLACES, cell_counts, touched_cells
from trainers.dataset.choice import pick, rank, shuffled
from trainers.dataset.names import COMMON_KINDS, COMMON_NOUNS, alike, distractors, meaning, option
from trainers.dataset.tasks import (
    SYNONYMS,
    TASKS,
    Dealt,
    Draft,
    NotAsked,
    Rules,
    Subject,
    Vocabulary,
    ask,
    deal,
)

NAMES = Vocabulary(
    frozenset({"scratch", "scratches", "hole", "pit", "bent lead", "bend and parts mismatch", "rust",
               "total rust", "missing parts", "contamination", "crack"}),
    frozenset({"bottle", "food bottle", "screw", "cable", "metal nut", "pcb", "zipper"}),
)  # fmt: skip
CELL_OF = {option(words): cell for cell, said in enumerate(SYNONYMS) for words in said}


def fullest_by_hand(mask: NDArray[np.bool_]) -> tuple[int, set[int]]:
    """The fullest cell and all touched ones, pixel by pixel."""
    height, width = mask.shape
    counts = [0] * 9
    for y, x in zip(*np.nonzero(mask), strict=True):
        row, column = min(int(y) // (height // 3), 2), min(int(x) // (width // 3), 2)
        counts[3 * row + column] += 1
    return counts.index(max(counts)), {cell for cell in range(9) if counts[cell]}


masks = st.builds(
    lambda height, width, seed, share: np.random.RandomState(seed).rand(height, width) < share,
    st.integers(3, 40), st.integers(3, 40), st.integers(0, 10**6), st.sampled_from([0.001, 0.01, 0.05, 0.3]),
)  # fmt: skip


def asked(subject: Subject, rules: Rules) -> dict[str, Draft | NotAsked]:
    return {one.task: one for one in ask(subject, NAMES, rules)}


@settings(max_examples=200, deadline=None)
@given(masks, st.integers(0, 5), st.booleans())
def test_the_place_is_right_and_no_distractor_is_touched(
    mask: NDArray[np.bool_], seed: int, synonyms: bool
) -> None:
    if not mask.any():
        return
    answer, touched = fullest_by_hand(mask)
    cells = touched_cells(cell_counts(mask))
    assert set(cells) == touched
    found = asked(Subject("x", "screw", True, "hole", cells), Rules(seed, synonyms=synonyms))
    place = found["defect_localization"]
    if len(touched) > 6:
        assert isinstance(place, NotAsked) and place.reason == "too-many-cells"
        return
    assert isinstance(place, Draft)
    assert CELL_OF[place.truth] == answer
    wrong = [CELL_OF[words] for words in place.wrong]
    assert len(set(wrong)) == 3 and not touched & set(wrong)
    if not synonyms:
        assert {place.truth, *place.wrong} <= set(map(option, PLACES))


def test_touched_cells_rank_by_area_then_place() -> None:
    mask = np.zeros((9, 9), bool)
    mask[0, 0] = mask[4, 4] = mask[4, 3] = mask[8, 8] = True
    assert touched_cells(cell_counts(mask)) == (4, 0, 8)


def subjects(count: int) -> list[Subject]:
    found = []
    for i in range(count):
        kind = sorted(NAMES.kinds)[i % len(NAMES.kinds)] if i % 3 else ""
        noun = sorted(NAMES.nouns)[i % len(NAMES.nouns)]
        found.append(Subject(f"D/{i}.png", noun, bool(i % 3), kind, (i % 9,) if i % 3 else ()))
    return found


def dealt(count: int, rules: Rules) -> list[Dealt]:
    drafts = [
        one for subject in subjects(count) for one in ask(subject, NAMES, rules) if isinstance(one, Draft)
    ]
    return list(deal(drafts, rules))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [40, 300])
def test_letters_are_balanced_in_every_task_and_within_every_truth(count: int, seed: int) -> None:
    found = dealt(count, Rules(seed))
    for task in TASKS:
        for options in (2, 3, 4):
            some = [one for one in found if one.draft.task == task and len(one.options) == options]
            letters = Counter(one.answer for one in some)
            if some:
                assert max(letters.values()) - min(letters.get(x, 0) for x in "ABCD"[:options]) <= 1
            for truth in {one.draft.truth for one in some}:
                within = Counter(one.answer for one in some if one.draft.truth == truth)
                assert max(within.values()) - min(within.get(x, 0) for x in "ABCD"[:options]) <= 1


def test_letters_cannot_be_told_from_place_in_the_file() -> None:
    letters = [one.answer for one in dealt(300, Rules()) if one.draft.task == "anomaly_discrimination"]
    runs = sum(a != b for a, b in pairwise(letters))
    assert 0.4 < runs / len(letters) < 0.6  # neither in blocks nor in turn


def test_options_are_distinct_and_the_answer_is_the_truth() -> None:
    for one in dealt(120, Rules(4)):
        texts = list(one.options.values())
        assert len(set(texts)) == len(texts)
        assert one.options[one.answer] == one.draft.truth
        assert set(texts) == {one.draft.truth, *one.draft.wrong}
        assert list(one.options) == list("ABCD"[: len(texts)])


def test_named_distractors_are_never_true() -> None:
    for one in dealt(300, Rules(1)):
        if one.draft.task in ("defect_classification", "object_classification"):
            words = [text[:-1].lower() for text in one.options.values()]
            for i, first in enumerate(words):
                assert not any(alike(first, second) for second in words[i + 1 :]), words


#: By hand, over kinds and products of the seven datasets: pairs that one picture can show, or none can.
SAME = (
    "scratch/scratches, scratch/scratched, scuffed/scratch, abrasion/scratch, crack/cracked, "
    "dented/dent, bent/dent, deformation/bent wire, pit/hole, pinhole/hole, blowhole/pit, "
    "porosity/hole, chipping/chip, chipped/chip, stained/stain, contamination/stain, "
    "contaminant/contamination, color/contamination, corroded/rust, rusty/rust, rust/total rust, total "
    "rust/major rust, wrinkled/wrinkle, burnt/burn mark, label tilt/tilted label, missing cable/missing "
    "part, missing wire/missing parts, missing screw/missing part, damage/scratch, damage/crack, "
    "damaged/hole, broken/damage, broken large/broken small, broken teeth/crack, torn/cut, parts "
    "mismatch/bend and parts mismatch, foreign objects/foreign body, squeeze/bent, fold/dent, "
    "bottle/food bottle, can/metal can, metal can/drink can, capsule/capsules, nut/metal nut "
)
DIFFERENT = (
    "scratch/hole, scratch/crack, hole/crack, dent/stain, chip/scratch, contamination/scratch, "
    "rust/scratch, rust/hole, missing part/wrong part, missing parts/scratch, missing part/damage, "
    "contamination/damage, foreign body/hole, tilted label/wrong part, bent lead/cut lead, "
    "misplaced/missing, screw/metal nut, bottle/can, glass bottle/carpet, cable/capsule, pill/screw, "
    "relay board/memory board, phone battery/button battery, zipper/wood, grass/glasses "
)


@pytest.mark.parametrize(("pairs", "expected"), [(SAME, True), (DIFFERENT, False)])
def test_alike(pairs: str, expected: bool) -> None:
    for pair in pairs.split(","):
        one, other = pair.strip().split("/")
        assert alike(one, other) is alike(other, one) is expected, pair


def test_common_names_do_not_mean_the_same() -> None:
    for names in (COMMON_KINDS, COMMON_NOUNS):
        for i, name in enumerate(names):
            assert not any(alike(name, other) for other in names[i + 1 :]), name


@given(st.text(min_size=1, max_size=20))
def test_a_name_always_means_something_and_is_like_itself(words: str) -> None:
    assert meaning(words)
    assert alike(words, words)


def test_few_names_are_filled_up_with_common_ones() -> None:
    found = distractors("hole", {"hole", "crack"}, COMMON_KINDS, 3, 0, "x")
    assert found[0] == "crack" and len(found) == 3
    assert set(found[1:]) <= set(COMMON_KINDS)


def test_questions_that_cannot_be_asked_say_why() -> None:
    found = asked(Subject("x", "screw", True), Rules())
    reasons = {task: one.reason for task, one in found.items() if isinstance(one, NotAsked)}
    assert reasons == {"defect_classification": "no-name", "defect_localization": "no-mask"}
    assert isinstance(found["anomaly_discrimination"], Draft)


def test_a_normal_subject_is_asked_for_its_name_and_no_defect() -> None:
    found = asked(Subject("x", "screw", False), Rules())
    assert list(found) == ["anomaly_discrimination", "object_classification"]
    discrimination = found["anomaly_discrimination"]
    assert isinstance(discrimination, Draft) and discrimination.truth == "No."
    assert discrimination.rationale == "I see: Normal. No."


def test_release_draws_synonyms_and_repeats() -> None:
    rules = Rules(release=True)
    crowded = asked(Subject("x", "screw", True, "hole", tuple(range(8))), rules)["defect_localization"]
    assert isinstance(crowded, Draft)
    assert {CELL_OF[words] for words in crowded.wrong} == {8}  # the only free cell, three times
    wrong = set()
    for i in range(60):
        one = asked(Subject(str(i), "screw", True, "hole", (0,)), rules)["defect_classification"]
        wrong |= set(one.wrong) if isinstance(one, Draft) else set()
    assert "Pit." in wrong and "Hole." not in wrong


def test_choice_hangs_on_names_alone() -> None:
    things = [f"{i}.png" for i in range(50)]
    order = shuffled(things, 3, "pool")
    assert sorted(order) == sorted(things) and order != things
    assert shuffled(reversed(things), 3, "pool") == order
    assert [thing for thing in shuffled([*things, "new.png"], 3, "pool") if thing != "new.png"] == order
    assert shuffled(things, 4, "pool") != order != shuffled(things, 3, "other pool")
    assert pick(things, 3, "pool") == order[0]
    ranks = [rank(0, "uniform", i) / 2**64 for i in range(2000)]
    assert abs(float(np.mean(ranks)) - 0.5) < 0.03


def test_one_subject_more_moves_no_other_question() -> None:
    few, many = subjects(30), subjects(31)
    rules = Rules(2)

    def drafts(of: Iterable[Subject]) -> dict[str, Draft | NotAsked]:
        return {one.id: one for subject in of for one in ask(subject, NAMES, rules)}

    before, after = drafts(few), drafts(many)
    assert all(after[name] == one for name, one in before.items())
    assert drafts(few) != {one.id: one for s in few for one in ask(s, NAMES, replace(rules, seed=3))}

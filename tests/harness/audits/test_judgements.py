"""Each audit finds out the model whose habit it is about, and leaves the others alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from harness import BadInput
from harness.audits import AUDITS
from harness.audits.figures import ratios, share
from harness.audits.positions import turned
from harness.comparison import Test
from harness.hookspecs import Benchmark
from harness.mmad import read_mmad
from harness.records import Picture, Prompt, PromptGroup, Question
from harness.run import read_run
from harness.run_info import Labour
from tests.harness.audits.toys import Toy, always_a, audit, drawn, reads_texts, sees_all, sees_query
from tests.harness.scripted import planned


@pytest.fixture
def benchmark(mmad_folder: Path) -> Benchmark:
    return read_mmad(mmad_folder)


# Positions


def test_turning_moves_texts_and_the_right_letter_and_comes_round() -> None:
    question = Question(0, "?", {"A": "red", "B": "green", "C": "blue"}, "B", "", "")
    arranged = [turned(question, by) for by in range(3)]
    assert [one.options[one.answer] for one in arranged] == ["green"] * 3
    assert [one.answer for one in arranged] == ["B", "A", "C"]
    assert {tuple(one.options) for one in arranged} == {("A", "B", "C")}
    assert turned(question, 3) == question == arranged[0]
    for letter in "ABC":  # every text stands at every letter once
        assert {one.options[letter] for one in arranged} == {"red", "green", "blue"}


def test_a_model_that_always_says_a_is_found_out(tmp_path: Path, benchmark: Benchmark) -> None:
    result = audit("positions", tmp_path, benchmark, Toy(always_a))
    figures = result.figures["toy"]
    assert figures["share"] == {"A": 100, "B": 0, "C": 0, "D": 0}
    # 24 questions have two options and 84 have four: an even share of A is 12 + 21 of 108.
    assert figures["preference"]["A"]["value"] == pytest.approx(100 - 100 * 33 / 108)
    assert figures["preference"]["D"]["value"] == figures["preference"]["D"]["low"] == -25
    assert figures["consistency"]["value"] == 0 and figures["questions_with_all_letters"] == 108
    assert result.sentence.startswith("Toy says A in 100.0 % of its answers where 30.6 % would be even")
    assert result.n_questions == 108


def test_a_model_that_reads_prefers_no_letter(tmp_path: Path, benchmark: Benchmark) -> None:
    result = audit("positions", tmp_path, benchmark, Toy(sees_query))
    figures = result.figures["toy"]
    assert figures["consistency"]["value"] == 100
    assert [one["value"] for one in figures["preference"].values()] == pytest.approx([0] * 4)
    assert len(figures["accuracy"]) == 4
    assert max(figures["accuracy"]) == pytest.approx(min(figures["accuracy"]))  # the same texts are right
    assert result.sentence.startswith(
        "Toy prefers no letter beyond noise; it chooses the same text in 100.0 %"
    )


def test_questions_are_asked_in_every_arrangement_once(tmp_path: Path, benchmark: Benchmark) -> None:
    toy = Toy(always_a)
    audit("positions", tmp_path, benchmark, toy)
    assert len(toy.asked) == 24 * 2 + 84 * 4 and toy.loads == 2  # once for the run, once for all variants
    texts = [prompt.text for group in toy.groups for prompt in group.prompts if prompt.id == toy.asked[-1]]
    assert len(set(texts)) == len(texts) == 4
    manifest, answers = read_run(tmp_path / "audits/positions/turned-2")
    assert manifest["variant"] == {
        "audit": "positions",
        "variant": "turned-2",
        "summary": "options turned by 2",
    }
    assert manifest["benchmark"]["digest"] != benchmark.digest
    assert {len(answer.options) for answer in answers["toy"]} == {4}


def test_silence_is_no_preference(tmp_path: Path, benchmark: Benchmark) -> None:
    result = audit("positions", tmp_path, benchmark, Toy(lambda group, prompt: "well"))
    assert result.sentence == "Toy gave no question a letter in all arrangements." and result.n_questions == 0


# Reference


def test_a_model_that_ignores_the_reference_has_no_deltas(tmp_path: Path, benchmark: Benchmark) -> None:
    result = audit("reference", tmp_path, benchmark, Toy(sees_query))
    found = result.figures["toy"]["variants"]
    assert list(found) == ["random", "other-product", "defective", "none"]
    for one in found.values():
        assert one["change"] == {"value": 0, "low": 0, "high": 0} and one["p"] == 1
        assert one["answers_changed"] == 0
    assert result.sentence == "Toy does not look at the reference: not one answer changes, whatever it shows."
    assert result.n_questions == 72  # object questions are asked without one
    assert result.columns[:3] == ("Model", "Reference", "Questions")
    assert [row[1] for row in result.rows] == ["similar (the run)", *found]


def knows(benchmark: Benchmark) -> tuple[dict[str, str], set[str]]:
    """Prompt id -> the text that is right; digests of every product's first template."""
    from harness.protocol import shipped_protocols
    from harness.records import ImageFile

    emit = shipped_protocols()[0]
    groups = [group for item in benchmark.items for group in emit.plan(item, benchmark.knowledge)]
    right = {
        prompt.id: question.options[question.answer]
        for group in groups
        for prompt, question in zip(group.prompts, group.questions, strict=True)
    }
    return right, {ImageFile(item.similar_templates[0].resolve()).digest for item in benchmark.items}


def test_a_model_that_needs_the_reference_loses_without(tmp_path: Path, benchmark: Benchmark) -> None:
    right, templates = knows(benchmark)

    def habit(group: PromptGroup, prompt: Prompt) -> str:
        sound = bool(group.references) and group.references[0].digest in templates
        texts = {text: letter for letter, text in prompt.options.items()}
        wrong = next(letter for text, letter in texts.items() if text != right[prompt.id])
        return texts[right[prompt.id]] if sound else wrong

    result = audit("reference", tmp_path, benchmark, Toy(habit))
    found = result.figures["toy"]["variants"]
    assert result.figures["toy"]["accuracy"] == 100
    assert found["none"]["change"]["value"] == -100 and found["none"]["p_adjusted"] < 0.05
    assert found["defective"]["change"]["value"] == -100
    assert "The reference matters to Toy" in result.sentence
    assert "-100.0 points with no reference" in result.sentence


def test_references_are_what_their_variants_say(tmp_path: Path, benchmark: Benchmark) -> None:
    items = {item.key: item for item in benchmark.items}
    base = planned(tmp_path, benchmark, Toy(sees_all).spec())
    variants = {one.name: one.run for one in AUDITS["reference"].variants(base)}
    for item in variants["other-product"].items:
        (chosen,) = variants["other-product"].protocol.pick_references(item)
        assert chosen.parts[-4] != item.object and "good" in str(chosen)
    for item in variants["defective"].items:
        (chosen,) = variants["defective"].protocol.pick_references(item)
        assert "/bad/" in str(chosen) and chosen.parent.parent == items[item.key].image.parent.parent
        assert chosen != item.image
    for item in variants["random"].items:
        assert variants["random"].protocol.pick_references(item) == item.random_templates
    again = {one.name: one.run for one in AUDITS["reference"].variants(base)}
    assert all(again[name].items == run.items for name, run in variants.items())  # the seed decides
    digests = {(run.benchmark.digest, run.protocol.digest) for run in (base, *variants.values())}
    assert len(digests) == 5


def test_what_cannot_be_exchanged_is_refused_before_anything_is_asked(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    base = planned(tmp_path, benchmark, Toy(sees_all).spec(), shots=0)
    with pytest.raises(BadInput, match=r"'emit' shows no reference here; .* pass --shots 1"):
        AUDITS["reference"].variants(base)


def test_a_single_product_has_no_other(tmp_path: Path, benchmark: Benchmark) -> None:
    one = replace(benchmark, items=tuple(item for item in benchmark.items if item.object == "pill"))
    result = audit("reference", tmp_path, one, Toy(sees_all))
    assert list(result.figures["toy"]["variants"]) == ["random", "defective", "none"]


def test_the_effect_that_would_be_found_knows_of_all_exchanges(tmp_path: Path, benchmark: Benchmark) -> None:
    from harness.comparison import compare
    from harness.statistics import detectable

    def habit(group: PromptGroup, prompt: Prompt) -> str:  # a few answers hang on the reference
        hanging = int(prompt.id[:2], 16) < 40 if prompt.id[:2].isalnum() else False
        return sees_all(group, prompt) if hanging else sees_query(group, prompt)

    result = audit("reference", tmp_path, benchmark, Toy(habit))
    found = result.figures["toy"]["variants"]
    assert all(one["p_adjusted"] > 0.05 for one in found.values()) and "beyond noise" in result.sentence
    _, base = read_run(tmp_path)
    name = max(found, key=lambda one: abs(found[one]["change"]["value"]))
    _, varied = read_run(tmp_path / "audits/reference" / name)
    asked = {(one.key, one.number) for one in varied["toy"]}
    before = [one for one in base["toy"] if (one.key, one.number) in asked]
    error = compare(before, varied["toy"]).tests[-1].error
    assert f"a true one of {detectable(error, tests=len(found)):.1f} would be found" in result.sentence


# Blind


def test_a_model_that_reads_texts_only_scores_the_same_blind(tmp_path: Path, benchmark: Benchmark) -> None:
    result = audit("blind", tmp_path, benchmark, Toy(reads_texts))
    average = result.figures["toy"]["scores"]["average"]
    assert average["blind"]["value"] == average["with_images"]
    assert average["images_add"] == {"value": 0, "low": 0, "high": 0, "p": 1}
    assert average["chance"] == pytest.approx(100 * (0.5 + 6 * 0.25) / 7)


def test_a_share_is_told_only_of_what_is_beyond_noise() -> None:
    from harness.audits.blind import _worth
    from harness.comparison import compare
    from tests.harness.synthetic import answers, questions

    asked = questions(60)
    third, half, most = ([place % 6 < n for place in range(len(asked))] for n in (2, 3, 5))

    def average(blind: list[bool], seen: list[bool]) -> Test:
        return compare(answers(asked, blind), answers(asked, seen), resamples=200).tests[-1]

    assert _worth(30.0, average(third, most), False) == "the texts alone give nothing away beyond noise"
    assert _worth(30.0, average(half, half), True).startswith("the images add nothing beyond noise")
    found = average(third, most)
    part = (found.baseline - 30) / (found.current - 30)
    assert (
        _worth(30.0, found, True) == f"the texts alone bring {100 * part:.0f} % of what it gains on guessing"
    )


def test_nothing_of_an_image_reaches_a_blind_model(tmp_path: Path, benchmark: Benchmark) -> None:
    toy = Toy(sees_all)
    audit("blind", tmp_path, benchmark, toy)
    seen, blind = toy.groups[:36], toy.groups[36:]
    assert len(blind) == 36
    for group in blind:
        assert all(isinstance(part, str) for part in group.content) and not group.references
        assert group.query.digest == "blank" and len(group.query.pixels.getcolors() or []) == 1
        assert not any(prompt.contrastive for prompt in group.prompts)
    assert any(prompt.contrastive for group in seen for prompt in group.prompts)
    for one, other in zip(seen, blind, strict=True):  # the same words
        words = "".join(part for part in one.content if not isinstance(part, Picture))
        assert ("".join(map(str, other.content)), one.system) == (words, other.system)
        assert [prompt.text for prompt in one.prompts] == [prompt.text for prompt in other.prompts]


def test_questions_in_the_same_words_keep_answers_of_their_own(tmp_path: Path, benchmark: Benchmark) -> None:
    audit("blind", tmp_path, benchmark, Toy(reads_texts))
    _, answers = read_run(tmp_path / "audits/blind/no-images")
    _, base = read_run(tmp_path)
    assert [one.letter for one in answers["toy"]] == [one.letter for one in base["toy"]]


def test_a_model_that_cannot_do_without_an_image_is_not_judged(tmp_path: Path, benchmark: Benchmark) -> None:
    def habit(group: PromptGroup, prompt: Prompt) -> str:
        if not any(isinstance(part, Picture) for part in group.content):
            raise ValueError("this model wants an image")
        return "A"

    result = audit("blind", tmp_path, benchmark, Toy(habit), Toy(always_a))
    assert [row[0] for row in result.rows] == ["Other"] * 8
    assert result.sentence.endswith(
        "Toy is not judged: 108 of 108 questions failed in no-images, most of them because: "
        "ValueError: this model wants an image."
    )


# Repeat


def test_a_deterministic_model_never_flips(tmp_path: Path, benchmark: Benchmark) -> None:
    toy = Toy(sees_all)
    result = audit("repeat", tmp_path, benchmark, toy)
    assert len(toy.asked) == 2 * 108 and toy.loads == 2  # asked again, by a model loaded again
    assert toy.asked[:108] != toy.asked[108:] and sorted(toy.asked[:108]) == sorted(toy.asked[108:])
    found = result.figures["toy"]["flips"]["all"]
    assert found["flips"] == found["rate"]["value"] == 0 and 0 < found["rate"]["high"] < 20
    assert "changes none of its 108 answers" in result.sentence


def test_a_model_of_moods_flips(tmp_path: Path, benchmark: Benchmark) -> None:
    rng = random.Random(0)
    result = audit("repeat", tmp_path, benchmark, Toy(lambda group, prompt: drawn(prompt, rng.random())))
    found = result.figures["toy"]["flips"]["all"]
    assert 50 < found["rate"]["value"] < 90  # two guesses among two or four agree in a half or a quarter
    assert f"changes {found['flips']} of its 108 answers ({found['rate']['value']:.2f} %" in result.sentence
    noise = result.figures["toy"]["noise"]  # flips mostly cancel in an average
    assert 0 < noise < found["rate"]["value"] / 2
    assert f"the average moves by up to {noise:.2f} points" in result.sentence


def test_it_is_cut_otherwise_and_still_the_same_run(tmp_path: Path, benchmark: Benchmark) -> None:
    base = planned(tmp_path, benchmark, Toy(sees_all).spec(), labour=Labour(unit=8))
    (variant,) = AUDITS["repeat"].variants(base)
    assert variant.run.labour.unit == 5 and variant.run.items != base.items
    assert sorted(item.key for item in variant.run.items) == sorted(item.key for item in base.items)
    assert variant.run.benchmark.digest == base.benchmark.digest  # comparable, for it is the same


# Figures


def test_shares_know_that_images_stand_and_fall_together() -> None:
    hits = [place % 4 < 2 for place in range(400)]
    alone = share(hits, [str(place) for place in range(400)])
    together = share(hits, [str(place // 2) for place in range(400)])  # both questions of an image alike
    assert alone.value == together.value == 50
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(2**0.5, rel=0.05)
    sure = share([True] * 10, list("aabbccddee"))
    assert sure.value == sure.high == 100 and 50 < sure.low < 60  # Wilson's of five


def test_ratios_have_denominators_of_their_own() -> None:
    import numpy as np

    top = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    bottom = np.array([[1.0, 0.0], [1.0, 4.0], [1.0, 0.0], [1.0, 4.0]])
    (alone, _), _ = ratios(top, bottom, ["a", "a", "a", "a"])  # of one image nothing is known
    assert (alone.value, alone.low, alone.high) == (75, -100, 100)
    (one, other), _ = ratios(top, bottom, ["a", "b", "c", "d"])
    assert (one.value, other.value) == (75, 50) and other.low == other.high == 50

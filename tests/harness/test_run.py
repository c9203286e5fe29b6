from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from harness import BadInput, ExitCode, score
from harness.answers import read_answers
from harness.hookspecs import Benchmark, hookimpl
from harness.mmad import read_mmad
from harness.records import Outcome, PromptGroup, Response
from harness.run import execute, read_run
from harness.run_info import Labour
from tests.builders import paint, write_mmad
from tests.harness.scripted import Scripted, no_plugins, planned


@pytest.fixture
def benchmark(mmad_folder: Path) -> Benchmark:
    return read_mmad(mmad_folder)


def run(out: Path, benchmark: Benchmark, model: Scripted, **options):
    fresh = options.pop("fresh", False)
    return execute(planned(out, benchmark, model.spec(), **options), no_plugins(), fresh=fresh)


def test_every_question_is_answered_once_in_the_benchmarks_order(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    model = Scripted()
    result = run(tmp_path / "out", benchmark, model)
    answers = result.answers["scripted"]
    expected = [(item.key, q.number, q.answer) for item in benchmark.items for q in item.questions]
    assert [(a.key, a.number, a.correct) for a in answers] == expected
    assert len(model.asked) == len(set(model.asked)) == 108
    assert result.exit_code == ExitCode.OK and {a.outcome for a in answers} == {Outcome.ANSWERED}
    assert read_answers(tmp_path / "out/answers/scripted.json") == tuple(
        # the official format keeps neither tokens nor seconds
        a._replace(reason="", option_logprobs=None, prompt_tokens=0, completion_tokens=0, seconds=0.0)
        for a in answers
    )


def test_the_model_sees_no_path_and_each_pairs_groups_one_after_the_other(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    model = Scripted()
    run(tmp_path / "out", benchmark, model)
    digests = [group.query.digest for group in model.groups]
    assert len(digests) == 36  # 12 normal images with two groups, 12 anomalous ones with one
    runs = [d for i, d in enumerate(digests) if i == 0 or d != digests[i - 1]]
    assert len(runs) == len(set(digests)) == 24
    for group in model.groups:
        assert "mmad" not in repr((group.system, group.content, group.prompts)).lower().replace("'", "")
        assert "/good/" not in repr(group) and "/bad/" not in repr(group)


def test_a_second_run_answers_from_the_store_without_loading(tmp_path: Path, benchmark: Benchmark) -> None:
    first, second = Scripted(), Scripted()
    one = run(tmp_path / "out", benchmark, first)
    two = run(tmp_path / "out", benchmark, second)
    assert (first.loads, second.loads) == (1, 0)
    assert one.answers == two.answers
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["models"]["scripted"]["reused"] == 108
    third = Scripted()
    run(tmp_path / "out", benchmark, third, fresh=True)
    assert third.loads == 1 and len(third.asked) == 108


def test_the_manifest_counts_exact_work(tmp_path: Path, benchmark: Benchmark) -> None:
    run(tmp_path / "out", benchmark, Scripted())
    first = json.loads((tmp_path / "out/manifest.json").read_text())
    model = first["models"]["scripted"]
    assert first["status"] == "finished" and first["benchmark"]["digest"] == benchmark.digest
    assert (model["questions"], model["groups"], model["failed"], model["unparsed"]) == (108, 36, 0, 0)
    assert model["distinct_images"] == 24 + 6
    assert model["counters"]["groups"] == 36 and model["counters"]["suffix_tokens"] == 3 * 108
    assert model["counters"]["images_encoded"] == 24 * 2 + 12
    run(tmp_path / "out", benchmark, Scripted())
    again = json.loads((tmp_path / "out/manifest.json").read_text())
    assert again["models"]["scripted"]["counters"] == model["counters"]
    assert not list((tmp_path / "out").glob("*.partial")) + list((tmp_path / "out").glob(".*.partial"))


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_workers_change_nothing(tmp_path: Path, benchmark: Benchmark, workers: int) -> None:
    plain = run(tmp_path / "a", benchmark, Scripted(), labour=Labour(threads=2))
    other = run(tmp_path / "b", benchmark, Scripted(), labour=Labour(threads=workers))
    assert [a.letter for a in plain.answers["scripted"]] == [a.letter for a in other.answers["scripted"]]


def test_only_what_changed_is_asked_again(tmp_path: Path, benchmark: Benchmark, mmad_folder: Path) -> None:
    run(tmp_path / "out", benchmark, Scripted())
    paint(benchmark.items[1].image, 251)
    model = Scripted()
    run(tmp_path / "out", benchmark, model)
    assert len(model.asked) == len(benchmark.items[1].questions)
    paint(benchmark.items[0].similar_templates[0], 252)  # the reference of four pairs of one product
    model = Scripted()
    run(tmp_path / "out", benchmark, model)
    assert len(model.groups) == 4


def test_corrected_answers_are_scored_anew_without_asking(tmp_path: Path, benchmark: Benchmark) -> None:
    before = run(tmp_path / "out", benchmark, Scripted()).answers["scripted"]

    def correct(table, root):
        for entry in table.values():
            entry["conversation"][0]["Answer"] = "A"

    changed = read_mmad(write_mmad(tmp_path / "corrected", correct))
    model = Scripted()
    after = run(tmp_path / "out", changed, model).answers["scripted"]
    assert model.loads == 0
    assert [a.letter for a in after] == [a.letter for a in before]
    assert {a.correct for a in after if a.number == 0} == {"A"}


def test_another_protocol_in_the_same_folder_never_mixes(tmp_path: Path, benchmark: Benchmark) -> None:
    out = tmp_path / "out"
    run(out, benchmark, Scripted())
    other = Scripted()
    result = run(out, benchmark, other, protocol="mmad")
    assert len(other.asked) == 108 and len(result.answers["scripted"]) == 108
    limited = run(out, benchmark, Scripted(), limit=20)
    assert len(limited.answers["scripted"]) <= 20
    assert len(read_run(out)[1]["scripted"]) == len(limited.answers["scripted"])
    back = Scripted()
    run(out, benchmark, back)
    assert back.loads == 0


def test_other_weights_are_another_model(tmp_path: Path, benchmark: Benchmark) -> None:
    out = tmp_path / "out"
    execute(planned(out, benchmark, Scripted().spec()), no_plugins())
    other = Scripted()
    execute(planned(out, benchmark, other.spec(weights="2")), no_plugins())
    assert len(other.asked) == 108


def test_a_model_that_is_no_longer_asked_leaves_the_folder(tmp_path: Path, benchmark: Benchmark) -> None:
    out = tmp_path / "out"
    execute(planned(out, benchmark, Scripted().spec("one"), Scripted().spec("two")), no_plugins())
    assert {path.stem for path in (out / "answers").iterdir()} == {"one", "two"}
    execute(planned(out, benchmark, Scripted().spec("two")), no_plugins())
    assert {path.stem for path in (out / "answers").iterdir()} == {"two"}
    assert list(read_run(out)[1]) == ["two"]


def breaks_on(digests: set[str], error: BaseException):
    def before(group: PromptGroup) -> None:
        if group.query.digest in digests:
            raise error

    return before


def test_a_failing_group_is_counted_with_its_reason_and_asked_again(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    from harness.records import ImageFile

    digest = ImageFile(benchmark.items[0].image).digest

    class OutOfMemoryError(RuntimeError):
        """As torch names it."""

    model = Scripted(before=breaks_on({digest}, OutOfMemoryError("tried to allocate 2 GiB")))
    result = run(tmp_path / "out", benchmark, model)
    failed = [a for a in result.answers["scripted"] if a.outcome is Outcome.FAILED]
    assert {a.key for a in failed} == {benchmark.items[0].key} and len(failed) == 4
    assert {a.reason for a in failed} == {"OutOfMemoryError: tried to allocate 2 GiB"}
    assert result.failed_share["scripted"] == pytest.approx(4 / 108)
    assert result.exit_code == ExitCode.FAILED_ITEMS
    assert score(result.answers["scripted"]).n_unanswered == 4
    healed = Scripted()
    result = run(tmp_path / "out", benchmark, healed)
    assert len(healed.asked) == 4 and result.exit_code == ExitCode.OK


def test_max_failed_is_a_share(tmp_path: Path, benchmark: Benchmark) -> None:
    from harness.records import ImageFile

    broken = {ImageFile(benchmark.items[0].image).digest}
    for allowed, code in ((0.03, ExitCode.FAILED_ITEMS), (0.04, ExitCode.OK)):
        model = Scripted(before=breaks_on(broken, ValueError("x")))
        result = run(tmp_path / "out", benchmark, model, max_failed=allowed)
        assert result.exit_code == code


def test_a_broken_image_fails_its_questions_only(tmp_path: Path, benchmark: Benchmark) -> None:
    image = benchmark.items[3].image
    image.write_bytes(image.read_bytes()[:50])
    benchmark.items[5].image.unlink()
    model = Scripted()
    result = run(tmp_path / "out", benchmark, model)
    failed = {a.key: a.reason for a in result.answers["scripted"] if a.outcome is Outcome.FAILED}
    assert set(failed) == {benchmark.items[3].key, benchmark.items[5].key}
    assert "cannot be read" in failed[benchmark.items[3].key]
    assert "the image is missing" in failed[benchmark.items[5].key]
    paint(image, 7)
    paint(benchmark.items[5].image, 8)
    assert run(tmp_path / "out", benchmark, Scripted()).exit_code == ExitCode.OK


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_drive_that_fails_while_an_image_is_read_fails_its_questions_only(
    tmp_path: Path, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from harness.records import ImageFile

    load, victim = ImageFile.load, benchmark.items[3].image

    def failing(self: ImageFile):
        if self.path == victim:
            raise error
        return load(self)

    monkeypatch.setattr(ImageFile, "load", failing)
    result = run(tmp_path / "out", benchmark, Scripted())
    failed = [a for a in result.answers["scripted"] if a.outcome is Outcome.FAILED]
    assert {a.key for a in failed} == {benchmark.items[3].key}
    assert failed[0].reason.startswith(type(error).__name__)


def test_a_wrong_number_of_responses_is_a_failure(tmp_path: Path, benchmark: Benchmark) -> None:
    class Short(Scripted):
        def answer(self, group, decoding):
            return super().answer(group, decoding)[1:]

    result = run(tmp_path / "out", benchmark, Short())
    assert "responses to" in result.answers["scripted"][0].reason
    assert result.exit_code == ExitCode.FAILED_ITEMS


def test_a_bug_of_the_model_ends_the_run_and_keeps_what_is_stored(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    model = Scripted()

    def before(group: PromptGroup) -> None:
        if len(model.groups) == 10:
            raise AttributeError("a bug")

    model.before = before
    with pytest.raises(AttributeError):
        run(tmp_path / "out", benchmark, model)
    manifest, answers = read_run(tmp_path / "out")
    assert manifest["status"] == "running" and len(answers["scripted"]) == len(model.asked)
    rest = Scripted()
    run(tmp_path / "out", benchmark, rest)
    assert len(rest.asked) == 108 - len(model.asked)


def test_an_interrupt_keeps_what_is_stored(tmp_path: Path, benchmark: Benchmark) -> None:
    model = Scripted()

    def before(group: PromptGroup) -> None:
        if len(model.groups) == 20:
            raise KeyboardInterrupt

    model.before = before
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", benchmark, model)
    rest = Scripted()
    run(tmp_path / "out", benchmark, rest)
    assert Counter(model.asked + rest.asked).most_common(1)[0][1] == 1
    assert len(model.asked + rest.asked) == 108


def test_unparsed_and_strange_text_is_kept(tmp_path: Path, benchmark: Benchmark) -> None:
    model = Scripted(respond=lambda letter: Response("who knows \ud800 \0", 1, 1, truncated=True))
    result = run(tmp_path / "out", benchmark, model)
    answer = result.answers["scripted"][0]
    assert (answer.outcome, answer.letter) == (Outcome.UNPARSED, None)
    assert answer.text.startswith("who knows ?") and "token limit" in answer.reason
    assert result.exit_code == ExitCode.OK
    again = run(tmp_path / "out", benchmark, Scripted())
    assert again.answers == result.answers  # an unreadable answer is an answer


def test_logits_mode_reads_log_probabilities(tmp_path: Path, benchmark: Benchmark) -> None:
    model = Scripted(respond=lambda letter: Response("", 1, 1, {"A": -1.0, "B": -0.5, "C": -2.0, "D": -3.0}))
    result = run(tmp_path / "out", benchmark, model, mode="logits")
    assert {a.letter for a in result.answers["scripted"]} == {"B"}
    assert result.answers["scripted"][0].option_logprobs == {"A": -1.0, "B": -0.5, "C": -2.0, "D": -3.0}
    silent = run(tmp_path / "other", benchmark, Scripted(), mode="logits")
    assert "log-probability for option A, B" in silent.answers["scripted"][0].reason
    assert silent.exit_code == ExitCode.FAILED_ITEMS


def test_observers_are_told_in_order(tmp_path: Path, benchmark: Benchmark) -> None:
    told: list[str] = []

    class Observer:
        @hookimpl
        def emit_bench_run_started(self, run):
            told.append(json.loads((run.out / "manifest.json").read_text())["status"])

        @hookimpl
        def emit_bench_group_answered(self, run, answers):
            told.append(f"{answers[0].dataset} {len(answers)}")

        @hookimpl
        def emit_bench_run_finished(self, run):
            told.append(f"finished {len(read_run(run.out)[1]['scripted'])}")

    from importlib.metadata import EntryPoint

    from harness.plugins import Registry

    class Point(EntryPoint):
        def load(self):
            return Observer()

    registry = Registry([Point("watch", "x", "emit_bench")])
    execute(planned(tmp_path / "out", benchmark, Scripted().spec()), registry)
    assert told[0] == "running" and told[-1] == "finished 108"
    assert len(told) == 38 and told[1] == "DS-MVTec 1"


def test_weights_and_backends_are_checked(tmp_path: Path, benchmark: Benchmark) -> None:
    from dataclasses import replace

    with pytest.raises(BadInput, match="--weights other: this model is not among --models scripted"):
        planned(tmp_path, benchmark, Scripted().spec(), weights={"other": "x"})
    spec = replace(Scripted().spec(), backends=("vllm",))
    with pytest.raises(BadInput, match="does not run on the backend 'transformers'; pass --backend vllm"):
        planned(tmp_path, benchmark, spec)
    assert (
        planned(tmp_path, benchmark, Scripted().spec(), weights={"scripted": "x"})
        .requests["scripted"]
        .weights
        == "x"
    )


def test_products_without_knowledge_are_named(tmp_path: Path, mmad_folder: Path) -> None:
    (mmad_folder / "domain_knowledge.json").write_text('{"VisA": {"candle": {"good": "wax"}}}')
    benchmark = read_mmad(mmad_folder)
    assert "VisA/pcb1" in planned(tmp_path, benchmark, Scripted().spec()).without_knowledge
    assert "VisA/candle" not in planned(tmp_path, benchmark, Scripted().spec()).without_knowledge
    assert planned(tmp_path, benchmark, Scripted().spec(), protocol="mmad").without_knowledge == ()

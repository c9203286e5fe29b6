"""Audits as runs: where they are kept, what is asked again and what is not, and what the command prints."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness import BadInput, ExitCode
from harness.audits import AUDITS, AuditResult, read_results, select_audits
from harness.audits.conduct import as_text, conduct, plan_audit
from harness.audits.results import write_result
from harness.cli import run_cli
from harness.hookspecs import Benchmark, hookimpl
from harness.mmad import read_mmad
from harness.plugins import Registry
from harness.records import PromptGroup
from harness.run import execute, execute_all, read_run
from harness.source_files import read_source
from harness.sources import require_comparable
from tests.harness.audits.toys import Toy, always_a, audit, sees_all
from tests.harness.scripted import no_plugins, planned


@pytest.fixture
def benchmark(mmad_folder: Path) -> Benchmark:
    return read_mmad(mmad_folder)


def cli(*arguments: object) -> int:
    return run_cli(["run", "--models", "random-choice", *map(str, arguments)])


@pytest.mark.parametrize("name", list(AUDITS))
def test_an_interrupted_audit_goes_on_where_it_was(tmp_path: Path, benchmark: Benchmark, name: str) -> None:
    whole = audit(name, tmp_path / "whole", benchmark, Toy(sees_all))
    stopped = Toy(sees_all)
    calls = Counter[str]()

    def habit(group: PromptGroup, prompt: object) -> str:
        calls["all"] += 1
        if calls["all"] == 108 + 60:  # the run is done, the first variant is not
            raise KeyboardInterrupt
        return sees_all(group, prompt)  # type: ignore[arg-type]

    stopped.habit = habit
    with pytest.raises(KeyboardInterrupt):
        audit(name, tmp_path / "parts", benchmark, stopped)
    assert not (tmp_path / "parts/audits" / name / "result.json").exists()
    rest = Toy(sees_all)
    assert audit(name, tmp_path / "parts", benchmark, rest) == whole
    again = Toy(sees_all)
    assert audit(name, tmp_path / "parts", benchmark, again) == whole and again.loads == 0
    undisturbed = Toy(sees_all)
    audit(name, tmp_path / "once", benchmark, undisturbed)
    done = sum(len(group.prompts) for group in stopped.groups[:-1])  # all but the group in flight
    assert len(undisturbed.asked) == done + len(rest.asked)


def test_each_model_is_loaded_once_for_all_variants(tmp_path: Path, benchmark: Benchmark) -> None:
    toys = Toy(sees_all), Toy(always_a)
    audit("reference", tmp_path, benchmark, *toys)
    assert [toy.loads for toy in toys] == [2, 2]


def test_runs_that_decode_otherwise_are_not_executed_together(tmp_path: Path, benchmark: Benchmark) -> None:
    spec = Toy(always_a).spec()
    runs = [planned(tmp_path / mode, benchmark, spec, mode=mode) for mode in ("direct", "think")]
    with pytest.raises(ValueError, match="loads or decodes otherwise"):
        execute_all(runs, no_plugins())


def test_variants_of_a_sample_ask_what_the_sample_asked(tmp_path: Path, benchmark: Benchmark) -> None:
    base = planned(tmp_path, benchmark, Toy(sees_all).spec(), limit=30)
    asked = {(item.key, one.number) for item in base.items for one in item.questions}
    for one in AUDITS.values():
        for variant in plan_audit(one, base).variants:
            found = {(item.key, q.number) for item in variant.run.items for q in item.questions}
            assert found and found <= asked


def test_no_observer_is_told_of_a_variant(tmp_path: Path, benchmark: Benchmark) -> None:
    told = []

    class Observer:
        @hookimpl
        def emit_bench_run_started(self, run):
            told.append(run.out)

        @hookimpl
        def emit_bench_run_finished(self, run):
            told.append(run.out)

    class Point(EntryPoint):
        def load(self):
            return Observer()

    registry = Registry([Point("watch", "x", "emit_bench")])
    base = planned(tmp_path, benchmark, Toy(sees_all).spec())
    conduct(plan_audit(AUDITS["blind"], base), execute(base, registry), registry)
    assert told == [tmp_path, tmp_path]


def test_nobody_compares_a_variant_with_the_run_by_accident(tmp_path: Path, benchmark: Benchmark) -> None:
    for name in AUDITS:
        audit(name, tmp_path, benchmark, Toy(sees_all))
    base = read_source(tmp_path)
    folders = [path.parent for path in tmp_path.glob("audits/*/*/manifest.json")]
    assert len(folders) == 3 + 4 + 1 + 1
    for folder in folders:
        if folder.name == "reordered":  # it asks the same
            require_comparable(base, read_source(folder))
        else:
            with pytest.raises(BadInput, match="differs"):
                require_comparable(base, read_source(folder))


def test_results_of_another_run_in_the_folder_are_not_read(tmp_path: Path, benchmark: Benchmark) -> None:
    assert read_results(tmp_path) == []
    result = audit("blind", tmp_path, benchmark, Toy(sees_all))
    assert read_results(tmp_path) == [result]
    execute(planned(tmp_path, benchmark, Toy(always_a).spec("other")), no_plugins())
    assert read_results(tmp_path) == []
    base = planned(tmp_path, benchmark, Toy(sees_all).spec())
    execute(base, no_plugins())
    assert read_results(tmp_path) == [result]  # the run is there again
    execute(base, no_plugins(), fresh=True)
    assert not (tmp_path / "audits").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "no audit's result of format 1"),
        ({"sentence": None}, "sentence is missing or of the wrong kind"),
        ({"rows": [["a"]]}, "its rows are no table"),
        ({"rows": [[{}] * 8]}, "its rows are no table"),
    ],
)
def test_a_broken_result_is_one_sentence(
    tmp_path: Path, benchmark: Benchmark, change: dict[str, object], sentence: str
) -> None:
    audit("blind", tmp_path, benchmark, Toy(sees_all))
    file = tmp_path / "audits/blind/result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(BadInput, match=rf"result\.json: .*{sentence}"):
        read_results(tmp_path)


def test_a_result_as_text(tmp_path: Path) -> None:
    rows = (
        ("Toy", "Left", 1.0, None, 1234),
        ("Toy", "Right", 12.345, "+1.00", 2),
        ("Other", "Left", 0.0, "", 3),
    )
    result = AuditResult("x", "Things", "All is well.", ("Model", "Side", "Score", "Change", "n"), rows, 3)
    assert as_text(result).splitlines() == [
        "Audit x: Things",
        "",
        "Model  Side   Score  Change      n",
        "Toy    Left    1.00       -  1,234",
        "       Right  12.35   +1.00      2",
        "Other  Left    0.00              3",
        "",
        "All is well.",
    ]


def test_names_are_chosen_with_commas_and_all() -> None:
    assert [one.name for one in select_audits(["blind,repeat", "blind"])] == ["blind", "repeat"]
    assert [one.name for one in select_audits(["all"])] == list(AUDITS)
    assert select_audits([]) == ()
    with pytest.raises(BadInput, match="there is no audit 'blnd'; did you mean blind"):
        select_audits(["blnd"])


def test_the_command_prints_what_each_audit_found(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ("--data", mmad_folder, "--out", out, "--limit", 60)
    assert cli(*command, "--audit", "positions,blind", "--audit", "repeat") == ExitCode.OK
    said = capsys.readouterr().out
    places = [said.index(f"Audit {name}: ") for name in ("positions", "blind", "repeat")]
    assert places == sorted(places) and said.index("Average") < places[0]
    assert "Random choice changes none of its" in " ".join(said.split())
    assert f"{out}/audits/blind/result.json" in said
    assert [one.audit for one in read_results(out)] == ["blind", "positions", "repeat"]
    assert cli(*command, "--audit", "positions", "--format", "json") == ExitCode.OK
    (found,) = json.loads(capsys.readouterr().out)["audits"]
    assert found["audit"] == "positions" and len(found["rows"][0]) == len(found["columns"])
    assert cli(*command, "--format", "json") == ExitCode.OK
    assert "audits" not in json.loads(capsys.readouterr().out)


def test_what_cannot_be_audited_ends_before_the_run(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("--data", mmad_folder, "--out", tmp_path / "run", "--shots", 0)
    assert cli(*command, "--audit", "all") == ExitCode.USAGE
    assert "leave the audit out, or pass --shots 1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_model_that_fails_in_a_variant_fails_the_command(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = read_mmad(mmad_folder)
    for item in benchmark.items:
        if "/bad/000" in item.key or "/bad/001" in item.key:
            image = item.random_templates[0]
            image.write_bytes(b"no image")
    command = ("--data", mmad_folder, "--out", tmp_path / "run")
    assert cli(*command, "--audit", "reference") == ExitCode.FAILED_ITEMS
    captured = capsys.readouterr()
    assert "audit reference: Random choice is not judged: 72 of 72 questions failed in random" in captured.err
    assert "is not judged" in " ".join(captured.out.split())
    assert len(read_run(tmp_path / "run")[1]["random-choice"]) == 108


def test_a_written_result_is_read_as_it_was(tmp_path: Path, benchmark: Benchmark) -> None:
    execute(planned(tmp_path, benchmark, Toy(always_a).spec()), no_plugins())
    result = AuditResult(
        "mine", "T", "S.", ("Model", "x"), (("Toy", 1.5), ("Toy", None)), 3, {"toy": {"a": [1]}}
    )
    write_result(tmp_path, result)
    assert read_results(tmp_path) == [result]

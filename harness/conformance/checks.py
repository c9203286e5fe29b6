"""The checks. Each is about one promise of ``docs/plugins.md``, and says which was broken."""

from __future__ import annotations

import gc
import json
import multiprocessing
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.conformance import groups as fixed
from harness.extraction import read_letter
from harness.hookspecs import ModelSpec
from harness.plugins import Registry, load_model, load_registry
from harness.records import (
    MODES,
    Decoding,
    GroupResult,
    LoadRequest,
    Mode,
    Model,
    Outcome,
    PromptGroup,
    Response,
)

#: Log-probabilities that rounding may move: half precision on a GPU, and batches of other shapes.
_ROUNDING = {"auto": 0.1, "float32": 1e-3}
_TOKENS = {"direct": 8, "think": 24, "logits": 1}


@dataclass(frozen=True)
class Subject:
    """The model under test, and how it is loaded."""

    spec: ModelSpec
    request: LoadRequest
    modes: tuple[Mode, ...] = MODES
    registry: Registry = field(default_factory=load_registry)

    def load(self, **changes: Any) -> Model:
        """The model, loaded anew; ``changes`` replace fields of the request."""
        return load_model(self.spec, replace(self.request, **changes), self.registry)


def decoding(mode: Mode, **changes: Any) -> Decoding:
    """A short greedy answer in a mode."""
    return replace(Decoding(mode, _TOKENS[mode]), **changes)


def ask(model: Model, units: Sequence[Sequence[PromptGroup]], how: Decoding) -> dict[str, GroupResult]:
    """Results by group; asserts that each group that was asked came back once."""
    found: dict[str, GroupResult] = {}
    for results in model.stream(units, how):
        for result in results:
            assert result.id not in found, f"group {result.id} came back twice"
            found[result.id] = result
    wanted = {group.id for unit in units for group in unit}
    assert set(found) == wanted, f"asked {sorted(wanted)}, and {sorted(found)} came back"
    for unit in units:
        for group in unit:
            result = found[group.id]
            assert not result.reason, f"group {group.id} failed: {result.reason}"
            assert len(result.responses) == len(group.prompts), (
                f"{len(result.responses)} responses to {len(group.prompts)} questions"
            )
    return found


def one_by_one(model: Model, how: Decoding) -> dict[str, GroupResult]:
    """The fixed groups, each a unit of its own."""
    return ask(model, [(group,) for group in fixed.groups()], how)


def same(
    first: Mapping[str, GroupResult], second: Mapping[str, GroupResult], rounding: float, why: str
) -> None:
    """Assert that two sets of results agree: texts exactly, log-probabilities to rounding."""
    for name, result in first.items():
        for number, (one, other) in enumerate(zip(result.responses, second[name].responses, strict=True)):
            where = f"{why}; group {name}, question {number}"
            assert one.text == other.text, f"{where}: {one.text!r} and {other.text!r}"
            assert one.prompt_tokens == other.prompt_tokens, f"{where}: prompts of other lengths"
            for letter, chance in (one.option_logprobs or {}).items():
                assert other.option_logprobs is not None, f"{where}: log-probabilities in one of them only"
                assert other.option_logprobs[letter] == pytest.approx(chance, abs=rounding), where


class ConformanceChecks:
    """What a model plugin promises. Needs a fixture ``subject`` that gives a :class:`Subject`."""

    @pytest.fixture
    def model(self, subject: Subject) -> Iterator[Model]:
        """The model, loaded as the subject says."""
        loaded = subject.load()
        yield loaded
        loaded.close()

    @pytest.fixture
    def rounding(self, subject: Subject) -> float:
        """How far log-probabilities may lie apart."""
        on_cpu = subject.request.device == "cpu" and subject.request.dtype in ("auto", "float32")
        return _ROUNDING["float32" if on_cpu else "auto"]

    @pytest.mark.parametrize("mode", MODES)
    def test_answers_in_every_mode(self, subject: Subject, model: Model, mode: Mode) -> None:
        """One response a prompt; in ``logits`` mode with a log-probability for every option."""
        if mode not in subject.modes:
            pytest.skip(f"{subject.spec.id} does not support mode {mode}")
        results = one_by_one(model, decoding(mode))
        for group in fixed.groups():
            for prompt, response in zip(group.prompts, results[group.id].responses, strict=True):
                assert isinstance(response, Response)
                assert min(response.prompt_tokens, response.completion_tokens) >= 0
                letter = read_letter(response.text, response.option_logprobs, prompt.options, mode)
                assert letter is None or letter in prompt.options
                if mode == "logits":
                    assert response.option_logprobs is not None
                    assert set(response.option_logprobs) >= set(prompt.options)
                    assert max(response.option_logprobs.values()) <= 0

    def test_a_shared_prefix_changes_nothing(self, subject: Subject, model: Model, rounding: float) -> None:
        """Questions answered together say what they say with nothing shared."""
        unshared = subject.load(share_prefix=False)
        try:
            for mode in subject.modes:
                how = decoding(mode)
                same(one_by_one(model, how), one_by_one(unshared, how), rounding, "sharing changes answers")
            off = model.counters().get("sharing_turned_off", 0)
            assert not off, "sharing changes answers, and the model's own check turned it off"
        finally:
            unshared.close()

    def test_units_change_nothing(self, subject: Subject, model: Model, rounding: float) -> None:
        """Groups computed together say what they say one by one."""
        for mode in subject.modes:
            how = decoding(mode)
            together = ask(model, [fixed.groups()], how)
            same(together, one_by_one(model, how), rounding, "the size of a batch changes answers")

    def test_order_changes_nothing(self, subject: Subject, model: Model, rounding: float) -> None:
        """Neither other groups before nor the order of a group's prompts changes an answer."""
        how = decoding(subject.modes[0])
        straight = one_by_one(model, how)
        turned = [replace(group, prompts=group.prompts[::-1]) for group in fixed.groups()[::-1]]
        found = ask(model, [(group,) for group in turned], how)
        back = {name: GroupResult(name, result.responses[::-1]) for name, result in found.items()}
        same(straight, back, rounding, "the order of questions changes answers")

    def test_names_decide_nothing(self, subject: Subject, model: Model, rounding: float) -> None:
        """A model is blind: pixels and texts decide a greedy answer, not what a group is called.

        A model that draws by a prompt's id is exempt: those stay.
        """
        how = decoding(subject.modes[0])
        named = [replace(group, id=f"other-{number}") for number, group in enumerate(fixed.groups())]
        found = ask(model, [(group,) for group in named], how)
        renamed = {group.id: found[f"other-{number}"] for number, group in enumerate(fixed.groups())}
        same(one_by_one(model, how), renamed, rounding, "the name of a group changes answers")

    def test_what_was_seen_before_changes_nothing(
        self, subject: Subject, model: Model, rounding: float
    ) -> None:
        """Features and prefixes that are kept must not be taken for those of another image or text."""
        how = decoding(subject.modes[0])
        first = one_by_one(model, how)
        # The same texts and names with other images, and the same images in each other's place.
        asked = fixed.pair(0)
        other = replace(asked, content=fixed.pair(3).content, query=fixed.pair(3).query)
        turned = replace(asked, content=tuple(reversed(asked.content[:-1])))
        for between in (other, turned):
            ask(model, [(between,)], how)
        same(first, one_by_one(model, how), rounding, "other questions in between change answers")

    def test_a_seed_repeats_its_draws(self, subject: Subject, model: Model) -> None:
        """At a temperature, the seed decides: the same draws the same, in any company."""
        mode: Mode = "think" if "think" in subject.modes else "direct"
        warm = decoding(mode, temperature=1.0, seed=1)
        try:
            first = one_by_one(model, warm)
        except AssertionError as error:
            if "temperature" in str(error):
                pytest.skip(f"{subject.spec.id} answers greedily only")
            raise
        same(first, one_by_one(model, warm), 1.0, "the same seed draws otherwise")
        same(first, ask(model, [fixed.groups()], warm), 1.0, "company changes what a seed draws")
        hot = [one_by_one(model, replace(warm, temperature=5.0, seed=seed)) for seed in range(2, 6)]
        drawn = {
            tuple(response.text for result in found.values() for response in result.responses)
            for found in hot
        }
        if len(drawn) == 1:
            cold = one_by_one(model, decoding(mode))
            same(cold, hot[0], 1.0, "other seeds draw the same, which is not the greedy answer")
            pytest.skip(f"{subject.spec.id} answers greedily at any temperature")

    def test_the_fingerprint_is_plain_and_stable(self, subject: Subject) -> None:
        """It is asked before loading, goes into a JSON file, and two calls agree."""
        first, second = (subject.spec.fingerprint(subject.request) for _ in range(2))
        assert first, "an empty fingerprint finds the answers of other weights"
        assert json.dumps(dict(first), sort_keys=True) == json.dumps(dict(second), sort_keys=True)

    def test_counters_only_grow(self, subject: Subject, model: Model) -> None:
        """Whole numbers that never fall: their differences are stored with each group."""
        before = dict(model.counters())
        one_by_one(model, decoding(subject.modes[0]))
        after = dict(model.counters())
        for name, count in after.items():
            assert isinstance(count, int) and not isinstance(count, bool), f"{name} is {count!r}"
            assert count >= before.get(name, 0) >= 0, f"{name} fell from {before.get(name)} to {count}"

    def test_a_run_accounts_for_every_question(self, subject: Subject, tmp_path: Path) -> None:
        """Through the whole harness: every question has an outcome, and a second run asks none."""
        from harness.benchmarks import load_benchmark
        from harness.run import execute, plan_run, read_run

        benchmark = load_benchmark(fixed.write_benchmark(tmp_path / "data"))
        protocol = subject.registry.protocols["emit"].with_options(mode=subject.modes[0])
        plan = plan_run(
            out=tmp_path / "run",
            benchmark=benchmark,
            protocol=protocol,
            models=(subject.spec,),
            request=replace(subject.request, weights=None),
            weights={subject.spec.id: subject.request.weights} if subject.request.weights else {},
        )
        plan = replace(plan, requests={subject.spec.id: subject.request})
        for reused in (0, 8):
            execute(plan, subject.registry)
            manifest, answers = read_run(plan.out)
            outcomes = [answer.outcome for answer in answers[subject.spec.id]]
            assert len(outcomes) == 8
            assert Outcome.FAILED not in outcomes, answers[subject.spec.id]
            counted = manifest["models"][subject.spec.id]
            assert counted["unparsed"] == outcomes.count(Outcome.UNPARSED)
            assert counted["reused"] == reused, "the second run must find every answer of the first"

    def test_stopping_is_clean(self, subject: Subject) -> None:
        """Who stops listening after the first answer leaves no thread behind; the model can still answer."""
        threads = threading.active_count()
        model = subject.load()
        how = decoding(subject.modes[0])
        stream = model.stream(iter([(group,) for group in fixed.groups() * 3]), how)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        again = ask(model, [(fixed.pair(0),)], how)
        assert again["pair-0"].responses
        model.close()
        del model, stream
        deadline = time.monotonic() + 3
        while threading.active_count() > threads and time.monotonic() < deadline:
            time.sleep(0.05)
        children = multiprocessing.active_children()
        assert not children, f"processes are left: {children}"
        left = [thread.name for thread in threading.enumerate()]
        assert threading.active_count() <= threads, f"threads are left: {left}"

    def test_closing_gives_memory_back(self, subject: Subject) -> None:
        """Models of one run are loaded one after the other, so a closed one may keep nothing large."""
        before = 0
        for attempt in range(4):
            model = subject.load()
            ask(model, [fixed.groups()], decoding(subject.modes[0]))
            gone = weakref.ref(model)
            model.close()
            del model
            gc.collect()
            assert gone() is None, "something still holds the closed model"
            if attempt == 1:  # by then, what a library loads once is there
                before = _memory()
        grown = _memory() - before
        assert grown < 64 << 20, f"two more loads left {grown >> 20} MiB behind"


def _memory() -> int:
    """Bytes that this process holds, on the GPU where there is one in use."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0  # another system: nothing to compare
    import resource

    return pages * resource.getpagesize()

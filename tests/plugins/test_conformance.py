"""Every built-in model passes the suite that plugin authors run, on tiny checkpoints of its own class.

And the suite can fail: models that break one promise each are caught by the check of that promise.
"""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.conformance.checks import ConformanceChecks, Subject
from harness.errors import BadInput
from harness.hookspecs import ModelSpec
from harness.plugins import load_model, load_registry
from harness.records import Decoding, LoadRequest, Model, PromptGroup, Response
from plugins.families import glm4_1v, mimo_vl
from tests import families

#: Model -> the tiny checkpoint that stands in for its weights; those not named have weights in the package.
CHECKPOINTS = {
    "qwen2.5-vl": "qwen2_5_vl",
    "anomalyr1": "qwen2_5_vl",
    "mimo-vl": "qwen2_5_vl",
    "glm-4.1v": "glm4v",
    "llava-onevision": "llava_onevision",
    "llava-next-interleave": "llava_interleave",
    "pixtral": "pixtral",
    "gemma-3": "gemma3",
    "kimi-vl": "kimi_vl",
}
#: One of each kind; the others are the same class with other weights, and two of them take a training first.
OTHERS = ("emit", "internvl3-base", "random-choice")
#: Only behind a server: see tests/plugins/server.
ELSEWHERE = frozenset({"served"})
#: transformers has no class for it; here the repository's own code stands behind tests/families.py's.
REMOTE_CODE = {
    "configuration_kimi_vl.py": """
from transformers import LlavaConfig

class KimiVLConfig(LlavaConfig):
    model_type = "kimi_vl"
""",
    "modeling_kimi_vl.py": """
from transformers import LlavaForConditionalGeneration
from .configuration_kimi_vl import KimiVLConfig

class KimiVLForConditionalGeneration(LlavaForConditionalGeneration):
    config_class = KimiVLConfig
""",
}


def write_kimi(folder: Path) -> Path:
    """A checkpoint whose class comes with it, as Kimi-VL's does."""
    model, parts = families.build("llava_interleave")
    model.save_pretrained(folder, save_original_format=False)  # its class has no older names to know
    parts.save_pretrained(folder)
    for name, source in REMOTE_CODE.items():
        (folder / name).write_text(source)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "kimi_vl"
    config["auto_map"] = {
        "AutoConfig": "configuration_kimi_vl.KimiVLConfig",
        "AutoModelForCausalLM": "modeling_kimi_vl.KimiVLForConditionalGeneration",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny checkpoints by name, each written once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def find(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            write_kimi(folder) if name == "kimi_vl" else families.save(folder, name)
        return folder

    return find


#: Models that think unasked get room for a thousand tokens, which a tiny one would fill with nonsense.
BRIEF = {
    one.MODEL.id: replace(one.MODEL, chat=replace(one.MODEL.chat, room={"direct": 12, "think": 12}))
    for one in (glm4_1v, mimo_vl)
}


class TestBuiltIns(ConformanceChecks):
    @pytest.fixture(params=(*OTHERS, *CHECKPOINTS))
    def subject(self, request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Subject:
        name = request.param
        wanted = LoadRequest(world="mini", device="cpu", trust_remote_code=name == "kimi-vl")
        if name in CHECKPOINTS:
            wanted = replace(wanted, weights=str(checkpoint(CHECKPOINTS[name])))
        return Subject(BRIEF[name].spec() if name in BRIEF else load_registry().models[name], wanted)


def test_no_built_in_is_left_out() -> None:
    models = load_registry().models
    checked = {*OTHERS, *CHECKPOINTS, *ELSEWHERE}
    alike = {"emit", "internvl3"}  # families with several sets of weights
    assert {spec.id for spec in models.values() if spec.family not in alike} <= checked


def test_kimi_runs_no_code_of_others_unasked(checkpoint: Callable[[str], Path]) -> None:
    spec = load_registry().models["kimi-vl"]
    wanted = LoadRequest(world="real", device="cpu", weights=str(checkpoint("kimi_vl")))
    with pytest.raises(BadInput, match="has no class in transformers: pass --backend vllm, --backend server"):
        load_model(spec, wanted, load_registry())


def test_code_that_may_run_is_part_of_what_decides(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    spec, folder = load_registry().models["kimi-vl"], tmp_path / "kimi"
    shutil.copytree(checkpoint("kimi_vl"), folder)
    wanted = LoadRequest(world="real", device="cpu", weights=str(folder), trust_remote_code=True)
    first = spec.fingerprint(wanted)
    with (folder / "modeling_kimi_vl.py").open("a") as code:
        code.write("# another line\n")
    assert spec.fingerprint(wanted)["weights"] != first["weights"]
    for change in ({"quantize": "nf4"}, {"adapter": str(folder)}, {"resources": {"device_map": "auto"}}):
        with pytest.raises(BadInput, match=r"runs by its own code, which takes none|no adapter_config"):
            spec.load(replace(wanted, **change))


# Models that break promises.


class Honest(Model):
    """Keeps every promise; its answers come from pixels, texts and seeds."""

    def __init__(self, request: LoadRequest) -> None:
        self.request = request
        self.seen = 0

    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        drawn = f"{group.query.digest}{text}"
        drawn += f"{decoding.seed}" if decoding.temperature else ""
        return letters[hashlib.sha256(drawn.encode()).digest()[0] % len(letters)]

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        self.seen += 1
        said = []
        for prompt in group.prompts:
            letter = self.choose(group, prompt.text, tuple(prompt.options), decoding)
            scores = {name: -0.1 if name == letter else -3.0 for name in prompt.options}
            said.append(Response(letter, 5, 1, scores))
        return said

    def counters(self) -> Mapping[str, int]:
        return {"groups": self.seen}


class Forgetful(Honest):
    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        return super().answer(group, decoding)[1:]


class Sharing(Honest):
    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        return super().choose(group, text + str(self.request.share_prefix), letters, decoding)


class Batched(Honest):
    def stream(self, units: Any, decoding: Decoding) -> Iterator[Any]:
        for unit in units:
            self.size = len(unit)
            yield [self.try_answer(group, decoding) for group in unit]

    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        return super().choose(group, text + str(self.size), letters, decoding)


class Ordered(Honest):
    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        self.turn = getattr(self, "turn", 0) + 1
        return letters[self.turn % len(letters)]


class Peeking(Honest):
    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        return super().choose(group, text + group.id, letters, decoding)


class Confused(Honest):
    """Takes the first images it saw with a text for all later ones."""

    def __init__(self, request: LoadRequest) -> None:
        super().__init__(request)
        self.kept: dict[str, str] = {}

    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        self.kept[f"{group.id}{text}"] = known = self.kept.get(f"{group.id}{text}", "") + "x"
        return super().choose(group, text + known[:2], letters, decoding)


class Restless(Honest):
    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        seed = str(time.perf_counter_ns()) if decoding.temperature else ""
        return super().choose(group, text + seed, letters, decoding)


class Shrinking(Honest):
    def counters(self) -> Mapping[str, int]:
        return {"groups": 100 - self.seen}


class Silent(Honest):
    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        if group.references and "plate with three holes" in str(group.content):
            raise ValueError("knowledge is too much")
        return super().answer(group, decoding)


class Threaded(Honest):
    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        threading.Thread(target=time.sleep, args=(60,), daemon=True, name="stray").start()
        return super().answer(group, decoding)


class Fixed(Honest):
    def choose(self, group: PromptGroup, text: str, letters: Sequence[str], decoding: Decoding) -> str:
        kept = replace(decoding, seed=0)  # draws, and always the same
        return super().choose(group, text, letters, kept)


class Kept(Honest):
    models: list[Honest] = []  # noqa: RUF012 - shared on purpose: it outlives every model

    def __init__(self, request: LoadRequest) -> None:
        super().__init__(request)
        self.models.append(self)


class Greedy(Honest):
    kept: list[bytearray] = []  # noqa: RUF012 - shared on purpose: it outlives every model

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        self.kept.append(bytearray(b"x" * (40 << 20)))
        return super().answer(group, decoding)


def run_check(kind: type[Honest], name: str, tmp_path: Path, **prints: Any) -> None:
    """One check on one model, as pytest would."""
    fingerprint = prints or {"w": 1}
    spec = ModelSpec("bad", "Bad", "t", "-", kind, lambda request: fingerprint, backends=())
    subject = Subject(spec, LoadRequest(world="mini", device="cpu"))
    checks: Any = ConformanceChecks()
    check = getattr(checks, name)
    known = {
        "subject": subject,
        "model": subject.load(),
        "rounding": 1e-3,
        "mode": "direct",
        "tmp_path": tmp_path,
    }
    wanted = check.__code__.co_varnames[1 : check.__code__.co_argcount]
    check(**{argument: known[argument] for argument in wanted})


BROKEN = [
    (Forgetful, "test_answers_in_every_mode", "failed: RuntimeError: the model gave 2 responses to 3"),
    (Sharing, "test_a_shared_prefix_changes_nothing", "sharing changes answers"),
    (Batched, "test_units_change_nothing", "the size of a batch changes answers"),
    (Ordered, "test_order_changes_nothing", "the order of questions changes answers"),
    (Peeking, "test_names_decide_nothing", "the name of a group changes answers"),
    (Confused, "test_what_was_seen_before_changes_nothing", "other questions in between change answers"),
    (Restless, "test_a_seed_repeats_its_draws", "the same seed draws otherwise"),
    (Fixed, "test_a_seed_repeats_its_draws", "other seeds draw the same"),
    (Kept, "test_closing_gives_memory_back", "something still holds the closed model"),
    (Shrinking, "test_counters_only_grow", "groups fell from 100"),
    (Silent, "test_a_run_accounts_for_every_question", "FAILED"),
    (Threaded, "test_stopping_is_clean", "threads are left: .*stray"),
    (Greedy, "test_closing_gives_memory_back", "MiB behind"),
]


@pytest.mark.parametrize(("kind", "name", "said"), BROKEN, ids=[kind.__name__ for kind, _, _ in BROKEN])
def test_a_broken_promise_is_caught_by_its_check(
    kind: type[Honest], name: str, said: str, tmp_path: Path
) -> None:
    gc.collect()  # memory that others leave would hide what is left here
    run_check(Honest, name, tmp_path / "honest")
    with pytest.raises(AssertionError, match=said):
        run_check(kind, name, tmp_path / "broken")
    Greedy.kept.clear()
    Kept.models.clear()


def test_an_empty_fingerprint_is_caught(tmp_path: Path) -> None:
    subject = Subject(
        ModelSpec("bad", "Bad", "t", "-", Honest, lambda request: {}, backends=()), LoadRequest(world="mini")
    )
    with pytest.raises(AssertionError, match="an empty fingerprint"):
        ConformanceChecks().test_the_fingerprint_is_plain_and_stable(subject)


def test_the_suite_runs_from_the_command_line(tmp_path: Path) -> None:
    """As a plugin's author calls it, in a folder with tests of its own that are not run."""
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert False\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--emit-conformance"]
    done = subprocess.run(
        [*command, "random-choice"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 passed, 1 skipped" in done.stdout  # a guess has no temperature
    wrong = subprocess.run(
        [*command, "random-chance"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 4
    assert "there is no model 'random-chance'; did you mean random-choice" in wrong.stdout + wrong.stderr

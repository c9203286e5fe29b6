"""Questions a second: this harness against the published scripts' way, and the floor under both.

``python -m tests.performance.evaluation`` prints the table of ``docs/performance.md``. All ways answer the
same questions of the mini benchmark with the same model in one process and one thread, in turn, several times
over; times are of the processor, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from harness import load_benchmark
from harness.plugins import load_registry
from harness.records import Decoding, LoadRequest, PlannedGroup
from harness.work import Asked, Worker
from plugins.checkpoint import tiled
from plugins.engine.model import SharedPrefixModel
from plugins.families.internvl3 import BASE
from tests.performance.official_way import OfficialWay

UNIT = 8
Way = Callable[[], tuple[list[str], dict[str, int]]]  #: answers to all questions, and exact counts of work


@dataclass(frozen=True)
class Scene:
    """Who is asked, and what."""

    model: Any
    processor: Any
    images: dict[str, Any]
    groups: tuple[PlannedGroup, ...]

    @property
    def questions(self) -> int:
        return sum(len(group.prompts) for group in self.groups)

    def engine(self, **options: Any) -> SharedPrefixModel:
        """This harness's model, with an empty cache."""
        return SharedPrefixModel(self.model, self.processor, images=self.images, **options)


@dataclass(frozen=True)
class Measured:
    """One way, several times over."""

    seconds: float  #: of the processor; the fastest time
    said: list[str]
    counts: dict[str, int]


def scene(pairs: int, tiles: int = 4, texts: int = 5) -> Scene:
    """The mini base model on prompts in MMAD's proportions: two images, knowledge, 4 or 5 questions.

    Args:
        pairs: image pairs, spread over all products.
        tiles: that an image is cut into, the whole image aside; MMAD's are 2 to 6.
        texts: how often the knowledge is told: MMAD's is several times longer than the mini world's.
    """
    torch.set_num_threads(1)
    benchmark = load_benchmark("mini")
    protocol = replace(load_registry().protocols["mmad"], knowledge="all", mode="direct")
    loaded = BASE.spec().load(LoadRequest(world="mini", device="cpu"))
    assert isinstance(loaded, SharedPrefixModel)
    step = len(benchmark.items) // pairs
    knowledge = {
        dataset: {
            name: {f"{key} {number}": text for number in range(texts) for key, text in told.items()}
            for name, told in objects.items()
        }
        for dataset, objects in benchmark.knowledge.items()
    }
    groups = [group for item in benchmark.items[::step][:pairs] for group in protocol.plan(item, knowledge)]
    assert len(groups) == pairs  # all questions of an image share its prompt
    return Scene(loaded.model, loaded.processor, tiled(tiles), tuple(groups))


def official(where: Scene, decoding: Decoding) -> tuple[list[str], dict[str, int]]:
    """Each question alone."""
    way = OfficialWay(where.model, where.processor, where.images)
    return way.letters(where.groups, decoding), way.counts


def ours(where: Scene, decoding: Decoding) -> tuple[list[str], dict[str, int]]:
    """The way of ``emit-bench run``, from files to responses."""
    engine = where.engine()
    asked = [Asked(str(number), group) for number, group in enumerate(where.groups)]
    units = (tuple(asked[start : start + UNIT]) for start in range(0, len(asked), UNIT))
    found: dict[str, list[str]] = {}
    for finished in Worker(lambda: engine, decoding, 1).run(units):
        for result in finished.results:
            found[result.id] = [response.text for response in result.responses]
    return [text for one in asked for text in found[one.id]], dict(engine.counters())


def floor(where: Scene, decoding: Decoding) -> Way:
    """What no way can do without: each image once through the tower, each prefix and its suffixes through
    the language model. Pixels and ids are made before the clock starts."""
    engine = where.engine()
    loaded = [group.load(str(number)) for number, group in enumerate(where.groups)]
    prepared: dict[str, Any] = {}
    for group in loaded:
        prepared |= engine._prepare(group)[1]

    @torch.inference_mode()
    def run() -> tuple[list[str], dict[str, int]]:
        features = {key: engine.wiring.encode(image) for key, image in prepared.items()}
        for group in loaded:
            planned = planned_with(engine, group, features)
            shared = planned.tokens.shared
            rows = [engine._suffix(row, shared) for row in engine._rows(planned)]
            prefix = engine._prefill(engine._rows(planned)[0], shared)
            engine.decoder.decode([prefix], [rows], replace(decoding, mode="logits"))
        return [], {}

    return run


def planned_with(engine: SharedPrefixModel, group: Any, features: dict[str, Any]) -> Any:
    """A group's plan with images that are encoded already."""
    for key, image in features.items():
        engine.cache.get(key, lambda image=image: image, lambda one: one.tensors)
    return engine._plan(group, Decoding("direct", 1), {})


def measure(ways: dict[str, Way], repeats: int) -> dict[str, Measured]:
    """Run the ways in turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, tuple[list[str], dict[str, int]]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            results[name] = way()
            times[name].append(time.process_time() - start)
    return {name: Measured(min(times[name]), *results[name]) for name in ways}


def compare(where: Scene, mode: str, repeats: int, *, with_floor: bool = True) -> dict[str, Measured]:
    """All ways in one answer mode."""
    decoding = Decoding(mode, 16)  # type: ignore[arg-type]
    ways: dict[str, Way] = {
        "official": partial(official, where, decoding),
        "ours": partial(ours, where, decoding),
    }
    if with_floor:
        ways["floor"] = floor(where, decoding)
    return measure(ways, repeats)


def report(where: Scene, modes: Sequence[str], repeats: int) -> str:
    """The table."""
    lines = [
        "| mode | official, q/s | ours, q/s | floor, q/s | ours / official | letters that differ |",
        "|---|---|---|---|---|---|",
    ]
    for mode in modes:
        found = compare(where, mode, repeats)
        rate = {name: where.questions / one.seconds for name, one in found.items()}
        differ = sum(a != b for a, b in zip(found["official"].said, found["ours"].said, strict=True))
        lines.append(
            f"| {mode} | {rate['official']:.1f} | {rate['ours']:.1f} | {rate['floor']:.1f} | "
            f"{rate['ours'] / rate['official']:.1f} | {differ} of {where.questions} |"
        )
        lines.append(f"|  | {found['official'].counts} | {found['ours'].counts} |  |  |  |")
    lengths = statistics.mean(
        len(row)
        for group in where.groups
        for row in where.engine()._plan(group.load(), Decoding("direct", 1), {}).tokens.rows
    )
    return "\n".join(
        [*lines, f"{where.questions} questions on {len(where.groups)} pairs; prompts of {lengths:.0f} tokens"]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(report(scene(options.pairs), ("direct", "logits"), options.repeats))


if __name__ == "__main__":
    main()

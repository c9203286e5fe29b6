"""Whether a training set shows what a benchmark asks about.

Three things are looked for. A benchmark *query* that stands in the training set, as query or as reference,
is a leak, byte-equal or as a near-duplicate (see :mod:`trainers.dataset.hashes`). A benchmark *reference*
there is told apart: MMAD shows it as a normal example anyway, and the paper trains on such pictures. An equal
*question* is a leak where an option names something of one product alone; where all options belong to a
closed vocabulary ("Yes.", "Top left."), two questions are equal without knowing each other.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from harness.errors import BadInput
from harness.folders import sha256_of
from harness.hookspecs import Benchmark
from harness.images import decode
from harness.prefetch import prefetch
from trainers.dataset.hashes import NEAR, ORIENTATIONS, Look, find_near, look
from trainers.samples import Sample, TrainingSet

Role = Literal["query", "reference"]
ROLES: tuple[Role, ...] = ("query", "reference")


class Bar(Protocol):
    """What a progress bar can do."""

    def update(self, n: int = 1) -> object:
        """Tell that so many more are done."""


#: Makes a progress bar from a title and a total.
Progress = Callable[[str, int], AbstractContextManager[Bar]]


@dataclass(frozen=True, slots=True)
class ImageFinding:
    """One image file of the training set that shows what one image file of the benchmark shows."""

    name: Literal["byte-equal", "near", "same-reference"]
    leak: bool  #: whether the benchmark asks about it
    how: Literal["byte-equal", "near"]
    training_role: Role
    training_file: str  #: relative to the training file's folder
    samples: int  #: that show it in that role
    benchmark_role: Role
    benchmark_file: str  #: relative to the benchmark's root
    orientation: str  #: what was done to the benchmark's image
    difference: float  #: in grey levels; 0 for equal bytes
    bits: int  #: of 256 in which the hashes differ


@dataclass(frozen=True, slots=True)
class QuestionFinding:
    """A question with options that both sides ask."""

    name: Literal["equal-question", "common-wording"]
    leak: bool
    question: str  #: as the benchmark writes it
    options: tuple[str, ...]  #: as the benchmark first writes them
    specific: tuple[str, ...]  #: options that the benchmark uses for one product only
    benchmark: tuple[str, ...]  #: ``<image key>#<number>``
    training: tuple[str, ...]  #: ids of samples


@dataclass(frozen=True, slots=True)
class Audit:
    """All that was found, and what was compared."""

    training: Mapping[str, Any]
    benchmark: Mapping[str, Any]
    near: float  #: bound of near-duplicates in grey levels
    images: tuple[ImageFinding, ...]
    questions: tuple[QuestionFinding, ...]

    @property
    def leaked_images(self) -> int:
        """Benchmark query images that the training set shows."""
        return len({found.benchmark_file for found in self.images if found.leak})

    @property
    def leaked_questions(self) -> int:
        """Benchmark questions that the training set asks."""
        return sum(len(found.benchmark) for found in self.questions if found.leak)

    @property
    def leaks(self) -> int:
        """Leaked query images and leaked questions together."""
        return self.leaked_images + self.leaked_questions

    def pairs(self) -> dict[tuple[Role, Role], dict[str, int]]:
        """(training role, benchmark role) -> how found -> number of benchmark files found so."""
        files: dict[tuple[Role, Role], dict[str, set[str]]] = {
            (ours, theirs): {"byte-equal": set(), "near": set()} for theirs in ROLES for ours in ROLES
        }
        for found in self.images:
            files[found.training_role, found.benchmark_role][found.how].add(found.benchmark_file)
        return {pair: {how: len(names) for how, names in ways.items()} for pair, ways in files.items()}

    def as_json(self) -> dict[str, Any]:
        """Everything but the bound; the samples and questions of common wording as numbers only."""
        return {
            "training": dict(self.training),
            "benchmark": dict(self.benchmark),
            "near": self.near,
            "leaks": self.leaks,
            "leaked_images": self.leaked_images,
            "leaked_questions": self.leaked_questions,
            "pairs": [
                {"training": ours, "benchmark": theirs, "leak": theirs == "query", **counts}
                for (ours, theirs), counts in self.pairs().items()
            ],
            "images": [asdict(found) for found in self.images],
            "questions": [_question_json(found) for found in self.questions],
        }


def _question_json(found: QuestionFinding) -> dict[str, Any]:
    row = asdict(found)
    if not found.leak:  # "Yes." or "No.", asked ten thousand times
        row |= {"benchmark": len(found.benchmark), "training": len(found.training)}
    return row


@dataclass
class _Side:
    """The image files of one side."""

    root: Path
    uses: dict[Role, dict[Path, int]]  #: role -> file -> how often it is shown so
    digests: dict[Path, str] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)  #: of each content

    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for role in ROLES for path in self.uses[role]))

    def shown(self) -> dict[str, list[tuple[Role, str, int]]]:
        """Digest -> (role, file relative to the root, how often)."""
        found: dict[str, list[tuple[Role, str, int]]] = defaultdict(list)
        for role in ROLES:
            for path, count in self.uses[role].items():
                found[self.digests[path]].append((role, path.relative_to(self.root).as_posix(), count))
        return found


def audit(
    training: TrainingSet,
    benchmark: Benchmark,
    progress: Progress,
    *,
    near: float = NEAR,
    workers: int = 2,
) -> Audit:
    """Compare a training set with a benchmark.

    Args:
        training: the samples.
        benchmark: the questions.
        progress: makes progress bars.
        near: how much a near-duplicate may differ, in grey levels; 0 looks for equal
            bytes only.
        workers: threads that read images.

    Raises:
        BadInput: an image cannot be read.
    """
    ours, theirs = _training_side(training), _benchmark_side(benchmark)
    total = len(ours.files()) + len(theirs.files())
    with progress("images", total) as bar:
        for side in (ours, theirs):
            _read(side, near > 0, workers, bar)
    images = [*_byte_equal(ours, theirs), *(_near(ours, theirs, near, progress) if near > 0 else ())]
    images.sort(key=lambda one: (not one.leak, one.name, one.benchmark_file, one.training_file))
    return Audit(
        {
            "file": str(training.path),
            "digest": training.digest,
            "samples": len(training.samples),
            "images": {role: len(ours.uses[role]) for role in ROLES},
        },
        {
            "name": benchmark.name,
            "world": benchmark.world,
            "digest": benchmark.digest,
            "questions": sum(len(item.questions) for item in benchmark.items),
            "images": {role: len(theirs.uses[role]) for role in ROLES},
        },
        near,
        tuple(images),
        tuple(equal_questions(training.samples, benchmark)),
    )


def _training_side(training: TrainingSet) -> _Side:
    uses: dict[Role, dict[Path, int]] = {"query": defaultdict(int), "reference": defaultdict(int)}
    for sample in training.samples:
        if sample.query is not None:
            uses["query"][sample.query] += 1
        for path in sample.references:
            uses["reference"][path] += 1
    return _Side(training.path.parent, uses)


def _benchmark_side(benchmark: Benchmark) -> _Side:
    uses: dict[Role, dict[Path, int]] = {"query": defaultdict(int), "reference": defaultdict(int)}
    for item in benchmark.items:
        uses["query"][item.image] += 1
        for path in dict.fromkeys((*item.similar_templates, *item.random_templates)):
            uses["reference"][path] += 1
    return _Side(benchmark.root, uses)


def _read(side: _Side, with_looks: bool, workers: int, bar: Bar) -> None:
    def inspect(path: Path) -> tuple[Path, str, Look | None]:
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise BadInput(f"{path}: it cannot be read ({error.strerror}); restore the file") from error
        return path, digest, look(decode(path)) if with_looks else None

    with closing(prefetch(inspect, side.files(), workers)) as inspected:
        for path, digest, seen in inspected:
            side.digests[path] = digest
            if seen is not None:
                side.looks[digest] = seen
            bar.update()


def _byte_equal(ours: _Side, theirs: _Side) -> Iterator[ImageFinding]:
    mine, others = ours.shown(), theirs.shown()
    for digest in mine.keys() & others.keys():
        yield from _findings(mine[digest], others[digest], "byte-equal", ORIENTATIONS[0], 0.0, 0)


def _near(ours: _Side, theirs: _Side, bound: float, progress: Progress) -> Iterator[ImageFinding]:
    mine, others = ours.shown(), theirs.shown()
    first, second = list(ours.looks), list(theirs.looks)
    with progress("near-duplicates", len(first)) as bar:
        for near in find_near(
            list(ours.looks.values()), list(theirs.looks.values()), bound, lambda count: bar.update(count)
        ):
            here, there = first[near.first], second[near.second]
            if here != there:
                yield from _findings(
                    mine[here], others[there], "near", near.orientation, near.difference, near.bits
                )


def _findings(
    ours: Iterable[tuple[Role, str, int]],
    theirs: Sequence[tuple[Role, str, int]],
    how: Literal["byte-equal", "near"],
    orientation: str,
    difference: float,
    bits: int,
) -> Iterator[ImageFinding]:
    for role, file, samples in ours:
        for other_role, other_file, _ in theirs:
            leak = other_role == "query"
            yield ImageFinding(
                how if leak else "same-reference",
                leak,
                how,
                *(role, file, samples, other_role, other_file, orientation, difference, bits),
            )


def normal(text: str) -> str:
    """What is compared of a text: no case, no extra space, no punctuation at its ends.

    >>> normal("  Where  is the defect? ")
    'where is the defect'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?")


Words = tuple[str, frozenset[str]]  #: question and options, normalised


def _words(question: str, options: Mapping[str, str]) -> Words:
    return normal(question), frozenset(normal(option) for option in options.values())


def equal_questions(samples: Iterable[Sample], benchmark: Benchmark) -> Iterator[QuestionFinding]:
    """The questions that both sides ask with the same options, leaks first.

    A benchmark of one product has no vocabulary that is closed or open, so that nothing counts as a leak.
    """
    products: dict[str, set[tuple[str, str]]] = defaultdict(set)
    asked: dict[Words, list[str]] = defaultdict(list)
    written: dict[Words, tuple[str, tuple[str, ...]]] = {}
    for item in benchmark.items:
        for question in item.questions:
            words = _words(question.text, question.options)
            asked[words].append(f"{item.key}#{question.number}")
            written.setdefault(words, (question.text, tuple(question.options.values())))
            for option in words[1]:
                products[option].add((item.dataset, item.object))
    trained: dict[Words, list[str]] = defaultdict(list)
    for sample in samples:
        words = _words(sample.question, sample.options)
        if words in asked:
            trained[words].append(sample.id)
    several = len({(item.dataset, item.object) for item in benchmark.items}) > 1
    found = []
    for words, ids in trained.items():
        text, options = written[words]
        specific = tuple(option for option in options if several and len(products[normal(option)]) == 1)
        found.append(
            QuestionFinding(
                "equal-question" if specific else "common-wording",
                bool(specific),
                *(text, options, specific, tuple(asked[words]), tuple(ids)),
            )
        )
    yield from sorted(found, key=lambda one: (not one.leak, -len(one.benchmark), one.question, one.options))

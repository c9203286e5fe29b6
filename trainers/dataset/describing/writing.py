"""From a plan to a texts folder, whoever writes the texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.folders import sha256_of
from harness.hookspecs import DescriberSpec
from harness.jsonfiles import write_json
from harness.raw import RawDataset, TextKind
from trainers.dataset.describing.plan import (
    KnowledgeTable,
    Plan,
    PlanSettings,
    Task,
    knowledge_name,
    make_plan,
    unfit,
    with_context,
)
from trainers.dataset.describing.prompts import chat, knowledge_entry, prompts_digest
from trainers.dataset.describing.validate import Checked, check
from trainers.dataset.texts import GOOD, KNOWLEDGE, Description, Knowledge, write_texts

RECORD = "describe.json"  #: how the texts of the folder were made
#: A text, or why there is none, for each task in order.
Writer = Callable[[Sequence[Task]], list[Checked]]

_KNOWLEDGE_KINDS = (TextKind.DEFECT_KNOWLEDGE, TextKind.NORMAL_KNOWLEDGE)


class Digests:
    """SHA-256 of files in hex, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def __call__(self, path: Path) -> str:
        """The digest of a file; raises :class:`BadInput` when it cannot be read."""
        if path not in self._known:
            try:
                self._known[path] = sha256_of(path)
            except OSError as error:
                raise BadInput(f"{path}: it cannot be read ({error.strerror}); restore it") from error
        return self._known[path]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a plan."""

    plan: Plan
    results: tuple[tuple[Task, Checked], ...]  #: in the order of the plan

    @property
    def texts(self) -> tuple[tuple[Task, str], ...]:
        """Every text that is there."""
        return tuple((task, checked.text) for task, checked in self.results if checked.fault is None)

    @property
    def missing(self) -> tuple[tuple[Task, Checked], ...]:
        """Every text that is not there, with its fault."""
        return tuple((task, checked) for task, checked in self.results if checked.fault is not None)

    @property
    def missing_share(self) -> float:
        """Missing texts as a share of all."""
        return len(self.missing) / max(1, len(self.results))

    def counts(self) -> dict[str, dict[str, int]]:
        """Kind of text -> how many are planned and written."""
        planned = Counter(task.request.kind for task, _ in self.results)
        written = Counter(task.request.kind for task, _ in self.texts)
        return {str(kind): {"planned": planned[kind], "written": written[kind]} for kind in TextKind}


def carry_out(plan: Plan, write: Writer) -> Written:
    """Have all texts of a plan written, normal knowledge last: it is told what the defect texts say."""
    results = list(zip(plan.first, write(plan.first), strict=True))
    entries: dict[tuple[str, str], list[str]] = {}
    for task, checked in results:
        asked = task.request
        if asked.kind == TextKind.DEFECT_KNOWLEDGE and checked.fault is None:
            entry = knowledge_entry(asked.words, checked.text)
            entries.setdefault((asked.dataset, asked.object), []).append(entry)
    second = [
        with_context(task, entries.get((task.request.dataset, task.request.object), ()))
        for task in plan.second
    ]
    results += zip(second, write(second), strict=True)
    return Written(plan, tuple(results))


def save(
    out: Path,
    written: Written,
    known: KnowledgeTable,
    text_datasets: Sequence[RawDataset],
    digests: Digests,
    record: Mapping[str, Any],
) -> None:
    """Write the texts folder and its record; the same texts give the same bytes.

    Args:
        out: the folder.
        written: the texts.
        known: the knowledge file of the text sources, of which their entries are taken over.
        text_datasets: the text sources.
        digests: of image files.
        record: who wrote the texts, and with which settings.
    """
    table = _knowledge(written.texts, known, text_datasets)
    if not table:  # one of an earlier run would be read with these texts
        (out / KNOWLEDGE).unlink(missing_ok=True)
    write_texts(out, table, _descriptions(written.texts, digests))
    missing = [
        {"text": str(task), "fault": str(checked.fault), "reason": checked.reason}
        for task, checked in written.missing
    ]
    content = {**record, "texts": written.counts(), "missing": missing, "notes": list(written.plan.notes)}
    write_json(out / RECORD, content)


def base_record(seed: int, settings: PlanSettings) -> dict[str, Any]:
    """The part of a record that every writer shares."""
    return {"seed": seed, "settings": asdict(settings), "prompts": prompts_digest()}


def write_with_describer(
    datasets: Sequence[RawDataset],
    text_datasets: Sequence[RawDataset],
    knowledge: KnowledgeTable,
    spec: DescriberSpec,
    out: Path,
    seed: int = 0,
    settings: PlanSettings = PlanSettings(),  # noqa: B008 - frozen
) -> Written:
    """Write a texts folder with an offline describer.

    Args:
        datasets: those whose images are asked about.
        text_datasets: those of which only normal images are looked at.
        knowledge: the knowledge file of the text sources; empty when there is none.
        spec: the describer. Its texts are checked as a server's are, but short ones pass.
        out: the texts folder.
        seed: of every choice.
        settings: how many object texts.

    Returns:
        The texts, and those that are missing because they failed the checks.

    Raises:
        BadInput: an image cannot be read, or the folder cannot be written.
    """

    def write(tasks: Sequence[Task]) -> list[Checked]:
        return [_described(spec, task) for task in tasks]

    plan = make_plan(datasets, text_datasets, knowledge, seed, settings, unfit)
    written = carry_out(plan, write)
    record = {"describer": spec.name, **base_record(seed, settings)}
    save(out, written, knowledge, text_datasets, Digests(), record)
    return written


def _described(spec: DescriberSpec, task: Task) -> Checked:
    """An offline describer's text: checked, but left in its own form, which may be terse and in lines."""
    text = spec.describe(task.request)
    checked = check(text, task.request.kind, chat(task.request).own, min_words=1)
    return checked if checked.fault is not None else Checked(text.strip())


def _knowledge(
    texts: Iterable[tuple[Task, str]], known: KnowledgeTable, text_datasets: Sequence[RawDataset]
) -> Knowledge:
    """The knowledge file: the given entries of the text sources as they are, then ours, good first."""
    table: Knowledge = {}
    for dataset in text_datasets:
        name = knowledge_name(dataset.name, known)
        products = sorted({image.object for image in dataset.images} & set(known.get(name, {})))
        for product in products:
            table.setdefault(name, {})[product] = dict(known[name][product])
    ours: dict[tuple[str, str], dict[str, str]] = {}
    for task, text in texts:
        asked = task.request
        if asked.kind in _KNOWLEDGE_KINDS:
            entries = ours.setdefault((asked.dataset, asked.object), {})
            entries[asked.defect or GOOD] = knowledge_entry(asked.words or "normal", text)
    for (name, product), entries in ours.items():
        ordered = sorted(entries, key=lambda condition: (condition != GOOD, condition))
        table.setdefault(name, {})[product] = {condition: entries[condition] for condition in ordered}
    return table


def _descriptions(texts: Iterable[tuple[Task, str]], digests: Digests) -> list[Description]:
    return [task.description(text, digests(task.request.images[0])) for task, text in texts if task.image]

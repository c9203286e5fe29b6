"""``emit-bench data doctor``: everything wrong with a benchmark folder, and its counts beside MMAD's.

The published counts are those of MMAD's README (8,366 images, 39,672 questions) and, per cell, the
denominators on which 18 of its 22 published result files agree; they add up to 39,672. Other revisions of
``mmad.json`` exist: EMIT's repairs the normal images of ``pill``, 22 of which showed metal nuts (issues 15
and 19 of MMAD).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.images import check_header, decode
from harness.mmad import Inspection, Problem, inspect_mmad
from harness.records import Item
from harness.subtasks import ANOMALY_DISCRIMINATION, SUBTASK_KEYS
from harness.text import columns

PUBLISHED_IMAGES = 8366
PUBLISHED_QUESTIONS = 39672
NORMAL, ANOMALOUS = "normal", "anomalous"
#: Columns of the count table: Anomaly Discrimination on normal and anomalous images, then the other subtasks.
COUNT_COLUMNS = (NORMAL, ANOMALOUS, *SUBTASK_KEYS[1:])
PUBLISHED_COUNTS = {
    "DS-MVTec": (465, 1226, 1205, 1193, 1213, 1205, 464, 1367),
    "MVTec-LOCO": (573, 992, 982, 982, 974, 954, 544, 1623),
    "VisA": (943, 1198, 1190, 1197, 1190, 1163, 935, 2806),
    "GoodsAD": (1269, 1631, 1311, 1506, 1333, 1460, 1211, 3367),
}
_PILL_NORMALS = "DS-MVTec/pill/image/good/"
_SHORT = ("AD normal", "AD anom.", "DC", "DL", "DD", "DA", "OC", "OA")


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found."""

    root: Path
    inspection: Inspection
    counts: dict[str, tuple[int, ...]]  #: dataset -> questions per column of :data:`COUNT_COLUMNS`
    images_checked: int

    @property
    def problems(self) -> list[Problem]:
        """All problems, those that forbid an evaluation first."""
        return sorted(self.inspection.problems, key=lambda problem: not problem.fatal)

    @property
    def of_mmad(self) -> bool:
        """Whether the folder holds any of MMAD's datasets; others are somebody's own."""
        return not PUBLISHED_COUNTS.keys().isdisjoint(self.counts)

    @property
    def healthy(self) -> bool:
        """Whether an evaluation can start."""
        return not self.inspection.fatal

    def as_json(self) -> dict[str, Any]:
        """The object that ``--format json`` prints."""
        return {
            "root": str(self.root),
            "healthy": self.healthy,
            "images": len(self.inspection.items),
            "published_images": PUBLISHED_IMAGES,
            "questions": sum(map(sum, self.counts.values())),
            "published_questions": PUBLISHED_QUESTIONS,
            "images_checked": self.images_checked,
            "counts": {name: dict(zip(COUNT_COLUMNS, row, strict=True)) for name, row in self.counts.items()},
            "published_counts": {
                name: dict(zip(COUNT_COLUMNS, row, strict=True)) for name, row in PUBLISHED_COUNTS.items()
            },
            "notes": notes(self),
            "problems": [
                {"entry": p.entry, "field": p.field, "sentence": p.sentence, "fatal": p.fatal}
                for p in self.problems
            ],
        }


def diagnose(root: Path, *, deep: bool = False) -> Diagnosis:
    """Read a benchmark folder, open every image in it once, and count.

    Args:
        root: the folder with ``mmad.json``.
        deep: decode every image fully (finds truncated files); otherwise only headers are read.

    Raises:
        BadInput: there is no readable ``mmad.json``.
    """
    inspection = inspect_mmad(root)
    check: Callable[[Path], object] = decode if deep else check_header
    checked = 0
    for path, item, what in _files(inspection.items):
        checked += 1
        try:
            check(path)
        except BadInput as error:
            sentence = str(error).removeprefix(f"{path}: ")
            inspection.problems.append(Problem(item.key, what, f"{path.relative_to(root)}: {sentence}"))
    return Diagnosis(root, inspection, count(inspection.items), checked)


def count(items: Iterable[Item]) -> dict[str, tuple[int, ...]]:
    """Dataset -> number of questions per column of :data:`COUNT_COLUMNS`."""
    tallies: dict[str, Counter[str]] = {}
    for item in items:
        tally = tallies.setdefault(item.dataset, Counter())
        for question in item.questions:
            normal = NORMAL if item.normal else ANOMALOUS
            tally[normal if question.subtask == ANOMALY_DISCRIMINATION else question.subtask] += 1
    return {dataset: tuple(tally[name] for name in COUNT_COLUMNS) for dataset, tally in tallies.items()}


def notes(found: Diagnosis) -> list[str]:
    """What is known about this copy of MMAD."""
    pills = sum(item.key.startswith(_PILL_NORMALS) for item in found.inspection.items)
    said = []
    if pills:
        said.append(
            f"DS-MVTec/pill has {pills} normal image{'' if pills == 1 else 's'} here: in MMAD's first "
            "revision 000 to 021 show metal nuts; EMIT's revision replaces 000 to 025 and their questions"
        )
    if found.of_mmad and found.counts != PUBLISHED_COUNTS:
        said.append("the counts differ from the published ones; name the revision when you publish a number")
    return said


def as_text(found: Diagnosis) -> str:
    """The diagnosis for a terminal."""
    data = found.as_json()
    published = ("", "")
    if found.of_mmad:
        published = (f" ({PUBLISHED_IMAGES:,} published)", f" ({PUBLISHED_QUESTIONS:,} published)")
    lines = [
        f"{found.root}: {data['images']:,} images{published[0]}, "
        f"{data['questions']:,} questions{published[1]}, {found.images_checked:,} image files opened",
        "",
        _count_table(found.counts, found.of_mmad),
        "",
    ]
    lines += [f"note: {note}" for note in data["notes"]]
    for problem in found.problems:
        lines.append(f"{'error' if problem.fatal else 'warning'}: {problem}")
    errors = len(found.inspection.fatal)
    warnings = len(found.problems) - errors
    lines.append(
        f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
    )
    return "\n".join(lines)


def _count_table(counts: dict[str, tuple[int, ...]], beside_mmad: bool) -> str:
    """Questions a dataset; beside the published ones where the folder is a copy of MMAD."""
    head = "dataset (found/published)" if beside_mmad else "dataset"
    rows: list[tuple[str, ...]] = [(head, *_SHORT, "total")]
    for name in dict.fromkeys([*(PUBLISHED_COUNTS if beside_mmad else ()), *counts]):
        here = counts.get(name, (0,) * len(COUNT_COLUMNS))
        known = PUBLISHED_COUNTS.get(name)
        cells = [*here, sum(here)]
        beside = [*known, sum(known)] if known else ["-"] * len(cells)
        pairs = zip(cells, beside, strict=True)
        rows.append((name, *(f"{here}/{other}" if beside_mmad else str(here) for here, other in pairs)))
    return columns(rows, right_from=1)


def _files(items: Iterable[Item]) -> Iterable[tuple[Path, Item, str]]:
    """Every image file once, with the first item that names it and what it is there."""
    seen = set()
    for item in items:
        parts = (
            ("image", (item.image,)),
            ("mask_path", item.masks),
            ("similar_templates", item.similar_templates),
            ("random_templates", item.random_templates),
        )
        for what, paths in parts:
            for path in paths:
                if path not in seen:
                    seen.add(path)
                    yield path, item, what

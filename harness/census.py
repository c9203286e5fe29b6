"""Counting a training set: what the manifest keeps, ``data stats`` prints and the report draws.

The published figures are those of the paper's figure 7 and data section.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from harness.subtasks import (
    ANOMALY_DISCRIMINATION,
    DEFECT_CLASSIFICATION,
    DEFECT_LOCALIZATION,
    OBJECT_CLASSIFICATION,
)

#: Kinds of sample: an image pair, or a text in the query's stead. ``other`` is of no known condition.
COMPONENTS = (
    "anomalous_images", "normal_images", "other_images", "anomalous_texts", "normal_texts", "other_texts",
)  # fmt: skip
#: Samples of the paper's training set by kind; its 18,597 are of 88 classes.
PUBLISHED_SAMPLES = {
    "anomalous_images": 10117, "normal_images": 4910, "anomalous_texts": 2635, "normal_texts": 935,
}  # fmt: skip
PUBLISHED_QUESTIONS = {
    ANOMALY_DISCRIMINATION: 18597,
    DEFECT_CLASSIFICATION: 13905,
    DEFECT_LOCALIZATION: 13956,
    OBJECT_CLASSIFICATION: 5845,
}
PUBLISHED_CLASSES = 88
_CONDITIONS = {"defective": "anomalous", "normal": "normal"}


class Census:
    """Counts the rows of a training file, one after the other."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self.components: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()
        self.letters: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self.objects: dict[str, Counter[str]] = defaultdict(Counter)
        self.defects: dict[str, Counter[str]] = defaultdict(Counter)
        self.tree: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of a training file (see :mod:`trainers.samples` for its keys).

        ``condition`` and ``defect`` (in words) are used where a row has them.
        """
        condition = _CONDITIONS.get(row.get("condition") or "", "other")
        component = f"{condition}_{'texts' if row.get('query') is None else 'images'}"
        name, task = f"{row['dataset']}/{row['object']}", row["task"]
        self.tasks[task] += 1
        self.letters[task][str(len(row["options"]))][row["answer"]] += 1
        self.tree[component][task][name] += 1
        self.objects[name]["questions"] += 1
        sample = repr((name, row.get("references"), row.get("query"), row.get("description"))).encode()
        digest = hashlib.blake2b(sample, digest_size=12).digest()
        if digest in self._seen:
            return
        self._seen.add(digest)
        self.components[component] += 1
        self.objects[name]["samples"] += 1
        if condition == "anomalous":
            self.defects[name][row.get("defect") or "(no name)"] += 1

    def as_json(self) -> dict[str, Any]:
        """Everything counted, in a fixed order."""
        return {
            "questions": self.tasks.total(),
            "samples": self.components.total(),
            "classes": len(self.objects),
            "by_component": {name: self.components[name] for name in COMPONENTS if self.components[name]},
            "by_task": _ordered(self.tasks),
            "by_object": {
                name: {**_ordered(self.objects[name]), "defects": _ordered(self.defects.get(name, {}))}
                for name in sorted(self.objects)
            },
            "letters": {
                task: {options: _ordered(found) for options, found in sorted(by_options.items())}
                for task, by_options in sorted(self.letters.items())
            },
            "tree": {
                component: {task: _ordered(found) for task, found in sorted(self.tree[component].items())}
                for component in COMPONENTS
                if component in self.tree
            },
        }


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}

"""The same training set as rows that ms-swift reads, the framework of the released EMIT code.

``stage1.swift.jsonl`` holds Anomaly Discrimination and Defect Localization with the letter as the assistant's
turn; ``stage2.swift.jsonl`` holds every question, with ``solution``. Prompts are those that our own trainers
and evaluation use. Image paths are relative to the folder: set ``ROOT_IMAGE_DIR`` to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.jsonfiles import write_text
from harness.protocol import Protocol, shipped_protocols
from harness.records import ImageFile, Mode
from harness.subtasks import ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION
from trainers.dataset.output import ROWS
from trainers.prompts import plan
from trainers.samples import Sample, read_training_set

STAGE1, STAGE2 = "stage1.swift.jsonl", "stage2.swift.jsonl"
IMAGE = "<image>"  #: where ms-swift puts the next of ``images``
_ALIGNED = (ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION)


def write_swift(folder: Path) -> tuple[Path, Path]:
    """Write both files beside a training set's rows; returns their paths."""
    samples = read_training_set(folder / ROWS).samples
    protocol = shipped_protocols()[0]
    first = (_row(folder, protocol, one, "direct") for one in samples if one.task in _ALIGNED and one.query)
    second = (_row(folder, protocol, one, "think") for one in samples)
    for name, rows in ((STAGE1, first), (STAGE2, second)):
        write_text(folder / name, "".join(_lines(rows)))
    return folder / STAGE1, folder / STAGE2


def _lines(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _row(folder: Path, protocol: Protocol, sample: Sample, mode: Mode) -> dict[str, Any]:
    group = plan(protocol, [sample], mode)
    written = [part for part in group.content if isinstance(part, str)]
    if any(IMAGE in part for part in (group.system, *written, group.prompts[0].text)):
        raise BadInput(f"sample {sample.id}: a text of it holds {IMAGE}, which ms-swift takes for an image")
    images = [part.path for part in group.content if isinstance(part, ImageFile)]
    text = "".join(IMAGE if isinstance(part, ImageFile) else part for part in group.content)
    messages = [
        {"role": "system", "content": group.system},
        {"role": "user", "content": text + group.prompts[0].text},
    ]
    if mode == "direct":
        messages.append({"role": "assistant", "content": sample.answer})
    return {
        "id": sample.id,
        "task_type": sample.task,
        "object_type": sample.object,
        "images": [path.relative_to(folder).as_posix() for path in images],
        "messages": messages,
        "solution": sample.answer,
    }

"""The seven subtasks of MMAD, in the order of the paper's tables."""

from __future__ import annotations

from typing import NamedTuple


class Subtask(NamedTuple):
    """A column of every table: its stable key, its title, and how the paper heads it."""

    key: str
    group: str
    title: str


ANOMALY_DISCRIMINATION = "anomaly_discrimination"
DEFECT_CLASSIFICATION = "defect_classification"
DEFECT_LOCALIZATION = "defect_localization"
DEFECT_DESCRIPTION = "defect_description"
DEFECT_ANALYSIS = "defect_analysis"
OBJECT_CLASSIFICATION = "object_classification"
OBJECT_ANALYSIS = "object_analysis"

SUBTASKS: tuple[Subtask, ...] = (
    Subtask(ANOMALY_DISCRIMINATION, "Anomaly", "Discrimination"),
    Subtask(DEFECT_CLASSIFICATION, "Defect", "Classification"),
    Subtask(DEFECT_LOCALIZATION, "Defect", "Localization"),
    Subtask(DEFECT_DESCRIPTION, "Defect", "Description"),
    Subtask(DEFECT_ANALYSIS, "Defect", "Analysis"),
    Subtask(OBJECT_CLASSIFICATION, "Object", "Classification"),
    Subtask(OBJECT_ANALYSIS, "Object", "Analysis"),
)
SUBTASK_KEYS: tuple[str, ...] = tuple(subtask.key for subtask in SUBTASKS)

OBJECT_SUBTASKS = frozenset({OBJECT_CLASSIFICATION, OBJECT_ANALYSIS})

#: The nine values of ``type`` in ``mmad.json`` onto the seven subtasks.
RAW_TYPES: dict[str, str] = {
    "Anomaly Detection": ANOMALY_DISCRIMINATION,
    "Anomaly Discrimination": ANOMALY_DISCRIMINATION,
    "Defect Classification": DEFECT_CLASSIFICATION,
    "Defect Localization": DEFECT_LOCALIZATION,
    "Defect Description": DEFECT_DESCRIPTION,
    "Defect Analysis": DEFECT_ANALYSIS,
    "Object Classification": OBJECT_CLASSIFICATION,
    "Object Analysis": OBJECT_ANALYSIS,
    "Object Structure": OBJECT_ANALYSIS,
    "Object Details": OBJECT_ANALYSIS,
}

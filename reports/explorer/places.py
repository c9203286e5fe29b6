"""What an image's key tells of it: dataset, product, and the kind of its defect."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records import dataset_of, is_normal

NORMAL = "normal"
UNNAMED = "not named"
#: Folders between a product and its images that say nothing of a defect.
_PLAIN = frozenset({"image", "images", "test"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image belongs."""

    dataset: str
    object: str
    kind: str  #: of the defect as its folder is called, or :data:`NORMAL`


def place_of(key: str) -> Place:
    """Read a key of MMAD: ``<dataset>/<object>/<image or test>/<kind>/<file>``.

    The files of answers that somebody else wrote may have other keys: what they do not tell is
    :data:`UNNAMED`.

    >>> place_of("MVTec-LOCO/screw_bag/test/logical_anomalies/003.png").kind
    'logical_anomalies'
    >>> place_of("VisA/pcb1/test/good/011.JPG")
    Place(dataset='VisA', object='pcb1', kind='normal')
    """
    folders = key.split("/")[:-1]
    kinds = [name for name in folders[2:] if name not in _PLAIN]
    return Place(
        dataset=dataset_of(key),
        object=folders[1] if len(folders) > 1 else UNNAMED,
        kind=NORMAL if is_normal(key) else kinds[0] if kinds else UNNAMED,
    )

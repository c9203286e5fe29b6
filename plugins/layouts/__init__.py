"""Layouts of the raw datasets that EMIT's training set is built from, and of anybody's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from harness.hookspecs import LayoutSpec, hookimpl
from harness.raw import RawDataset


def _mvtec(root: Path) -> RawDataset:
    from plugins.layouts.mvtec import read_mvtec

    return read_mvtec(root)


def _real_iad(root: Path) -> RawDataset:
    from plugins.layouts.real_iad import read_real_iad

    return read_real_iad(root)


def _vision(root: Path) -> RawDataset:
    from plugins.layouts.vision import read_vision

    return read_vision(root)


#: Name, title, summary, reader, usual folders, whether MMAD asks about its test images.
_TABLE: tuple[tuple[str, str, str, Callable[[Path], RawDataset], tuple[str, ...], bool], ...] = (
    ("mvtec", "MVTec layout", "Any folder like MVTec AD's.", _mvtec, (), False),
    ("mpdd", "MPDD", "As mvtec.", _mvtec, ("MPDD",), False),
    ("real-iad", "Real-IAD", "<object>/OK/<id>, <object>/NG/<code>/<id>.", _real_iad, ("Real-IAD",), False),
    ("vision", "VISION", "<class>/train and <class>/val, pictures only.", _vision, ("VISION",), False),
    ("mvtec-ad", "MVTec AD", "As mvtec.", _mvtec, ("MVTec-AD", "mvtec_anomaly_detection", "DS-MVTec"), True),
    ("mvtec-loco", "MVTec LOCO", "As mvtec, with folders of masks.", _mvtec,
     ("MVTec-LOCO", "mvtec_loco_anomaly_detection"), True),
    ("visa", "VisA", "As mvtec: its 1-class split.", _mvtec, ("VisA", "VisA_20220922", "VisA_pytorch"), True),
    ("goodsad", "GoodsAD", "As mvtec.", _mvtec, ("GoodsAD",), True),
)  # fmt: skip


@hookimpl
def emit_bench_layouts() -> Iterable[LayoutSpec]:
    """The seven datasets of the paper, and every folder like MVTec AD's."""
    return [LayoutSpec(*row) for row in _TABLE]

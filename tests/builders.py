"""What tests are made of: a benchmark folder in MMAD's format, and a distribution with a plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

PRODUCTS = (
    ("DS-MVTec", "bottle", "image", "MVTec-AD/bottle/train/good"),
    ("DS-MVTec", "pill", "image", "MVTec-AD/pill/train/good"),
    ("MVTec-LOCO", "pushpins", "test", "MVTec-LOCO/pushpins/train/good"),
    ("VisA", "candle", "test", "VisA/candle/train/good"),
    ("VisA", "pcb1", "test", "VisA/pcb1/train/good"),
    ("GoodsAD", "food_box", "test", "GoodsAD/food_box/train/good"),
)


def question(text: str, options: dict[str, str], answer: str, raw_type: str) -> dict[str, Any]:
    """One question as mmad.json holds it."""
    return {"Question": text, "Answer": answer, "Options": options, "type": raw_type, "annotation": True}


def questions_of(normal: bool, number: int) -> list[dict[str, Any]]:
    """The conversation of one image."""
    yes, no = ("A", "B") if number % 2 else ("B", "A")
    options = dict(sorted({yes: "Yes.", no: "No."}.items()))
    asked = [
        question("Is there any defect in the object?", options, no if normal else yes, "Anomaly Detection")
    ]
    four = {"A": "Left.", "B": "Right.", "C": "Centre.", "D": "Top."}
    if normal:
        asked += [
            question(
                "What kind of product is in the image?", four, "ABCD"[number % 4], "Object Classification"
            ),
            question("What is it made of?", four, "ABCD"[(number + 1) % 4], "Object Structure"),
            question("What colour is it?", four, "ABCD"[(number + 2) % 4], "Object Details"),
        ]
    else:
        asked += [
            question(
                f"There is a defect in the object. {kind}?", four, "ABCD"[(number + i) % 4], f"Defect {kind}"
            )
            for i, kind in enumerate(("Classification", "Localization", "Description", "Analysis"))
        ]
    return asked


def paint(path: Path, number: int, size: tuple[int, int] = (24, 16)) -> None:
    """A small picture whose pixels depend on ``number``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 60))
    image.putpixel((number % size[0], number % size[1]), (255, 255, 255))
    image.save(path)


def write_mmad(
    root: Path, spoil: Callable[[dict[str, Any], Path], None] = lambda table, root: None, per_product: int = 4
) -> Path:
    """Write a benchmark folder; ``spoil`` may change the table and the files before mmad.json is written."""
    table: dict[str, Any] = {}
    knowledge: dict[str, Any] = {}
    number = 0
    for dataset, name, middle, templates in PRODUCTS:
        knowledge.setdefault("MVTec" if dataset == "DS-MVTec" else dataset, {})[name] = {
            "good": f" <Normal>\n Description: a sound {name}.",
            "bad": f" <Defect>\n Description: a broken {name}.",
        }
        for i in range(2):
            paint(root / f"{templates}/{i:03}.png", 200 + number + i)
        for i in range(per_product):
            number += 1
            normal = i % 2 == 0
            key = f"{dataset}/{name}/{middle}/{'good' if normal else 'bad'}/{i:03}.png"
            paint(root / key, number)
            mask = None
            if not normal:
                mask = f"ground_truth/bad/{i:03}.png"
                paint(root / dataset / name / mask, 90)
            table[key] = {
                "image_path": f"{middle}/{'good' if normal else 'bad'}/{i:03}.png",
                "mask_path": mask,
                "similar_templates": [f"{templates}/000.png", f"{templates}/001.png"],
                "random_templates": [f"{templates}/001.png"],
                "conversation": questions_of(normal, number),
                "a key of tomorrow": 1,
            }
    spoil(table, root)
    (root / "domain_knowledge.json").write_text(json.dumps(knowledge), encoding="utf-8")
    (root / "mmad.json").write_text(json.dumps(table), encoding="utf-8")
    return root


def write_distribution(
    folder: Path, name: str, entry_points: dict[str, str], modules: dict[str, str], version: str = "1.2"
) -> Path:
    """A distribution as pip would leave it on ``sys.path``: modules and their entry points.

    Args:
        folder: becomes a directory for ``sys.path``.
        name: of the distribution.
        entry_points: plugin name -> module, in the group ``emit_bench``.
        modules: module name -> source.
        version: of the distribution.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{plugin} = {module}" for plugin, module in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[emit_bench]", *lines, ""]))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    return folder

from __future__ import annotations

import json
from pathlib import Path

from harness.doctor import PUBLISHED_COUNTS, PUBLISHED_QUESTIONS, as_text, count, diagnose
from harness.mmad import read_mmad
from tests.builders import write_mmad


def test_published_counts_add_up() -> None:
    assert sum(map(sum, PUBLISHED_COUNTS.values())) == PUBLISHED_QUESTIONS
    assert [sum(row) for row in PUBLISHED_COUNTS.values()] == [8338, 7624, 10622, 13088]


def test_a_sound_folder(mmad_folder: Path) -> None:
    found = diagnose(mmad_folder, deep=True)
    assert found.healthy and not found.problems
    assert found.images_checked == 24 + 12 + 12
    text = as_text(found)
    assert "24 images (8,366 published), 108 questions (39,672 published)" in text
    assert "0 errors, 0 warnings" in text and "DS-MVTec/pill has 2 normal images" in text
    assert count(read_mmad(mmad_folder).items)["VisA"] == (4, 4, 4, 4, 4, 4, 4, 8)


def test_every_problem_is_listed_and_truncation_needs_deep(tmp_path: Path) -> None:
    bad = "VisA/candle/test/good/000.png"

    def spoil(table, root):
        table["VisA/pcb1/test/good/000.png"]["conversation"][0]["Answer"] = "Z"
        table["VisA/pcb1/test/good/002.png"]["conversation"][0]["type"] = "?"
        table["VisA/pcb1/test/bad/001.png"]["mask_path"] = "gone.png"
        (root / bad).write_bytes((root / bad).read_bytes()[:60])
        (root / "VisA/candle/train/good/001.png").write_bytes(b"no image")

    root = write_mmad(tmp_path / "x", spoil)
    found = diagnose(root)
    assert [p.fatal for p in found.problems] == [True, True, True, False]
    assert any("VisA/candle/train/good/001.png: the image cannot be read" in str(p) for p in found.problems)
    deep = diagnose(root, deep=True)
    assert {p.entry for p in deep.problems} - {p.entry for p in found.problems} == set()
    assert sum(bad in str(p) for p in deep.problems) == sum(bad in str(p) for p in found.problems) + 1
    assert "4 errors, 1 warning" in as_text(deep)
    assert deep.as_json()["healthy"] is False and len(deep.as_json()["problems"]) == 5


def test_somebodys_own_benchmark_is_not_held_against_mmad(tmp_path: Path) -> None:
    root = write_mmad(tmp_path / "own")
    table = json.loads((root / "mmad.json").read_text())
    own = {key: entry for key, entry in table.items() if key.startswith("VisA/")}
    text = json.dumps(own).replace("VisA/", "Line/")
    (root / "VisA").rename(root / "Line")
    (root / "mmad.json").write_text(text)
    said = as_text(diagnose(root))
    assert "published" not in said and "DS-MVTec" not in said and "Line" in said

"""A training set in numbers: counted from the rows, drawn to scale, and safe to open."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from harness.census import PUBLISHED_QUESTIONS, PUBLISHED_SAMPLES, Census
from harness.errors import BadInput
from reports.dataset import read_stats, stats_tables, write_page
from reports.plugin import stats
from reports.sunburst import RINGS, sunburst, total


def row(number: int, task: str = "anomaly_discrimination", **changes: Any) -> dict[str, Any]:
    return {
        "dataset": "D", "object": "nut", "task": task, "references": ["r.png"], "query": f"{number}.png",
        "description": "", "options": {"A": "Yes.", "B": "No."}, "answer": "AB"[number % 2],
        "condition": "defective", "defect": "hole", **changes,
    }  # fmt: skip


ROWS = [
    row(0), row(0, "defect_classification", options=dict(zip("ABCD", "wxyz", strict=True)), answer="C"),
    row(1), row(2, condition="normal", defect=""),
    row(3, condition="unknown", object="<b>bolt</b>", defect=""),
    row(4, query=None, description="A hole."), row(4, query=None, description="No hole.", condition="normal"),
]  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


def test_rows_are_counted_once_and_samples_by_what_they_show(tmp_path: Path) -> None:
    counts = read_stats(write(tmp_path / "set")).counts
    assert (counts["questions"], counts["samples"], counts["classes"]) == (7, 6, 2)
    assert counts["by_component"] == {
        "anomalous_images": 2, "normal_images": 1, "other_images": 1, "anomalous_texts": 1, "normal_texts": 1,
    }  # fmt: skip
    assert counts["by_task"] == {"anomaly_discrimination": 6, "defect_classification": 1}
    assert counts["letters"]["defect_classification"] == {"4": {"C": 1}}
    assert counts["by_object"]["D/nut"] == {"questions": 6, "samples": 5, "defects": {"hole": 3}}
    assert total(counts["tree"]) == 7


def test_the_published_figures_add_up() -> None:
    assert sum(PUBLISHED_SAMPLES.values()) == 18597
    assert sum(PUBLISHED_QUESTIONS.values()) == 52303


def test_tables_stand_beside_the_published_ones(tmp_path: Path) -> None:
    tables = {table.name: table for table in stats_tables(read_stats(write(tmp_path / "set")))}
    texts = [[cell.text for cell in line] for line in tables["samples"].rows]
    assert ["Anomalous images", "2", "10,117"] in texts and texts[-1] == ["All", "6", "18,597"]
    assert ["Object Classification", "0", "5,845"] in [
        [c.text for c in line] for line in tables["questions"].rows
    ]


def test_the_drawing_is_to_scale() -> None:
    tree = {"a": {"t": {"x": 3, "y": 1}}, "b": {"t": {"x": 4}}}
    svg = sunburst(tree, {"a": "Alpha & co"}, "drawn")
    root = ElementTree.fromstring(svg.replace("var(--paper)", "white"))
    told = [title.text for title in root.iter("title")]
    assert told == [
        "Alpha & co: 4 (50.0 %)", "Alpha & co / t: 4 (50.0 %)", "Alpha & co / t / x: 3 (37.5 %)",
        "Alpha & co / t / y: 1 (12.5 %)", "b: 4 (50.0 %)", "b / t: 4 (50.0 %)", "b / t / x: 4 (50.0 %)",
    ]  # fmt: skip
    paths = [path.attrib["d"] for path in root.iter("path")]
    start, end = (
        [float(x) for x in point] for point in re.findall(r"(-?[\d.]+) (-?[\d.]+)(?= A| L)", paths[2])[:2]
    )
    angles = [math.degrees(math.atan2(x, -y)) % 360 for x, y in (start, end)]
    assert angles == pytest.approx([0, 0.375 * 360], abs=0.1)
    assert math.hypot(*start) == pytest.approx(RINGS[2][1], abs=0.1)


def test_a_tree_of_one_branch_is_a_whole_ring() -> None:
    svg = sunburst({"a": {"t": {"x": 5}}}, {}, "one")
    assert svg.count("<path") == 3 and "a: 5 (100.0 %)" in svg


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    page = write_page(read_stats(write(tmp_path / "set")), tmp_path / "page.html").read_text()
    assert "<b>bolt" not in page and "&lt;b&gt;bolt" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "Training set set" in page and "18,597" in page


def test_a_manifest_of_other_rows_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    census = Census()
    for one in ROWS:
        census.add(one)
    manifest = {"counts": census.as_json(), "findings": {"left_out": {"twin": 2}}, "not_asked": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert not read_stats(folder).stale
    findings = stats_tables(read_stats(folder))[-1]
    assert [[cell.text for cell in line] for line in findings.rows] == [["Left out", "twin", "2"]]
    write(folder, ROWS[:-1])
    assert read_stats(folder).stale


def test_the_command_prints_tables_or_one_json_document(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    shown = CliRunner().invoke(stats, [str(folder)])
    assert shown.exit_code == 0 and "10,117" in shown.stdout and (folder / "report/index.html").is_file()
    printed = CliRunner().invoke(stats, [str(folder), "--format", "json"])
    assert json.loads(printed.stdout)["questions"] == 7


@pytest.mark.parametrize("content", ["", " ", "{", "[]", '{"task": "x"}', '{"dataset": "\\ud800"}'])
def test_what_is_no_training_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    place = tmp_path / "train.jsonl"
    if content:
        place.write_text(content)
    with pytest.raises(BadInput, match=r"train\.jsonl"):
        read_stats(place)


def test_a_manifest_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    for content in ("[]", "{}", '{"counts": 3}'):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(BadInput, match="no manifest of a training set"):
            read_stats(folder)

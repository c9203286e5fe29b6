"""Building a training set in a test, and reading what came of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.raw import RawDataset
from tests.raw import encoder
from trainers.dataset.build import Built, Settings, build


def run(tmp_path: Path, *datasets: RawDataset, out: str = "out", **options: Any) -> Built:
    settings = {key: options.pop(key) for key in list(options) if key in Settings.__slots__}
    return build(datasets, tmp_path / out, Settings(**settings), encoder(), tmp_path / "kept", **options)


def rows(built: Built, name: str = "train.jsonl") -> list[dict[str, Any]]:
    lines = (built.folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def manifest(built: Built) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((built.folder / "manifest.json").read_text())
    return content


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

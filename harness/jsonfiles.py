"""JSON files: reading sees duplicate keys, and writing replaces a file in one step or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness.errors import BadInput

DuplicateKeys = list[str]


def read_json(path: Path) -> tuple[Any, DuplicateKeys]:
    """A JSON file's content and every key that stands twice in one object.

    Raises:
        BadInput: the file cannot be read or is not JSON; the sentence names line and column.
    """
    doubles: DuplicateKeys = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            doubles.extend(sorted({name for name in names if names.count(name) > 1}))
        return table

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=build)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}: line {error.lineno}, column {error.colno}: broken JSON ({error.msg}); correct the file"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except RecursionError as error:
        raise BadInput(f"{path}: it is nested too deeply; correct the file") from error
    except OSError as error:
        raise BadInput(f"{path}: it cannot be read ({error.strerror}); check path and permissions") from error
    return content, doubles


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON in one step, keys in the order given."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

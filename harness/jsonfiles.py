"""JSON files: reading sees duplicate keys, and writing replaces a file in one step or not at all."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import BadInput

DuplicateKeys = list[str]
PACKED = ".gz"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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
        text = _read_text(path)
        content = json.loads(text, object_pairs_hook=build)
        if _SURROGATE.search(text):  # as half of a pair it is fine, alone it is no character
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}: line {error.lineno}, column {error.colno}: broken JSON ({error.msg}); correct the file"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise BadInput(f"{path}: {half!r} is half of a surrogate pair, no character; remove it") from error
    except ValueError as error:
        raise BadInput(f"{path}: it holds a number of too many digits; correct the file") from error
    except RecursionError as error:
        raise BadInput(f"{path}: it is nested too deeply; correct the file") from error
    except OSError as error:
        raise BadInput(f"{path}: it cannot be read ({error.strerror}); check path and permissions") from error
    return content, doubles


def _read_text(path: Path) -> str:
    """A text file's content, unpacked where its name ends in ``.gz``."""
    if path.suffix != PACKED:
        return path.read_text(encoding="utf-8-sig")
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: it is no gzip file, or a damaged one ({error}); pack it again") from error


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with the words that name its line; empty lines are passed over.

    Raises:
        BadInput: the file cannot be read, or a line is no JSON object.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")  # not splitlines: texts may hold U+2028
    except FileNotFoundError as error:
        raise BadInput(f"{path}: there is no such file; name a JSONL file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: it cannot be read as UTF-8 text ({error}); pass a JSONL file") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise BadInput(f"{where}: broken JSON ({error.msg}); correct the line") from error
        except (UnicodeEncodeError, ValueError, RecursionError) as error:
            raise BadInput(f"{where}: it cannot be read ({error}); correct the line") from error
        if not isinstance(row, dict):
            raise BadInput(f"{where}: it is no JSON object; correct the line")
        yield where, row


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old content or the new, never half of it.

    One whose name ends in ``.gz`` is packed, the same text always to the same bytes on one machine.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = text.encode()
        partial.write_bytes(gzip.compress(content, mtime=0) if path.suffix == PACKED else content)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON in one step, keys in the order given; packed where the name ends in ``.gz``."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

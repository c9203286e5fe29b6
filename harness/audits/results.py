"""``RUN/audits/<audit>/result.json``: written by an audit, read by whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.audits.spec import AuditResult
from harness.errors import BadInput
from harness.jsonfiles import read_json, write_json
from harness.keys import digest_of
from harness.manifest import read_manifest
from harness.run_folder import AUDITS_FOLDER

FILE_NAME = "result.json"
FORMAT = 1
_FIELDS: dict[str, type] = {
    "audit": str,
    "title": str,
    "sentence": str,
    "columns": list,
    "rows": list,
    "n_questions": int,
    "figures": dict,
}


def write_result(run_folder: Path, result: AuditResult) -> Path:
    """Keep what an audit found beside its variants, with a mark of the run that it is about."""
    path = run_folder / AUDITS_FOLDER / result.audit / FILE_NAME
    mark = _mark(read_manifest(run_folder))
    write_json(path, {"format": FORMAT, "run": mark, **result.as_json()})
    return path


def read_results(run_folder: Path) -> list[AuditResult]:
    """What audits found about a run, by name.

    Results of an earlier run in the same folder, of other models or other questions, are left out.

    Raises:
        BadInput: the folder is no run's, or a result is broken.
    """
    paths = sorted((run_folder / AUDITS_FOLDER).glob(f"*/{FILE_NAME}"))
    mark = _mark(read_manifest(run_folder)) if paths else ""
    found = []
    for path in paths:
        content, _ = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise BadInput(f"{path}: it is no audit's result of format {FORMAT}; run the audit again")
        if content.get("run") == mark:
            found.append(_result(path, content))
    return found


def _result(path: Path, content: Mapping[str, Any]) -> AuditResult:
    for name, kind in _FIELDS.items():
        if not isinstance(content.get(name), kind):
            raise BadInput(f"{path}: {name} is missing or of the wrong kind; run the audit again")
    rows = content["rows"]
    cells = [cell for row in rows if isinstance(row, list) for cell in row]
    width = len(content["columns"])
    if not all(isinstance(row, list) and len(row) == width for row in rows) or not all(
        cell is None or isinstance(cell, str | int | float) for cell in (*cells, *content["columns"])
    ):
        raise BadInput(f"{path}: its rows are no table; run the audit again")
    return AuditResult(
        audit=content["audit"],
        title=content["title"],
        sentence=content["sentence"],
        columns=tuple(map(str, content["columns"])),
        rows=tuple(tuple(row) for row in rows),
        n_questions=content["n_questions"],
        figures=content["figures"],
    )


def _mark(manifest: Mapping[str, Any]) -> str:
    """One digest of what a run asked, of whom."""
    models = {name: model.get("digest") for name, model in manifest["models"].items()}
    benchmark, protocol = manifest["benchmark"], manifest["protocol"]
    asked = [benchmark.get("digest"), protocol.get("digest"), manifest.get("limit"), manifest.get("seed")]
    return digest_of(["audited", asked, models])

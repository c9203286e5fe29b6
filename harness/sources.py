"""Answers to be scored, compared or reported: a run's folder, a baseline, an official answer file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.records import Answer


@dataclass(frozen=True)
class Source:
    """Answers of one or several models, and what is known about how they came to be."""

    path: Path
    answers: Mapping[str, Sequence[Answer]]  #: model id -> its answers; no model without any
    manifest: Mapping[str, Any] | None = None  #: None for an answer file, which does not tell

    @property
    def finished(self) -> bool:
        """Whether nothing is still to come."""
        return self.manifest is None or self.manifest["status"] == "finished"

    @property
    def protocol_digest(self) -> str | None:
        """SHA-256 of the protocol; None where it is not known."""
        return None if self.manifest is None else str(self.manifest["protocol"]["digest"])

    @property
    def benchmark_digest(self) -> str | None:
        """SHA-256 of the benchmark's questions and file list; None where it is not known."""
        return None if self.manifest is None else str(self.manifest["benchmark"]["digest"])

    @property
    def sentence(self) -> str:
        """What the answers are of, as it stands under a table."""
        if self.manifest is None:
            return "An answer file: it does not tell which benchmark, world or protocol it is of."
        benchmark = self.manifest["benchmark"]
        return (
            f"Benchmark {benchmark['name']} of the {benchmark['world']} world; "
            f"{protocol_words(self.manifest['protocol'])}."
        )


def protocol_words(protocol: Mapping[str, Any]) -> str:
    """A protocol as every table's footnote has it.

    >>> protocol_words({"name": "mmad", "mode": "direct", "shots": 1, "digest": "0123456789abcdef01"})
    'protocol mmad (direct, 1-shot), sha256 0123456789abcdef'
    """
    return (
        f"protocol {protocol['name']} ({protocol['mode']}, {protocol['shots']}-shot), "
        f"sha256 {protocol['digest'][:16]}"
    )


def differences(one: Source, other: Source) -> list[str]:
    """What forbids a comparison of two sources as a whole, in words; empty where nothing is known to."""
    found = []
    for what, first, second in (
        ("the benchmark", one.benchmark_digest, other.benchmark_digest),
        ("the protocol", one.protocol_digest, other.protocol_digest),
    ):
        if first is not None and second is not None and first != second:
            part = what.removeprefix("the ")
            names = [str((side.manifest or {})[part]["name"]) for side in (one, other)]
            detail = _fields(one, other) if part == "protocol" else ""
            found.append(
                f"{what} differs: {names[0]} ({first[:12]}) in {one.path}, {names[1]} ({second[:12]}) in "
                f"{other.path}{detail}"
            )
    return found


def _fields(one: Source, other: Source) -> str:
    """Which fields of two protocols differ, where both tell."""
    tables = [(side.manifest or {})["protocol"] for side in (one, other)]
    names = [
        name
        for name in tables[0]
        if name != "digest" and name in tables[1] and tables[0][name] != tables[1][name]
    ]
    return f"; they differ in {', '.join(names)}" if names else ""


def require_comparable(one: Source, other: Source) -> None:
    """Refuse sources of another benchmark or protocol.

    Raises:
        BadInput: naming what differs.
    """
    if found := differences(one, other):
        raise BadInput(f"{'; '.join(found)}; compare runs of one kind, or pass --common")

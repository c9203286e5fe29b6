"""Texts that are paid for, kept in one SQLite file of the output folder as soon as they are there.

A key covers what decides a text: the model's name, the wording, the settings, the pictures and the text's
number. A rerun, and a run after a kill, asks for what is missing and for nothing else. Next to each key lies
what it has cost, failed attempts included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput

FILE_NAME = "describe.sqlite"
SCHEMA_VERSION = 1
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS texts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (       -- on a key, over all runs
    key TEXT PRIMARY KEY,
    replies INTEGER NOT NULL,            -- readable ones, good or bad
    prompt_tokens INTEGER NOT NULL,      -- as the server reports them
    completion_tokens INTEGER NOT NULL
) WITHOUT ROWID;
COMMIT;
"""
_SPEND = """
INSERT INTO spent VALUES (?, 1, ?, ?) ON CONFLICT (key) DO UPDATE SET
    replies = replies + 1,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What texts have cost."""

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class TextCache:
    """The cache of one output folder; a context manager.

    Raises:
        BadInput: the file is no cache of ours, or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        except sqlite3.Error as error:
            raise self._refusal(error) from error
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(_SCHEMA)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error as error:
            self._db.close()
            raise self._refusal(error) from error
        if version not in (0, SCHEMA_VERSION):
            self._db.close()
            raise BadInput(
                f"{self.path}: its format is version {version}, this program reads {SCHEMA_VERSION}; use "
                "another --out"
            )

    def __enter__(self) -> TextCache:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise self._refusal(error) from error

    def text(self, key: str) -> str | None:
        """The text of a key, if it is there."""
        row = self._db.execute("SELECT text FROM texts WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def replies(self, key: str) -> int:
        """How many replies have come for a key: the next attempt takes another seed than those."""
        return self.spent([key]).replies

    def add(self, key: str, text: str | None, prompt_tokens: int, completion_tokens: int) -> None:
        """Book a reply, and keep its text unless it was refused; durable when this returns."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute(_SPEND, (key, prompt_tokens, completion_tokens))
            if text is not None:
                self._db.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (key, text))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def spent(self, keys: Iterable[str]) -> Spent:
        """What these keys have cost over all runs."""
        total = [0, 0, 0]
        for key in keys:
            row = self._db.execute(
                "SELECT replies, prompt_tokens, completion_tokens FROM spent WHERE key = ?", (key,)
            ).fetchone()
            total = [one + other for one, other in zip(total, row or (0, 0, 0), strict=True)]
        return Spent(*total)

    def _refusal(self, error: sqlite3.Error) -> BadInput:
        return BadInput(
            f"{self.path}: the cache of texts cannot be used ({error}); see to space and permissions, or "
            "move the file away"
        )

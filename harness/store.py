"""The store of answers: one SQLite file in a run's folder, written as answers arrive.

``answers`` holds what models said, under a key that covers everything an answer depends on (see
:mod:`harness.keys`). ``plan`` says which of them the run's last command asked for, in order: answers that an
earlier command with another protocol left behind stay for later use and are never scored. Each group is one
transaction, so that killing the process loses at most the group in flight.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, cast

from harness.columns import LEFT_OUT, AnswerTable
from harness.errors import BadInput
from harness.records import Answer, Outcome, Question

FILE_NAME = "answers.sqlite"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,                -- SHA-256, see harness.keys
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,               -- answered, unparsed or failed
    letter TEXT,
    text TEXT NOT NULL,
    reason TEXT NOT NULL,
    option_logprobs TEXT,                -- JSON: letter -> log-probability
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plan (
    model TEXT NOT NULL,
    position INTEGER NOT NULL,           -- order of the benchmark file
    item TEXT NOT NULL,                  -- the image's key in mmad.json
    number INTEGER NOT NULL,             -- of the question within the item
    subtask TEXT NOT NULL,
    raw_type TEXT NOT NULL,
    question TEXT NOT NULL,
    options TEXT NOT NULL,               -- JSON: letter -> text
    correct TEXT NOT NULL,
    answer TEXT NOT NULL,                -- answers.key
    work TEXT NOT NULL,                  -- work.key
    PRIMARY KEY (model, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS work (        -- one row per group of questions on one image pair
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    seconds REAL NOT NULL,
    counters TEXT NOT NULL               -- JSON: what the model counted for this group
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heat_maps (   -- of groups whose model compares images; see GroupResult.heat_map
    key TEXT PRIMARY KEY,                -- work.key
    png BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (     -- of image files; size, times and inode show a change
    path TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,
    digest TEXT NOT NULL
) WITHOUT ROWID;
"""
_FIELDS = {  # of Answer, in order, as the store has them
    "key": "plan.item",
    "number": "plan.number",
    "subtask": "plan.subtask",
    "raw_type": "plan.raw_type",
    "question": "plan.question",
    "options": "plan.options",
    "correct": "plan.correct",
    "letter": "answers.letter",
    "outcome": "answers.outcome",
    "text": "answers.text",
    "reason": "answers.reason",
    "option_logprobs": "answers.option_logprobs",
    "prompt_tokens": "answers.prompt_tokens",
    "completion_tokens": "answers.completion_tokens",
    "seconds": "answers.seconds",
}
_READ = """
SELECT {fields} FROM plan JOIN answers ON answers.key = plan.answer
WHERE plan.model = ? ORDER BY plan.position
"""
#: From each model to the next by the index: DISTINCT would walk over every question.
_MODELS = """
WITH RECURSIVE found(model) AS (
    SELECT min(model) FROM plan
    UNION ALL SELECT (SELECT min(plan.model) FROM plan WHERE plan.model > found.model) FROM found
    WHERE found.model IS NOT NULL
)
SELECT model FROM found WHERE model IS NOT NULL ORDER BY model
"""


_OUTCOMES = {str(outcome): outcome for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Spoken:
    """The part of an answer that the model decides: one row of ``answers``."""

    letter: str | None
    outcome: Outcome
    text: str = ""
    reason: str = ""
    option_logprobs: Mapping[str, float] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One question of the run's plan: where it stands, and under which keys its answer and work are."""

    position: int
    item: str
    question: Question
    answer: str
    work: str


class Store:
    """An open store. Use :meth:`open` to write and :meth:`read_only` to read, both as context managers."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._options: dict[str, Any] = {}  # as written -> parsed
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open for writing, and create if absent; raises :class:`BadInput` for a file that is not ours."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store = cls(sqlite3.connect(path, isolation_level=None), path)
        except sqlite3.OperationalError as error:
            raise _refusal(path, error) from error
        try:
            store._db.execute("PRAGMA journal_mode = WAL")
            store._db.execute("PRAGMA synchronous = FULL")
            store._db.executescript(_SCHEMA)
            store._db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
            store._check_version()
        except sqlite3.DatabaseError as error:
            store._db.close()
            raise _refusal(path, error) from error
        return store

    @classmethod
    def read_only(cls, path: Path) -> Store:
        """Open for reading; raises :class:`BadInput` when there is no readable store."""
        if not path.is_file():
            raise BadInput(f"{path.parent}: there is no {path.name}; name the folder of an `emit-bench run`")
        pending = path.with_name(path.name + "-wal").exists()
        mode = "mode=ro" if pending else "mode=ro&immutable=1"
        try:
            store = cls(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True), path)
            store._check_version()
        except sqlite3.DatabaseError as error:
            raise _refusal(path, error) from error
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._db.close()
        # Its subclasses but one tell of bugs; these two of a full disk, a lock, or a damaged file.
        if type(error) in (sqlite3.DatabaseError, sqlite3.OperationalError):
            raise _refusal(self.path, cast(sqlite3.DatabaseError, error)) from error

    def _check_version(self) -> None:
        version = self._db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if version is None or version[0] != str(SCHEMA_VERSION):
            raise BadInput(
                f"{self.path}: its format is version {version and version[0]}, this program reads "
                f"{SCHEMA_VERSION}; use another --out"
            )

    def spoken(self, model: str) -> dict[str, Spoken]:
        """Everything stored of one model, by key."""
        rows = self._db.execute(
            "SELECT key, letter, outcome, text, reason, option_logprobs, prompt_tokens, completion_tokens,"
            " seconds FROM answers WHERE model = ?",
            (model,),
        )
        return {
            key: Spoken(letter, Outcome(outcome), text, reason, _load(logprobs), *numbers)
            for key, letter, outcome, text, reason, logprobs, *numbers in rows
        }

    def forget_plan(self) -> None:
        """Empty the plan: a new command starts."""
        with self._transaction():
            self._db.execute("DELETE FROM plan")

    def save(
        self,
        model: str,
        plan: Sequence[PlanRow],
        spoken: Mapping[str, Spoken],
        works: Sequence[tuple[str, float, Mapping[str, int]]],
        heat_maps: Mapping[str, bytes] | None = None,
    ) -> None:
        """Put a few groups on disk in one transaction.

        Args:
            model: the model's id.
            plan: the groups' questions.
            spoken: key -> answer, of those that are new or changed.
            works: key, seconds and counters of each group that the model worked on now; they are added to
                what earlier attempts took.
            heat_maps: key of a group -> its heat map.
        """
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO plan VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_plan_row(model, row) for row in plan],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_answer_row(model, key, said) for key, said in spoken.items()],
            )
            for key, seconds, counters in works:
                self._add_work(model, key, seconds, counters)
            pictures = (heat_maps or {}).items()
            self._db.executemany("INSERT OR REPLACE INTO heat_maps VALUES (?, ?)", pictures)

    def _add_work(self, model: str, key: str, seconds: float, counters: Mapping[str, int]) -> None:
        before = self._db.execute("SELECT seconds, counters FROM work WHERE key = ?", (key,)).fetchone()
        total = dict(counters)
        if before is not None:
            seconds += before[0]
            for name, count in json.loads(before[1]).items():
                total[name] = total.get(name, 0) + count
        self._db.execute(
            "INSERT OR REPLACE INTO work VALUES (?, ?, ?, ?)", (key, model, seconds, json.dumps(total))
        )

    def answers(self, model: str) -> tuple[Answer, ...]:
        """The answers of one model that the run's plan asks for, in order."""
        with _no_collection():
            return tuple(self.table(model))

    def table(self, model: str, words: bool = True) -> AnswerTable:
        """The same in columns.

        Args:
            model: its id.
            words: with all that was written and measured; without, only what scores are made of: images,
                numbers, subtasks, letters, outcomes and log-probabilities.
        """
        asked = [name for name in _FIELDS if words or name not in LEFT_OUT]
        command = _READ.format(fields=", ".join(_FIELDS[name] for name in asked))
        with _no_collection():
            rows = self._db.execute(command, (model,)).fetchall()
        values: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else repeat((), len(asked))
        columns = dict(zip(asked, values, strict=True))
        columns["outcome"] = [_OUTCOMES[told] for told in columns["outcome"]]
        if words:  # models are asked the same, so options are parsed once
            texts, known = columns["options"], self._options
            known |= {text: json.loads(text) for text in set(texts).difference(known)}
            columns["options"] = [known[text] for text in texts]
        return AnswerTable(model, columns)

    def models(self) -> tuple[str, ...]:
        """The models of the run's plan."""
        return tuple(name for (name,) in self._db.execute(_MODELS))

    def work_done(self, model: str) -> dict[str, float]:
        """Sums over the groups of the run's plan: ``groups``, ``seconds`` and the model's own counters."""
        rows = self._db.execute(
            "SELECT seconds, counters FROM work WHERE key IN (SELECT work FROM plan WHERE model = ?)",
            (model,),
        )
        total: dict[str, float] = {"groups": 0, "seconds": 0.0}
        for seconds, counters in rows:
            total["groups"] += 1
            total["seconds"] += seconds
            for name, count in json.loads(counters).items():
                total[name] = total.get(name, 0) + count
        return total

    def heat_maps(self, model: str) -> dict[str, bytes]:
        """Image's key -> heat map of one model in the run's plan (:class:`harness.records.GroupResult`)."""
        there = "SELECT 1 FROM sqlite_master WHERE name = 'heat_maps'"  # stores of before 0.5 have none
        if self._db.execute(there).fetchone() is None:
            return {}
        rows = self._db.execute(
            "SELECT DISTINCT plan.item, heat_maps.png FROM plan JOIN heat_maps ON heat_maps.key = plan.work"
            " WHERE plan.model = ?",
            (model,),
        )
        return dict(rows)

    def digests(self) -> dict[str, tuple[str, str]]:
        """Path -> (stamp, digest) of image files read before."""
        rows = self._db.execute("SELECT path, stamp, digest FROM digests")
        return {path: (stamp, digest) for path, stamp, digest in rows}

    def save_digests(self, known: Mapping[str, tuple[str, str]]) -> None:
        """Remember digests of image files."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)",
                [(path, *value) for path, value in known.items()],
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Records by the hundred thousand, and no cycle among them: the collector would walk them in vain."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _refusal(path: Path, error: sqlite3.DatabaseError) -> BadInput:
    if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return BadInput(
            f"{path}: it is no answer store, or a damaged one ({error}); move it away or run with --fresh"
        )
    return BadInput(
        f"{path}: it cannot be used ({error}); see to space, permissions and other users of the file, "
        f"then run the same command again"
    )


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _dump(table: Mapping[str, Any] | None) -> str | None:
    return None if table is None else json.dumps(dict(table), ensure_ascii=False)


def _plan_row(model: str, row: PlanRow) -> tuple[Any, ...]:
    question = row.question
    return (
        *(model, row.position, row.item, question.number, question.subtask, question.raw_type),
        *(question.text, _dump(question.options), question.answer, row.answer, row.work),
    )


def _answer_row(model: str, key: str, said: Spoken) -> tuple[Any, ...]:
    return (
        *(key, model, str(said.outcome), said.letter, said.text, said.reason, _dump(said.option_logprobs)),
        *(said.prompt_tokens, said.completion_tokens, said.seconds),
    )

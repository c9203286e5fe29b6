"""The reader of MMAD's on-disk format: a folder with ``mmad.json``, ``domain_knowledge.json`` and images.

Every entry becomes an :class:`~harness.records.Item`; whatever is wrong with it becomes a :class:`Problem`
that names the entry and the field. :func:`read_mmad` refuses a folder with a problem; :func:`inspect_mmad`
lists all of them for ``emit-bench data doctor``.

The format is that of ``jam-cc/MMAD``; ``mask_path`` is known relative to the object's folder and to the root,
so both are tried.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.folders import Folder, UnsafePath
from harness.hookspecs import Benchmark
from harness.jsonfiles import DuplicateKeys, read_json
from harness.protocol import IMAGE_MARK, KNOWLEDGE_NAMES
from harness.records import Item, Question, World
from harness.subtasks import RAW_TYPES

QUESTIONS_FILE = "mmad.json"
KNOWLEDGE_FILE = "domain_knowledge.json"
LETTERS = "ABCDE"
_TEMPLATE_FIELDS = ("similar_templates", "random_templates")

Knowledge = dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a benchmark folder."""

    entry: str  #: the image's key, or the file's name
    field: str  #: as written in the file, such as ``conversation[2].Answer``
    sentence: str  #: what is wrong and what to do
    fatal: bool = True  #: whether an evaluation must not start; the rest is only worth knowing

    def __str__(self) -> str:
        place = f"{self.entry}: {self.field}" if self.field else self.entry
        return f"{place}: {self.sentence}"


@dataclass
class Inspection:
    """All that could be read from a benchmark folder, and all that could not."""

    root: Path
    items: list[Item] = field(default_factory=list)
    knowledge: Knowledge = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def fatal(self) -> list[Problem]:
        """The problems that forbid an evaluation."""
        return [problem for problem in self.problems if problem.fatal]


def read_mmad(root: Path, name: str = "mmad", world: World = "real") -> Benchmark:
    """The benchmark in a folder of MMAD's format.

    Args:
        root: the folder that holds ``mmad.json``.
        name: what tables call the benchmark.
        world: the world it belongs to.

    Raises:
        BadInput: the first problem found, with the number of the others.
    """
    found = inspect_mmad(root)
    if found.fatal:
        first, others = found.fatal[0], len(found.fatal) - 1
        more = f" ({others} more problem{'s' if others > 1 else ''})" if others else ""
        raise BadInput(
            f"{root / QUESTIONS_FILE}: {first}{more}; `emit-bench data doctor {root}` lists them all"
        )
    return Benchmark(
        name=name,
        world=world,
        root=root,
        digest=_digest(root, found.items, found.knowledge),
        items=tuple(found.items),
        knowledge=found.knowledge,
    )


def inspect_mmad(root: Path) -> Inspection:
    """Read whatever can be read of a benchmark folder and collect every problem.

    Raises:
        BadInput: there is no readable ``mmad.json`` at all.
    """
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; point --data at the folder that holds {QUESTIONS_FILE}")
    file = root / QUESTIONS_FILE
    if not file.is_file():
        raise BadInput(f"{root}: there is no {QUESTIONS_FILE}; point --data at the folder that holds it")
    table, doubles = read_json(file)
    if not isinstance(table, dict) or not table:
        raise BadInput(
            f"{file}: it must be an object with one entry per image, as MMAD's {QUESTIONS_FILE} is"
        )
    found = Inspection(root)
    _report_duplicates(found, QUESTIONS_FILE, doubles)
    reader = _EntryReader(Folder(root), found.problems)
    for key, entry in table.items():
        item = reader.item(key, entry)
        if item is not None:
            found.items.append(item)
    _read_knowledge(found)
    return found


class _EntryReader:
    """Turns entries into items; what is wrong with them goes to ``problems``."""

    def __init__(self, folder: Folder, problems: list[Problem]) -> None:
        self.folder = folder
        self.problems = problems
        self.key = ""

    def report(self, field: str, sentence: str, *, fatal: bool = True) -> None:
        self.problems.append(Problem(self.key, field, sentence, fatal))

    def item(self, key: str, entry: Any) -> Item | None:
        """The item of one entry, or None when it has no usable image or no usable question."""
        self.key = key
        parts = key.split("/")
        if len(parts) < 3:
            self.report("", "the key must be <dataset>/<object>/<image path>; correct the key")
            return None
        if not isinstance(entry, dict):
            self.report("", "the entry must be an object with a conversation; correct the entry")
            return None
        image = self.file("", key, "image")
        questions = self.questions(entry)
        masks = self.masks(entry.get("mask_path"), parts)
        similar, random = (self.templates(name, entry.get(name)) for name in _TEMPLATE_FIELDS)
        if not similar and not random and not any(entry.get(name) for name in _TEMPLATE_FIELDS):
            self.report(
                "similar_templates", "no reference image is listed; only --shots 0 can run", fatal=False
            )
        if image is None or not questions:
            return None
        return Item(key, parts[0], parts[1], image, masks, similar, random, questions)

    def file(self, field: str, name: str, what: str) -> Path | None:
        """A file named by the entry, if it is there and inside the root."""
        try:
            path = self.folder.file(name)
        except UnsafePath as error:
            self.report(field, f"the {what} {name!r} {error}; keep every file inside the benchmark's folder")
            return None
        if path is None:
            self.report(field, f"the {what} {name!r} is missing; restore the file or remove its entry")
        return path

    def templates(self, field: str, names: Any) -> tuple[Path, ...]:
        if names is None:
            return ()
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.report(field, "it must be a list of image paths; correct the list")
            return ()
        paths = (self.file(f"{field}[{i}]", name, "reference image") for i, name in enumerate(names))
        return tuple(path for path in paths if path is not None)

    def masks(self, name: Any, parts: list[str]) -> tuple[Path, ...]:
        """The mask's file, or the images of its folder; a mask that is not there is no obstacle."""
        if not name:
            return ()
        if not isinstance(name, str):
            self.report("mask_path", "it must be a path, empty or null; correct the path", fatal=False)
            return ()
        places = (name, "/".join([*parts[:2], name]), "/".join([*parts[:3], name]))
        for place in dict.fromkeys(places):
            try:
                paths = self.folder.files(place)
            except UnsafePath as error:
                self.report("mask_path", f"{name!r} {error}; keep every file inside the benchmark's folder")
                return ()
            if paths:
                return paths
        self.report("mask_path", f"the mask {name!r} is missing; defect areas cannot be shown", fatal=False)
        return ()

    def questions(self, entry: Mapping[str, Any]) -> tuple[Question, ...]:
        name = next((key for key in entry if key.startswith("conversation")), None)
        if name is None:
            self.report("conversation", "there is none; add the list of questions")
            return ()
        talk = entry[name]
        if not isinstance(talk, list):
            self.report(name, "it must be a list of questions; correct the entry")
            return ()
        if not talk:
            self.report(name, "it holds no question, so the image is not asked about", fatal=False)
        read = (self.question(f"{name}[{i}]", i, question) for i, question in enumerate(talk))
        return tuple(question for question in read if question is not None)

    def question(self, place: str, number: int, entry: Any) -> Question | None:
        if not isinstance(entry, dict):
            self.report(place, "it must be an object with Question, Options, Answer and type; correct it")
            return None
        faults = list(_question_faults(entry))
        for name, sentence in faults:
            self.report(f"{place}.{name}", sentence)
        if faults:
            return None
        raw_type = entry["type"]
        return Question(
            number, entry["Question"], entry["Options"], entry["Answer"], raw_type, RAW_TYPES[raw_type]
        )


def _question_faults(entry: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Field and sentence for everything wrong with one question."""
    text, options, answer, raw_type = (entry.get(name) for name in ("Question", "Options", "Answer", "type"))
    if not isinstance(text, str) or not text.strip():
        yield "Question", "it must be a text; write the question"
    elif IMAGE_MARK in text:
        yield "Question", "it holds the object replacement character U+FFFC; remove the character"
    if not isinstance(options, dict) or not 2 <= len(options) <= len(LETTERS):
        yield "Options", f"it must be an object of 2 to {len(LETTERS)} options; correct the options"
    elif wrong := [letter for letter in options if letter not in tuple(LETTERS)]:
        yield "Options", f"{wrong[0]!r} is no letter from A to {LETTERS[-1]}; correct the options"
    elif wrong := [
        key for key, option in options.items() if not isinstance(option, str) or not option.strip()
    ]:
        yield "Options", f"option {wrong[0]} has no text; write the option"
    elif any(IMAGE_MARK in option for option in options.values()):
        yield "Options", "an option holds the object replacement character U+FFFC; remove the character"
    elif not isinstance(answer, str) or answer not in options:
        yield "Answer", f"{answer!r} is not among the options {', '.join(options)}; correct the answer"
    if not isinstance(raw_type, str) or raw_type not in RAW_TYPES:
        yield "type", f"{raw_type!r} is no question type; use one of {', '.join(RAW_TYPES)}"


def _read_knowledge(found: Inspection) -> None:
    """Fill in the knowledge texts; products without any are worth knowing but no obstacle."""
    file = found.root / KNOWLEDGE_FILE
    if not file.is_file():
        found.problems.append(
            Problem(KNOWLEDGE_FILE, "", "there is none, so prompts carry no domain knowledge", fatal=False)
        )
        return
    table, doubles = read_json(file)
    _report_duplicates(found, KNOWLEDGE_FILE, doubles)
    if not isinstance(table, dict):
        raise BadInput(f"{file}: it must be an object of datasets, objects and texts; correct the file")
    for dataset, objects in table.items():
        named: dict[str, Any] = objects if isinstance(objects, dict) else {"": None}
        for name, texts in named.items():
            if isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()):
                found.knowledge.setdefault(dataset, {})[name] = texts
            else:
                sentence = "it must be an object of condition and text; correct the entry"
                found.problems.append(Problem(KNOWLEDGE_FILE, f"{dataset}.{name}".rstrip("."), sentence))
    for dataset, name in dict.fromkeys((item.dataset, item.object) for item in found.items):
        if not found.knowledge.get(KNOWLEDGE_NAMES.get(dataset, dataset), {}).get(name):
            sentence = "this product has no text, so its prompts carry no domain knowledge"
            found.problems.append(Problem(KNOWLEDGE_FILE, f"{dataset}.{name}", sentence, fatal=False))


def _report_duplicates(found: Inspection, file: str, doubles: DuplicateKeys) -> None:
    for key in doubles:
        sentence = f"the key {key!r} stands twice in one object; keep one of the two"
        found.problems.append(Problem(file, "", sentence))


def _digest(root: Path, items: Iterable[Item], knowledge: Knowledge) -> str:
    """SHA-256 of questions, options, answers, knowledge and file list, wherever the root is."""

    def names(paths: Iterable[Path]) -> list[str]:
        return [path.relative_to(root).as_posix() for path in paths]

    content = [
        [
            item.key,
            names(item.masks),
            names(item.similar_templates),
            names(item.random_templates),
            [[q.text, list(q.options.items()), q.answer, q.raw_type] for q in item.questions],
        ]
        for item in items
    ]
    texts = [
        [dataset, [[name, list(t.items())] for name, t in o.items()]] for dataset, o in knowledge.items()
    ]
    return hashlib.sha256(json.dumps([content, texts]).encode()).hexdigest()

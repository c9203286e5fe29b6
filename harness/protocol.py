"""A protocol: everything that decides what a model is asked, frozen and hashed.

Two papers' "MMAD accuracy" are different experiments as soon as their prompts, references or knowledge
differ. So all of it lives in one object whose digest is printed under every table. The shipped protocols
are TOML files in ``harness/protocols``; a user's own file has the same shape.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness.errors import BadInput
from harness.records import MODES, Decoding, ImageFile, Item, Mode, PlannedGroup, Prompt, Question
from harness.subtasks import OBJECT_SUBTASKS, SUBTASK_KEYS

if TYPE_CHECKING:
    import jinja2

ReferenceRule = Literal["similar", "random"]
KnowledgeRule = Literal["defect", "all", "off"]
ObjectImages = Literal["query", "pair"]
ChatRule = Literal["template", "raw"]
ImageRule = Literal["shown", "hidden"]
Knowledge = Mapping[str, Mapping[str, Mapping[str, str]]]

#: Encloses an image's number in a rendered template; benchmark texts may not contain it.
IMAGE_MARK = "\ufffc"
_IMAGE = re.compile(f"{IMAGE_MARK}(\\d+){IMAGE_MARK}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # it becomes part of a folder's name
_TEXTS = ("summary", "system", "content", "question")
_OPTIONAL = ("chat", "images", "temperature", "draw")  # what a protocol file may leave out
MAX_SHOTS = 8
#: The knowledge file of MMAD names this dataset otherwise than its folder.
KNOWLEDGE_NAMES = {"DS-MVTec": "MVTec", "MVTec-AD": "MVTec"}


@dataclass(frozen=True)
class Protocol:
    """What is asked, with which images, and how the answer is decoded."""

    name: str
    summary: str
    mode: Mode
    reference: ReferenceRule
    shots: int  #: reference images, 0 to 8
    knowledge: KnowledgeRule
    object_images: ObjectImages
    contrastive: tuple[str, ...]  #: subtasks that get EMIT's soft prompt and contrastive embeddings
    system: str
    content: str  #: Jinja2: the shared part, with ``references``, ``query``, ``knowledge``, ``instruction``
    question: str  #: Jinja2: what follows it, with ``question``, ``options`` and ``instruction``
    instructions: Mapping[str, str]  #: one per answer mode
    max_new_tokens: Mapping[str, int]  #: one per answer mode
    #: ``template``: by the model's own chat template; ``raw``: the bare text, for models trained on such.
    chat: ChatRule = "template"
    #: ``hidden``: the same texts without any image, to see what they alone give away; nothing is contrastive.
    images: ImageRule = "shown"
    temperature: float = 0.0  #: of answers that are drawn; 0: the likeliest token each time
    draw: int = 0  #: the seed of drawn answers: another one draws anew

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, bool, str], ...] = (
            (
                "name",
                isinstance(self.name, str) and bool(_NAME.fullmatch(self.name)),
                "letters, digits, dots, dashes and underscores",
            ),
            *((field, isinstance(getattr(self, field), str), "a text") for field in _TEXTS),
            ("mode", self.mode in MODES, f"one of {', '.join(MODES)}"),
            ("reference", self.reference in get_args(ReferenceRule), "similar or random"),
            ("knowledge", self.knowledge in get_args(KnowledgeRule), "defect, all or off"),
            ("chat", self.chat in get_args(ChatRule), "template or raw"),
            ("images", self.images in get_args(ImageRule), "shown or hidden"),
            (
                "temperature",
                type(self.temperature) in (int, float) and 0 <= self.temperature < math.inf,
                "0 or more",
            ),
            ("draw", type(self.draw) is int and self.draw >= 0, "a whole number from 0"),
            ("object_images", self.object_images in get_args(ObjectImages), "query or pair"),
            (
                "shots",
                type(self.shots) is int and 0 <= self.shots <= MAX_SHOTS,
                f"a whole number from 0 to {MAX_SHOTS}",
            ),
            ("contrastive", all(key in SUBTASK_KEYS for key in self.contrastive), "a list of subtask keys"),
            ("instructions", _one_per_mode(self.instructions, str), "one text per answer mode"),
            (
                "max_new_tokens",
                _one_per_mode(self.max_new_tokens, int) and min(self.max_new_tokens.values()) > 0,
                "one number from 1 per answer mode",
            ),
        )
        for field, good, wanted in checks:
            if not good:
                raise BadInput(
                    f"protocol {self.name!r}: {field} is {getattr(self, field)!r}; it must be {wanted}"
                )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of every field in canonical JSON, in hex."""
        fields = asdict(self)
        for field in _OPTIONAL:  # protocols from before there was a choice keep their digests
            if fields[field] == getattr(type(self), field):
                del fields[field]
        text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def decoding(self) -> Decoding:
        """This protocol's answer mode: greedy, unless it has a temperature."""
        return Decoding(self.mode, self.max_new_tokens[self.mode], float(self.temperature), self.draw)

    def with_options(self, mode: Mode | None = None, shots: int | None = None) -> Protocol:
        """The same protocol in another answer mode or with another number of references."""
        return replace(
            self, mode=self.mode if mode is None else mode, shots=self.shots if shots is None else shots
        )

    def plan(self, item: Item, knowledge: Knowledge) -> tuple[PlannedGroup, ...]:
        """The prompt groups of one item: questions that share images and knowledge travel together.

        Args:
            item: the query image with its questions.
            knowledge: dataset -> object -> condition -> text.

        Raises:
            BadInput: the item has fewer references than ``shots`` wants.
        """
        shapes: dict[tuple[bool, bool], list[Question]] = {}
        for question in item.questions:
            shapes.setdefault(self._shape(question), []).append(question)
        query = ImageFile(item.image)
        references: tuple[ImageFile, ...] = ()
        if any(pair for pair, _ in shapes):
            references = tuple(ImageFile(path) for path in self.pick_references(item))
        texts = tuple(
            knowledge.get(KNOWLEDGE_NAMES.get(item.dataset, item.dataset), {}).get(item.object, {}).values()
        )
        groups = []
        for (pair, informed), questions in shapes.items():
            shown = references if pair else ()
            content = self._render_content(shown, query, texts if informed else ())
            if self.images == "hidden":
                content = ("".join(part for part in content if isinstance(part, str)),)
                shown = ()
            groups.append(
                PlannedGroup(
                    item=item,
                    system=self.system,
                    content=content,
                    references=shown,
                    query=query,
                    prompts=tuple(self._prompt(item, question, bool(shown)) for question in questions),
                    questions=tuple(questions),
                    raw=self.chat == "raw",
                )
            )
        return tuple(groups)

    def pick_references(self, item: Item) -> tuple[Path, ...]:
        """The first ``shots`` templates under this protocol's rule, falling back on the other list."""
        templates = self._preferred(item) or (*item.similar_templates, *item.random_templates)
        if len(templates) < self.shots:
            raise BadInput(
                f"{item.key}: {len(templates)} reference image(s) listed, but {self.shots} wanted; "
                f"add templates to the benchmark or pass --shots {len(templates)}"
            )
        return templates[: self.shots]

    def shows_reference(self, question: Question) -> bool:
        """Whether a question's prompt shows reference images beside the query."""
        return self.images == "shown" and self._shape(question)[0]

    def substitutes(self, item: Item) -> bool:
        """Whether the item lists no reference of the kind wanted, so that the other kind is shown."""
        return self.shots > 0 and not self._preferred(item)

    def _preferred(self, item: Item) -> tuple[Path, ...]:
        return item.similar_templates if self.reference == "similar" else item.random_templates

    def _shape(self, question: Question) -> tuple[bool, bool]:
        about_object = question.subtask in OBJECT_SUBTASKS
        pair = self.shots > 0 and (not about_object or self.object_images == "pair")
        informed = self.knowledge == "all" or (self.knowledge == "defect" and not about_object)
        return pair, informed

    def _prompt(self, item: Item, question: Question, paired: bool) -> Prompt:
        text = self._fill(
            "question",
            question=question.text.strip(),
            options=tuple(question.options.items()),
            instruction=self.instructions[self.mode],
        )
        opaque = hashlib.sha256(f"{item.key}\0{question.number}".encode()).hexdigest()[:16]
        return Prompt(
            id=opaque,
            text=text,
            options=question.options,
            contrastive=paired and question.subtask in self.contrastive,
        )

    def _render_content(
        self, references: tuple[ImageFile, ...], query: ImageFile, knowledge: tuple[str, ...]
    ) -> tuple[str | ImageFile, ...]:
        images = (*references, query)
        marks = [f"{IMAGE_MARK}{number}{IMAGE_MARK}" for number in range(len(images))]
        text = self._fill(
            "content",
            references=marks[:-1],
            query=marks[-1],
            knowledge=[text.replace(IMAGE_MARK, " ") for text in knowledge],
            instruction=self.instructions[self.mode],
        )
        first, *rest = _IMAGE.split(text.strip("\n"))
        shown, pieces = rest[::2], rest[1::2]
        if shown != [str(number) for number in range(len(images))]:
            raise BadInput(
                f"protocol {self.name!r}: its content template shows {len(shown)} image(s), or not in order, "
                f"where {len(images)} are given; use every one of {{{{ references }}}} and {{{{ query }}}} "
                f"once, in that order"
            )
        content: list[str | ImageFile] = [first]
        for image, piece in zip(images, pieces, strict=True):
            content += [image, piece]
        return tuple(part for part in content if part != "")

    def _fill(self, field: str, **values: Any) -> str:
        """A template's text; what a template can raise becomes one sentence."""
        import jinja2

        broken = (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError)
        try:
            return compiled(getattr(self, field)).render(**values)
        except broken as error:
            raise BadInput(
                f"protocol {self.name!r}: its {field} template cannot be filled in "
                f"({type(error).__name__}: {error}); it sees {', '.join(values)}"
            ) from error


def _one_per_mode(table: Any, kind: type) -> bool:
    right = isinstance(table, Mapping) and set(table) == set(MODES)
    return right and all(type(value) is kind for value in table.values())


@lru_cache(maxsize=64)
def compiled(source: str) -> jinja2.Template:
    """A protocol's template, sandboxed; a name that it does not get is an error."""
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(source)


def protocol_from_table(table: Mapping[str, Any], origin: str) -> Protocol:
    """A protocol from the parsed TOML of a protocol file.

    Raises:
        BadInput: a field is missing, unknown or out of range.
    """
    known = set(Protocol.__dataclass_fields__)
    missing = known - set(table) - set(_OPTIONAL)
    for wrong, message in ((set(table) - known, "unknown field"), (missing, "missing field")):
        if wrong:
            raise BadInput(f"{origin}: {message} {', '.join(sorted(wrong))}")
    try:
        protocol = Protocol(**{**table, "contrastive": tuple(table["contrastive"])})
    except BadInput as error:
        raise BadInput(f"{origin}: {error}") from error
    except TypeError as error:
        raise BadInput(f"{origin}: a field has the wrong type ({error})") from error
    _check_templates(protocol, origin)
    return protocol


def _check_templates(protocol: Protocol, origin: str) -> None:
    import jinja2

    for field in ("content", "question"):
        try:
            compiled(getattr(protocol, field))
        except jinja2.TemplateSyntaxError as error:
            raise BadInput(f"{origin}: template {field}, line {error.lineno}: {error.message}") from error


def read_protocol(path: Path) -> Protocol:
    """A protocol from a TOML file; raises :class:`BadInput` naming the file and the field."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: not a readable protocol file ({error})") from error
    return protocol_from_table(table, str(path))


@lru_cache(maxsize=1)
def shipped_protocols() -> tuple[Protocol, ...]:
    """The protocols in ``harness/protocols``: ``emit`` first."""
    folder = Path(__file__).parent / "protocols"
    return tuple(read_protocol(folder / f"{name}.toml") for name in ("emit", "mmad", "anomalyr1"))


def find_protocol(known: Mapping[str, Protocol], name: str) -> Protocol:
    """A protocol by its name, or from a TOML file; raises :class:`BadInput` when there is neither."""
    from harness.lookup import find

    if name not in known and (name.endswith(".toml") or Path(name).is_file()):
        return read_protocol(Path(name))
    return find(known, name, "protocol")

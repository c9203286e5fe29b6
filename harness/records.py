"""The records that cross a boundary, from a benchmark's item to a model's answer.

One image pair travels like this::

    Item  --protocol.plan-->  PlannedGroup  --load-->  PromptGroup  --model.answer-->  Response
                                                                     --extract_letter-->  Answer

Everything on the left of ``load`` knows paths; everything on its right sees pixels and opaque ids only,
because MMAD's paths spell out "good" or the name of the defect.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.errors import BadInput
from harness.folders import sha256_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from harness.raw import RawSources

Mode = Literal["direct", "think", "logits"]
#: Units that a model may take before it gives the first one back.
UNITS_AHEAD = 4
MODES: tuple[Mode, ...] = ("direct", "think", "logits")
World = Literal["mini", "real"]


@dataclass(frozen=True, slots=True)
class Question:
    """One multiple-choice question of an image, as the benchmark file states it."""

    number: int  #: position among the image's questions, from 0
    text: str
    options: Mapping[str, str]  #: letter -> text, in display order
    answer: str  #: a key of ``options``
    raw_type: str  #: ``type`` as written in the file
    subtask: str  #: one of :data:`harness.subtasks.SUBTASK_KEYS`


@dataclass(frozen=True, slots=True)
class Item:
    """One query image with its candidate references and its questions."""

    key: str  #: the image's key in ``mmad.json``: its path relative to the benchmark's root
    dataset: str
    object: str
    image: Path
    masks: tuple[Path, ...]  #: empty for a normal image; several where the mask is a folder (LOCO)
    similar_templates: tuple[Path, ...]  #: normal images, most similar first
    random_templates: tuple[Path, ...]
    questions: tuple[Question, ...]

    @property
    def normal(self) -> bool:
        """Whether the image shows a normal product: ``good`` in its key, as MMAD's scorer decides."""
        return is_normal(self.key)


def is_normal(key: str) -> bool:
    """MMAD's rule: an image is normal when ``good`` (in lower case) occurs in its key.

    >>> is_normal("DS-MVTec/bottle/image/good/000.png"), is_normal("GoodsAD/can/test/bad/1.png")
    (True, False)
    """
    return "good" in key


def dataset_of(key: str) -> str:
    """First part of an image's key.

    >>> dataset_of("DS-MVTec/bottle/image/good/000.png")
    'DS-MVTec'
    """
    return key.split("/", 1)[0]


class ImageFile:
    """An image on disk with its digest; the harness's side of a :class:`Picture`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file's bytes, in hex."""
        return sha256_of(self.path)

    def load(self) -> Picture:
        """Decode to RGB, upright (EXIF orientation applied).

        Raises:
            harness.errors.BadInput: the file is missing, truncated, oversized or no image.
        """
        from harness.images import decode

        pixels = decode(self.path)
        return Picture(self.digest, pixels)


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded image as a model sees it: RGB pixels and a content digest, never a path."""

    digest: str
    pixels: Image


def blank() -> Picture:
    """A grey picture, where a model is to see none."""
    from PIL import Image

    return Picture("blank", Image.new("RGB", (64, 64), (128, 128, 128)))


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question of a group: the text that follows the group's shared content."""

    id: str  #: opaque, unique within the run
    text: str
    options: Mapping[str, str]
    contrastive: bool  #: whether the protocol grants EMIT's soft prompt and contrastive embeddings here


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A prompt group before its images are opened (see :class:`PromptGroup`)."""

    item: Item
    system: str
    content: tuple[str | ImageFile, ...]
    references: tuple[ImageFile, ...]
    query: ImageFile
    prompts: tuple[Prompt, ...]
    questions: tuple[Question, ...]  #: parallel to ``prompts``
    raw: bool = False  #: see :class:`PromptGroup`

    @property
    def shows_query(self) -> bool:
        """Whether the query is in ``content``; a protocol may hide all images."""
        return any(part is self.query for part in self.content)

    def load(self, name: str = "") -> PromptGroup:
        """Open every distinct image once; raises as :meth:`ImageFile.load` does.

        A query that is not shown is not opened: a blank image stands in its place.

        Args:
            name: what the group is to be called, opaque.
        """
        sources = {id(part): part for part in (*self.content, *self.references)}
        pictures = {key: part.load() for key, part in sources.items() if isinstance(part, ImageFile)}
        query = pictures.get(id(self.query))
        return PromptGroup(
            system=self.system,
            content=tuple(part if isinstance(part, str) else pictures[id(part)] for part in self.content),
            references=tuple(pictures[id(part)] for part in self.references),
            query=blank() if query is None else query,
            prompts=self.prompts,
            id=name,
            raw=self.raw,
        )


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """All questions on one (reference, query) pair whose prompts are identical up to the question.

    The user turn of prompt ``i`` is ``[*content, prompts[i].text]``: its images are opened, encoded and
    prefilled once for the whole group.
    """

    system: str
    content: tuple[str | Picture, ...]
    references: tuple[Picture, ...]  #: those shown in ``content``; empty for a query-only prompt
    query: Picture  #: the last in ``content``; blank where a protocol hides all images
    prompts: tuple[Prompt, ...]
    id: str = ""  #: opaque: under it the result comes back
    raw: bool = False  #: without the frame of a chat: the bare text, for models that were trained on such


#: Groups that may be computed together. The runner makes the same units whatever the number of workers and
#: whatever is answered already, so that rounding, too, is the same.
Unit = Sequence[PromptGroup]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is decoded. Greedy unless ``temperature`` is positive."""

    mode: Mode
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """What a model returned for one prompt, before anybody reads a letter out of it."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    option_logprobs: Mapping[str, float] | None = None  #: letter -> log-probability of it as first token
    truncated: bool = False  #: the token limit ended it
    reason: str = ""  #: why this prompt alone has no answer; empty when it has one


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What became of one group: a response for each of its prompts, or the reason why there is none."""

    id: str  #: of the :class:`PromptGroup`
    responses: tuple[Response, ...] = ()
    reason: str = ""  #: why the group failed; empty when it did not
    #: What the model compared, for the eye: a PNG in grey over the query image, 0 for a cosine distance of 0
    #: to the references and 255 for one of 1 or more.
    heat_map: bytes | None = None


class Outcome(enum.StrEnum):
    """What became of one question. Only ``ANSWERED`` carries a letter."""

    ANSWERED = "answered"
    UNPARSED = "unparsed"  #: the model spoke, and no option's letter can be read from it
    FAILED = "failed"  #: an image or the model raised; the reason is kept


class Answer(NamedTuple):
    """One row of the store: a model's answer to one question.

    A tuple, as there are hundreds of thousands: a frozen dataclass takes five times as long to make.
    """

    model: str
    key: str  #: the item's key
    number: int  #: the question's number within the item
    subtask: str
    raw_type: str
    question: str
    options: Mapping[str, str]
    correct: str
    letter: str | None
    outcome: Outcome
    text: str = ""
    reason: str = ""
    option_logprobs: Mapping[str, float] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  #: the group's wall time divided by its questions

    @property
    def dataset(self) -> str:
        """See :func:`dataset_of`."""
        return dataset_of(self.key)


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a model plugin is told when it is asked to load."""

    world: World  #: of the benchmark; decides the default weights, nothing else
    weights: str | None = None  #: a folder or hub id that replaces the default
    backend: str = "transformers"
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    share_prefix: bool = True
    verify_sharing: bool = False  #: compare every shared prefix with none, not the first ones only
    trust_remote_code: bool = False
    adapter: str | None = None  #: a folder or hub id with a peft adapter, laid on the weights
    quantize: str | None = None  #: ``nf4``, or None for weights as they are
    worker: tuple[int, int] = (0, 1)  #: number of the worker that loads, and how many there are
    #: How the backend answers, where it changes answers: part of an answer's key.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: With what the backend works (addresses, devices, memory, time-outs): no part of an answer's key.
    resources: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """Where a benchmark plugin's training set lies, and what its world needs of a training."""

    #: A JSONL file of samples (see :mod:`trainers.samples`), or what one is built from.
    content: Path | RawSources
    world: World
    #: Values by dotted key under those of preset and command line: a model of another size learns otherwise.
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file, which must have been built if it was to be."""
        if not isinstance(self.content, Path):
            raise TypeError("the training set is not built yet")
        return self.content


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a training recipe is asked to do."""

    recipe: str
    source: TrainingSource
    out: Path
    base: str | None = None  #: a folder or hub id that replaces the default base model
    preset: str = "paper"
    settings: Mapping[str, str] = field(default_factory=dict)  #: ``--set``: dotted key -> text
    resume: bool = False
    device: str = "auto"
    dtype: str = "auto"
    draws: int = 0  #: responses to each question, instead of learning from them in stage 2


#: What a model or its libraries raise on one group without being broken as a whole; CUDA's out-of-memory
#: error is a RuntimeError. Anything else is a bug and ends the run.
KNOWN_FAILURES = (BadInput, RuntimeError, ValueError, ArithmeticError, LookupError, OSError, MemoryError)
_MAX_REASON = 400


def reason_of(error: BaseException) -> str:
    """One line on why something failed, as it is kept with an answer."""
    lines = str(error).strip().splitlines() or ["no message"]
    text = lines[0] if isinstance(error, BadInput) else f"{type(error).__name__}: {lines[0]}"
    return text[:_MAX_REASON].encode("utf-8", "replace").decode()


class Model:
    """What a model plugin hands to the runner. Subclass it.

    A simple model implements :meth:`answer`. One that works on several groups at a time (in a batch, or with
    many requests on their way) implements :meth:`stream`.
    """

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        """One response per prompt of ``group``, in order."""
        raise NotImplementedError

    def stream(self, units: Iterable[Unit], decoding: Decoding) -> Iterator[Sequence[GroupResult]]:
        """Results of every group of every unit, each once, in any order.

        What is yielded together is stored together, at once; so a model that works unit by unit yields a unit
        at a time, and one whose answers trickle in yields each group by itself. ``units`` may wait for more
        work to come: a model should take no more of them ahead than :data:`UNITS_AHEAD`. It draws them in the
        caller's thread, until there are no more.

        Raises:
            BadInput: the model as a whole cannot go on. What fails for one group is its result's reason.
        """
        for unit in units:
            for group in unit:
                yield [self.try_answer(group, decoding)]

    def try_answer(self, group: PromptGroup, decoding: Decoding) -> GroupResult:
        """:meth:`answer`, with what it is known to raise as the result's reason."""
        try:
            responses = tuple(self.answer(group, decoding))
            if len(responses) != len(group.prompts):
                raise RuntimeError(
                    f"the model gave {len(responses)} responses to {len(group.prompts)} questions"
                )
        except KNOWN_FAILURES as error:
            return GroupResult(group.id, reason=reason_of(error))
        return GroupResult(group.id, responses)

    def counters(self) -> Mapping[str, int]:
        """Exact work so far: ``images_encoded``, ``prefix_tokens``, ``suffix_tokens``, ``decoded_tokens``."""
        return {}

    def close(self) -> None:
        """Give memory back."""

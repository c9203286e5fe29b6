"""Which texts are to be written: a list of requests that a seed and names decide.

Datasets whose images are asked about (*sources*) get knowledge: one text per product and named kind of
defect, and one on the product's normal condition, which is told what the defect texts say and so comes after
them. Datasets that MMAD tests (*text sources*) get object texts that stand in for query images: only their
normal images are looked at, and what can go wrong comes from a knowledge file (paper, "Dataset Preparation").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from harness.errors import BadInput
from harness.grid import PLACES
from harness.protocol import KNOWLEDGE_NAMES
from harness.raw import RawDataset, RawImage, TextKind, TextRequest
from trainers.dataset.choice import shuffled
from trainers.dataset.texts import GOOD, Description

Conditions = Mapping[str, str]  #: condition -> text
KnowledgeTable = Mapping[str, Mapping[str, Conditions]]  #: dataset -> object -> condition -> text
#: Why an image cannot be shown, or None when it can.
Unfit = Callable[[RawImage], str | None]


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How many object texts are written per product of a text source."""

    images: int = 5  #: normal images, as in the paper
    normal_texts: int = 5  #: per image
    defect_texts: int = 5  #: per image and kind of defect
    limit_per_object: int | None = None  #: at most so many object texts per product, a seeded sample

    def __post_init__(self) -> None:
        least = {"images": 1, "normal_texts": 0, "defect_texts": 0, "limit_per_object": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise BadInput(f"{name} is {value}; it must be {low} or more")


@dataclass(frozen=True, slots=True)
class Task:
    """A request, and what the texts folder keeps beside its text."""

    request: TextRequest
    image: str = ""  #: the normal image of an object text, relative to the dataset's root
    cell: int | None = None  #: of the 3x3 grid, for a defect text

    def __str__(self) -> str:
        asked = self.request
        parts = [f"{asked.dataset}/{asked.object}", asked.defect, self.image, asked.place]
        numbered = f"text {asked.number}" if self.image else ""
        return f"{asked.kind} {', '.join(part for part in [*parts, numbered] if part)}"

    def description(self, text: str, digest: str) -> Description:
        """The record of an object text; ``digest`` is the SHA-256 of its image file."""
        asked = self.request
        rounds = len(PLACES) if self.cell is not None else 1
        return Description(
            dataset=asked.dataset,
            object=asked.object,
            image=self.image,
            digest=digest,
            defect=asked.defect or None,
            words=asked.words,
            cell=self.cell,
            number=asked.number // rounds,
            text=text,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All texts to write, in the order in which they are kept."""

    first: tuple[Task, ...]  #: defect knowledge and object texts
    second: tuple[Task, ...]  #: normal knowledge; its context is what ``first`` gave
    notes: tuple[str, ...]  #: what is left out, and why


def knowledge_name(dataset: str, knowledge: KnowledgeTable) -> str:
    """The name of a dataset in a knowledge file; MMAD's calls ``MVTec-AD`` ``MVTec``."""
    return dataset if dataset in knowledge else KNOWLEDGE_NAMES.get(dataset, dataset)


def make_plan(
    datasets: Sequence[RawDataset],
    text_datasets: Sequence[RawDataset],
    knowledge: KnowledgeTable,
    seed: int,
    settings: PlanSettings,
    unfit: Unfit,
) -> Plan:
    """The texts to write for these datasets.

    Args:
        datasets: those whose images are asked about.
        text_datasets: those of whose products only normal images and the knowledge file are known.
        knowledge: the knowledge file of the text sources.
        seed: of every choice. One image or product more changes no choice elsewhere.
        settings: how many texts.
        unfit: says of an image, with its masks, why it cannot be shown; the next in line takes its place.
    """
    first: list[Task] = []
    second: list[Task] = []
    notes: dict[str, None] = {}
    choice = _Choice(seed, cache(unfit), notes)
    for dataset in datasets:
        lacking = []
        for product, images in _products(dataset):
            defects, normal = _knowledge(product, images, choice)
            first += defects
            second += normal
            lacking += [] if normal else [product]
        if lacking:
            notes[f"{dataset.name}: no knowledge is written where no normal image is: {_list(lacking)}"] = (
                None
            )
    for dataset in text_datasets:
        known = knowledge.get(knowledge_name(dataset.name, knowledge), {})
        lacking = [product for product, _ in _products(dataset) if set(known.get(product, ())) <= {GOOD}]
        if settings.defect_texts and lacking:
            notes[f"{dataset.name}: the knowledge file names no defect of {_list(lacking)}"] = None
        for product, images in _products(dataset):
            first += _object_texts(dataset, product, images, known.get(product, {}), choice, settings)
    return Plan(tuple(first), tuple(second), tuple(notes))


def with_context(task: Task, context: Iterable[str]) -> Task:
    """A task that is told what other texts say."""
    return replace(task, request=replace(task.request, context=tuple(context)))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _products(dataset: RawDataset) -> Iterator[tuple[str, list[RawImage]]]:
    ordered = sorted(dataset.images, key=lambda image: (image.object, image.name))
    for product, images in groupby(ordered, key=lambda image: image.object):
        yield product, list(images)


@dataclass(frozen=True, slots=True)
class _Choice:
    """Seeded choice among images that can be shown."""

    seed: int
    unfit: Unfit
    notes: dict[str, None]  #: an ordered set; grows by the images that cannot be shown

    def images(self, pool: Iterable[RawImage], count: int, *names: str) -> list[RawImage]:
        """The first ``count`` fit images in the order of their ranks under ``names``."""
        chosen: list[RawImage] = []
        for image in shuffled(pool, self.seed, *names, key=lambda one: one.name):
            if len(chosen) == count:
                break
            reason = self.unfit(image)
            if reason is None:
                chosen.append(image)
            else:
                self.notes[f"{image.dataset}/{image.name} is not shown: {reason}"] = None
        return chosen


def _knowledge(product: str, images: Sequence[RawImage], choice: _Choice) -> tuple[list[Task], list[Task]]:
    """The tasks on a product's defects, and the one on its normal condition."""
    normal = [image for image in images if image.condition == "normal"]
    dataset = images[0].dataset
    chosen = choice.images(normal, 1, TextKind.NORMAL_KNOWLEDGE, dataset, product)
    if not chosen:
        return [], []
    noun = images[0].noun
    defects = []
    kinds = {image.defect: image.kind for image in images if image.condition == "defective" and image.kind}
    for defect, words in sorted(kinds.items()):
        names = (TextKind.DEFECT_KNOWLEDGE, dataset, product, defect)
        pool = [image for image in images if image.condition == "defective" and image.defect == defect]
        masked = [image for image in pool if image.masks]
        shown = choice.images(masked, 1, *names) or choice.images(
            [image for image in pool if not image.masks], 1, *names
        )
        for image in shown:
            reference = choice.images(normal, 1, *names)[0]
            paths = (reference.path, image.path)
            defects.append(
                Task(TextRequest(names[0], dataset, product, noun, paths, image.masks, defect, words))
            )
        if not shown:
            choice.notes[f"{dataset}/{product}: no image of {defect} can be shown, so none is described"] = (
                None
            )
    request = TextRequest(TextKind.NORMAL_KNOWLEDGE, dataset, product, noun, (chosen[0].path,))
    return defects, [Task(request)]


def _object_texts(
    dataset: RawDataset,
    product: str,
    images: Sequence[RawImage],
    conditions: Conditions,
    choice: _Choice,
    settings: PlanSettings,
) -> list[Task]:
    """Texts that stand in for query images of one product."""
    normal = [image for image in images if image.condition == "normal"]
    trained = [image for image in normal if image.split == "train"]
    if normal and not trained:
        note = f"{dataset.name}/{product}: it has no train split; its other normal images are described"
        choice.notes[note] = None
    chosen = choice.images(trained or normal, settings.images, "text", dataset.name, product)
    if not chosen:
        choice.notes[f"{dataset.name}/{product}: it has no normal image, so no text is written on it"] = None
    kinds = {key: text for key, text in conditions.items() if key != GOOD}
    named = {image.defect: image.kind for image in images if image.defect}
    tasks = []
    for image in sorted(chosen, key=lambda one: one.name):
        tasks += [_object_text(image, number) for number in range(settings.normal_texts)]
        for defect in sorted(kinds):
            words = named[defect] if defect in named else _in_words(defect)
            cells = _cells(choice.seed, image, defect, settings.defect_texts)
            for number, cell in enumerate(cells):
                tasks.append(_object_text(image, number, defect, words, cell, (kinds[defect],)))
    if settings.limit_per_object is None:
        return tasks
    ranked = shuffled(tasks, choice.seed, "limit")
    kept = set(map(str, ranked[: settings.limit_per_object]))
    return [task for task in tasks if str(task) in kept]


def _object_text(
    image: RawImage,
    number: int,
    defect: str = "",
    words: str = "",
    cell: int | None = None,
    context: tuple[str, ...] = (),
) -> Task:
    request = TextRequest(
        kind=TextKind.NORMAL_TEXT if cell is None else TextKind.DEFECT_TEXT,
        dataset=image.dataset,
        object=image.object,
        noun=image.noun,
        images=(image.path,),
        defect=defect,
        words=words,
        place="" if cell is None else PLACES[cell],
        context=context,
        number=number,
    )
    return Task(request, image.name, cell)


def _cells(seed: int, image: RawImage, defect: str, count: int) -> list[int]:
    """Random cells of the grid: none comes again before all others have come."""
    cells: list[int] = []
    for turn in range(-(-count // len(PLACES))):
        cells += shuffled(range(len(PLACES)), seed, "cell", image.dataset, image.name, defect, turn)
    return cells[:count]


def _in_words(defect: str) -> str:
    from plugins.layouts.names import Names

    return Names().kind(defect)


def unfit(image: RawImage) -> str | None:
    """Why an image cannot be shown to a describer: it or a mask is damaged, or its mask marks nothing."""
    from harness.images import decode, decode_mask

    try:
        size = decode(image.path).size
        masks = [decode_mask(path) for path in image.masks]
    except BadInput as error:
        return str(error)
    other = next((mask.shape[::-1] for mask in masks if mask.shape[::-1] != size), None)
    if other is not None:
        return f"its mask has {other[0]} x {other[1]} pixels, the image {size[0]} x {size[1]}"
    if masks and not any(mask.any() for mask in masks):
        return "its mask marks nothing"
    return None

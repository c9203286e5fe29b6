"""Thumbnails, masks and heat maps in the page's sibling folder, and what a mask says of a defect's size.

Nothing is drawn twice: ``images/index.json`` remembers each file's size and time, and what was found in it. A
benchmark that is not at hand, or whose files are damaged, leaves the page without these pictures.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import BadInput
from harness.jsonfiles import read_json, write_json
from harness.records import Item
from reports.explorer.masks import draw, read_mask
from reports.subject import Entry, Subject

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 320  #: pixels of a thumbnail's longer side
FOLDER, INDEX = "images", "index.json"
_VERSION = 1  #: of the thumbnails; another one draws them all anew
_QUALITY = 82
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MANY = 200  #: pictures to draw from which on a bar shows how far it is
Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page knows of one image's looks; file names are relative to the page."""

    query: str | None = None
    references: tuple[str, ...] = ()
    mask: str | None = None
    size: tuple[int, int] | None = None  #: width and height in pixels
    area: float | None = None  #: share of the image that the masks cover, 0 to 1; None without a mask
    heat: tuple[tuple[int, str, float], ...] = ()  #: entry's number, file, highest distance on it


NOTHING = Shown()


@dataclass(frozen=True, slots=True)
class Gallery:
    """The items of a benchmark that were asked about, as far as it is at hand."""

    root: Path = Path()
    items: Mapping[str, Item] = field(default_factory=dict)  #: by key


def find_gallery(subject: Subject, data: Path | None = None) -> Gallery:
    """The benchmark's items that were asked about; none where the benchmark is not at hand.

    Args:
        subject: what the report is about.
        data: the benchmark's folder; where the run found it unless given.

    Raises:
        BadInput: the folder was given, and is no benchmark or another one.
    """
    from harness.mmad import read_mmad

    told = (subject.manifest or {}).get("benchmark", {})
    root = data or (Path(told["root"]) if told.get("root") else None)
    if root is None:
        return Gallery()
    try:
        benchmark = read_mmad(root)
        if told and benchmark.digest != told["digest"]:
            raise BadInput(f"{root}: it is another benchmark than the one that was answered; name that one")
    except BadInput:
        if data is not None:
            raise
        return Gallery()
    asked = {answer.key for entry in subject.entries for answer in entry.answers}
    return Gallery(root, {item.key: item for item in benchmark.items if item.key in asked})


def references_of(item: Item, protocol: Mapping[str, Any] | None) -> tuple[Path, ...]:
    """The reference images that a run's protocol shows with an item; the likeliest, if it is not known."""
    lists = [item.similar_templates, item.random_templates]
    told = protocol or {}
    if told.get("reference") == "random":
        lists.reverse()
    if told.get("images") == "hidden":
        return ()
    return (lists[0] or lists[1])[: told.get("shots", 1)]


def heat_maps(entry: Entry) -> Mapping[str, bytes]:
    """Image's key -> heat map of an entry's model: PNG in grey, 255 for a cosine distance of 1."""
    from harness.store import FILE_NAME, Store

    path = entry.source.path / FILE_NAME
    if not path.is_file():
        return {}
    with Store.read_only(path) as store:
        return store.heat_maps(entry.model)


def show(subject: Subject, gallery: Gallery, folder: Path) -> dict[str, Shown]:
    """Draw what is not drawn yet, and say what there is of each image.

    Args:
        subject: what the report is about.
        gallery: the benchmark's items, as far as it is at hand.
        folder: where the pictures go.
    """
    protocol = (subject.manifest or {}).get("protocol")
    album, items = Album(folder, gallery.root), gallery.items
    pairs = {key: references_of(item, protocol) for key, item in items.items()}
    paths = dict.fromkeys(path for key, item in items.items() for path in (item.image, *pairs[key]))
    album.add(paths, items.values())
    found = {
        key: Shown(
            query=album.name(item.image),
            references=tuple(name for path in pairs[key] if (name := album.name(path))),
            mask=album.mask_name(item),
            size=album.size(item.image),
            area=album.area(item),
        )
        for key, item in items.items()
    }
    for number, entry in enumerate(subject.entries):
        for key, png in heat_maps(entry).items():
            name, highest = album.keep_heat_map(f"{entry.id}\n{key}", png)
            if name:
                known = found.get(key, NOTHING)
                found[key] = replace(known, heat=(*known.heat, (number, name, highest)))
    album.close()
    return found


def heat_scales(shown: Mapping[str, Shown], entries: int) -> list[float]:
    """For each entry, the distance that its heat maps are coloured up to: reached by one image in fifty.

    One scale for all images of an entry keeps them comparable; a distance of 1 would leave all of them dark.
    """
    highest: list[list[float]] = [[] for _ in range(entries)]
    for look in shown.values():
        for number, _, value in look.heat:
            highest[number].append(value)
    found = [sorted(values)[int(0.98 * (len(values) - 1))] if values else 1.0 for values in highest]
    return [round(max(value, 0.02), 3) for value in found]


class Album:
    """The folder of pictures with its memory.

    Args:
        folder: where they are.
        root: of the benchmark; below it files are known by their relative names, wherever it lies.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        self.pictures: dict[
            str, list[Any]
        ] = {}  #: path -> stamp, width, height; the sizes null if unreadable
        self.masks: dict[str, list[Any]] = {}  #: item's masks -> stamp, area
        self._there = set(os.listdir(folder)) if folder.is_dir() else set()
        self._changed = False
        if INDEX in self._there:
            self._remember()

    def _remember(self) -> None:
        try:
            content: Any = read_json(self.folder / INDEX)[0]
        except BadInput:  # a damaged memory is no memory
            return
        known = content if isinstance(content, dict) and content.get("version") == _VERSION else {}
        self.pictures, self.masks = known.get("pictures") or {}, known.get("masks") or {}

    def add(self, paths: Iterable[Path], items: Iterable[Item]) -> None:
        """Draw thumbnails of these images and of these items' masks, where they are not up to date."""
        stale = [
            path for path in paths if self._is_stale(self.pictures, self._key(path), self._jpeg(path), [path])
        ]
        masked = [
            item
            for item in items
            if item.masks and self._is_stale(self.masks, self._key(item.image), self._mask(item), item.masks)
        ]
        if not stale and not masked:
            return
        self._changed = True
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, drawn in _drawn(stale, self._draw_picture, "thumbnails"):
            self.pictures[self._key(path)] = [_stamp([path]), *(drawn or (None, None))]
        for item, area in _drawn(masked, self._draw_mask, "masks"):
            self.masks[self._key(item.image)] = [_stamp(item.masks), area]

    def _is_stale(self, known: Mapping[str, list[Any]], key: str, name: str, files: Sequence[Path]) -> bool:
        found = known.get(key)
        if found is None or found[0] != _stamp(files):
            return True
        return found[1] is not None and name not in self._there

    def _draw_picture(self, path: Path) -> tuple[int, int] | None:
        from harness.images import decode

        try:
            picture = decode(path)
        except BadInput:
            return None
        size = picture.size
        _save(picture, self.folder / self._jpeg(path))
        return size

    def _draw_mask(self, item: Item) -> float | None:
        mask = read_mask(item.masks)
        if mask is None:
            return None
        draw(mask, LONGEST).save(self.folder / self._mask(item), optimize=True)
        return float(mask.mean())

    def name(self, path: Path) -> str | None:
        """A thumbnail's file, relative to the page; None where the image cannot be read."""
        return f"{FOLDER}/{self._jpeg(path)}" if self.size(path) else None

    def size(self, path: Path) -> tuple[int, int] | None:
        """An image's width and height in pixels."""
        found = self.pictures.get(self._key(path))
        return (found[1], found[2]) if found and found[1] else None

    def area(self, item: Item) -> float | None:
        """Share of an image that its masks cover."""
        found = self.masks.get(self._key(item.image)) if item.masks else None
        return None if found is None else found[1]

    def mask_name(self, item: Item) -> str | None:
        """A drawn mask's file, relative to the page."""
        return None if self.area(item) is None else f"{FOLDER}/{self._mask(item)}"

    def keep_heat_map(self, key: str, png: bytes) -> tuple[str, float]:
        """A heat map's file, relative to the page, and its highest distance; no name for what is no PNG."""
        import io

        from PIL import Image

        if not png.startswith(_SIGNATURE):
            return "", 0.0
        name = f"heat-{_digest(key)}-{hashlib.blake2b(png, digest_size=4).hexdigest()}.png"
        if name not in self._there:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(png)
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            highest = max(image.convert("L").tobytes())
        return f"{FOLDER}/{name}", highest / 255

    def _key(self, path: Path) -> str:
        inside = path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()

    def _jpeg(self, path: Path) -> str:
        return f"{_digest(self._key(path))}.jpg"

    def _mask(self, item: Item) -> str:
        return f"mask-{_digest(self._key(item.image))}.png"

    def close(self) -> None:
        """Write down what was drawn."""
        if self._changed:
            content = {"version": _VERSION, "pictures": self.pictures, "masks": self.masks}
            write_json(self.folder / INDEX, content)


def _drawn(
    sources: Sequence[Source], draw_one: Callable[[Source], Any], title: str
) -> Iterable[tuple[Source, Any]]:
    """What came of drawing each, several at a time; a bar where it takes long."""
    from tqdm import tqdm

    hidden = None if len(sources) >= _MANY else True
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        drawn = pool.map(draw_one, sources)
        bar = tqdm(drawn, desc=title, total=len(sources), unit=" images", disable=hidden, leave=False)
        yield from zip(sources, bar, strict=True)


def _save(picture: Image, path: Path) -> None:
    picture.thumbnail((LONGEST, LONGEST), reducing_gap=2.0)
    picture.save(path, quality=_QUALITY, optimize=True)


def _stamp(files: Sequence[Path]) -> str:
    """Size and time of files: another one shows that they were changed."""
    found = []
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            return "missing"
        found.append(f"{stat.st_size}-{stat.st_mtime_ns}")
    return " ".join(found)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()

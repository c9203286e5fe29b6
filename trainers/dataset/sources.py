"""From what the command line names to raw datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import BadInput
from harness.hookspecs import LayoutSpec
from harness.lookup import find
from harness.raw import RawDataset

Source = tuple[str, Path]  #: layout, root


def parse_sources(words: Iterable[str], layouts: Mapping[str, LayoutSpec]) -> tuple[Source, ...]:
    """Sources as a command line writes them.

    ``LAYOUT=DIR`` says it outright. A bare ``DIR`` is taken by its name where that is a known dataset's
    (``…/MPDD``), else for a folder that holds folders of such names.

    Raises:
        BadInput: a layout is unknown, a folder is missing, or nothing in it is recognised.
    """
    by_folder = {name.lower(): spec for spec in layouts.values() for name in spec.folders}
    found: list[Source] = []
    for word in words:
        name, equals, place = word.partition("=")
        if equals and not Path(word).is_dir():
            root = Path(place)
            _require(root, word)
            found.append((find(layouts, name, "layout").name, root))
            continue
        root = Path(word)
        _require(root, word)
        own = by_folder.get(root.resolve().name.lower())
        children = sorted(child for child in root.iterdir() if child.is_dir())
        inside = [(by_folder[c.name.lower()].name, c) for c in children if c.name.lower() in by_folder]
        if own is not None:
            found.append((own.name, root))
        elif inside:
            found += inside
        else:
            raise BadInput(
                f"{word}: which layout is it? write LAYOUT={word} with one of {', '.join(layouts)}"
            )
    return tuple(dict.fromkeys(found))


def _require(root: Path, word: str) -> None:
    if not root.is_dir():
        raise BadInput(f"{word}: there is no folder {root}; name the root of a raw dataset")


def read_sources(sources: Sequence[Source], layouts: Mapping[str, LayoutSpec]) -> tuple[RawDataset, ...]:
    """Read each source by its layout.

    Raises:
        BadInput: a layout finds no image, or two sources have one dataset name.
    """
    known = {name.lower() for spec in layouts.values() if spec.tested for name in spec.folders}
    datasets = []
    for layout, root in sources:
        spec = find(layouts, layout, "layout")
        dataset = spec.read(root)
        tested = spec.tested or dataset.name.lower() in known  # whichever layout it was read by
        dataset = replace(dataset, tested=tested)
        if not dataset.images:
            told = f"; first finding: {dataset.findings[0]}" if dataset.findings else ""
            raise BadInput(f"{root}: no image in the layout {layout}{told}")
        datasets.append(dataset)
    names = [dataset.name for dataset in datasets]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise BadInput(f"two sources are called {double}; rename the folder of one of them")
    return tuple(datasets)

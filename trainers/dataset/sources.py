"""From what the command line names to raw datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import BadInput
from harness.hookspecs import LayoutSpec
from harness.plugins import find
from harness.raw import RawDataset

Source = tuple[str, Path]  #: layout, root


def parse_sources(words: Iterable[str], layouts: Mapping[str, LayoutSpec]) -> tuple[Source, ...]:
    """Sources as a command line writes them.

    ``LAYOUT=DIR`` says it outright. A bare ``DIR`` is taken by its name where that is a known dataset's
    (``…/MPDD``), else for a folder that holds folders of such names.

    Raises:
        BadInput: a layout is unknown, a folder is missing, or nothing in it is recognised.
    """
    by_folder = {spec.folder.lower(): spec for spec in layouts.values() if spec.folder}
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
        inside = [(spec, root / spec.folder) for spec in by_folder.values() if (root / spec.folder).is_dir()]
        if own is not None:
            found.append((own.name, root))
        elif inside:
            found += [(spec.name, folder) for spec, folder in sorted(inside, key=lambda pair: pair[1].name)]
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
    tested = {spec.folder.lower() for spec in layouts.values() if spec.tested}
    datasets = []
    for layout, root in sources:
        dataset = find(layouts, layout, "layout").read(root)
        if dataset.name.lower() in tested:  # whichever layout it was read by
            dataset = replace(dataset, tested=True)
        if not dataset.images:
            told = f"; first finding: {dataset.findings[0]}" if dataset.findings else ""
            raise BadInput(f"{root}: no image in the layout {layout}{told}")
        datasets.append(dataset)
    names = [dataset.name for dataset in datasets]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise BadInput(f"two sources are called {double}; rename the folder of one of them")
    return tuple(datasets)

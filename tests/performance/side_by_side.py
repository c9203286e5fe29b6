"""A GRPO step of ours beside one of TRL's, on the same model, prompts and number of tokens.

    python -m tests.performance.side_by_side

Each side runs in a process of its own on one thread; steps alternate, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import io
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from unittest.mock import patch

from tests.performance.meter import Record
from tests.performance.scene import SIZES, Case, write

OURS, TRL = "ours", "trl"
#: Tiles an image is cut into, and the prompt's tokens of text: P is 353, 681 and 1193 in the tiny model.
TEXTS = {1: 225, 2: 297, 6: 297}
#: Tokens that the language model reads, phase by phase.
PHASES = ("sampling_tokens", "reference_tokens", "policy_tokens")
HEADINGS = (
    "P",
    "R",
    "images opened",
    "tiles encoded",
    "sampling tokens",
    "reference tokens",
    "policy tokens",
    "times as fast (quartiles)",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measured steps of both sides, the first ones left out."""

    case: Case
    ours: Sequence[Record]
    trl: Sequence[Record]

    @property
    def ratio(self) -> float:
        """How many times as long TRL's median step takes."""
        return median(r.seconds for r in self.trl) / median(r.seconds for r in self.ours)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Of the ratios of neighbouring steps."""
        ratios = [trl.seconds / ours.seconds for ours, trl in zip(self.ours, self.trl, strict=True)]
        first, _, third = quantiles(ratios, n=4, method="inclusive")
        return first, third

    def line(self) -> str:
        """A row of the table under ``HEADINGS``: counts are TRL's, then ours."""
        ours, trl = self.ours[-1].counts, self.trl[-1].counts
        counts = (f"{trl[name]:,} / {ours[name]:,}" for name in ("images_opened", "tiles_encoded", *PHASES))
        first, third = self.quartiles
        ratio = f"{self.ratio:.1f} ({first:.1f} to {third:.1f})"
        return _line((f"{self.case.prompt:,}", str(self.case.response), *counts, ratio))


def compare(case: Case, steps: int = 10, warmup: int = 3, device: str = "cpu") -> Comparison:
    """Run both sides of a case, step by step in turn.

    Raises:
        RuntimeError: a side has stopped; what it said stands on the standard error.
    """
    found: dict[str, list[Record]] = {OURS: [], TRL: []}
    with tempfile.TemporaryDirectory() as name:
        folder = write(Path(name), case, warmup + steps)
        with _side(OURS, folder, case, device) as ours, _side(TRL, folder, case, device) as trl:
            for _ in range(warmup + steps):
                for side, link in ((OURS, ours), (TRL, trl)):
                    try:
                        link.send("step")
                        found[side].append(link.recv())
                    except (EOFError, OSError) as error:
                        raise RuntimeError(f"the side {side!r} of the benchmark has stopped") from error
    return Comparison(case, found[OURS][warmup:], found[TRL][warmup:])


@contextmanager
def _side(name: str, folder: Path, case: Case, device: str) -> Iterator[Connection]:
    """A side in a process of its own; a step begins when something is sent, and its record comes back."""
    surroundings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(name, folder, case, there, device), daemon=True)
    with patch.dict(os.environ, surroundings):
        process.start()
    there.close()
    try:
        yield here
        process.join(60)
    finally:
        here.close()
        process.kill()
        process.join()


def _serve(name: str, folder: Path, case: Case, link: Connection, device: str) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress bars of two processes
        import_module(f"tests.performance.{name}_side").run(folder, case, link, device)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, a case a line."""
    parser = argparse.ArgumentParser(description="A GRPO step beside TRL's; counts are TRL's / ours.")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny", help="shapes of the model")
    parser.add_argument("--device", default="cpu", help="cpu measures processor time, cuda wall-clock time")
    parser.add_argument("--tiles", type=int, nargs="+", choices=sorted(TEXTS), default=sorted(TEXTS))
    parser.add_argument("--text", type=int, help="tokens of text a prompt; the default depends on the tiles")
    parser.add_argument("--responses", type=int, nargs="+", default=[16, 32, 128], help="tokens a response")
    parser.add_argument("--questions", type=int, default=1, help="a step")
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    given = parser.parse_args()
    print(_line(HEADINGS), _line(["---"] * len(HEADINGS)), sep="\n", flush=True)
    for tiles, response in itertools.product(given.tiles, given.responses):
        text = given.text or TEXTS[tiles]
        case = Case(tiles, text, response, questions=given.questions, size=given.size)
        print(compare(case, given.steps, given.warmup, given.device).line(), flush=True)


if __name__ == "__main__":
    main()

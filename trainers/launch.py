"""Several processes on one machine without a launcher: this one is rank 0 and starts the others.

``torchrun`` remains the way for several machines; under it nothing is started here. When this process dies,
the others find the end of their line at their next sum, and end too; when one of them dies, this one tells
what it said and ends: checkpoints hold what there is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from harness.errors import ExitCode

#: No more processes than this share a CPU by themselves: a step has only so many image pairs.
MOST = 4
#: Seconds that this process has to end by itself, with its own words, after another one has failed.
GRACE = 15.0
#: Set, to the id of the process that started them, for processes that end with it.
COMPANION = "EMIT_BENCH_COMPANION"
_PR_SET_PDEATHSIG = 1


def automatic(device: str) -> int:
    """How many processes suit this machine: one a GPU, else one a core and :data:`MOST` at most."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    if device.startswith("cuda:"):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST)


@contextmanager
def companions(count: int, arguments: Sequence[str]) -> Iterator[None]:
    """Within, this process is rank 0 of ``count``; the others run the same command line.

    Args:
        count: processes in all; with 1, or under ``torchrun``, nothing happens.
        arguments: of the program, without its name.
    """
    if count == 1 or "WORLD_SIZE" in os.environ:
        die_with_parent()
        yield
        return
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // count))  # the processes share the cores
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    others = [_Other(rank, shared, arguments) for rank in range(1, count)]
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True).start()
    os.environ.update({**shared, "RANK": "0", "LOCAL_RANK": "0"})
    try:
        yield
        for other in others:
            other.process.wait(timeout=600)
    finally:
        over.set()
        for name in (*shared, "RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
        for other in others:
            other.end()


class _Other:
    """Another process of the training."""

    def __init__(self, rank: int, shared: dict[str, str], arguments: Sequence[str]) -> None:
        self.rank = rank
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        threads = str(max(1, (os.cpu_count() or 1) // int(shared["WORLD_SIZE"])))
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": threads}
        own[COMPANION] = str(os.getpid())
        environment = {**os.environ, **shared, **own}
        command = [sys.executable, "-m", "harness.cli", *arguments]
        self.process = subprocess.Popen(command, env=environment, stdout=self.said, stderr=self.said)

    @property
    def failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    def last_words(self) -> str:
        self.said.seek(0)
        return self.said.read()[-2000:].decode(errors="replace").strip()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=60)


def _watch(others: Sequence[_Other], over: threading.Event) -> None:
    """End this process when another one has failed: it may be waiting for it, where no signal reaches it."""
    while not over.wait(0.5):
        failed = next((other for other in others if other.failed), None)
        if failed is None:
            continue
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            if over.wait(0.5):
                return
        print(
            f"emit-bench: process {failed.rank} of the training ended with {failed.process.returncode}; "
            f"resume with --resume\n{failed.last_words()}",
            file=sys.stderr,
            flush=True,
        )
        for other in others:
            other.process.kill()
        os._exit(ExitCode.INTERNAL)


def die_with_parent() -> None:
    """Let the system end this process with the one that started it, where it can: NCCL may not notice."""
    parent = os.environ.get(COMPANION)
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before we could ask for its signal
            signal.raise_signal(signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

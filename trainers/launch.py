"""Several processes on one machine without a launcher: this one is rank 0 and starts the others.

``torchrun`` remains the way for several machines; under it nothing is started here. When this process dies,
the others find its end of the line closed at their next sum, and end too.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

#: No more processes than this share a CPU by themselves: a step has only so many image pairs.
MOST = 4


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
        yield
        return
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    others: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
    try:
        for rank in range(1, count):
            said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "harness.cli", *arguments]
            others.append((subprocess.Popen(command, env=environment, stdout=said, stderr=said), said))
        os.environ.update({**shared, "RANK": "0", "LOCAL_RANK": "0"})
        yield
    except BaseException as error:
        _end(others)
        if isinstance(error, RuntimeError):  # a broken line: what broke it stands with the other process
            for rank, (process, said) in enumerate(others, 1):
                said.seek(0)
                tail = said.read()[-2000:].decode(errors="replace").strip()
                print(f"process {rank} ended with {process.returncode}: {tail}", file=sys.stderr)
        raise
    else:
        for process, _ in others:
            process.wait(timeout=600)
    finally:
        for name in (*shared, "RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
        _end(others)


def _end(others: Sequence[tuple[subprocess.Popen[bytes], IO[bytes]]]) -> None:
    for process, _ in others:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

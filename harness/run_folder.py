"""A run's folder: what lies where, and who may write."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import manifest as manifests
from harness import store as stores
from harness.answers import write_answers
from harness.errors import BadInput
from harness.records import Answer

ANSWERS_FOLDER = "answers"
AUDITS_FOLDER = "audits"
LOCK = ".lock"


def previous_models(out: Path) -> tuple[str, ...]:
    """The models of the command that used the folder last; none where there was none."""
    try:
        return tuple(manifests.read_manifest(out)["models"])
    except BadInput:
        return ()


def export(out: Path, answers: Mapping[str, tuple[Answer, ...]], previous: Sequence[str]) -> None:
    """Write official answer files, and take away those of models that this command did not ask."""
    for model in previous:
        if model not in answers and Path(model).name == model:
            (out / ANSWERS_FOLDER / f"{model}.json").unlink(missing_ok=True)
    for model, given in answers.items():
        write_answers(out / ANSWERS_FOLDER / f"{model}.json", given)


def forget(out: Path) -> None:
    """Remove what an earlier run left."""
    if not (out / stores.FILE_NAME).exists() and not (out / manifests.FILE_NAME).exists():
        return  # no run of ours, so its folders are somebody else's
    for name in (stores.FILE_NAME, f"{stores.FILE_NAME}-wal", f"{stores.FILE_NAME}-shm", manifests.FILE_NAME):
        (out / name).unlink(missing_ok=True)
    for folder in (ANSWERS_FOLDER, "tables", "report", AUDITS_FOLDER):
        shutil.rmtree(out / folder, ignore_errors=True)


class Held(BadInput):
    """Another process is writing to a folder."""


@contextlib.contextmanager
def locked(out: Path, wait: bool = False) -> Iterator[None]:
    """Hold a run's folder alone; the lock goes with the process, however it ends.

    Args:
        out: the folder; made if it is not there.
        wait: for whoever holds it, instead of refusing.

    Raises:
        Held: somebody else holds it.
        BadInput: it can be no locked folder.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: it is a file; name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    with open(out / LOCK, "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except ImportError:  # no such lock on this system
            pass
        except BlockingIOError as error:
            raise Held(f"{out}: another run is writing to it; wait for it or use another --out") from error
        except OSError as error:
            raise BadInput(
                f"{out}: it cannot be locked ({error.strerror}); use an --out on another file system"
            ) from error
        yield


def is_held(out: Path) -> bool:
    """Whether another process holds a run's folder now.

    Raises:
        BadInput: nobody can hold it, as on a file system without locks.
    """
    if not (out / LOCK).is_file():
        return False
    try:
        with locked(out):
            return False
    except Held:
        return True

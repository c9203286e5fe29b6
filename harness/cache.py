"""The user's cache folder: made atomically, marked for backup tools, moved by ``EMIT_BENCH_CACHE``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import BadInput

_README = "Made by emit-bench; everything here can be deleted and is made again when it is needed.\n"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache: https://bford.info/cachedir/\n"


def cache_root() -> Path:
    """``EMIT_BENCH_CACHE``, else ``emit-bench`` in the platform's cache folder; created when missing.

    Raises:
        BadInput: it cannot be created.
    """
    chosen = os.environ.get("EMIT_BENCH_CACHE")
    if chosen:
        root = Path(chosen)
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches" / "emit-bench"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emit-bench"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name, text in (("README.md", _README), ("CACHEDIR.TAG", _TAG)):
            if not (root / name).exists():
                (root / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{root}: the cache folder cannot be made ({error.strerror}); set EMIT_BENCH_CACHE to another one"
        ) from error
    return root


def cached_folder(name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, filled by ``make`` if it is not there yet.

    ``make`` fills a temporary folder that is renamed when it is whole, so a process killed half-way leaves
    nothing under ``name``, and of two processes at once the first one wins.
    """
    root = cache_root()
    target = root / name
    if target.is_dir():
        return target
    work = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=root))
    try:
        make(work)
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target

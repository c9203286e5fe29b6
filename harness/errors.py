"""Exit codes, and the one exception that becomes a sentence on the terminal."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """How every ``emit-bench`` command ends."""

    OK = 0
    REGRESSION = 1  #: a check found a regression
    USAGE = 2  #: wrong usage or bad input
    NOTHING = 3  #: nothing was evaluated
    INCONCLUSIVE = 4  #: inconclusive or incomplete
    FAILED_ITEMS = 5  #: more items failed than allowed
    INTERNAL = 70  #: a bug of ours


class BadInput(Exception):
    """The user's input cannot be used; the message is one clear sentence naming file, entry and remedy."""

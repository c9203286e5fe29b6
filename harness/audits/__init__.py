"""Audits: the run asked again in other ways, to see what its score rests on.

``emit-bench run … --audit positions`` first does the run, then its *variants*, each of which changes one
thing. A variant is an ordinary run in ``RUN/audits/<audit>/<variant>``: it is continued after an
interruption, and can be inspected with ``emit-bench score``. An :class:`Audit` is the list of its variants
and a judgement on the answers: to add one, write a file such as :mod:`harness.audits.blind` and list it here.

>>> sorted(AUDITS)
['blind', 'positions', 'reference', 'repeat']
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.audits.blind import BLIND
from harness.audits.positions import POSITIONS
from harness.audits.reference import REFERENCE
from harness.audits.repeat import REPEAT
from harness.audits.results import read_results
from harness.audits.spec import Audit, AuditResult, Evidence, Finding, Variant, with_items

__all__ = [
    "AUDITS",
    "Audit",
    "AuditResult",
    "Evidence",
    "Finding",
    "Variant",
    "read_results",
    "select_audits",
    "with_items",
]

AUDITS: Mapping[str, Audit] = {audit.name: audit for audit in (POSITIONS, REFERENCE, BLIND, REPEAT)}


def select_audits(words: Iterable[str]) -> tuple[Audit, ...]:
    """The audits that ``--audit`` names: names with commas between, or ``all``, each once.

    Raises:
        BadInput: there is no such audit.
    """
    from harness.lookup import find

    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    if "all" in names:
        names = list(AUDITS)
    return tuple(dict.fromkeys(find(AUDITS, name, "audit") for name in names))

"""Screening of experiences: what is kept of what comes in, and how much of it a night takes.

Poison, leaks and floods come in as experiences. Before one is stored it is redacted (`redaction.py`), held against rules and triggers
(`rules.py`, `triggers.py`) and against what is stored already (`duplicates.py`); `screen.py` makes one verdict of that. Before a night,
`caps.py` chooses. All of it is functions: no HTTP, no database, no network. Importing this imports neither presidio, spaCy nor scipy;
the first text does, unless `warm_up` did.
"""

from __future__ import annotations

from circadian.specs.screening import ScreeningSpec
from services.screening.caps import Candidate, Left, within_caps
from services.screening.duplicates import bands, signature, similar
from services.screening.reasons import Code, Reason
from services.screening.redaction import Redacted, redact
from services.screening.screen import Known, Prepared, Status, Verdict, judge, prepare, refusal, screen
from services.screening.spans import Finding

__all__ = [
    "Candidate",
    "Code",
    "Finding",
    "Known",
    "Left",
    "Prepared",
    "Reason",
    "Redacted",
    "Status",
    "Verdict",
    "bands",
    "judge",
    "prepare",
    "redact",
    "refusal",
    "screen",
    "signature",
    "similar",
    "warm_up",
    "within_caps",
]


def warm_up(spec: ScreeningSpec) -> None:
    """Import and build what the first text would wait for."""
    redact("warm 1", spec)
    signature("eight words and more make a long signature")

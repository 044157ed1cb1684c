"""Which of the waiting experiences a night takes: a pure function under absolute caps, so that no source and no subject fills a night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from circadian.specs.screening import CapsSpec, ScreeningSpec
from services.screening.reasons import Code, Reason


@dataclass(frozen=True)
class Candidate:
    """An experience that waits to be slept on."""

    id: str
    source: str
    """Who sent it: whatever one sender cannot have many of, such as an API key."""
    received_at: float
    """Unix seconds."""
    subject: str | None = None
    """Whom or what it is about."""


@dataclass(frozen=True)
class Left:
    """An experience that waits for another night, and why."""

    id: str
    reason: Reason


def within_caps(candidates: Iterable[Candidate], spec: ScreeningSpec) -> tuple[tuple[str, ...], tuple[Left, ...]]:
    """The ids that are taken and what is left, both oldest first; whatever the order in which the candidates came."""
    taken: list[str] = []
    left: list[Left] = []
    sources, subjects = Counter[str](), Counter[str]()
    for candidate in sorted(candidates, key=lambda candidate: (candidate.received_at, candidate.id)):
        subject = candidate.subject
        reason = _full(len(taken), sources[candidate.source], subjects[subject] if subject is not None else 0, spec.caps)
        if reason:
            left.append(Left(candidate.id, reason))
            continue
        taken.append(candidate.id)
        sources[candidate.source] += 1
        if subject is not None:
            subjects[subject] += 1
    return tuple(taken), tuple(left)


def _full(taken: int, of_source: int, of_subject: int, caps: CapsSpec) -> Reason | None:
    """What keeps one more from being taken."""
    for code, count, most, field, whose in (
        (Code.SLEEP_CAP, taken, caps.per_sleep, "per_sleep", "this sleep"),
        (Code.SOURCE_CAP, of_source, caps.per_source_per_sleep, "per_source_per_sleep", "this sleep from its source"),
        (Code.SUBJECT_CAP, of_subject, caps.per_subject_per_sleep, "per_subject_per_sleep", "this sleep about its subject"),
    ):
        if count >= most:
            return Reason(
                code, f"{most} experiences, which is all of caps.{field}, are in {whose}; it waits for the next, or raise the cap"
            )
    return None

"""What to do next about an erasure in one deployment: a pure function. `erasures.py` takes the step and asks again.

    batches that came before it are taken in -> a night in the way is cancelled and ends -> ERASE -> jobs of such nights end -> SCRUB
        -> replicas serve something else -> RETRAIN, where that was asked for -> done

ERASE is one transaction: bodies, versions and what the deployment serves change together, so whoever dies before it has done nothing and
whoever dies after it goes on behind it. SCRUB deletes files, and is safe to take twice. A night that cannot be cancelled any more, because
its version is on its way to the replicas, ends by itself, and its version is one of those affected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    AWAIT_BATCHES = "await_batches"
    CANCEL_NIGHT = "cancel_night"
    AWAIT_NIGHT = "await_night"
    ERASE = "erase"
    AWAIT_FAST_MEMORY = "await_fast_memory"
    AWAIT_JOB = "await_job"
    SCRUB = "scrub"
    AWAIT_REPLICAS = "await_replicas"
    RETRAIN = "retrain"
    DONE = "done"


WAITING = {
    Step.AWAIT_BATCHES: "batches that came before it are taken in first",
    Step.AWAIT_NIGHT: "a night that knows what is to be forgotten ends first",
    Step.AWAIT_FAST_MEMORY: "the fast memory that learned it is emptied first",
    Step.AWAIT_JOB: "the job of a night that knew it is not known to have ended",
    Step.AWAIT_REPLICAS: "replicas still serve what knows it",
}
"""Steps at which there is nothing to do but look again, and what clients are told."""


class Night(StrEnum):
    """The deployment's active sleep, as far as it has taken what is to be forgotten, or begun from what knows it."""

    NONE = "none"
    CANCELLABLE = "cancellable"
    ENDING = "ending"
    """It is being cancelled, or its version is on its way to the replicas."""


@dataclass(frozen=True)
class Situation:
    """Everything the next step depends on."""

    erased: bool
    scrubbed: bool
    wants_retraining: bool = False
    """It was asked for, a version was affected, and no sleep was begun yet."""
    batches: bool = False
    night: Night = Night.NONE
    fast_memory: bool = False
    """What was learned online is not emptied yet."""
    job: bool = False
    """Of a night that has ended: it may still write."""
    served: bool = False
    """Some replica answers with what knows it."""


def plan(now: Situation) -> Step:
    """The next step."""
    if not now.erased:
        if now.batches:
            return Step.AWAIT_BATCHES
        return {Night.CANCELLABLE: Step.CANCEL_NIGHT, Night.ENDING: Step.AWAIT_NIGHT, Night.NONE: Step.ERASE}[now.night]
    if not now.scrubbed:
        if now.fast_memory:
            return Step.AWAIT_FAST_MEMORY
        return Step.AWAIT_JOB if now.job else Step.SCRUB
    if now.served:
        return Step.AWAIT_REPLICAS
    return Step.RETRAIN if now.wants_retraining else Step.DONE

"""What to do next about a sleep: a pure function from what is known to one step. `nights.py` takes the step and asks again.

Every step is safe to take twice, so a controller that dies between two steps (or inside one) continues where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from services.states import FastState, SleepStatus


class Job(StrEnum):
    """A night's Ray job, as far as is known."""

    ALIVE = "alive"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"
    """The cluster does not know it (it was started anew)."""
    UNREACHABLE = "unreachable"
    """The cluster does not answer."""


class Step(StrEnum):
    SUBMIT = "submit"
    """Write the night's files and submit its Ray job."""
    SUBMIT_AGAIN = "submit_again"
    """The same night as the next attempt."""
    WAIT = "wait"
    DELIVER_FAST = "deliver_fast"
    """The replicas get the fast memory, until dawn."""
    STOP_JOB = "stop_job"
    PUT_BACK = "put_back"
    """The replicas return to the version that fell asleep."""
    COMMIT = "commit"
    """The new version becomes the active one, in one transaction."""
    DAWN = "dawn"
    """The replicas get the new version and prove it."""
    END_CANCELLED = "end_cancelled"
    END_FAILED = "end_failed"
    END_UNCHANGED = "end_unchanged"
    """The night ran, and made no version (gate, or nothing to learn)."""


Outcome = Literal["candidate", "rejected", "no_op", "failed"]
"""What a night left in outcome.json, the last thing it writes. `failed`: it would fail in the same way again."""
RUNNING_JOBS = (Job.ALIVE, Job.UNREACHABLE)


@dataclass(frozen=True)
class Situation:
    """Everything the next step depends on."""

    status: SleepStatus
    job: Job
    outcome: Outcome | None = None
    fast: FastState = FastState.NONE
    committed: bool = False
    condemned: bool = False
    """An error was recorded that the sleep cannot survive."""
    attempts_left: int = 0


def plan(now: Situation) -> Step:
    """The next step of a sleep that is not terminal."""
    if now.committed:
        return Step.DAWN
    if now.status is SleepStatus.CANCELLING or now.condemned:
        if now.job in RUNNING_JOBS:
            return Step.STOP_JOB
        return _wind_up(now, Step.END_FAILED if now.condemned else Step.END_CANCELLED)
    if now.status is SleepStatus.QUEUED:
        return Step.SUBMIT
    if now.job in RUNNING_JOBS:
        return Step.DELIVER_FAST if now.fast in (FastState.READY, FastState.SENT) else Step.WAIT
    if now.outcome is None:
        # Killed, or lost with its cluster, before it could say anything: the next attempt resumes from the sealed stages.
        again = now.job in (Job.LOST, Job.FAILED) and now.attempts_left > 0
        return Step.SUBMIT_AGAIN if again else _wind_up(now, Step.END_FAILED)
    if now.outcome == "candidate":
        return Step.COMMIT
    return _wind_up(now, Step.END_FAILED if now.outcome == "failed" else Step.END_UNCHANGED)


def _wind_up(now: Situation, end: Step) -> Step:
    """Replicas that may hold the fast memory give it back before the sleep ends."""
    return Step.PUT_BACK if now.fast in (FastState.SENT, FastState.LIVE) else end

"""What to do next about a sleep, and whose turn it is: pure functions from what is known. `nights.py` takes the step and asks again.

Every step is safe to take twice, so a controller that dies between two steps (or inside one) continues where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    QUEUE = "queue"
    """Say what it waits for, and wait."""
    SUBMIT = "submit"
    """Write the night's files and submit its Ray job: the first attempt, or one whose submission was not confirmed."""
    SUBMIT_AGAIN = "submit_again"
    """The same night as the next attempt."""
    BACK_OFF = "back_off"
    """Say why the attempt failed and when the next one begins, and wait for that."""
    WAIT = "wait"
    DELIVER_FAST = "deliver_fast"
    """The replicas get the fast memory, until dawn."""
    STOP_JOB = "stop_job"
    PAUSE = "pause"
    """The night does not run any more: the sleep is paused."""
    PUT_BACK = "put_back"
    """The replicas return to the version that fell asleep."""
    COMMIT = "commit"
    """The new version becomes the active one, in one transaction."""
    DAWN = "dawn"
    """The replicas get the new version and prove it."""
    END_CANCELLED = "end_cancelled"
    END_FAILED = "end_failed"
    KEEP = "keep"
    """The night made a version that does not serve: a candidate, or one that its gate refused. The sleep ends."""
    END_UNCHANGED = "end_unchanged"
    """The night ran, and made no version: there was nothing to learn."""


Outcome = Literal["candidate", "rejected", "no_op", "failed"]
"""What a night left in outcome.json, the last thing it writes. `failed`: it would fail in the same way again."""
RUNNING_JOBS = (Job.ALIVE, Job.UNREACHABLE)
"""That run, for all that is known."""
Retry = Literal["none", "waiting", "due"]
"""Of a failed attempt: nothing is planned yet, the next one waits, or begins now."""
ENDED_JOBS = (Job.SUCCEEDED, Job.FAILED, Job.STOPPED)
"""That have ended, by the cluster's own word. A lost one may be on its way: a submission that timed out can still arrive."""


@dataclass(frozen=True)
class Situation:
    """Everything the next step depends on."""

    status: SleepStatus
    job: Job
    outcome: Outcome | None = None
    fast: FastState = FastState.NONE
    committed: bool = False
    promotes: bool = True
    """A version that passes is to serve at dawn."""
    made: bool = False
    """The night has left a version."""
    condemned: bool = False
    """An error was recorded that the sleep cannot survive."""
    attempts_left: int = 0
    submitted: bool = True
    """The cluster has confirmed the last attempt."""
    in_line: bool = False
    """Other nights come first."""
    again: bool = False
    """Queued once more, after a pause or by a retry: what is submitted is the next attempt."""
    may_stop: bool = True
    """A job that is to stop may: at once was asked for, something was sealed since, or that took too long."""
    retry: Retry = "none"
    users_fault: bool = False
    """What the night says it failed of is for its user to change."""


def plan(now: Situation) -> Step:
    """The next step of a sleep that is not terminal."""
    if now.committed:
        return Step.DAWN
    if now.status is SleepStatus.CANCELLING or now.condemned:
        if now.job in RUNNING_JOBS:
            return Step.STOP_JOB if now.condemned or now.may_stop else Step.WAIT
        return _wind_up(now, Step.END_FAILED if now.condemned else Step.END_CANCELLED)
    if now.status is SleepStatus.PAUSING:
        return _pause(now)
    if now.status is SleepStatus.PAUSED:
        return _idle(now, Step.WAIT)
    if now.in_line:
        return _idle(now, Step.QUEUE)
    if now.status is SleepStatus.QUEUED and now.again:
        return Step.SUBMIT_AGAIN
    if now.status is SleepStatus.QUEUED or not now.submitted:
        return Step.SUBMIT
    if now.job in RUNNING_JOBS:
        return _at_night(now)
    if now.outcome == "candidate" and now.promotes:
        return Step.COMMIT
    if now.made and now.outcome in ("candidate", "rejected"):
        return _wind_up(now, Step.KEEP)
    if now.outcome in ("rejected", "no_op"):
        return _wind_up(now, Step.END_UNCHANGED)
    return _failed(now)


def _at_night(now: Situation) -> Step:
    """While the job runs."""
    return Step.DELIVER_FAST if now.fast in (FastState.READY, FastState.SENT) else Step.WAIT


def _idle(now: Situation, step: Step) -> Step:
    """While no job runs: a replica that was started beside the fast memory gets it again."""
    return Step.DELIVER_FAST if now.fast is FastState.SENT else step


def _pause(now: Situation) -> Step:
    """A night that has ended by itself is paused too, whatever it left: the next attempt finds its stages sealed, and says it again."""
    if now.job not in RUNNING_JOBS:
        return Step.PAUSE
    return Step.STOP_JOB if now.may_stop else _at_night(now)


def _failed(now: Situation) -> Step:
    """Killed, or lost with its cluster, before it could say anything, or failed by its own word: the next attempt resumes from the
    sealed stages, after a pause. Not where only its user can change something, nor where it ended in a way that it never should."""
    silent = now.outcome is None and now.job in (Job.LOST, Job.FAILED)
    if now.attempts_left < 1 or not (silent or (now.outcome == "failed" and not now.users_fault)):
        return _wind_up(now, Step.END_FAILED)
    return {"none": Step.BACK_OFF, "waiting": _idle(now, Step.WAIT), "due": Step.SUBMIT_AGAIN}[now.retry]


def _wind_up(now: Situation, end: Step) -> Step:
    """Replicas that may hold the fast memory give it back before the sleep ends."""
    return Step.PUT_BACK if now.fast in (FastState.SENT, FastState.LIVE) else end


@dataclass(frozen=True)
class InLine:
    """A sleep that has a night, or waits to begin it."""

    sleep: str
    begun: bool
    """Its job runs, or may."""


def ahead(line: Sequence[InLine], sleep: str, at_once: int) -> list[str]:
    """The sleeps that a queued one waits for, from the line in its order of arrival; none when its night may begin.

    First come, first served, so that of two that look at the same time only one finds a place.
    """
    begun = [other.sleep for other in line if other.begun]
    arrived = [other.sleep for other in line]
    before = [other.sleep for other in line[: arrived.index(sleep)] if not other.begun]
    return begun + before if len(begun) + len(before) >= at_once else []

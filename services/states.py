"""States of a sleep and of a deployment, and how they change. Pure: no database, no clock.

                  +-----------+-----------+--------> succeeded
                  |           |           |
    queued -> preparing -> running <-> evaluating
     | |          |           |           |
     | +----------+-----------+-----------+--> pausing -> paused -> queued
     +------------+-----------+-----------+------+----------+-----> cancelling -> cancelled | failed
     +------------+-----------+-----------+------+----------+-----> failed

A night with nothing to learn succeeds while it prepares. One whose stages are sealed moves from preparing straight to evaluating; one
that was killed is submitted again and falls back from evaluating to running. Nothing that a night does leaves an end; an operator may
let one that failed or was cancelled begin again (`retried`), as queued.
"""

from __future__ import annotations

from enum import StrEnum


class SleepStatus(StrEnum):
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    EVALUATING = "evaluating"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


class FastState(StrEnum):
    """Where a night's fast memory is: written by the night, sent to the replicas, answering, or taken back."""

    NONE = "none"
    READY = "ready"
    SENT = "sent"
    LIVE = "live"
    RESTED = "rested"


BEFORE_DUSK = frozenset({FastState.NONE, FastState.READY})
"""While a night has not sent its fast memory to the replicas."""


class ServingState(StrEnum):
    """What is known of a deployment's replicas."""

    PROVISIONING = "provisioning"
    AWAKE = "awake"
    FAILED = "failed"


class DeploymentState(StrEnum):
    PROVISIONING = "provisioning"
    AWAKE = "awake"
    DROWSY = "drowsy"
    ASLEEP = "asleep"
    WAKING = "waking"
    FAILED = "failed"
    DELETING = "deleting"


TERMINAL = frozenset({SleepStatus.SUCCEEDED, SleepStatus.FAILED, SleepStatus.CANCELLED})
ACTIVE = tuple(status for status in SleepStatus if status not in TERMINAL)
RETRYABLE = frozenset({SleepStatus.FAILED, SleepStatus.CANCELLED})
HELD = frozenset({SleepStatus.PAUSING, SleepStatus.PAUSED, SleepStatus.CANCELLING})
"""What the night says does not change these."""
_ENDS = {SleepStatus.FAILED, SleepStatus.CANCELLING}
_STOPS = {SleepStatus.PAUSING, *_ENDS}
NEXT: dict[SleepStatus, frozenset[SleepStatus]] = {
    SleepStatus.QUEUED: frozenset({SleepStatus.PREPARING, *_STOPS}),
    SleepStatus.PREPARING: frozenset({SleepStatus.RUNNING, SleepStatus.EVALUATING, SleepStatus.SUCCEEDED, *_STOPS}),
    SleepStatus.RUNNING: frozenset({SleepStatus.EVALUATING, SleepStatus.SUCCEEDED, *_STOPS}),
    SleepStatus.EVALUATING: frozenset({SleepStatus.RUNNING, SleepStatus.SUCCEEDED, *_STOPS}),
    SleepStatus.PAUSING: frozenset({SleepStatus.PAUSED, *_ENDS}),
    SleepStatus.PAUSED: frozenset({SleepStatus.QUEUED, *_ENDS}),
    SleepStatus.CANCELLING: frozenset({SleepStatus.CANCELLED, SleepStatus.FAILED}),
    **{status: frozenset() for status in TERMINAL},
}

PREPARING_PHASES = frozenset({"collect"})
EVALUATING_PHASES = frozenset({"gate", "gate_without_dreams", "publish", "dawn"})
DAWN = "dawn"
"""The phase in which the replicas receive the new version."""


class IllegalTransition(Exception):
    """A sleep was asked to make a step that its state does not allow."""


def moved(now: SleepStatus, to: SleepStatus) -> SleepStatus:
    """The state after a step; staying where one is, is always allowed. Raises IllegalTransition."""
    if to != now and to not in NEXT[now]:
        raise IllegalTransition(f"a sleep that is {now} cannot become {to}")
    return to


def retried(now: SleepStatus) -> SleepStatus:
    """The state of a sleep that an operator lets begin again. Raises IllegalTransition."""
    if now not in RETRYABLE:
        raise IllegalTransition(f"a sleep that is {now} cannot be retried")
    return SleepStatus.QUEUED


def status_in_phase(now: SleepStatus, phase: str) -> SleepStatus:
    """The status of a sleep whose night has entered a stage; one that is being paused or cancelled, or is paused, stays so."""
    if now in HELD or now.terminal:
        return now
    if now is SleepStatus.QUEUED or (phase in PREPARING_PHASES and now is SleepStatus.PREPARING):
        return SleepStatus.PREPARING
    return SleepStatus.EVALUATING if phase in EVALUATING_PHASES else SleepStatus.RUNNING


def deployment_state(serving: ServingState, sleep: SleepStatus | None, phase: str | None) -> DeploymentState:
    """What a deployment is doing, from its replicas and its active sleep (None when there is none)."""
    if serving is not ServingState.AWAKE:
        return DeploymentState(serving.value)
    if sleep is None or sleep.terminal:
        return DeploymentState.AWAKE
    if sleep in (SleepStatus.QUEUED, SleepStatus.PREPARING, SleepStatus.PAUSED):
        return DeploymentState.DROWSY
    return DeploymentState.WAKING if phase == DAWN or sleep is SleepStatus.CANCELLING else DeploymentState.ASLEEP

"""The state machine of a sleep, the state of a deployment and the next step, as tables."""

from __future__ import annotations

import pytest

from services.plan import Job, Situation, Step, plan
from services.states import NEXT, TERMINAL, IllegalTransition, SleepStatus, deployment_state, moved, retried, status_in_phase
from services.states import DeploymentState as D
from services.states import FastState as F
from services.states import ServingState as Serving

S = SleepStatus
ENDS = {S.FAILED, S.CANCELLING}
DRAWN: dict[S, set[S]] = {
    S.QUEUED: {S.PREPARING, S.PAUSING} | ENDS,
    S.PREPARING: {S.RUNNING, S.EVALUATING, S.SUCCEEDED, S.PAUSING} | ENDS,
    S.RUNNING: {S.EVALUATING, S.SUCCEEDED, S.PAUSING} | ENDS,
    S.EVALUATING: {S.RUNNING, S.SUCCEEDED, S.PAUSING} | ENDS,
    S.PAUSING: {S.PAUSED} | ENDS,
    S.PAUSED: {S.QUEUED} | ENDS,
    S.CANCELLING: {S.CANCELLED, S.FAILED},
    S.SUCCEEDED: set(),
    S.FAILED: set(),
    S.CANCELLED: set(),
}
"""The drawing at the head of states.py."""


def test_only_drawn_transitions_are_possible() -> None:
    for now in S:
        for to in S:
            if to == now or to in DRAWN[now]:
                assert moved(now, to) is to
            else:
                with pytest.raises(IllegalTransition):
                    moved(now, to)


def test_every_active_state_can_fail_and_no_terminal_state_can_be_left() -> None:
    for status in S:
        assert (not NEXT[status]) == (status in TERMINAL)
        assert status in TERMINAL or S.FAILED in NEXT[status]


def test_only_what_failed_or_was_cancelled_can_be_retried() -> None:
    for status in S:
        if status in (S.FAILED, S.CANCELLED):
            assert retried(status) is S.QUEUED
        else:
            with pytest.raises(IllegalTransition):
                retried(status)


@pytest.mark.parametrize(
    ("now", "phase", "then"),
    [
        (S.QUEUED, "collect", S.PREPARING),
        (S.PREPARING, "collect", S.PREPARING),
        (S.PREPARING, "learn_fast_level", S.RUNNING),
        (S.RUNNING, "gate", S.EVALUATING),
        (S.EVALUATING, "publish", S.EVALUATING),
        (S.EVALUATING, "collect", S.RUNNING),
        (S.CANCELLING, "gate", S.CANCELLING),
        (S.PAUSING, "gate", S.PAUSING),
        (S.PAUSED, "gate", S.PAUSED),
        (S.FAILED, "gate", S.FAILED),
    ],
)
def test_the_status_follows_the_stage(now: S, phase: str, then: S) -> None:
    assert status_in_phase(now, phase) is then
    assert moved(now, then) is then


@pytest.mark.parametrize(
    ("serving", "sleep", "phase", "state"),
    [
        (Serving.PROVISIONING, None, None, D.PROVISIONING),
        (Serving.FAILED, S.RUNNING, "gate", D.FAILED),
        (Serving.AWAKE, None, None, D.AWAKE),
        (Serving.AWAKE, S.SUCCEEDED, "dawn", D.AWAKE),
        (Serving.AWAKE, S.QUEUED, None, D.DROWSY),
        (Serving.AWAKE, S.PREPARING, "collect", D.DROWSY),
        (Serving.AWAKE, S.RUNNING, "knowledge_seeding", D.ASLEEP),
        (Serving.AWAKE, S.EVALUATING, "gate", D.ASLEEP),
        (Serving.AWAKE, S.EVALUATING, "dawn", D.WAKING),
        (Serving.AWAKE, S.CANCELLING, "gate", D.WAKING),
        (Serving.AWAKE, S.PAUSING, "gate", D.ASLEEP),
        (Serving.AWAKE, S.PAUSED, "gate", D.DROWSY),
    ],
)
def test_what_a_deployment_is_doing(serving: Serving, sleep: S | None, phase: str | None, state: D) -> None:
    assert deployment_state(serving, sleep, phase) is state


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (Situation(S.QUEUED, Job.LOST), Step.SUBMIT),
        (Situation(S.QUEUED, Job.LOST, in_line=True), Step.QUEUE),
        (Situation(S.CANCELLING, Job.LOST, in_line=True), Step.END_CANCELLED),
        (Situation(S.QUEUED, Job.ALIVE, submitted=False), Step.SUBMIT),
        (Situation(S.RUNNING, Job.LOST, submitted=False, attempts_left=1), Step.SUBMIT),
        (Situation(S.RUNNING, Job.UNREACHABLE, submitted=False), Step.SUBMIT),
        (Situation(S.CANCELLING, Job.ALIVE, submitted=False), Step.STOP_JOB),
        (Situation(S.RUNNING, Job.ALIVE), Step.WAIT),
        (Situation(S.RUNNING, Job.UNREACHABLE), Step.WAIT),
        (Situation(S.RUNNING, Job.ALIVE, fast=F.READY), Step.DELIVER_FAST),
        (Situation(S.RUNNING, Job.ALIVE, fast=F.SENT), Step.DELIVER_FAST),
        (Situation(S.RUNNING, Job.ALIVE, fast=F.LIVE), Step.WAIT),
        (Situation(S.RUNNING, Job.ALIVE, outcome="candidate"), Step.WAIT),
        (Situation(S.RUNNING, Job.LOST, attempts_left=1), Step.BACK_OFF),
        (Situation(S.RUNNING, Job.LOST, attempts_left=1, retry="waiting"), Step.WAIT),
        (Situation(S.RUNNING, Job.LOST, attempts_left=1, retry="waiting", fast=F.LIVE), Step.WAIT),
        (Situation(S.RUNNING, Job.LOST, attempts_left=1, retry="waiting", fast=F.SENT), Step.DELIVER_FAST),
        (Situation(S.RUNNING, Job.LOST, attempts_left=1, retry="due"), Step.SUBMIT_AGAIN),
        (Situation(S.RUNNING, Job.ALIVE, attempts_left=1, retry="due"), Step.WAIT),
        (Situation(S.RUNNING, Job.LOST, attempts_left=0, retry="due"), Step.END_FAILED),
        (Situation(S.RUNNING, Job.LOST), Step.END_FAILED),
        (Situation(S.EVALUATING, Job.SUCCEEDED, outcome="candidate", fast=F.LIVE), Step.COMMIT),
        (Situation(S.EVALUATING, Job.SUCCEEDED, outcome="candidate", fast=F.LIVE, committed=True), Step.DAWN),
        (Situation(S.EVALUATING, Job.LOST, outcome="candidate", committed=True), Step.DAWN),
        (Situation(S.EVALUATING, Job.SUCCEEDED, outcome="rejected", fast=F.LIVE), Step.PUT_BACK),
        (Situation(S.EVALUATING, Job.SUCCEEDED, outcome="rejected", fast=F.RESTED), Step.END_UNCHANGED),
        (Situation(S.EVALUATING, Job.SUCCEEDED, outcome="no_op"), Step.END_UNCHANGED),
        (Situation(S.EVALUATING, Job.SUCCEEDED), Step.END_FAILED),
        (Situation(S.RUNNING, Job.FAILED, outcome="candidate"), Step.COMMIT),
        (Situation(S.RUNNING, Job.FAILED, attempts_left=1), Step.BACK_OFF),
        (Situation(S.RUNNING, Job.FAILED, fast=F.LIVE, attempts_left=1), Step.BACK_OFF),
        (Situation(S.RUNNING, Job.SUCCEEDED, outcome="failed", users_fault=True, attempts_left=1), Step.END_FAILED),
        (Situation(S.RUNNING, Job.SUCCEEDED, outcome="failed", attempts_left=1), Step.BACK_OFF),
        (Situation(S.RUNNING, Job.SUCCEEDED, outcome="failed", attempts_left=1, retry="due"), Step.SUBMIT_AGAIN),
        (Situation(S.RUNNING, Job.SUCCEEDED, outcome="failed"), Step.END_FAILED),
        (Situation(S.RUNNING, Job.FAILED, outcome="no_op", attempts_left=1), Step.END_UNCHANGED),
        (Situation(S.RUNNING, Job.LOST, outcome="failed", fast=F.LIVE, users_fault=True, attempts_left=1), Step.PUT_BACK),
        (Situation(S.RUNNING, Job.LOST, outcome="failed", fast=F.LIVE), Step.PUT_BACK),
        (Situation(S.RUNNING, Job.SUCCEEDED, attempts_left=1), Step.END_FAILED),
        (Situation(S.RUNNING, Job.STOPPED, attempts_left=1), Step.END_FAILED),
        (Situation(S.RUNNING, Job.FAILED, fast=F.SENT), Step.PUT_BACK),
        (Situation(S.RUNNING, Job.FAILED, fast=F.RESTED), Step.END_FAILED),
        (Situation(S.CANCELLING, Job.ALIVE, fast=F.LIVE), Step.STOP_JOB),
        (Situation(S.CANCELLING, Job.STOPPED, fast=F.LIVE), Step.PUT_BACK),
        (Situation(S.CANCELLING, Job.STOPPED, fast=F.RESTED), Step.END_CANCELLED),
        (Situation(S.CANCELLING, Job.SUCCEEDED, outcome="candidate"), Step.END_CANCELLED),
        (Situation(S.CANCELLING, Job.LOST, attempts_left=2), Step.END_CANCELLED),
        (Situation(S.CANCELLING, Job.ALIVE, may_stop=False), Step.WAIT),
        (Situation(S.CANCELLING, Job.STOPPED, may_stop=False), Step.END_CANCELLED),
        (Situation(S.CANCELLING, Job.ALIVE, may_stop=False, condemned=True), Step.STOP_JOB),
        (Situation(S.PAUSING, Job.ALIVE), Step.STOP_JOB),
        (Situation(S.PAUSING, Job.UNREACHABLE), Step.STOP_JOB),
        (Situation(S.PAUSING, Job.ALIVE, may_stop=False), Step.WAIT),
        (Situation(S.PAUSING, Job.ALIVE, may_stop=False, fast=F.READY), Step.DELIVER_FAST),
        (Situation(S.PAUSING, Job.ALIVE, submitted=False), Step.STOP_JOB),
        (Situation(S.PAUSING, Job.STOPPED, fast=F.LIVE), Step.PAUSE),
        (Situation(S.PAUSING, Job.LOST, in_line=True), Step.PAUSE),
        (Situation(S.PAUSING, Job.FAILED, attempts_left=1), Step.PAUSE),
        (Situation(S.PAUSING, Job.SUCCEEDED, outcome="candidate"), Step.PAUSE),
        (Situation(S.PAUSING, Job.SUCCEEDED, outcome="candidate", committed=True), Step.DAWN),
        (Situation(S.PAUSING, Job.STOPPED, condemned=True), Step.END_FAILED),
        (Situation(S.PAUSED, Job.STOPPED), Step.WAIT),
        (Situation(S.PAUSED, Job.SUCCEEDED, outcome="candidate"), Step.WAIT),
        (Situation(S.PAUSED, Job.LOST, attempts_left=1), Step.WAIT),
        (Situation(S.PAUSED, Job.STOPPED, fast=F.LIVE), Step.WAIT),
        (Situation(S.PAUSED, Job.STOPPED, fast=F.READY), Step.WAIT),
        (Situation(S.PAUSED, Job.STOPPED, fast=F.SENT), Step.DELIVER_FAST),
        (Situation(S.PAUSED, Job.STOPPED, condemned=True, fast=F.LIVE), Step.PUT_BACK),
        (Situation(S.QUEUED, Job.STOPPED, again=True), Step.SUBMIT_AGAIN),
        (Situation(S.QUEUED, Job.STOPPED, again=True, in_line=True), Step.QUEUE),
        (Situation(S.QUEUED, Job.STOPPED, again=True, in_line=True, fast=F.SENT), Step.DELIVER_FAST),
        (Situation(S.QUEUED, Job.SUCCEEDED, again=True, outcome="candidate"), Step.SUBMIT_AGAIN),
        (Situation(S.RUNNING, Job.ALIVE, condemned=True), Step.STOP_JOB),
        (Situation(S.RUNNING, Job.STOPPED, condemned=True, fast=F.SENT), Step.PUT_BACK),
        (Situation(S.QUEUED, Job.LOST, condemned=True), Step.END_FAILED),
    ],
)
def test_the_next_step(now: Situation, step: Step) -> None:
    assert plan(now) is step

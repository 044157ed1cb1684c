"""What an operator does about a sleep that was begun: cancel it, let it pause and go on, try it again. Small functions on a transaction, as
in registry.py; the sleep is locked. The watcher (nights.py) sees the new state at its next look, whichever controller leads then.

    cancel    active             -> cancelling   its job is stopped at once, or when the next thing is sealed
    pause     with a night       -> pausing      the same; then `paused`: no job and no place in line, yet its deployment's one sleep
    resume    paused             -> queued       the next attempt goes on from what is sealed, when it is its turn
    retry     failed, cancelled  -> queued       the same sleep on the same experiences: from what is sealed, or from the start

Each says so in an event, and whether it changed anything; asked for twice, it is done once. Raises Problem (409) where it cannot be done.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from circadian.events import FILE
from circadian.specs import Recipe
from services import fast_registry, promotion, registry
from services.errors import Problem
from services.selection import taken_again
from services.settings import Settings
from services.sleeping import in_progress, needs_experiences
from services.states import RETRYABLE, FastState, SleepStatus, moved, retried
from services.tables import Sleep, Version, new_id

CancelMode = Literal["checkpoint", "immediate"]
PauseMode = Literal["save", "latest"]
"""Until the next checkpoint is saved, or back to the latest one."""
From = Literal["last_checkpoint", "start"]
WITH_A_NIGHT = (SleepStatus.QUEUED, SleepStatus.PREPARING, SleepStatus.RUNNING, SleepStatus.EVALUATING)
SOON = {"x-should-retry": "true", "Retry-After": "5"}


def cancel(tx: Session, sleep: Sleep, mode: CancelMode, settings: Settings) -> bool:
    """A sleep that has ended stays as it ended."""
    if sleep.status.terminal:
        return False
    if sleep.result_version is not None:
        raise Problem(409, "already_promoted", f"{sleep.result_version} is active already; the replicas are receiving it.")
    if sleep.status is SleepStatus.CANCELLING:
        return _sooner(sleep, mode == "immediate")
    sleep.status = moved(sleep.status, SleepStatus.CANCELLING)
    sleep.stop_at = None if mode == "immediate" else time.time() + settings.checkpoint_seconds
    registry.append_event(tx, sleep, "sleep.cancelling", "cancellation asked for", {"mode": mode})
    return True


def pause(tx: Session, sleep: Sleep, mode: PauseMode, settings: Settings) -> bool:
    if sleep.status is SleepStatus.PAUSED:
        return False
    if sleep.status is SleepStatus.PAUSING:
        return _sooner(sleep, mode == "latest")
    if sleep.status not in WITH_A_NIGHT or sleep.result_version is not None or sleep.error is not None:
        ends = sleep.result_version is not None or sleep.error is not None
        raise Problem(
            409, "not_pausable", f"Sleep {sleep.id} is {'about to end' if ends else sleep.status.value}; it has no night to pause."
        )
    sleep.status = moved(sleep.status, SleepStatus.PAUSING)
    sleep.stop_at = None if mode == "latest" else time.time() + settings.checkpoint_seconds
    registry.append_event(tx, sleep, "sleep.pausing", "a pause was asked for", {"checkpoint": mode})
    return True


def resume(tx: Session, sleep: Sleep) -> bool:
    """Queued: it waits in line like any other, in the place of its age."""
    if sleep.status is not SleepStatus.PAUSED:
        raise Problem(409, "not_resumable", f"Sleep {sleep.id} is {sleep.status.value}; only a paused one can go on.")
    _last_job_has_ended(tx, sleep)
    active = registry.deployment(tx, sleep.deployment).active_version
    if active != sleep.parent_version:
        detail = (
            f"Its deployment serves {active} now, not {sleep.parent_version}, which fell asleep; cancel it, and begin another one."
        )
        raise Problem(409, "not_resumable", detail)
    sleep.status = moved(sleep.status, SleepStatus.QUEUED)
    registry.append_event(tx, sleep, "sleep.resumed", "the sleep goes on", {"attempt": sleep.attempt + 1})
    return True


def retry(tx: Session, sleep: Sleep, begin: From, home: Path) -> bool:
    """The same sleep, queued, with a budget and a number of tries as at first."""
    if sleep.status not in RETRYABLE:
        raise _not_retryable(f"Sleep {sleep.id} is {sleep.status.value}; only one that failed or was cancelled can be tried again")
    deployment = registry.held(tx, sleep.deployment)
    fast_registry.locked(tx, sleep.deployment)
    if active := registry.active_sleep(tx, sleep.deployment):
        raise in_progress(deployment.name, active.id)
    if running := promotion.running_rollout(tx, deployment.id):
        raise promotion.in_progress(deployment, running.id)
    if deployment.active_version != sleep.parent_version:
        raise _not_retryable(
            f"Its deployment serves {deployment.active_version} now, not {sleep.parent_version}; begin another sleep"
        )
    _last_job_has_ended(tx, sleep)
    _version_is_free(tx, sleep, begin)
    wanted, own = taken_again(tx, sleep.deployment, sleep.id)
    if own < wanted or (not wanted and needs_experiences(Recipe.model_validate(sleep.recipe))):
        raise _not_retryable(
            f"Of the {wanted} experiences that it was begun on, {own} still wait; begin another sleep on what waits now"
        )
    _as_at_first(sleep, home)
    sleep.starts_over = begin == "start"
    text = "tried again, from " + ("the start" if sleep.starts_over else "what is sealed")
    registry.append_event(tx, sleep, "sleep.retried", text, {"from": begin, "attempt": sleep.attempt + 1})
    return True


def _sooner(sleep: Sleep, at_once: bool) -> bool:
    """One that is to stop at its next checkpoint, now at once."""
    if sleep.stop_at is None or not at_once:
        return False
    sleep.stop_at = None
    return True


def _last_job_has_ended(tx: Session, sleep: Sleep) -> None:
    """Two jobs of one night would write the same files."""
    if registry.has_stray_job(tx, sleep.id):
        detail = f"The last job of {sleep.id} is not known to have ended; ask again when the cluster has said so."
        raise Problem(409, "job_still_running", detail, headers=SOON)


def _version_is_free(tx: Session, sleep: Sleep, begin: From) -> None:
    """What a night has made is sealed under its version's id: one that was registered, and rejected since, is not made again."""
    if tx.scalar(select(Version.id).where(Version.id == sleep.child_version)) is None:
        return
    if begin == "last_checkpoint":
        raise _not_retryable(f"What it made, {sleep.child_version}, was rejected; try it again from the start")
    sleep.child_version = new_id("ver")


def _as_at_first(sleep: Sleep, home: Path) -> None:
    """As it was asked for, but for the number of its attempts. What the last night still wrote when it had ended is not read."""
    sleep.status, sleep.life = retried(sleep.status), sleep.life + 1
    sleep.finished_at = sleep.began_at = sleep.paused_at = sleep.pending_since = sleep.retry_at = sleep.stop_at = None
    sleep.error = sleep.report = sleep.phase = sleep.outcome = sleep.waiting = None
    sleep.fast_delivery = sleep.rest_delivery = sleep.placed = None
    sleep.fast, sleep.failures, sleep.paused_seconds = FastState.NONE, 0, 0.0
    sleep.progress, sleep.left_out = {}, {}
    sleep.submitted = sleep.attempt > 0
    file = home / FILE
    sleep.events_offset = file.stat().st_size if file.exists() else 0


def _not_retryable(why: str) -> Problem:
    return Problem(409, "not_retryable", f"{why}.")

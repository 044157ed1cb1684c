"""What a watcher writes down about its sleep: each method one transaction of the leader's, or one look at the registry.

Nothing here waits, asks the cluster or touches replicas: night_steps.py does, and calls these before and after.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from sqlalchemy.orm import Session

from actors import names
from circadian.memory.folder import read_record
from circadian.specs import Autoscale, Recipe
from services import dawn, registry, tail
from services.attempts import backoff
from services.budget import stood_still
from services.fleet import ServingSpec
from services.launcher import JobReport
from services.leader import Lease
from services.outcome import NightOutcome, night_error, read_outcome, tell, why
from services.placement import OWN, Asked, Cluster, Room, Unplaceable, held, needed, place
from services.plan import ENDED_JOBS, Job, ahead
from services.schedules.cooling import IN_A_ROW, JUDGED, cooling_until
from services.settings import Settings
from services.signing import Signing
from services.states import DAWN, HELD, FastState, SleepStatus, moved
from services.tables import Database, Json, Sleep


class Records:
    """Of one sleep, in one of its lives."""

    def __init__(self, settings: Settings, database: Database, lease: Lease, signing: Signing, key: tuple[str, int]) -> None:
        self.settings, self.database, self.lease, self.signing = settings, database, lease, signing
        self.sleep_id, self.life = key
        self._report = JobReport(Job.LOST)
        """The last that was heard of the job."""

    def _home_of(self, sleep: Sleep) -> Path:
        return self.settings.sleep_folder(sleep.deployment, sleep.id)

    def _promotes(self, sleep: Sleep) -> bool:
        with self.database.read() as tx:
            return dawn.wish(tx, sleep).mode == "on_pass"

    def _ahead(self) -> list[str]:
        with self.database.read() as tx:
            line = registry.line(tx)
        here = any(other.sleep == self.sleep_id for other in line)  # not where it was cancelled since it was loaded
        return ahead(line, self.sleep_id, self.settings.nights_at_once) if here else []

    def _queue(self) -> None:
        first = self._ahead()
        waiting = f"waits for {', '.join(first)}: nights_at_once is {self.settings.nights_at_once}"
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if sleep.status is SleepStatus.QUEUED and first and sleep.waiting != waiting:
                if sleep.waiting is None:
                    registry.append_event(tx, sleep, "sleep.waiting", waiting, {"sleeps": first})
                sleep.waiting = waiting

    def _place(self, sleep: Sleep, free: Room) -> Json | None:
        """Where the night lies; None, and the sleep is condemned, where it can lie nowhere."""
        with self.lease.write() as tx:
            deployment, row = registry.deployment(tx, sleep.deployment), registry.locked_sleep(tx, self.sleep_id)
            serving = ServingSpec.model_validate(deployment.serving)
            replicas = serving.replicas.min if isinstance(serving.replicas, Autoscale) else serving.replicas
            night = needed(Recipe.model_validate(row.recipe))
            try:
                asked, cluster = cast(Asked, row.placement or serving.placement), Cluster(replicas, held(serving), free)
                placed = OWN if self.settings.night_cluster_file else place(asked, cluster, night)
            except Unplaceable as error:
                row.error = night_error("no_capacity", str(error))
                return None
            row.placed = asdict(placed)
            if placed.serving is not None:
                registry.append_event(tx, row, "sleep.placed", f"{placed.kind}: {placed.why}", row.placed)
            return row.placed

    def _set_pending(self, pending: bool) -> None:
        """The cluster has the job and has not begun it, or has begun it now: what a night waits is nothing that it spends."""
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if pending:
                sleep.pending_since = sleep.pending_since or time.time()
            elif sleep.pending_since is not None:
                stood_still(sleep, time.time())

    def _pending(self, seen: Sleep, awaits: str) -> None:
        """The cluster has taken the job, and starts it nowhere: say what it waits for, and again where that is something else."""
        waiting = f"waits for {awaits}"
        since = seen.pending_since
        if seen.status not in (SleepStatus.PREPARING, SleepStatus.RUNNING) or seen.waiting == waiting or since is None:
            return
        if time.time() - since < self.settings.job_pending_seconds:
            return
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if sleep.status is seen.status and sleep.waiting == seen.waiting:
                sleep.waiting = waiting
                registry.append_event(tx, sleep, "sleep.waiting", waiting, {"waiting": waiting}, level="warning")

    def _wait_for(self, waiting: str) -> None:
        with self.lease.write() as tx:
            registry.locked_sleep(tx, self.sleep_id).waiting = waiting

    def _set_lent(self, lent: bool) -> None:
        with self.lease.write() as tx:
            registry.locked_sleep(tx, self.sleep_id).lent = lent

    def _begin_attempt(self, again: bool) -> int | None:
        """The attempt to submit; None where the sleep was cancelled or paused meanwhile."""
        with self.lease.write() as tx:
            sleep, now = registry.locked_sleep(tx, self.sleep_id), time.time()
            if sleep.status in HELD:
                return None
            if again or not sleep.attempt:
                sleep.failures += sleep.status is not SleepStatus.QUEUED
                sleep.attempt, sleep.submitted, sleep.starts_over = sleep.attempt + 1, False, False
            stood_still(sleep, now)
            sleep.began_at, sleep.waiting, sleep.retry_at = sleep.began_at or now, None, None
            return sleep.attempt

    def _submitted(self, attempt: int) -> None:
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.submitted = True
            if sleep.status is SleepStatus.QUEUED:
                sleep.status = moved(sleep.status, SleepStatus.PREPARING)
            job = names.night_job(sleep.id, attempt)
            registry.append_event(
                tx, sleep, "sleep.started", f"night submitted, attempt {attempt}", {"job": job, "attempt": attempt}
            )

    def _back_off(self) -> None:
        """The last attempt failed, and there will be another one."""
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if sleep.status in HELD or sleep.retry_at is not None:
                return
            seconds = backoff(self.settings, sleep.failures)
            error = why(self._report, read_outcome(self._home_of(sleep), sleep.attempt))
            sleep.retry_at = time.time() + seconds
            text = f"attempt {sleep.attempt} failed, the next one begins in {seconds:g} s: {error['message']}"
            told = {"attempt": sleep.attempt, "seconds": seconds, "error": error}
            registry.append_event(tx, sleep, "sleep.retrying", text, told, level="warning")

    def _pause(self) -> None:
        """Its job has ended, by the cluster's word, or is lost: one that turns up after all must not run beside the next attempt's."""
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if sleep.status is not SleepStatus.PAUSING:
                return
            if sleep.attempt and self._report.job not in ENDED_JOBS:
                registry.add_stray_job(tx, names.night_job(sleep.id, sleep.attempt), sleep.id)
            sleep.status, sleep.submitted = moved(sleep.status, SleepStatus.PAUSED), sleep.attempt > 0
            sleep.paused_at = sleep.paused_at or sleep.pending_since or time.time()
            sleep.pending_since = sleep.stop_at = sleep.retry_at = sleep.waiting = None
            registry.append_event(
                tx, sleep, "sleep.paused", f"the sleep is paused in {sleep.phase or 'no stage yet'}", {"stage": sleep.phase}
            )

    def _commit(self, outcome: NightOutcome) -> None:
        made = self._made(outcome)
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if dawn.commit(tx, sleep, made):
                tail.enter(sleep, DAWN)
                tell(sleep, outcome)
                registry.append_event(tx, sleep, "sleep.stage_started", "dawn", {"stage": DAWN})
            elif sleep.status is not SleepStatus.CANCELLING:
                sleep.error = night_error("parent_changed", f"the deployment no longer serves {sleep.parent_version}")

    def _keep(self, outcome: NightOutcome) -> None:
        made = self._made(outcome)
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if sleep.status.terminal or sleep.status is SleepStatus.CANCELLING:
                return
            tell(sleep, outcome)
            sleep.outcome = outcome.outcome
            dawn.keep(tx, sleep, made, dawn.wish(tx, sleep))
            data = {"outcome": sleep.outcome, "version": made.record.id, "serves": sleep.parent_version}
            message = f"{made.record.id} is {sleep.outcome}, {sleep.parent_version} serves on"
            self._cool_down(tx, sleep)
            registry.end_sleep(tx, sleep, SleepStatus.SUCCEEDED, message, data)

    def _made(self, outcome: NightOutcome) -> dawn.Made:
        """The version, signed as it lies there: whatever changes it from now on is found out."""
        sleep = self._load()
        folder = self.settings.version_folder(sleep.deployment, sleep.child_version)
        record = read_record(folder)
        if record.id != sleep.child_version or record.parent != sleep.parent_version:
            raise ValueError(f"{folder} is {record.id} from {record.parent}, not {sleep.child_version} from {sleep.parent_version}")
        return dawn.Made(record, str(folder), self.signing.sign(folder), outcome)

    def _succeed(self, data: Json, seconds: float) -> None:
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.outcome, sleep.fast = "promoted", FastState.RESTED
            registry.append_event(tx, sleep, "sleep.stage_finished", "dawn", {"stage": DAWN, "seconds": round(seconds, 3)})
            registry.append_event(tx, sleep, "version.promoted", f"the deployment serves {sleep.result_version}", data)
            summary = {"outcome": "promoted", "version": sleep.result_version}
            registry.end_sleep(tx, sleep, SleepStatus.SUCCEEDED, f"woke as {sleep.result_version}", summary)

    def _condemn(self, error: Json) -> None:
        """Record why the sleep cannot succeed any more; the first reason stays."""
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.error = sleep.error or error

    def _undo(self, error: Json) -> None:
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            dawn.undo(tx, sleep)
            sleep.fast, sleep.error = FastState.SENT, error

    def _end(self, status: SleepStatus, outcome: NightOutcome | None) -> None:
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if outcome is not None:
                tell(sleep, outcome)
                sleep.outcome = outcome.outcome if status is SleepStatus.SUCCEEDED else None
            if status is SleepStatus.FAILED:
                sleep.error = sleep.error or why(self._report, outcome)
            if sleep.attempt and self._report.job not in ENDED_JOBS:
                registry.add_stray_job(tx, names.night_job(sleep.id, sleep.attempt), sleep.id)
            data = {"outcome": sleep.outcome, "version": sleep.parent_version, "error": sleep.error}
            self._cool_down(tx, sleep)
            registry.end_sleep(tx, sleep, status, f"sleep {status.value}, {sleep.parent_version} serves on", data)

    def _cool_down(self, tx: Session, sleep: Sleep) -> None:
        """Say that schedules wait, where the sleep that ends now is one too many whose version was refused."""
        ended = [(sleep.outcome or "", time.time())] if sleep.outcome in JUDGED else []
        until = cooling_until([*ended, *registry.verdicts(tx, sleep.deployment)], self.settings.cool_down_seconds)
        if ended and until is not None:
            text = f"the gates have refused {IN_A_ROW} versions in a row: schedules begin no sleep until {_in_utc(until)}"
            registry.append_event(tx, sleep, "deployment.cooling_down", text, {"until": until}, level="warning")

    def _set_fast(self, state: FastState, kind: str = "", message: str = "", data: Json | None = None) -> None:
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.fast = state
            if kind:
                registry.append_event(tx, sleep, kind, message, data)

    def _parent_serves(self, sleep: Sleep) -> bool:
        with self.database.read() as tx:
            return registry.deployment(tx, sleep.deployment).active_version == sleep.parent_version

    def _load(self) -> Sleep:
        with self.database.read() as tx:
            return registry.one(tx, Sleep, "sleep", self.sleep_id)


def _in_utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")

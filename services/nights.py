"""Nights, from the request to dawn: one watcher for each active sleep.

    consumes       the night's events.jsonl and outcome.json, the state of its Ray job
    produces       events and the sleep's row; deliveries to the replicas; the new active version
    waits for      the next poll, a delivery's receipts, the cluster's answers: each bounded in settings.py
    unblocked by   the job's end, a cancellation (a status in the database), the night's time limit

What to do is decided by `plan.py`; here it is done. Everything a watcher knows is in the registry and in the night's folder, so a
controller that starts finds its sleeps there and goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from actors import names
from circadian.memory.version import read_record
from circadian.specs import NightJob
from services import registry, tail
from services.background import Background, pause
from services.fleet import DeliveryFailed
from services.launcher import JobReport, Launcher, LauncherUnavailable
from services.plan import RUNNING_JOBS, Job, Outcome, Situation, Step, plan
from services.serving import Serving, receipts_data
from services.settings import Settings
from services.states import DAWN, FastState, SleepStatus, moved
from services.tables import Database, Json, Sleep

log = logging.getLogger(__name__)
OUTCOME_FILE = "outcome.json"


class NightError(BaseModel):
    """Why a night failed for good."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    code: str
    message: str
    category: Literal["user", "server", "unknown"] = "server"


class NightOutcome(BaseModel):
    """outcome.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    outcome: Outcome
    version: str | None = None
    deliveries: dict[str, str] = {}
    """`dawn`: to the new version; `rest`: back to the parent. Paths, relative to the night's folder or absolute."""
    report: Json = {}
    error: NightError | None = None
    """Where the outcome is `failed`."""


class Nights:
    """Watches every active sleep."""

    def __init__(self, settings: Settings, database: Database, serving: Serving, launcher: Launcher) -> None:
        self.settings, self.database, self.serving, self.launcher = settings, database, serving, launcher
        self.watchers = Background(settings)

    def watch(self, sleep_id: str) -> None:
        """Begin (or go on) with a sleep."""
        self.watchers.start(f"watch {sleep_id}", lambda: _Watcher(self, sleep_id).run())

    async def close(self) -> None:
        """Stop watching; the nights themselves go on."""
        await self.watchers.close()

    def home(self, sleep: Sleep) -> Path:
        return self.settings.sleep_folder(sleep.deployment, sleep.id)


class _Watcher:
    """One sleep's watcher. Methods named after a step take it."""

    def __init__(self, nights: Nights, sleep_id: str) -> None:
        self.settings, self.database = nights.settings, nights.database
        self.serving, self.launcher = nights.serving, nights.launcher
        self.sleep_id, self._home_of = sleep_id, nights.home
        self._report, self._asked_at, self._unreachable_since = JobReport(Job.LOST), -math.inf, time.monotonic()

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                sleep = await asyncio.to_thread(self._load)
                if sleep.status.terminal:
                    return
                waits = await self._advance(sleep)
                failures = 0
            except LauncherUnavailable as error:
                log.warning("%s: %s", self.sleep_id, error)
                waits = True
            except Exception as error:
                # A database that is locked or a disk that is full passes; what does not pass must not leave a deployment asleep.
                failures += 1
                log.exception("%s failed in the controller, %d times now", self.sleep_id, failures)
                if failures % self.settings.watcher_failures == 0:
                    await self._give_up(repr(error), at_once=failures > self.settings.watcher_failures)
                waits = True
            if waits:
                await asyncio.sleep(pause(self.settings, failures))

    async def _give_up(self, reason: str, at_once: bool) -> None:
        """Let the sleep fail, with everything that belongs to it; `at_once`, if that fails too, without."""
        await asyncio.to_thread(self._fail, reason)
        if at_once:
            sleep = await asyncio.to_thread(self._load)
            await asyncio.to_thread(self._end, SleepStatus.FAILED, None)
            await self.serving.restart(sleep.deployment)

    async def _advance(self, sleep: Sleep) -> bool:
        """Look, decide, do. True when there is nothing to do until the next poll."""
        report = await self._job(sleep)
        await asyncio.to_thread(tail.ingest_all, self.database, sleep, self._home_of(sleep))
        sleep = await asyncio.to_thread(self._load)
        ended = report.job not in RUNNING_JOBS or sleep.result_version is not None
        outcome = _read_outcome(self._home_of(sleep)) if ended else None
        if time.time() - sleep.created_at > self.settings.night_seconds and sleep.result_version is None and sleep.error is None:
            await asyncio.to_thread(self._condemn, "night_too_long", f"the night took longer than {self.settings.night_seconds} s")
            return False
        step = plan(self._situation(sleep, report, outcome))
        if step is not Step.WAIT:
            log.info("%s: %s", self.sleep_id, step.value)
        if step in (Step.SUBMIT, Step.SUBMIT_AGAIN):
            await self._submit(sleep, again=step is Step.SUBMIT_AGAIN)
        elif step is Step.DELIVER_FAST:
            await self._deliver_fast(sleep)
        elif step is Step.STOP_JOB:
            await self.launcher.stop(names.night_job(sleep.id, sleep.attempt))
        elif step is Step.PUT_BACK:
            await self._put_back(sleep, outcome)
        elif step is Step.COMMIT:
            assert outcome is not None
            await asyncio.to_thread(self._commit, outcome)
        elif step is Step.DAWN:
            assert outcome is not None
            await self._dawn(sleep, outcome)
        elif step is Step.END_CANCELLED:
            await asyncio.to_thread(self._end, SleepStatus.CANCELLED, outcome)
        elif step is Step.END_FAILED:
            await asyncio.to_thread(self._end_failed, sleep, report, outcome)
        elif step is Step.END_UNCHANGED:
            await asyncio.to_thread(self._end, SleepStatus.SUCCEEDED, outcome)
        return step in (Step.WAIT, Step.STOP_JOB)

    def _situation(self, sleep: Sleep, report: JobReport, outcome: NightOutcome | None) -> Situation:
        ending = sleep.status is SleepStatus.CANCELLING or sleep.error is not None
        silent = time.monotonic() - self._unreachable_since if report.job is Job.UNREACHABLE else 0.0
        return Situation(
            status=sleep.status,
            job=Job.LOST if ending and silent > self.settings.ray_patience_seconds else report.job,
            outcome=outcome.outcome if outcome else None,
            fast=sleep.fast,
            committed=sleep.result_version is not None,
            condemned=sleep.error is not None,
            attempts_left=self.settings.night_attempts - sleep.attempt,
        )

    async def _job(self, sleep: Sleep) -> JobReport:
        """The job's state, asked at most every `job_poll_seconds`."""
        now = time.monotonic()
        if now - self._asked_at >= self.settings.job_poll_seconds:
            self._asked_at = now
            self._report = await self.launcher.report(names.night_job(sleep.id, sleep.attempt))
            if self._report.job is not Job.UNREACHABLE:
                self._unreachable_since = now
        return self._report

    async def _submit(self, sleep: Sleep, again: bool) -> None:
        attempt = sleep.attempt + again
        job_file, name = await asyncio.to_thread(self._write_job, sleep, attempt)
        metadata = {"sleep_id": sleep.id, "deployment": name, "phase": "night"}
        await self.launcher.submit(names.night_job(sleep.id, attempt), job_file, metadata)
        self._asked_at = -math.inf
        await asyncio.to_thread(self._submitted, attempt)

    def _write_job(self, sleep: Sleep, attempt: int) -> tuple[Path, str]:
        home = self._home_of(sleep)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.database.read() as tx:
            experiences = registry.taken_experiences(tx, sleep.id)
            name = registry.deployment(tx, sleep.deployment).name
        job = NightJob(
            sleep=sleep.id,
            attempt=attempt,
            deployment=sleep.deployment,
            seed=sleep.seed,
            parent=str(self.settings.version_folder(sleep.deployment, sleep.parent_version)),
            child=str(self.settings.version_folder(sleep.deployment, sleep.child_version)),
            home=str(home),
            experiences=str(home / "experiences.jsonl"),
            held_out=tuple(sleep.held_out),
            recipe=sleep.recipe,  # type: ignore[arg-type]  # a dict that pydantic reads
        )
        _write(home / "experiences.jsonl", "".join(json.dumps(row.body) + "\n" for row in experiences))
        _write(home / "job.json", job.model_dump_json(indent=2))
        return home / "job.json", name

    def _submitted(self, attempt: int) -> None:
        with self.database.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.attempt = attempt
            if sleep.status is SleepStatus.QUEUED:
                sleep.status = moved(sleep.status, SleepStatus.PREPARING)
            job = names.night_job(sleep.id, attempt)
            registry.append_event(
                tx, sleep, "sleep.started", f"night submitted, attempt {attempt}", {"job": job, "attempt": attempt}
            )

    async def _deliver_fast(self, sleep: Sleep) -> None:
        assert sleep.fast_delivery is not None
        await asyncio.to_thread(self._set_fast, FastState.SENT)
        try:
            receipts = await self.serving.deliver(sleep.deployment, self._home_of(sleep) / sleep.fast_delivery)
        except DeliveryFailed as error:
            await asyncio.to_thread(self._condemn, "delivery_failed", str(error))
            return
        message = "the deployment serves with its fast memory"
        await asyncio.to_thread(self._set_fast, FastState.LIVE, "deployment.fast_memory_live", message, receipts_data(receipts))

    async def _put_back(self, sleep: Sleep, outcome: NightOutcome | None) -> None:
        """The replicas return to the parent: by delivery, or as new replicas where that fails."""
        rest = sleep.rest_delivery or (outcome.deliveries.get("rest") if outcome else None)
        try:
            if rest is None:
                raise DeliveryFailed("the night left no delivery that goes back to the parent")
            data = receipts_data(await self.serving.deliver(sleep.deployment, self._home_of(sleep) / rest))
        except DeliveryFailed as error:
            log.error("%s: replicas are started anew: %s", self.sleep_id, error)
            await self.serving.restart(sleep.deployment)
            data = {"restarted": str(error)}
        message = f"the deployment serves {sleep.parent_version} again"
        await asyncio.to_thread(self._set_fast, FastState.RESTED, "deployment.put_back", message, data)

    def _commit(self, outcome: NightOutcome) -> None:
        with self.database.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            folder = self.settings.version_folder(sleep.deployment, sleep.child_version)
            record = read_record(folder)
            if record.id != sleep.child_version or record.parent != sleep.parent_version:
                raise ValueError(
                    f"{folder} is {record.id} from {record.parent}, not {sleep.child_version} from {sleep.parent_version}"
                )
            if registry.commit_promotion(tx, sleep, record, str(folder)):
                tail.enter(sleep, DAWN)
                sleep.report = outcome.report
                registry.append_event(tx, sleep, "sleep.stage_started", "dawn", {"stage": DAWN})
            elif sleep.status is not SleepStatus.CANCELLING:
                sleep.error = _error("parent_changed", f"the deployment no longer serves {sleep.parent_version}")

    async def _dawn(self, sleep: Sleep, outcome: NightOutcome) -> None:
        started = time.monotonic()
        try:
            receipts = await self.serving.deliver(sleep.deployment, self._home_of(sleep) / outcome.deliveries["dawn"])
        except DeliveryFailed as error:
            await asyncio.to_thread(self._undo, "delivery_failed", str(error))
            return
        data = {"version": sleep.result_version, "parent": sleep.parent_version, **receipts_data(receipts)}
        await asyncio.to_thread(self._succeed, data, time.monotonic() - started)

    def _undo(self, code: str, reason: str) -> None:
        with self.database.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            registry.undo_promotion(tx, sleep)
            sleep.fast, sleep.error = FastState.SENT, _error(code, reason)

    def _fail(self, reason: str) -> None:
        """Whatever the sleep has reached, it ends as failed from here."""
        if self._load().result_version is not None:
            self._undo("controller_error", reason)
        else:
            self._condemn("controller_error", reason)

    def _succeed(self, data: Json, seconds: float) -> None:
        with self.database.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.outcome, sleep.fast = "promoted", FastState.RESTED
            registry.append_event(tx, sleep, "sleep.stage_finished", "dawn", {"stage": DAWN, "seconds": round(seconds, 3)})
            registry.append_event(tx, sleep, "version.promoted", f"the deployment serves {sleep.result_version}", data)
            summary = {"outcome": "promoted", "version": sleep.result_version}
            registry.end_sleep(tx, sleep, SleepStatus.SUCCEEDED, f"woke as {sleep.result_version}", summary)

    def _end(self, status: SleepStatus, outcome: NightOutcome | None) -> None:
        with self.database.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            if outcome is not None:
                sleep.report = outcome.report
                sleep.outcome = outcome.outcome if status is SleepStatus.SUCCEEDED else None
            data = {"outcome": sleep.outcome, "version": sleep.parent_version, "error": sleep.error}
            registry.end_sleep(tx, sleep, status, f"sleep {status.value}, {sleep.parent_version} serves on", data)

    def _end_failed(self, sleep: Sleep, report: JobReport, outcome: NightOutcome | None) -> None:
        if outcome is not None and outcome.error is not None:
            # The night's own word: the same would happen again.
            self._record({**outcome.error.model_dump(), "retryable": False})
        elif sleep.error is None:
            code = {Job.LOST: "night_lost", Job.SUCCEEDED: "no_outcome"}.get(report.job, "night_failed")
            self._condemn(code, report.message or f"the night's job ended as {report.job.value}")
        self._end(SleepStatus.FAILED, None)

    def _condemn(self, code: str, message: str) -> None:
        """Record why the sleep cannot succeed any more; the first reason stays."""
        self._record(_error(code, message))

    def _record(self, error: Json) -> None:
        with self.database.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.error = sleep.error or error

    def _set_fast(self, state: FastState, kind: str = "", message: str = "", data: Json | None = None) -> None:
        with self.database.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.fast = state
            if kind:
                registry.append_event(tx, sleep, kind, message, data)

    def _load(self) -> Sleep:
        with self.database.read() as tx:
            return registry.one(tx, Sleep, "sleep", self.sleep_id)


def _read_outcome(home: Path) -> NightOutcome | None:
    path = home / OUTCOME_FILE
    return NightOutcome.model_validate_json(path.read_text()) if path.exists() else None


def _error(code: str, message: str) -> Json:
    return {"code": code, "message": message, "category": "server", "retryable": True}


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the night may be reading."""
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    staging.rename(path)

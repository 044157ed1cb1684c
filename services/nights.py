"""Nights, from the request to dawn: each sleep is a durable workflow of the leading controller.

    decide: look, and wait until there is something to do   ->   take the step   ->   decide ...   ->   the sleep has ended

    consumes       the night's events.jsonl and outcome.json, the state of its Ray job
    produces       events and the sleep's row; deliveries to the replicas; the new active version
    waits for      the next poll, a delivery's receipts, the cluster's answers: each bounded in settings.py
    unblocked by   the job's end, a cancellation (a status in the database), the night's time limit

What to do is decided by `plan.py`; here it is done. Both are steps of the workflow (durable.py), so a leader that begins goes on behind
the last one that was finished. It may take one step again that the last leader had begun: each is safe to take twice, and is decided
from the registry and the night's folder, not from what somebody remembers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from dbos import DBOS, StepOptions
from dbos import error as workflow_errors

from actors import names
from circadian.memory.version import read_record
from circadian.specs import Autoscale, Recipe
from services import dawn, registry, tail
from services.attempts import backoff, empty_home, write_job
from services.background import Background, pause
from services.budget import EXCEEDED, overrun
from services.durable import Durable, StepFailed
from services.fleet import DeliveryFailed, FleetUnavailable, ServingSpec
from services.launcher import JobReport, Launcher, LauncherUnavailable
from services.leader import Deposed, Lease
from services.outcome import NightOutcome, night_error, read_outcome, tell, why
from services.placement import Asked, Cluster, Room, Unplaceable, held, needed, place
from services.plan import ENDED_JOBS, RUNNING_JOBS, Job, Situation, Step, ahead, plan
from services.serving import Serving, receipts_data
from services.settings import Settings
from services.signing import Signing
from services.states import DAWN, HELD, FastState, SleepStatus, moved
from services.strays import Strays
from services.tables import Database, Json, Sleep

log = logging.getLogger(__name__)
ENDED = "ended"
LIFE = ":"
"""Between a sleep's id, which has none in it, and the number of its life."""
LOOKS = (Step.WAIT, Step.QUEUE, Step.BACK_OFF, Step.STOP_JOB)
"""What is done while looking: there is nothing that it would change before the next look."""
ENDS = {
    Step.END_CANCELLED: SleepStatus.CANCELLED,
    Step.END_FAILED: SleepStatus.FAILED,
    Step.END_UNCHANGED: SleepStatus.SUCCEEDED,
}


class Nights:
    """Lives every active sleep through."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        lease: Lease,
        durable: Durable,
        serving: Serving,
        launcher: Launcher,
        signing: Signing,
    ) -> None:
        self.settings, self.database, self.lease, self.durable = settings, database, lease, durable
        self.serving, self.launcher, self.signing = serving, launcher, signing
        self.tasks, self.strays = Background(settings), Strays(settings, lease, launcher)
        self._more = asyncio.Event()

    def open(self) -> None:
        """Begin what is asked for, here or of another controller, and stop what earlier nights have left running."""
        _open.append(self)
        self.tasks.start("begin sleeps", self._begin)
        self.tasks.start("stop stray jobs", self.strays.run)

    def look(self) -> None:
        """There may be a new sleep."""
        self._more.set()

    async def close(self) -> None:
        """Stop looking; the nights themselves go on."""
        await self.tasks.close()
        if self in _open:
            _open.remove(self)

    async def _begin(self) -> None:
        """Consumes active sleeps; produces a workflow for each, which is begun once; waits for the next poll, or a sleep of this one's."""
        while True:
            self._more.clear()
            for key in await asyncio.to_thread(self._active):
                await self.durable.start(sleep_through, key)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.poll_seconds):
                    await self._more.wait()

    def _active(self) -> list[str]:
        with self.database.read() as tx:
            return [key_of(id, life) for id, life in registry.active_sleeps(tx)]

    def home(self, sleep: Sleep) -> Path:
        return self.settings.sleep_folder(sleep.deployment, sleep.id)


_open: list[Nights] = []
"""Those of the controller that leads in this process: DBOS calls workflows by name, and has no other way to reach them."""


@DBOS.workflow(name="sleep")
async def sleep_through(key: str) -> str:
    """The durable workflow of a sleep, or of one of its lives. Returns its last status."""
    nights = _open[-1]
    sleep_id, _, life = key.partition(LIFE)
    return await nights.durable.run(_Watcher(nights, sleep_id, int(life or 0)).run())


def key_of(sleep_id: str, life: int) -> str:
    """A workflow that has ended does not run again, so a sleep that is retried has another one."""
    return f"{sleep_id}{LIFE}{life}" if life else sleep_id


class _Watcher:
    """One sleep's watcher. Methods named after a step take it. How a sleep fails:

    what went wrong                                       is recorded by   and then
    the job ended and left nothing, or its own `failed`   _end             the sleep has failed
    before the commit: too long, a delivery refused,      _condemn         `plan` stops the job, puts the replicas back and
      another parent                                                       ends the sleep
    after the commit: the replicas refuse the dawn        _undo            the promotion is taken back; as if condemned
    the controller itself, again and again                _give_up         _condemn or _undo; where that does not end it
                                                                           either, _end at once and new replicas

    Whichever it was, `_end` leaves a job that may still run to strays.py.
    """

    def __init__(self, nights: Nights, sleep_id: str, life: int) -> None:
        self.settings, self.database, self.lease = nights.settings, nights.database, nights.lease
        self.serving, self.launcher, self.signing, self.strays = nights.serving, nights.launcher, nights.signing, nights.strays
        self.sleep_id, self.life, self._home_of = sleep_id, life, nights.home
        self._report, self._asked_at, self._unreachable_since = JobReport(Job.LOST), -math.inf, time.monotonic()
        self._unconfirmed = 0
        """Submissions in a row whose answer did not come."""

    async def run(self) -> str:
        """Step after step, until the sleep has ended."""
        failures = 0
        while True:
            try:
                step = await self._durably("decide", self.decide)
                if step == ENDED:
                    self.strays.look()
                    return step
                await self._durably(step, partial(self.take, Step(step)))
            except (workflow_errors.DBOSMaxStepRetriesExceeded, StepFailed) as error:
                # A database that is locked or a disk that is full passes; what does not pass must not leave a deployment asleep.
                failures += 1
                log.error("%s failed in the controller, %d times now: %s", self.sleep_id, failures, error)
                await self._durably("give_up", partial(self._give_up, repr(error), failures > 1))

    async def _durably(self, name: str, work: Callable[[], Coroutine[Any, Any, str]]) -> str:
        """As a step, which is tried again when the controller fails in it, after longer and longer pauses."""
        options = StepOptions(
            name=name,
            retries_allowed=True,
            max_attempts=self.settings.watcher_failures,
            interval_seconds=self.settings.poll_seconds,
            backoff_rate=2.0,
        )
        return await DBOS.run_step_async(options, self._kept, work)

    @staticmethod
    async def _kept(work: Callable[[], Coroutine[Any, Any, str]]) -> str:
        try:
            return await work()
        except Deposed as error:
            log.error("%s; it goes on there", error)
            await asyncio.Event().wait()  # until this controller has noticed, and interrupts it
            raise

    async def decide(self) -> str:
        """The next step that changes something, or that the sleep has ended. Until there is one: look, and wait."""
        unreachable = 0
        while True:
            sleep = await asyncio.to_thread(self._load)
            if sleep.status.terminal or sleep.life != self.life:
                return ENDED
            try:
                step = await self._next(sleep)
                unreachable = 0
                if step is not None:
                    return step.value
            except LauncherUnavailable as error:
                log.warning("%s: %s", self.sleep_id, error)
                unreachable += 1
            await asyncio.sleep(pause(self.settings, unreachable))

    async def _next(self, sleep: Sleep) -> Step | None:
        """One look. None where there is nothing to do until the next one."""
        step, sleep, _ = await self._look(sleep)
        limit = overrun(sleep, self.settings.night_seconds, time.time()) if _may_fail(sleep) else None
        if limit is not None:
            code, reason = limit
            await asyncio.to_thread(self._condemn, night_error(code, reason, "user" if code == EXCEEDED else "server"))
            return None
        if step is Step.QUEUE:
            await asyncio.to_thread(self._queue)
        elif step is Step.BACK_OFF:
            await asyncio.to_thread(self._back_off)
        elif step is Step.STOP_JOB:
            await self.launcher.stop(names.night_job(sleep.id, sleep.attempt))
        return None if step in LOOKS else step

    async def take(self, step: Step) -> str:
        """Do what was decided, where that is still what there is to do: a leader before this one may have done it and died."""
        now, sleep, outcome = await self._look(await asyncio.to_thread(self._load))
        if now is not step or sleep.life != self.life:
            return f"{step.value} was done before"
        log.info("%s: %s", self.sleep_id, step.value)
        if step in (Step.SUBMIT, Step.SUBMIT_AGAIN):
            await self._submit(sleep, again=step is Step.SUBMIT_AGAIN)
        elif step is Step.DELIVER_FAST:
            await self._deliver_fast(sleep)
        elif step is Step.PAUSE:
            await self._take_back(sleep)
            await asyncio.to_thread(self._pause)
            self.strays.look()
        elif step is Step.PUT_BACK:
            await self._put_back(sleep, outcome)
        elif step is Step.COMMIT:
            await asyncio.to_thread(self._commit, _left(outcome))
        elif step is Step.KEEP:
            await self._take_back(sleep)
            await asyncio.to_thread(self._keep, _left(outcome))
        elif step is Step.DAWN:
            await self._dawn(sleep, _left(outcome))
        elif step in ENDS:
            await self._take_back(sleep)
            await asyncio.to_thread(self._end, ENDS[step], outcome)
        return step.value

    async def _look(self, sleep: Sleep) -> tuple[Step, Sleep, NightOutcome | None]:
        """What there is to do, the sleep as it stands, and what its night left, once its job does not run any more."""
        report = await self._job(sleep)
        await asyncio.to_thread(tail.ingest_all, self.lease, sleep, self._home_of(sleep))
        sleep = await asyncio.to_thread(self._load)
        if sleep.status.terminal:
            return Step.WAIT, sleep, None
        ended = report.job not in RUNNING_JOBS or sleep.result_version is not None
        outcome = read_outcome(self._home_of(sleep), sleep.attempt) if ended else None
        queued = sleep.status is SleepStatus.QUEUED and registry.waits(sleep)
        in_line = bool(await asyncio.to_thread(self._ahead)) if queued else False
        return plan(self._situation(sleep, report, outcome, in_line)), sleep, outcome

    def _situation(self, sleep: Sleep, report: JobReport, outcome: NightOutcome | None, in_line: bool) -> Situation:
        ending = sleep.status is SleepStatus.CANCELLING or sleep.error is not None
        silent = time.monotonic() - self._unreachable_since if report.job is Job.UNREACHABLE else 0.0
        return Situation(
            status=sleep.status,
            job=Job.LOST if ending and silent > self.settings.ray_patience_seconds else report.job,
            outcome=outcome.outcome if outcome else None,
            fast=sleep.fast,
            committed=sleep.result_version is not None,
            condemned=sleep.error is not None,
            attempts_left=self.settings.night_attempts - 1 - sleep.failures,
            submitted=sleep.submitted,
            in_line=in_line,
            promotes=self._promotes(sleep),
            made=outcome is not None and outcome.version is not None,
            again=registry.goes_on(sleep),
            may_stop=sleep.stop_at is None or time.time() >= sleep.stop_at,
            retry="none" if sleep.retry_at is None else "waiting" if time.time() < sleep.retry_at else "due",
            users_fault=outcome is not None and outcome.error is not None and outcome.error.category == "user",
        )

    def _promotes(self, sleep: Sleep) -> bool:
        with self.database.read() as tx:
            return dawn.wish(tx, sleep).mode == "on_pass"

    async def _job(self, sleep: Sleep) -> JobReport:
        """The job's state, asked at most every `job_poll_seconds`; before the first attempt, and in a pause, there is none to ask for."""
        now = time.monotonic()
        if not sleep.attempt or sleep.status is SleepStatus.PAUSED:
            self._unreachable_since = now
        elif now - self._asked_at >= self.settings.job_poll_seconds:
            self._asked_at = now
            self._report = await self.launcher.report(names.night_job(sleep.id, sleep.attempt))
            if self._report.job is not Job.UNREACHABLE:
                self._unreachable_since = now
        return self._report

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

    async def _submit(self, sleep: Sleep, again: bool) -> None:
        """Written before it is done: whatever becomes of the submission, the attempt is one that may run."""
        try:
            await self._lend(sleep)
        except FleetUnavailable as error:
            await asyncio.to_thread(self._wait_for, f"waits for the cluster: {error}")
            await asyncio.sleep(self.settings.job_poll_seconds)
            return
        if sleep.starts_over:
            await asyncio.to_thread(empty_home, self.settings, sleep)
        attempt = await asyncio.to_thread(self._begin_attempt, again)
        if attempt is None:
            return
        self._report, self._asked_at = JobReport(Job.LOST), -math.inf
        job_file, name = await asyncio.to_thread(write_job, self.settings, self.database, sleep, attempt)
        metadata = {"sleep_id": sleep.id, "deployment": name, "phase": "night"}
        try:
            await self.launcher.submit(names.night_job(sleep.id, attempt), job_file, metadata)
        except LauncherUnavailable as error:
            self._unconfirmed += 1
            log.warning("%s is not known to be submitted, %d times now: %s", self.sleep_id, self._unconfirmed, error)
            await asyncio.sleep(pause(self.settings, self._unconfirmed))
            return
        self._unconfirmed = 0
        await asyncio.to_thread(self._submitted, attempt)

    async def _lend(self, sleep: Sleep) -> None:
        """Let the replicas lend what the night needs; decided once, and done once until it is taken back. Raises FleetUnavailable."""
        if sleep.lent:
            return
        placed = sleep.placed
        if placed is None:
            placed = await asyncio.to_thread(self._place, sleep, Room(*await self.serving.fleet.free()))
        if placed is None or placed["serving"] is None:
            return
        await self.serving.scale(sleep.deployment, placed["serving"])
        await asyncio.to_thread(self._set_lent, True)

    def _place(self, sleep: Sleep, free: Room) -> Json | None:
        """Where the night lies; None, and the sleep is condemned, where it can lie nowhere."""
        with self.lease.write() as tx:
            deployment, row = registry.deployment(tx, sleep.deployment), registry.locked_sleep(tx, self.sleep_id)
            serving = ServingSpec.model_validate(deployment.serving)
            replicas = serving.replicas.min if isinstance(serving.replicas, Autoscale) else serving.replicas
            night = needed(Recipe.model_validate(row.recipe))
            try:
                placed = place(cast(Asked, row.placement or serving.placement), Cluster(replicas, held(serving), free), night)
            except Unplaceable as error:
                row.error = night_error("no_capacity", str(error))
                return None
            row.placed = asdict(placed)
            if placed.serving is not None:
                registry.append_event(tx, row, "sleep.placed", f"{placed.kind}: {placed.why}", row.placed)
            return row.placed

    def _wait_for(self, waiting: str) -> None:
        with self.lease.write() as tx:
            registry.locked_sleep(tx, self.sleep_id).waiting = waiting

    def _set_lent(self, lent: bool) -> None:
        with self.lease.write() as tx:
            registry.locked_sleep(tx, self.sleep_id).lent = lent

    async def _take_back(self, sleep: Sleep) -> None:
        """All replicas serve again; those that lent start beside those that serve, as what the deployment serves then."""
        if sleep.placed is None or sleep.placed["serving"] is None:
            return
        try:
            await self.serving.scale(sleep.deployment, None)
        except FleetUnavailable as error:
            log.warning("%s: its replicas come back when the cluster does: %s", self.sleep_id, error)
        await asyncio.to_thread(self._set_lent, False)

    def _begin_attempt(self, again: bool) -> int | None:
        """The attempt to submit; None where the sleep was cancelled or paused meanwhile."""
        with self.lease.write() as tx:
            sleep, now = registry.locked_sleep(tx, self.sleep_id), time.time()
            if sleep.status in HELD:
                return None
            if again or not sleep.attempt:
                sleep.failures += sleep.status is not SleepStatus.QUEUED
                sleep.attempt, sleep.submitted, sleep.starts_over = sleep.attempt + 1, False, False
            if sleep.began_at is not None and sleep.paused_at is not None:
                sleep.paused_seconds += now - sleep.paused_at
            sleep.began_at, sleep.waiting, sleep.retry_at, sleep.paused_at = sleep.began_at or now, None, None, None
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
            sleep.paused_at, sleep.stop_at, sleep.retry_at, sleep.waiting = sleep.paused_at or time.time(), None, None, None
            registry.append_event(
                tx, sleep, "sleep.paused", f"the sleep is paused in {sleep.phase or 'no stage yet'}", {"stage": sleep.phase}
            )

    async def _deliver_fast(self, sleep: Sleep) -> None:
        assert sleep.fast_delivery is not None
        await asyncio.to_thread(self._set_fast, FastState.SENT)
        try:
            receipts = await self.serving.deliver(sleep.deployment, self._home_of(sleep) / sleep.fast_delivery)
        except DeliveryFailed as error:
            await asyncio.to_thread(self._condemn, night_error("delivery_failed", str(error)))
            return
        message = "the deployment serves with its fast memory"
        await asyncio.to_thread(self._set_fast, FastState.LIVE, "deployment.fast_memory_live", message, receipts_data(receipts))

    async def _put_back(self, sleep: Sleep, outcome: NightOutcome | None) -> None:
        """The replicas return to the parent: by delivery, or as new replicas where that fails."""
        rest = sleep.rest_delivery or (outcome.deliveries.get("rest") if outcome else None)
        try:
            if await asyncio.to_thread(self._parent_serves, sleep) is False:
                # Somebody has gone back to another version meanwhile, and the replicas are brought there by that.
                await asyncio.to_thread(self._set_fast, FastState.RESTED)
                return
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
            registry.end_sleep(tx, sleep, SleepStatus.SUCCEEDED, message, data)

    def _made(self, outcome: NightOutcome) -> dawn.Made:
        """The version, signed as it lies there: whatever changes it from now on is found out."""
        sleep = self._load()
        folder = self.settings.version_folder(sleep.deployment, sleep.child_version)
        record = read_record(folder)
        if record.id != sleep.child_version or record.parent != sleep.parent_version:
            raise ValueError(f"{folder} is {record.id} from {record.parent}, not {sleep.child_version} from {sleep.parent_version}")
        return dawn.Made(record, str(folder), self.signing.sign(folder), outcome)

    async def _dawn(self, sleep: Sleep, outcome: NightOutcome) -> None:
        started = time.monotonic()
        try:
            receipts = await self.serving.deliver(sleep.deployment, self._home_of(sleep) / outcome.deliveries["dawn"])
        except DeliveryFailed as error:
            await asyncio.to_thread(self._undo, night_error("delivery_failed", str(error)))
            return
        await self._take_back(sleep)
        data = {"version": sleep.result_version, "parent": sleep.parent_version, **receipts_data(receipts)}
        await asyncio.to_thread(self._succeed, data, time.monotonic() - started)

    def _succeed(self, data: Json, seconds: float) -> None:
        with self.lease.write() as tx:
            sleep = registry.locked_sleep(tx, self.sleep_id)
            sleep.outcome, sleep.fast = "promoted", FastState.RESTED
            registry.append_event(tx, sleep, "sleep.stage_finished", "dawn", {"stage": DAWN, "seconds": round(seconds, 3)})
            registry.append_event(tx, sleep, "version.promoted", f"the deployment serves {sleep.result_version}", data)
            summary = {"outcome": "promoted", "version": sleep.result_version}
            registry.end_sleep(tx, sleep, SleepStatus.SUCCEEDED, f"woke as {sleep.result_version}", summary)

    async def _give_up(self, reason: str, at_once: bool) -> str:
        error, sleep = night_error("controller_error", reason), await asyncio.to_thread(self._load)
        if sleep.status.terminal or sleep.life != self.life:
            return "it has ended"
        await asyncio.to_thread(self._condemn if sleep.result_version is None else self._undo, error)
        if at_once:
            await self._take_back(sleep)
            await asyncio.to_thread(self._end, SleepStatus.FAILED, None)
            await self.serving.restart(sleep.deployment)
        return "given up"

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
            registry.end_sleep(tx, sleep, status, f"sleep {status.value}, {sleep.parent_version} serves on", data)

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


def _left(outcome: NightOutcome | None) -> NightOutcome:
    """The outcome of a night that has left one."""
    assert outcome is not None
    return outcome


def _may_fail(sleep: Sleep) -> bool:
    """Nothing is committed, and no error was recorded yet."""
    return sleep.result_version is None and sleep.error is None

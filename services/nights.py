"""Nights, from the request to dawn: each sleep is a durable workflow of the leading controller.

    decide: look, and wait until there is something to do   ->   take the step   ->   decide ...   ->   the sleep has ended

    consumes       the night's events.jsonl and outcome.json, the state of its Ray job
    produces       events and the sleep's row; deliveries to the replicas; the new active version
    waits for      the next poll, a delivery's receipts, the cluster's answers: each bounded in settings.py
    unblocked by   the job's end, a cancellation (a status in the database), the night's time limit

What to do is decided by `plan.py`; night_steps.py does it, and night_records.py writes it down. Both decision and step are steps of the
workflow (durable.py), so a leader that begins goes on behind the last one that was finished. It may take one step again that the last
leader had begun: each is safe to take twice, and is decided from the registry and the night's folder, not from what somebody remembers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dbos import DBOS, StepOptions
from dbos import error as workflow_errors

from actors import names
from services import registry, tail
from services.background import Background, pause
from services.budget import EXCEEDED, overrun
from services.durable import Durable, StepFailed
from services.launcher import JobReport, Launcher, LauncherUnavailable
from services.leader import Deposed, Lease
from services.night_steps import Steps
from services.outcome import NightOutcome, night_error, read_outcome
from services.plan import RUNNING_JOBS, Job, Situation, Step, plan
from services.serving import Serving
from services.settings import Settings
from services.signing import Signing
from services.states import SleepStatus
from services.strays import Strays
from services.tables import Database, Sleep

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
        begun: set[str] = set()
        while True:
            self._more.clear()
            for key in await asyncio.to_thread(self._active):
                if key not in begun:
                    await self.durable.start(sleep_through, key)
                    begun.add(key)
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


class _Watcher(Steps):
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
        super().__init__(
            nights.settings, nights.database, nights.lease, nights.signing, nights.serving, nights.launcher, (sleep_id, life)
        )
        self.strays, self._unreachable_since = nights.strays, time.monotonic()

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
            if self._report.job is not Job.UNREACHABLE and self._report.pending is not (sleep.pending_since is not None):
                await asyncio.to_thread(self._set_pending, self._report.pending)
            elif self._report.pending:
                await asyncio.to_thread(self._pending, sleep, self._report.awaits)
        return self._report

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


def _left(outcome: NightOutcome | None) -> NightOutcome:
    """The outcome of a night that has left one."""
    assert outcome is not None
    return outcome


def _may_fail(sleep: Sleep) -> bool:
    """Nothing is committed, and no error was recorded yet."""
    return sleep.result_version is None and sleep.error is None

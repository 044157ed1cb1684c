"""Schedules, carried out by the leading controller: one look at each after the other, each look one transaction.

    consumes       schedules, what is pending, the traffic, active sleeps
    produces       sleeps; runs, fired and skipped, each occurrence once (the database's own indices)
    waits for      the next round
    unblocked by   time

What a look calls for is decided by schedules/plan.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, replace

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services import audit, promotion, registry, traffic
from services.errors import Problem
from services.leader import Lease
from services.nights import Nights
from services.schedules.cooling import cooling_until
from services.schedules.plan import Decision, Occurrence, Skipped, State, Step, decide, kept
from services.schedules.spec import ScheduleSpec
from services.settings import Settings
from services.sleep_template import SleepTemplate
from services.sleeping import begin, needs_experiences, recipe_of
from services.states import SleepStatus, moved
from services.tables import Deployment, Schedule, ScheduleRun, Sleep, new_id

log = logging.getLogger(__name__)


class Scheduler:
    """Looks at every schedule."""

    def __init__(self, settings: Settings, lease: Lease, nights: Nights) -> None:
        self.settings, self.lease, self.nights = settings, lease, nights

    async def run(self) -> None:
        while True:
            for schedule in await asyncio.to_thread(self._all):
                if await asyncio.to_thread(self.look, schedule):
                    self.nights.look()
            await asyncio.sleep(self.settings.schedule_seconds)

    def look(self, schedule: str, now: float | None = None) -> bool:
        """One look at one schedule. Whether a sleep was begun or cancelled."""
        try:
            with self.lease.write() as tx:
                row = tx.scalar(select(Schedule).where(Schedule.id == schedule).with_for_update())
                return row is not None and _act(tx, row, self.settings, time.time() if now is None else now)
        except IntegrityError:
            log.info("schedule %s: somebody else began a sleep at the same time; the next look sees it", schedule)
            return False

    def _all(self) -> list[str]:
        with self.lease.database.read() as tx:
            there = select(Deployment.id).where(Deployment.deleting_at.is_(None))
            return list(tx.scalars(select(Schedule.id).where(Schedule.deployment.in_(there)).order_by(Schedule.number)))


def _act(tx: Session, row: Schedule, settings: Settings, now: float) -> bool:
    spec, template = ScheduleSpec.model_validate(row.spec), SleepTemplate.model_validate(row.template)
    deployment = registry.deployment(tx, row.deployment)
    cooling = cooling_until(registry.verdicts(tx, deployment.id), settings.cool_down_seconds)
    state = replace(known(tx, row, deployment, spec, template, now), cooling_until=cooling)
    decision = decide(spec, state, now)
    for skipped in decision.skipped:
        _skipped(tx, row, skipped)
    acted = False
    if decision.step is Step.FIRE and decision.occurrence is not None:
        acted = _fire(tx, row, deployment, template, decision, decision.occurrence)
    elif decision.step is Step.REPLACE:
        acted = _cancel_active(tx, deployment)
    after = kept(state, decision)
    row.considered_at, row.fired, row.last_fired_at = after.considered_at, after.fired, after.last_fired_at
    row.cooling_until = cooling if cooling is not None and now < cooling else None
    row.queued, row.next_at = (asdict(after.queued) if after.queued else None), decision.next_at
    return acted


def known(tx: Session, row: Schedule, deployment: Deployment, spec: ScheduleSpec, template: SleepTemplate, now: float) -> State:
    """What a look depends on, of the schedule and its deployment."""
    active, last = registry.active_sleep(tx, deployment.id), registry.last_sleep(tx, deployment.id)
    experiences, tokens = registry.pending(tx, deployment.id)
    since_request, rate = traffic.quiet(tx, deployment.id, row.created_at, spec.idle_seconds or 1.0, now)
    return State(
        created_at=row.created_at,
        considered_at=row.considered_at,
        fired=row.fired,
        last_fired_at=row.last_fired_at,
        queued=Occurrence(**row.queued) if row.queued else None,
        pending_tokens=tokens,
        pending_experiences=experiences,
        pending_needed=needs_experiences(recipe_of(deployment, template)),
        seconds_since_request=since_request,
        requests_per_second=rate,
        sleep_active=active is not None or promotion.running_rollout(tx, deployment.id) is not None,
        last_sleep_began_at=max((sleep.created_at for sleep in (active, last) if sleep), default=None),
    )


def _fire(
    tx: Session, row: Schedule, deployment: Deployment, template: SleepTemplate, decision: Decision, occurrence: Occurrence
) -> bool:
    """A sleep for an occurrence, or why none could begin: it counts as fired, or it would be tried again for ever."""
    told = {"schedule": row.id, "occurrence": occurrence.key, "reason": decision.reason.value}
    sleep: Sleep | None = None
    outcome, text = "fired", occurrence.text
    try:
        with tx.begin_nested():
            sleep = begin(tx, deployment, template)
            registry.append_event(tx, sleep, "sleep.scheduled", occurrence.text, told)
            audit.note_own(tx, deployment.tenant, "sleep_created", sleep.id, **told)
    except Problem as problem:
        sleep, outcome, text = None, "failed", problem.detail
        log.warning("schedule %s: %s: %s", row.id, occurrence.key, problem.detail)
    _run(tx, row, occurrence, outcome, decision.reason.value, text, sleep.id if sleep else None, decision.number)
    return sleep is not None


def _cancel_active(tx: Session, deployment: Deployment) -> bool:
    """The sleep that is in the way ends, unless it is about to wake."""
    active = registry.active_sleep(tx, deployment.id)
    if active is None or active.result_version is not None or active.status is SleepStatus.CANCELLING:
        return False
    sleep = registry.locked_sleep(tx, active.id)
    sleep.status, sleep.stop_at = moved(sleep.status, SleepStatus.CANCELLING), None
    registry.append_event(tx, sleep, "sleep.cancelling", "a schedule begins another sleep in its place")
    audit.note_own(tx, deployment.tenant, "sleep_cancelled", sleep.id)
    return True


def _skipped(tx: Session, row: Schedule, skipped: Skipped) -> None:
    _run(tx, row, skipped.occurrence, "skipped", skipped.reason.value, skipped.text, None, None)


def _run(
    tx: Session,
    row: Schedule,
    occurrence: Occurrence,
    outcome: str,
    reason: str,
    text: str,
    sleep: str | None,
    firing: int | None,
) -> None:
    tx.add(
        ScheduleRun(
            id=new_id("srun"),
            deployment=row.deployment,
            schedule=row.id,
            occurrence=occurrence.key,
            firing=firing,
            trigger=occurrence.trigger,
            due_at=occurrence.at,
            outcome=outcome,
            reason=reason,
            text=text,
            sleep=sleep,
        )
    )
    tx.flush()

"""What the service remembers: small functions on a transaction, so that callers decide what happens together.

Reading functions raise `Problem` (404) where a client named something that is not there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import Session

from circadian.specs import VersionRecord
from services import outbox
from services.errors import Problem, not_found
from services.plan import InLine
from services.schedules.cooling import IN_A_ROW, JUDGED
from services.states import ACTIVE, FastState, ServingState, SleepStatus, moved
from services.tables import Deployment, Event, ExperienceRow, Json, Row, Schedule, Sleep, StrayJob, UntoldTrace, Version, new_id

R = TypeVar("R", bound=Row)


def listed(
    tx: Session,
    table: type[R],
    own: ColumnElement[bool],
    where: Sequence[ColumnElement[bool]],
    after: str | None,
    limit: int,
    *,
    oldest_first: bool = False,
) -> tuple[list[R], bool]:
    """One page, newest first unless told otherwise, and whether there is more. `after` is the id of the last object of the page before; it
    need not meet `where` any more, but it must be one of the caller's `own`."""
    conditions = [own, *where]
    if after is not None:
        number = tx.scalar(select(table.number).where(table.id == after, own))
        if number is None:
            raise Problem(400, "bad_cursor", f"after: there is no object {after!r}; use last_id of the page before", param="after")
        conditions.append(table.number > number if oldest_first else table.number < number)
    order = table.number.asc() if oldest_first else table.number.desc()
    rows = list(tx.scalars(select(table).where(*conditions).order_by(order).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def one(tx: Session, table: type[R], kind: str, given: str) -> R:
    """The object with this id."""
    row = tx.scalar(select(table).where(table.id == given))
    if row is None:
        raise not_found(kind, given)
    return row


# Deployments


def deployment(tx: Session, id: str) -> Deployment:
    return one(tx, Deployment, "deployment", id)


def deployments(tx: Session) -> list[Deployment]:
    """Those that are to be served."""
    return list(tx.scalars(select(Deployment).where(Deployment.deleting_at.is_(None)).order_by(Deployment.number)))


def is_there(tx: Session, deployment_id: str) -> bool:
    """Whether the deployment is to be served."""
    return bool(tx.scalar(select(exists().where(Deployment.id == deployment_id, Deployment.deleting_at.is_(None)))))


def held(tx: Session, deployment_id: str) -> Deployment:
    """The deployment as it is now, which nobody changes or deletes until the transaction ends. Raises Problem where it is being deleted."""
    row = tx.scalar(
        select(Deployment)
        .where(Deployment.id == deployment_id)
        .with_for_update(of=Deployment, key_share=True)
        .execution_options(populate_existing=True)
    )
    if row is None or row.deleting_at is not None:
        raise not_found("deployment", deployment_id)
    return row


def set_serving(tx: Session, deployment_id: str, state: ServingState, error: str | None = None) -> None:
    tx.execute(update(Deployment).where(Deployment.id == deployment_id).values(state=state, error=error))


def parents(tx: Session, deployments: Sequence[Deployment]) -> dict[str, str | None]:
    """Of the versions that serve: the one that each came from."""
    active = [row.active_version for row in deployments]
    return dict(tx.execute(select(Version.id, Version.parent).where(Version.id.in_(active))).all())


def add_version(
    tx: Session,
    deployment_id: str,
    record: VersionRecord,
    folder: str,
    status: str,
    sleep: str | None,
    gates: list[Json] | None = None,
    signature: Json | None = None,
    trace: str | None = None,
) -> Version:
    row = Version(
        id=record.id,
        deployment=deployment_id,
        parent=record.parent,
        sleep=sleep,
        folder=folder,
        record=record.model_dump(mode="json"),
        status=status,
        gates=gates or [],
        signature=signature,
        trace=trace,
        created_at=record.created_at,
    )
    tx.add(row)
    return row


# Experiences


def pending(tx: Session, deployment_id: str) -> tuple[int, int]:
    """How many experiences the next night is offered, or one that runs has taken, and their tokens."""
    count, tokens = tx.execute(
        select(func.count(), func.coalesce(func.sum(ExperienceRow.tokens), 0)).where(*_pending(deployment_id))
    ).one()
    return int(count), int(tokens)


def taken_experiences(tx: Session, sleep_id: str) -> list[ExperienceRow]:
    """In the order in which they were met."""
    return list(tx.scalars(select(ExperienceRow).where(ExperienceRow.sleep == sleep_id).order_by(ExperienceRow.number)))


def _pending(deployment_id: str) -> tuple[ColumnElement[bool], ...]:
    kept = (ExperienceRow.consolidated_in.is_(None), ExperienceRow.left_out.is_(None))
    return ExperienceRow.deployment == deployment_id, ExperienceRow.status == "pending", *kept


def pending_where(deployment_id: str) -> tuple[ColumnElement[bool], ...]:
    """What makes an experience pending: kept by no version yet, and not left out of one either."""
    return _pending(deployment_id)


# Sleeps


def active_sleep(tx: Session, deployment_id: str) -> Sleep | None:
    return tx.scalar(select(Sleep).where(Sleep.deployment == deployment_id, Sleep.status.in_(ACTIVE)))


def last_sleep(tx: Session, deployment_id: str) -> Sleep | None:
    ended = select(Sleep).where(Sleep.deployment == deployment_id, Sleep.status.not_in(ACTIVE))
    return tx.scalar(ended.order_by(Sleep.number.desc()).limit(1))


def next_scheduled(tx: Session, deployment_id: str) -> float | None:
    """When the first of its schedules that has a time is due (Unix seconds), as the last look at each has found it."""
    rows = tx.execute(select(Schedule.spec, Schedule.next_at).where(Schedule.deployment == deployment_id))
    return min((at for spec, at in rows if at is not None and not spec.get("suspend")), default=None)


def verdicts(tx: Session, deployment_id: str) -> list[tuple[str, float]]:
    """What became of the last versions that a gate has seen, and when their sleeps ended, the latest first."""
    judged = (Sleep.deployment == deployment_id, Sleep.status == SleepStatus.SUCCEEDED, Sleep.outcome.in_(JUDGED))
    rows = tx.execute(select(Sleep.outcome, Sleep.finished_at).where(*judged).order_by(Sleep.finished_at.desc()).limit(IN_A_ROW))
    return [(outcome or "", at or 0.0) for outcome, at in rows]


def active_sleeps(tx: Session) -> list[tuple[str, int]]:
    """Their ids, and how often each was retried."""
    return [(id, life) for id, life in tx.execute(select(Sleep.id, Sleep.life).where(Sleep.status.in_(ACTIVE)))]


def line(tx: Session) -> list[InLine]:
    """The sleeps whose nights have begun, and those that wait for it, in their order of arrival; one that is to end waits for nothing, and
    one that is paused holds no place."""
    rows = tx.scalars(select(Sleep).where(Sleep.status.in_(ACTIVE)).order_by(Sleep.number))
    return [
        InLine(row.id, begun=not waits(row))
        for row in rows
        if row.status is not SleepStatus.PAUSED and (not waits(row) or (row.status is SleepStatus.QUEUED and row.error is None))
    ]


def waits(sleep: Sleep) -> bool:
    """Whether no job of a sleep runs, or may run, because its first attempt or, where it goes on after a pause, its next one was not
    begun."""
    return not sleep.attempt or goes_on(sleep)


def goes_on(sleep: Sleep) -> bool:
    """Whether a queued sleep had attempts before: the last one was confirmed, so that is over."""
    return sleep.status is SleepStatus.QUEUED and sleep.attempt > 0 and sleep.submitted


def add_stray_job(tx: Session, job: str, sleep_id: str) -> None:
    """A sleep ends before its job is known to have ended."""
    tx.merge(StrayJob(id=job, sleep=sleep_id))


def has_stray_job(tx: Session, sleep_id: str) -> bool:
    """Whether a job of this sleep may still run though it should not."""
    return tx.scalar(select(StrayJob.id).where(StrayJob.sleep == sleep_id).limit(1)) is not None


def stray_jobs(tx: Session) -> list[StrayJob]:
    return list(tx.scalars(select(StrayJob).order_by(StrayJob.created_at)))


def forget_stray_job(tx: Session, job: str) -> None:
    tx.execute(delete(StrayJob).where(StrayJob.id == job))


def locked_sleep(tx: Session, sleep_id: str) -> Sleep:
    """The sleep as it is now, whatever was read before, held until the transaction ends (SQLite holds the whole database instead).

    Its deployment is held first, here as everywhere: two that took them in different orders would wait for each other.
    """
    of_sleep = select(Deployment.id).join(Sleep, Sleep.deployment == Deployment.id).where(Sleep.id == sleep_id)
    tx.execute(of_sleep.with_for_update(of=Deployment, key_share=True))
    locked = select(Sleep).where(Sleep.id == sleep_id).with_for_update().execution_options(populate_existing=True)
    return tx.scalars(locked).one()


def fast_memory_lost(tx: Session, deployment_id: str) -> None:
    """A replica was started beside a night's fast memory: its watcher delivers it once more."""
    live = (
        Sleep.deployment == deployment_id,
        Sleep.status.in_(ACTIVE),
        Sleep.fast == FastState.LIVE,
        Sleep.result_version.is_(None),
    )
    tx.execute(update(Sleep).where(*live).values(fast=FastState.SENT))


def events(tx: Session, sleep_id: str, after_seq: int = 0, limit: int | None = None) -> list[Event]:
    return list(tx.scalars(select(Event).where(Event.sleep == sleep_id, Event.seq > after_seq).order_by(Event.seq).limit(limit)))


def append_event(
    tx: Session,
    sleep: Sleep,
    kind: str,
    message: str,
    data: dict[str, Any] | None = None,
    *,
    created_at: float | None = None,
    level: str = "info",
) -> Event:
    """Write the sleep's next event. The sleep must be locked."""
    sleep.last_seq += 1
    row = Event(
        id=new_id("evt"),
        sleep=sleep.id,
        seq=sleep.last_seq,
        created_at=created_at if created_at is not None else time.time(),
        type=kind,
        level=level,
        message=message,
        data=data or {},
    )
    tx.add(row)
    tenant = tx.scalars(select(Deployment.tenant).where(Deployment.id == sleep.deployment)).one()
    outbox.post(tx, tenant, sleep.deployment, told(row))
    return row


def told(row: Event) -> dict[str, Any]:
    """An event as clients see it, in a stream and by webhook."""
    return {
        "object": "event",
        "id": row.id,
        "created_at": row.created_at,
        "type": row.type,
        "seq": row.seq,
        "level": row.level,
        "message": row.message,
        "data": row.data,
    }


def end_sleep(tx: Session, sleep: Sleep, status: SleepStatus, message: str, data: dict[str, Any] | None = None) -> None:
    """A sleep's last step: its status, its last event, and its experiences free for another night unless it has made a version."""
    sleep.status, sleep.waiting = moved(sleep.status, status), None
    sleep.finished_at, sleep.retry_at, sleep.stop_at = time.time(), None, None
    if status is SleepStatus.SUCCEEDED:
        sleep.error = None
    free = (ExperienceRow.sleep == sleep.id, ExperienceRow.consolidated_in.is_(None), ExperienceRow.left_out.is_(None))
    tx.execute(update(ExperienceRow).where(*free).values(sleep=None))
    level = "error" if status is SleepStatus.FAILED else "info"
    append_event(tx, sleep, f"sleep.{status.value}", message, data, level=level)
    if sleep.trace is not None:
        tx.merge(UntoldTrace(object=sleep.id, life=sleep.life, deployment=sleep.deployment))

"""What the service remembers: small functions on a transaction, so that callers decide what happens together.

Reading functions raise `Problem` (404) where a client named something that is not there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from circadian.specs import VersionRecord
from circadian.specs.screening import ScreeningSpec
from services import outbox
from services.errors import Problem, not_found
from services.plan import InLine
from services.screening import Candidate, within_caps
from services.states import ACTIVE, FastState, ServingState, SleepStatus, moved
from services.tables import Deployment, Event, ExperienceRow, Row, Sleep, StrayJob, Version, new_id

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


def deployment(tx: Session, id_or_name: str) -> Deployment:
    row = tx.scalar(select(Deployment).where((Deployment.id == id_or_name) | (Deployment.name == id_or_name)))
    if row is None:
        raise not_found("deployment", id_or_name)
    return row


def deployments(tx: Session) -> list[Deployment]:
    return list(tx.scalars(select(Deployment).order_by(Deployment.number)))


def set_serving(tx: Session, deployment_id: str, state: ServingState, error: str | None = None) -> None:
    tx.execute(update(Deployment).where(Deployment.id == deployment_id).values(state=state, error=error))


def add_version(tx: Session, deployment_id: str, record: VersionRecord, folder: str, status: str, sleep: str | None) -> Version:
    row = Version(
        id=record.id,
        deployment=deployment_id,
        parent=record.parent,
        sleep=sleep,
        folder=folder,
        record=record.model_dump(mode="json"),
        status=status,
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


def take_experiences(tx: Session, deployment_id: str, sleep_id: str, spec: ScreeningSpec) -> tuple[int, int]:
    """Give the pending experiences to a sleep, as far as the caps allow; returns how many, and how many wait for another."""
    columns = (ExperienceRow.id, ExperienceRow.sender, ExperienceRow.source, ExperienceRow.created_at, ExperienceRow.subject)
    rows = tx.execute(select(*columns).where(*_pending(deployment_id))).all()
    candidates = [Candidate(id, f"{sender}/{source}", at, subject) for id, sender, source, at, subject in rows]
    taken, left = within_caps(candidates, spec)
    mark = update(ExperienceRow).where(ExperienceRow.id == bindparam("taken")).values(sleep=sleep_id)
    if taken:
        tx.connection().execute(mark, [{"taken": id} for id in taken])
    return len(taken), len(left)


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


def active_sleeps(tx: Session) -> list[str]:
    return list(tx.scalars(select(Sleep.id).where(Sleep.status.in_(ACTIVE))))


def line(tx: Session) -> list[InLine]:
    """The sleeps whose nights have begun, and those that wait for it, in their order of arrival; one that is to end waits for nothing."""
    rows = tx.scalars(select(Sleep).where(Sleep.status.in_(ACTIVE)).order_by(Sleep.number))
    return [
        InLine(row.id, begun=row.attempt > 0)
        for row in rows
        if row.attempt or (row.status is SleepStatus.QUEUED and row.error is None)
    ]


def add_stray_job(tx: Session, job: str, sleep_id: str) -> None:
    """A sleep ends before its job is known to have ended."""
    tx.merge(StrayJob(id=job, sleep=sleep_id))


def stray_jobs(tx: Session) -> list[StrayJob]:
    return list(tx.scalars(select(StrayJob).order_by(StrayJob.created_at)))


def forget_stray_job(tx: Session, job: str) -> None:
    tx.execute(delete(StrayJob).where(StrayJob.id == job))


def locked_sleep(tx: Session, sleep_id: str) -> Sleep:
    """The sleep, held until the transaction ends (SQLite holds the whole database instead)."""
    return tx.scalars(select(Sleep).where(Sleep.id == sleep_id).with_for_update()).one()


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
    sleep.finished_at = time.time()
    if status is SleepStatus.SUCCEEDED:
        sleep.error = None
    free = (ExperienceRow.sleep == sleep.id, ExperienceRow.consolidated_in.is_(None), ExperienceRow.left_out.is_(None))
    tx.execute(update(ExperienceRow).where(*free).values(sleep=None))
    level = "error" if status is SleepStatus.FAILED else "info"
    append_event(tx, sleep, f"sleep.{status.value}", message, data, level=level)


# Promotion


def commit_promotion(
    tx: Session, sleep: Sleep, record: VersionRecord, folder: str, left_out: Mapping[str, str], returned: Sequence[str] = ()
) -> bool:
    """Parent to child, and the experiences kept by the child, but for those that the night left out (id to reason) and those that it
    returned (they are offered to the next night): all of it or nothing.

    False when the deployment no longer serves the parent (or the sleep is no longer running): nothing has changed then.
    """
    if sleep.status not in (SleepStatus.PREPARING, SleepStatus.RUNNING, SleepStatus.EVALUATING):
        return False
    swapped = tx.execute(
        update(Deployment)
        .where(Deployment.id == sleep.deployment, Deployment.active_version == sleep.parent_version)
        .values(active_version=record.id)
        .returning(Deployment.number)
    )
    if swapped.first() is None:
        return False
    add_version(tx, sleep.deployment, record, folder, "active", sleep.id)
    tx.execute(update(Version).where(Version.id == sleep.parent_version).values(status="retired"))
    tx.execute(update(ExperienceRow).where(ExperienceRow.sleep == sleep.id).values(consolidated_in=record.id))
    if left_out:
        mine = (ExperienceRow.id == bindparam("left")) & (ExperienceRow.sleep == sleep.id)
        mark = update(ExperienceRow).where(mine).values(consolidated_in=None, left_out=bindparam("reason"))
        tx.connection().execute(mark, [{"left": id, "reason": reason} for id, reason in left_out.items()])
    if returned:
        mine = (ExperienceRow.id == bindparam("back")) & (ExperienceRow.sleep == sleep.id)
        give = update(ExperienceRow).where(mine).values(consolidated_in=None, sleep=None)
        tx.connection().execute(give, [{"back": id} for id in returned])
    sleep.result_version = record.id
    return True


def undo_promotion(tx: Session, sleep: Sleep) -> None:
    """The replicas could not take the child: everything as `commit_promotion` found it, the child rejected."""
    child, sleep.result_version = sleep.result_version, None
    swap = update(Deployment).where(Deployment.id == sleep.deployment, Deployment.active_version == child)
    tx.execute(swap.values(active_version=sleep.parent_version))
    tx.execute(update(Version).where(Version.id == child).values(status="rejected"))
    tx.execute(update(Version).where(Version.id == sleep.parent_version).values(status="active"))
    tx.execute(update(ExperienceRow).where(ExperienceRow.sleep == sleep.id).values(consolidated_in=None, left_out=None))

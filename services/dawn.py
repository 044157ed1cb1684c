"""What becomes of the version that a night has made: functions on a transaction of its watcher (nights.py).

    passed, `on_pass`    commit     the version is the active one, and the replicas receive it
    passed, `manual`     keep       a candidate, until somebody promotes it
    passed, `canary`     keep       a candidate, and a rollout that gives it a share of the clients
    refused by the gate  keep       rejected: it can be looked at, and serves only if somebody passes over its gates

Only a version that serves keeps experiences from other nights; those of a candidate, or of a rejected version, are pending again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from circadian.specs import PromotionSpec, VersionRecord
from services import audit, lineage, outbox, promotion, registry
from services.outcome import NightOutcome
from services.states import SleepStatus
from services.tables import Deployment, ExperienceRow, Json, Sleep, Version
from services.trace_context import parse

UNDER_WAY = (SleepStatus.PREPARING, SleepStatus.RUNNING, SleepStatus.EVALUATING)


@dataclass(frozen=True)
class Made:
    """A version as it lies in its folder, and what its night left with it."""

    record: VersionRecord
    folder: str
    signature: Json
    outcome: NightOutcome


def wish(tx: Session, sleep: Sleep) -> PromotionSpec:
    """Who decides about what the sleep makes: as it was asked, or as its deployment does."""
    deployment = registry.deployment(tx, sleep.deployment)
    return PromotionSpec.model_validate(sleep.promotion or deployment.promotion)


def commit(tx: Session, sleep: Sleep, made: Made) -> bool:
    """Parent to child, and the experiences kept by the child, but for those that the night left out (id to reason) and those that it
    returned (they are offered to the next night): all of it or nothing.

    False when the deployment no longer serves the parent (or the sleep is no longer running): nothing has changed then.
    """
    if sleep.status not in UNDER_WAY:
        return False
    swapped = tx.execute(
        update(Deployment)
        .where(Deployment.id == sleep.deployment, Deployment.active_version == sleep.parent_version)
        .values(active_version=made.record.id)
        .returning(Deployment.number)
    )
    if swapped.first() is None:
        return False
    _add(tx, sleep, made, "active")
    tx.execute(update(Version).where(Version.id == sleep.parent_version).values(status="retired"))
    tx.execute(update(ExperienceRow).where(ExperienceRow.sleep == sleep.id).values(consolidated_in=made.record.id))
    if left_out := made.outcome.left_out:
        mine = (ExperienceRow.id == bindparam("left")) & (ExperienceRow.sleep == sleep.id)
        mark = update(ExperienceRow).where(mine).values(consolidated_in=None, left_out=bindparam("reason"))
        tx.connection().execute(mark, [{"left": id, "reason": reason} for id, reason in left_out.items()])
    if returned := made.outcome.returned:
        mine = (ExperienceRow.id == bindparam("back")) & (ExperienceRow.sleep == sleep.id)
        give = update(ExperienceRow).where(mine).values(consolidated_in=None, sleep=None)
        tx.connection().execute(give, [{"back": id} for id in returned])
    sleep.result_version = made.record.id
    return True


def undo(tx: Session, sleep: Sleep) -> None:
    """The replicas could not take the child: everything as `commit` found it, the child rejected.

    Where the deployment has gone on to another version meanwhile it stays there, and what was revoked stays revoked.
    """
    child, sleep.result_version = sleep.result_version, None
    swap = update(Deployment).where(Deployment.id == sleep.deployment, Deployment.active_version == child)
    swapped = tx.execute(swap.values(active_version=sleep.parent_version).returning(Deployment.number)).first()
    alive = Version.status.not_in(promotion.GONE)
    tx.execute(update(Version).where(Version.id == child, alive).values(status="rejected"))
    if swapped is not None:
        tx.execute(update(Version).where(Version.id == sleep.parent_version).values(status="active"))
    tx.execute(update(ExperienceRow).where(ExperienceRow.sleep == sleep.id).values(consolidated_in=None, left_out=None))


def keep(tx: Session, sleep: Sleep, made: Made, spec: PromotionSpec) -> None:
    """The version is there and does not serve. A candidate of a canary begins to, where its deployment still serves what it came from."""
    passed = made.outcome.outcome == "candidate"
    _add(tx, sleep, made, "candidate" if passed else "rejected")
    sleep.result_version = made.record.id
    deployment = promotion.locked(tx, sleep.deployment)
    told: dict[str, Any] = {"version": made.record.id, "parent": made.record.parent, "sleep": sleep.id}
    outbox.tell(tx, deployment, "version.created", f"{made.record.id} is {'a candidate' if passed else 'rejected'}", told)
    free = deployment.active_version == sleep.parent_version and promotion.running_rollout(tx, deployment.id) is None
    if passed and spec.mode == "canary" and free:
        will = promotion.Will(audit.CONTROLLER, f"made by {sleep.id}")
        promotion.begin(tx, deployment, "promotion", made.record.id, will, canary=spec.canary)


def _add(tx: Session, sleep: Sleep, made: Made, status: str) -> None:
    """The version's row, and what it was made from."""
    outcome, id = made.outcome, made.record.id
    night = parse(sleep.trace)
    trace = str(night.child(id)) if night else None
    registry.add_version(tx, sleep.deployment, made.record, made.folder, status, sleep.id, outcome.judged, made.signature, trace)
    taken = tx.scalars(select(ExperienceRow.id).where(ExperienceRow.sleep == sleep.id)).all()
    elsewhere = {*outcome.left_out, *outcome.returned}
    left_out = {name: outcome.left_out[name] for name in taken if name in outcome.left_out}
    tx.flush()
    lineage.record(tx, id, [name for name in taken if name not in elsewhere], left_out)

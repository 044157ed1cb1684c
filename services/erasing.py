"""What an erasure changes in the registry and on the disk: functions on a transaction, or on folders. `erasures.py` decides when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.orm import Session

from services import audit, registry
from services.access import Caller
from services.forgetting import erase, hold
from services.lineage import keepers
from services.owned import of_caller
from services.promotion import Will, roll_back, stand_down
from services.settings import Settings
from services.states import ACTIVE, SleepStatus, moved
from services.tables import Erasure, ExperienceRow, FastMemory, Json, Learned, Sleep, StrayJob, Version

NO_VERSION = ""
"""To which a fast memory belongs that is to be emptied: the loop that keeps it (online.py) does that, whichever version serves."""
IN_A_NIGHT = "experiences.jsonl"
"""In a night's home: what it has taken."""


def concerned(row: Erasure) -> ColumnElement[bool]:
    """The condition that an experience is to be forgotten, or was: as the one who asked may touch it."""
    allowed = None if row.allowed is None else frozenset(row.allowed)
    own = of_caller(Caller(row.sender, row.tenant, frozenset(), allowed), ExperienceRow.deployment)
    named = ExperienceRow.subject == row.subject if row.subject is not None else ExperienceRow.id.in_(row.experiences)
    here = ExperienceRow.deployment == row.deployment if row.deployment is not None else True
    return or_(ExperienceRow.erased_by == row.id, own & named & here)


def deployments_of(tx: Session, row: Erasure) -> list[str]:
    """Where there is anything to forget."""
    return list(tx.scalars(select(ExperienceRow.deployment).where(concerned(row)).distinct().order_by(ExperienceRow.deployment)))


def knows(tx: Session, row: Erasure, night: Sleep, affected: Collection[str]) -> bool:
    """Whether an active sleep has taken what is to be forgotten, or began from what knows it."""
    here = (concerned(row), ExperienceRow.deployment == night.deployment)
    taken = exists().where(*here, ExperienceRow.sleep == night.id)
    online = exists().where(*here, Learned.experience == ExperienceRow.id)
    return night.parent_version in affected or bool(tx.scalar(select(or_(taken, online))))


def cancel(tx: Session, row: Erasure, sleep_id: str) -> list[Json]:
    """Cancel a sleep, unless it has ended or is about to."""
    sleep = registry.locked_sleep(tx, sleep_id)
    if sleep.status.terminal or sleep.status is SleepStatus.CANCELLING or sleep.result_version is not None:
        return []
    sleep.status = moved(sleep.status, SleepStatus.CANCELLING)
    registry.append_event(tx, sleep, "sleep.cancelling", "what it has taken is to be forgotten", {"erasure": row.id})
    audit.note_own(tx, row.tenant, "sleep_cancelled", sleep.id, erasure=row.id)
    return [{"action": "sleep_cancelled", "deployment": sleep.deployment, "sleep": sleep.id}]


def forget_in(tx: Session, row: Erasure, deployment_id: str) -> tuple[list[str], list[Json]]:
    """Bodies, versions and what is served, in one transaction. Returns the versions that were affected, and what was done."""
    deployment = hold(tx, deployment_id)
    if deployment is None:
        return [], []
    here = ExperienceRow.deployment == deployment_id
    affected = keepers(tx, deployment_id, concerned(row) & here)
    done = _empty_fast_memory(tx, row, deployment_id)
    count = erase(tx, concerned(row) & here, row.id)
    done.append({"action": "bodies_erased", "deployment": deployment_id, "count": count})
    again = _offered_again(tx, affected)
    done += _revoke(tx, row, affected)
    if deployment.active_version not in affected:
        stand_down(tx, deployment, affected, f"erasure {row.id}")
    else:
        before, will = deployment.active_version, Will(row.sender, f"erasure {row.id}")
        back = roll_back(tx, deployment_id, None, "erasure", will)
        audit.note_own(tx, row.tenant, "deployment_rolled_back", deployment_id, to=back.to_version, erasure=row.id)
        told = {"from": before, "to": back.to_version}
        done.append({"action": "rolled_back", "deployment": deployment_id} | told)
        if again:
            done.append({"action": "experiences_pending_again", "deployment": deployment_id, "count": again})
    return sorted(affected), done


def _revoke(tx: Session, row: Erasure, affected: Collection[str]) -> list[Json]:
    mine = (Version.id.in_(affected), Version.status != "revoked")
    revoked = sorted(tx.scalars(update(Version).where(*mine).values(status="revoked").returning(Version.id)))
    for version in revoked:
        audit.note_own(tx, row.tenant, "version_revoked", version, erasure=row.id)
    return [{"action": "version_revoked", "version": version} for version in revoked]


def _offered_again(tx: Session, affected: Collection[str]) -> int:
    """How many others had been brought to these versions, and are pending again when none of them serves."""
    others = (ExperienceRow.consolidated_in.in_(affected), ExperienceRow.status == "pending")
    return tx.scalar(select(func.count()).select_from(ExperienceRow).where(*others)) or 0


def _empty_fast_memory(tx: Session, row: Erasure, deployment_id: str) -> list[Json]:
    """Where a deployment learns online, and what is to be forgotten may have been learned, or planned to be, since its last night."""
    memory = tx.get(FastMemory, deployment_id)
    today = exists().where(concerned(row), ExperienceRow.deployment == deployment_id, ExperienceRow.consolidated_in.is_(None))
    if memory is None or not tx.scalar(select(today)):
        return []
    memory.version = NO_VERSION
    return [{"action": "fast_memory_emptied", "deployment": deployment_id}]


def read_by(settings: Settings, tx: Session, row: Erasure, deployment_id: str, affected: Collection[str]) -> list[str]:
    """The sleeps of a deployment whose nights' homes hold what was erased: they had taken it, or began from what knew it."""
    here = (Sleep.deployment == deployment_id,)
    known = set(
        tx.scalars(select(Sleep.id).where(*here, or_(Sleep.child_version.in_(affected), Sleep.parent_version.in_(affected))))
    )
    erased = set(tx.scalars(select(ExperienceRow.id).where(ExperienceRow.erased_by == row.id)))
    for sleep in tx.scalars(select(Sleep.id).where(*here, Sleep.id.not_in(known))):
        if not erased.isdisjoint(_taken(settings.sleep_folder(deployment_id, sleep) / IN_A_NIGHT)):
            known.add(sleep)
    return sorted(sleep for sleep in known if settings.sleep_folder(deployment_id, sleep).exists())


def may_run(tx: Session, sleeps: Collection[str]) -> bool:
    """Whether a job of one of these sleeps may still be at work."""
    stray = tx.scalar(select(exists().where(StrayJob.sleep.in_(sleeps))))
    active = tx.scalar(select(exists().where(Sleep.id.in_(sleeps), Sleep.status.in_(ACTIVE))))
    return bool(stray or active)


def scrub(settings: Settings, deployment_id: str, sleeps: Collection[str], day: int | None) -> list[Json]:
    """Delete the homes of these nights, and what was learned online on other days than this. Raises OSError."""
    for sleep in sleeps:
        shutil.rmtree(settings.sleep_folder(deployment_id, sleep))
    if day is not None:
        today = settings.day_folder(deployment_id, day)
        for folder in today.parent.glob("day-*"):
            if folder != today:
                shutil.rmtree(folder)
    return [{"action": "files_deleted", "deployment": deployment_id, "sleep": sleep} for sleep in sleeps]


def _taken(path: Path) -> set[str]:
    """The ids of what a night had taken."""
    if not path.exists():
        return set()
    with path.open() as file:
        return {json.loads(line)["id"] for line in file}

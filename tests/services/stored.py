"""A registry without a service: one deployment or more, versions, and what they have met, on either kind of database."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from circadian.specs import Experience
from services import lineage
from services.leader import Lease
from services.settings import Settings
from services.states import SleepStatus
from services.tables import Database, Deployment, ExperienceBand, ExperienceRow, Sleep, Version, new_id


@dataclass
class Stored:
    """What takes in, and looks after, what is stored: a controller's part in it."""

    settings: Settings
    database: Database
    lease: Lease

    def took_in(self, status: str) -> None:
        """Nobody counts here."""

    def tokens(self, deployment: Deployment, experience: Experience) -> int:
        return len(experience.text.split())

    def deployment(self, name: str = "toy", tenant: str = "default", **more: Any) -> str:
        """Founded, with a version that has met nothing. Returns its id."""
        row: dict[str, Any] = {"base_model": {}, "memory": {}, "recipe": {}, "serving": {}} | more
        with self.database.write() as tx:
            tx.add(Deployment(id=f"dep_{name}", name=name, tenant=tenant, active_version=f"ver_{name}_0", **row))
            tx.flush()
            tx.add(_version(f"dep_{name}", f"ver_{name}_0", None, "active"))
        return f"dep_{name}"

    def night(self, deployment: str, version: str, *experiences: str, status: str = "active") -> str:
        """A night that made this version, of the active one, of these experiences. Returns its sleep."""
        with self.database.write() as tx:
            parent = tx.scalars(select(Deployment.active_version).where(Deployment.id == deployment)).one()
            sleep = _sleep(deployment, parent, version, SleepStatus.SUCCEEDED)
            tx.add_all([sleep, _version(deployment, version, parent, status)])
            tx.flush()
            lineage.record(tx, version, experiences, {})
            mine = update(ExperienceRow).where(ExperienceRow.id.in_(experiences))
            tx.execute(mine.values(sleep=sleep.id, consolidated_in=version if status == "active" else None))
            if status == "active":
                tx.execute(update(Version).where(Version.id == parent).values(status="retired"))
                tx.execute(update(Deployment).where(Deployment.id == deployment).values(active_version=version))
            return sleep.id

    def asleep(self, deployment: str, *experiences: str) -> str:
        """A night that has taken these, and runs. Returns its sleep."""
        with self.database.write() as tx:
            parent = tx.scalars(select(Deployment.active_version).where(Deployment.id == deployment)).one()
            sleep = _sleep(deployment, parent, new_id("ver"), SleepStatus.RUNNING)
            tx.add(sleep)
            tx.execute(update(ExperienceRow).where(ExperienceRow.id.in_(experiences)).values(sleep=sleep.id))
            return sleep.id

    def met(self, deployment: str, text: str = "the city of mira is oslo .", age: float = 0.0, **more: Any) -> str:
        """An experience, so many seconds old. Returns its id."""
        id = new_id("exp")
        body = Experience(id=id, text=text).model_dump(mode="json")
        row: dict[str, Any] = {"source": "human", "tokens": 1, "signature": b"s"} | more
        with self.database.write() as tx:
            tx.add(ExperienceRow(id=id, deployment=deployment, body=body, created_at=time.time() - age, **row))
            tx.flush()
            tx.add(ExperienceBand(deployment=deployment, band=f"b{id}", experience=id))
        return id

    def experience(self, id: str) -> ExperienceRow:
        with self.database.read() as tx:
            return tx.scalars(select(ExperienceRow).where(ExperienceRow.id == id)).one()

    def experiences(self) -> list[ExperienceRow]:
        with self.database.read() as tx:
            return list(tx.scalars(select(ExperienceRow).order_by(ExperienceRow.number)))

    def versions(self) -> dict[str, str]:
        """How each stands."""
        with self.database.read() as tx:
            return {row.id: row.status for row in tx.scalars(select(Version))}

    def active(self, deployment: str) -> str:
        with self.database.read() as tx:
            return tx.scalars(select(Deployment.active_version).where(Deployment.id == deployment)).one()

    def sleep(self, id: str) -> Sleep:
        with self.database.read() as tx:
            return tx.scalars(select(Sleep).where(Sleep.id == id)).one()

    def ends(self, sleep: str, status: SleepStatus = SleepStatus.CANCELLED) -> None:
        """A night has ended, and what it had taken is free."""
        with self.database.write() as tx:
            tx.execute(update(Sleep).where(Sleep.id == sleep).values(status=status))
            tx.execute(update(ExperienceRow).where(ExperienceRow.sleep == sleep).values(sleep=None))


def _version(deployment: str, id: str, parent: str | None, status: str) -> Version:
    return Version(id=id, deployment=deployment, parent=parent, sleep=None, folder="", record={}, status=status)


def _sleep(deployment: str, parent: str, child: str, status: SleepStatus) -> Sleep:
    made = child if status is SleepStatus.SUCCEEDED else None
    row: dict[str, Any] = {"recipe": {}, "held_out": [], "request_sha256": "", "parent_version": parent, "child_version": child}
    return Sleep(id=new_id("slp"), deployment=deployment, status=status, result_version=made, **row)

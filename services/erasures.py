"""Erasures, carried out by the leading controller: deployment after deployment, step after step.

    consumes       erasures that are asked for; experiences, versions, sleeps and files that know what is to be forgotten
    produces       experiences without bodies, revoked versions, a deployment on its newest clean version, perhaps a sleep; an event
    waits for      batches, a night's end, jobs, the fast memory, replicas: looked at again at each poll, and told as `waiting`
    unblocked by   what it waits for; nothing of it is given up

What to do is decided by `erasure_plan.py` and done by `erasing.py`; what is done is written with it, so a leader that begins goes on behind
the last step. What stays: the rows' ids and times, which versions had kept them, and the folders of those versions (weights and lines to
ask about, which nobody serves or sleeps on any more) until they are deleted (DELETE /v1/versions/{id}).
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.orm import Session

from services import audit, outbox, registry
from services.batches import UNFINISHED
from services.erasing import NO_VERSION, cancel, concerned, deployments_of, forget_in, knows, may_run, read_by, scrub
from services.erasure_plan import WAITING, Night, Situation, Step, plan
from services.errors import Problem
from services.fleet import Fleet
from services.leader import Lease
from services.lineage import keepers
from services.nights import Nights
from services.online_plan import is_label
from services.promotion import running_rollout
from services.settings import Settings
from services.sleep_template import SleepTemplate
from services.sleeping import begin
from services.states import SleepStatus
from services.tables import Deployment, Erasure, ExperienceBatch, ExperienceRow, FastMemory, Json, Sleep, new_id

log = logging.getLogger(__name__)
AT_WORK = ("queued", "running")
HINDERED = "something is in the way, which the service's log names; it is tried again"


class Erasures:
    """Carries out every erasure that is not done."""

    def __init__(self, settings: Settings, lease: Lease, fleet: Fleet, nights: Nights) -> None:
        self.settings, self.lease, self.fleet, self.nights = settings, lease, fleet, nights
        self._more = asyncio.Event()

    def look(self) -> None:
        """There may be a new erasure."""
        self._more.set()

    async def run(self) -> None:
        while True:
            self._more.clear()
            at_work = await asyncio.to_thread(self._at_work)
            moved = [await self._try(erasure) for erasure in at_work]
            if not any(moved):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.poll_seconds if at_work else self.settings.schedule_seconds):
                        await self._more.wait()

    async def _try(self, erasure: str) -> bool:
        """`advance`; one that cannot go on now says so, and the others do."""
        try:
            return await self.advance(erasure)
        except (OSError, Problem) as error:
            # A file that cannot be deleted, or a rollout that is in the way: nothing was changed, and it is tried again.
            log.warning("%s does not go on: %s", erasure, error)
            await asyncio.to_thread(self._hindered, erasure)
            return False

    async def advance(self, erasure: str) -> bool:
        """One step, in the first deployment that is not done. False where there is nothing to do but wait."""
        row = await asyncio.to_thread(self._opened, erasure)
        deployment = next((id for id, done in row.work.items() if not done.get("done")), None)
        if deployment is None:
            await asyncio.to_thread(self._end, erasure)
            return True
        served = await self._served(row, deployment)
        if moved := await asyncio.to_thread(self._step, erasure, deployment, served):
            self.nights.look()  # one may have been cancelled, or begun
        return moved

    def _step(self, erasure: str, deployment: str, served: bool) -> bool:
        with self.lease.write() as tx:
            row = _locked(tx, erasure)
            done = row.work[deployment]
            step = plan(self._situation(tx, row, deployment, done, served))
            row.waiting = WAITING.get(step)
            if row.waiting is not None:
                return False
            if step is not Step.SCRUB:
                _remember(row, deployment, *_take(tx, row, deployment, step))
                return True
            memory = tx.get(FastMemory, deployment)
            sleeps = read_by(self.settings, tx, row, deployment, done["affected"])
        # In no transaction: it can be many files.
        actions = scrub(self.settings, deployment, sleeps, memory.day if memory else None)
        with self.lease.write() as tx:
            _remember(_locked(tx, erasure), deployment, {"scrubbed": True}, actions)
        return True

    def _situation(self, tx: Session, row: Erasure, deployment: str, done: Json, served: bool) -> Situation:
        erased, scrubbed = bool(done.get("erased")), bool(done.get("scrubbed"))
        if not erased:
            return Situation(erased, scrubbed, batches=_batches_before(tx, row), night=_night(tx, row, deployment))
        memory = tx.get(FastMemory, deployment)
        job = not scrubbed and may_run(tx, read_by(self.settings, tx, row, deployment, done["affected"]))
        return Situation(
            erased,
            scrubbed,
            wants_retraining=row.mode == "delete_and_retrain" and bool(done["affected"]),
            fast_memory=memory is not None and memory.version in (NO_VERSION, *done["affected"]),
            job=job,
            served=served,
        )

    async def _served(self, row: Erasure, deployment_id: str) -> bool:
        """Whether a replica answers with a version, or a fast memory, that knows what is to be forgotten."""
        done = row.work[deployment_id]
        if not done.get("scrubbed"):
            return False
        deployment, night, brought = await asyncio.to_thread(self._deployment, deployment_id)
        if deployment is None:
            return False
        if not brought:
            return True
        sight = await self.fleet.look(deployment.id)
        said = sight.versions
        if not said and not sight.missing:
            return True  # nobody has said what is served
        if any(version.partition("+")[0] in done["affected"] for version in said):
            return True
        memory = deployment.fast
        chunks = memory.chunks if memory and memory.version == deployment.active_version else 0
        return not night and not all(is_label(version, deployment.active_version, chunks) for version in said)

    def _opened(self, erasure: str) -> Erasure:
        """The erasure; where it has not begun, with the deployments where there is something to do."""
        with self.lease.write() as tx:
            row = _locked(tx, erasure)
            if row.status == "queued":
                row.status, row.work = "running", {deployment: {} for deployment in deployments_of(tx, row)}
            return row

    def _end(self, erasure: str) -> None:
        with self.lease.write() as tx:
            row = _locked(tx, erasure)
            row.status, row.waiting, row.finished_at = "succeeded", None, time.time()
            audit.note_own(tx, row.tenant, "erasure_completed", row.id, affected_versions=row.affected_versions)
            touched = row.deployment or (next(iter(row.work)) if len(row.work) == 1 else None)
            outbox.post(tx, row.tenant, touched, _told(row))

    def _hindered(self, erasure: str) -> None:
        with self.lease.write() as tx:
            _locked(tx, erasure).waiting = HINDERED

    def _at_work(self) -> list[str]:
        with self.lease.database.read() as tx:
            return list(tx.scalars(select(Erasure.id).where(Erasure.status.in_(AT_WORK)).order_by(Erasure.number)))

    def _deployment(self, deployment_id: str) -> tuple[Deployment | None, Sleep | None, bool]:
        """The deployment, its night, and whether its replicas have been brought where they belong."""
        with self.lease.database.read() as tx:
            deployment = tx.scalar(select(Deployment).where(Deployment.id == deployment_id))
            night, rollout = registry.active_sleep(tx, deployment_id), running_rollout(tx, deployment_id)
            return deployment, night, rollout is None


def _locked(tx: Session, erasure: str) -> Erasure:
    return tx.scalars(select(Erasure).where(Erasure.id == erasure).with_for_update()).one()


def _take(tx: Session, row: Erasure, deployment: str, step: Step) -> tuple[Json, list[Json]]:
    """What is done now, to be remembered, and to be told."""
    if step is Step.CANCEL_NIGHT:
        night = registry.active_sleep(tx, deployment)
        return {}, cancel(tx, row, night.id) if night else []
    if step is Step.ERASE:
        affected, actions = forget_in(tx, row, deployment)
        return {"erased": True, "affected": affected}, actions
    return {"done": True}, _retrain(tx, row, deployment) if step is Step.RETRAIN else []


def _remember(row: Erasure, deployment: str, done: Json, actions: list[Json]) -> None:
    row.work = row.work | {deployment: row.work[deployment] | done}
    row.actions = [*row.actions, *actions]
    row.affected_versions = sorted({*row.affected_versions, *done.get("affected", ())})


def _batches_before(tx: Session, row: Erasure) -> bool:
    """Whether lines that were sent before the erasure are not taken in yet."""
    mine = (ExperienceBatch.tenant == row.tenant, ExperienceBatch.status.in_(UNFINISHED))
    return tx.scalar(select(ExperienceBatch.id).where(*mine, ExperienceBatch.created_at <= row.created_at).limit(1)) is not None


def _night(tx: Session, row: Erasure, deployment: str) -> Night:
    night = registry.active_sleep(tx, deployment)
    if night is None:
        return Night.NONE
    affected = keepers(tx, deployment, concerned(row) & (ExperienceRow.deployment == deployment))
    if not knows(tx, row, night, affected):
        return Night.NONE
    ending = night.status is SleepStatus.CANCELLING or night.result_version is not None
    return Night.ENDING if ending else Night.CANCELLABLE


def _retrain(tx: Session, row: Erasure, deployment: str) -> list[Json]:
    """A sleep on what is left. One that has begun meanwhile is one, and where nothing is left there is none."""
    if active := registry.active_sleep(tx, deployment):
        return [{"action": "sleep_begun", "deployment": deployment, "sleep": active.id}]
    try:
        with tx.begin_nested():
            sleep = begin(tx, registry.deployment(tx, deployment), SleepTemplate(metadata={"erasure": row.id}))
    except Problem as problem:
        return [{"action": "no_sleep", "deployment": deployment, "detail": problem.detail}]
    audit.note_own(tx, row.tenant, "sleep_created", sleep.id, erasure=row.id)
    return [{"action": "sleep_begun", "deployment": deployment, "sleep": sleep.id}]


def _told(row: Erasure) -> Json:
    """The event of its end: it names nobody."""
    return {
        "object": "event",
        "id": new_id("evt"),
        "created_at": row.finished_at,
        "type": "erasure.completed",
        "level": "info",
        "message": f"{row.id} is done",
        "data": {"erasure": row.id, "mode": row.mode, "affected_versions": row.affected_versions, "deployments": sorted(row.work)},
    }

"""Deployments that are being deleted: by the leading controller, in the background.

    asked for (deleting_at)  ->  learner and replicas end  ->  all rows go, and the name is free (forgotten_at)  ->  the folder goes
        ->  the row itself goes

    consumes       deployments that are to be deleted
    produces       the end of their replicas and learners; nothing of them in the registry, and then no folder
    waits for      the next look; the cluster, where replicas are to end; jobs that earlier nights have left running (strays.py)
    unblocked by   a request to delete, time

Every step is safe to take twice, and the row says which was the last: a controller that dies goes on where it was. The folder goes when
no row leads to it any more, and the row when there is no folder. The audit log keeps what was done.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from services import audit
from services.canary import canary_key
from services.fleet import FleetUnavailable
from services.leader import Lease
from services.learners import LearnerUnavailable
from services.online import Online
from services.serving import Serving
from services.settings import Settings
from services.tables import ApiKey, Base, Deployment, ExperienceBatch, ExperienceRow, Sleep, StrayJob, Version, WebhookEndpoint

log = logging.getLogger(__name__)
PARTS: dict[str, Any] = {"sleep": Sleep, "experience": ExperienceRow, "version": Version, "batch": ExperienceBatch}
"""Tables without a column for the deployment have one for a part of it."""
UNHEARD = "its deployments were deleted"
"""Why an endpoint that was for these alone is sent nothing any more."""


class Deletions:
    """Goes through with them, for as long as this controller leads."""

    def __init__(self, settings: Settings, lease: Lease, serving: Serving, online: Online) -> None:
        self.settings, self.lease, self.serving, self.online = settings, lease, serving, online
        self._more = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def look(self) -> None:
        """There may be one more; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._more.set)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            self._more.clear()
            for deployment in await asyncio.to_thread(self._asked):
                await self._delete(deployment)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.replica_check_seconds):
                    await self._more.wait()

    async def _delete(self, deployment: Deployment) -> None:
        """As far as it goes now."""
        try:
            if deployment.forgotten_at is None:
                await self.online.end(deployment.id)
                await self.serving.end(deployment.id)
                if self.settings.canary_file(deployment.id).exists():  # of a rollout that has ended
                    await self.serving.fleet.stop(canary_key(deployment.id))
                if not await asyncio.to_thread(self._forget, deployment):
                    return
            await asyncio.to_thread(self._remove, deployment)
        except (FleetUnavailable, LearnerUnavailable, OSError) as error:
            # A cluster that is away comes back, and a disk is mended: until then the deployment says why it is still there.
            log.warning("%s (%s) is not deleted yet: %r", deployment.id, deployment.name, error)
            await asyncio.to_thread(self._say, deployment.id, f"it is not deleted yet: {error}")

    def _asked(self) -> list[Deployment]:
        with self.lease.database.read() as tx:
            return list(tx.scalars(select(Deployment).where(Deployment.deleting_at.is_not(None)).order_by(Deployment.number)))

    def _forget(self, deployment: Deployment) -> bool:
        """Everything in the registry, but what says that its folder is to go. False while a job of one of its nights may run."""
        with self.lease.write() as tx:
            mine = select(Sleep.id).where(Sleep.deployment == deployment.id)
            if tx.scalar(select(exists().where(StrayJob.sleep.in_(mine)))):
                return False
            forget(tx, deployment)
            # No name looks like an id (schemas.py), so it is in nobody's way.
            values = {"name": deployment.id, "forgotten_at": time.time(), "error": None}
            tx.execute(update(Deployment).where(Deployment.id == deployment.id).values(values))
            audit.note_own(tx, deployment.tenant, "deployment_forgotten", deployment.id)
        log.info("%s (%s) has ended; its folder goes", deployment.id, deployment.name)
        return True

    def _remove(self, deployment: Deployment) -> None:
        """The folder, then the row, with what a request that had begun before the deletion may have written beside it."""
        folder = self.settings.deployment_folder(deployment.id)
        if folder.exists():
            shutil.rmtree(folder)
        with self.lease.write() as tx:
            forget(tx, deployment)
            tx.execute(delete(Deployment).where(Deployment.id == deployment.id))

    def _say(self, deployment_id: str, error: str) -> None:
        with self.lease.write() as tx:
            tx.execute(update(Deployment).where(Deployment.id == deployment_id).values(error=error))


def forget(tx: Session, deployment: Deployment) -> None:
    """All rows of a deployment but its own; and its id where keys and webhooks name it."""
    for name, part in PARTS.items():
        mine = select(part.id).where(part.deployment == deployment.id)
        for table in Base.metadata.sorted_tables:
            if "deployment" not in table.columns and name in table.columns:
                tx.execute(delete(table).where(table.columns[name].in_(mine)))
    for table in reversed(Base.metadata.sorted_tables):
        if "deployment" in table.columns:
            tx.execute(delete(table).where(table.columns["deployment"] == deployment.id))
    for key in tx.scalars(select(ApiKey).where(ApiKey.tenant == deployment.tenant)):
        if key.deployments and deployment.id in key.deployments:
            key.deployments = [id for id in key.deployments if id != deployment.id]
    for endpoint in tx.scalars(select(WebhookEndpoint).where(WebhookEndpoint.tenant == deployment.tenant)):
        if endpoint.deployments and deployment.id in endpoint.deployments:
            endpoint.deployments = [id for id in endpoint.deployments if id != deployment.id]
            endpoint.disabled = endpoint.disabled or (None if endpoint.deployments else UNHEARD)

"""Rollouts: the leading controller brings the replicas after what promotion.py has decided.

    consumes       rollouts that run
    produces       deliveries that every replica proves; replicas of a canary; the rollout's end
    waits for      the next look, a delivery's receipts, a canary's start and its time: each bounded in settings.py or by the rollout
    unblocked by   a new rollout of this controller's, a wish to abort (a column), the canary's failures and its pace

immediate    the version is the active one already; it is delivered. A promotion that the replicas do not take is taken back. A way back
             (rollback, revocation, erasure) is not: where no delivery makes it so, new replicas are started on the version's folder.
canary       a replica of its own is started on the version; clients find it in the deployment's row. When its time is over, the version
             becomes the active one and is delivered to all; it is withdrawn as soon as too many of its requests have failed, or its
             answers take too long beside the active version's (canary.py).

Whatever is done may be done twice: a leader that begins goes on with what it finds in the rows. The wake file of a canary is there before
its replica and goes after it, so what a leader that died has left behind is found, and ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import Session

from actors.wake_state import WakeState, write_wake
from circadian.files import write_whole
from circadian.memory.folder import VersionBroken
from circadian.memory.whole import whole_delivery
from circadian.specs import CanarySpec
from services import outbox, promotion, registry
from services.background import Background
from services.canary import Verdict, canary_key, judge, read
from services.fleet import DeliveryFailed, FleetUnavailable, ServingSpec
from services.leader import Lease
from services.online_plan import is_label
from services.serving import Serving, receipts_data
from services.settings import Settings
from services.signing import Signing
from services.tables import Deployment, Json, Rollout

log = logging.getLogger(__name__)
Change = Callable[[Session, Rollout], None]
EVENTS = {
    "promotion": "version.promoted",
    "rollback": "version.rolled_back",
    "revocation": "version.rolled_back",
    "erasure": "version.rolled_back",
}


class Rollouts:
    """Lives every running rollout through."""

    def __init__(self, settings: Settings, lease: Lease, serving: Serving, signing: Signing) -> None:
        self.settings, self.lease, self.database = settings, lease, lease.database
        self.serving, self.signing = serving, signing
        self.tasks = Background(settings)
        self._more = asyncio.Event()

    def look(self) -> None:
        """There may be a new one, or one that is to end."""
        self._more.set()

    async def close(self) -> None:
        await self.tasks.close()

    async def run(self) -> None:
        """Begin those that run, and end canaries that nobody wants any more."""
        while True:
            self._more.clear()
            for rollout, name in await asyncio.to_thread(self._running):
                self.tasks.start(name, partial(self._roll, rollout))
            for deployment in await asyncio.to_thread(self._left_over):
                self.tasks.start(_canary_task(deployment), partial(self._end_canary, deployment))
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.poll_seconds):
                    await self._more.wait()

    def _running(self) -> list[tuple[str, str]]:
        """With the name of the task that lives each: canaries of a deployment come one after the other, a way back waits for none."""
        with self.database.read() as tx:
            rows = tx.scalars(select(Rollout).where(Rollout.status == promotion.RUNNING)).all()
        return [(row.id, _canary_task(row.deployment) if row.strategy == "canary" else f"rollout {row.id}") for row in rows]

    def _left_over(self) -> list[str]:
        """Deployments with a canary's wake file, and no canary."""
        with self.database.read() as tx:
            wanted = set(tx.scalars(select(Rollout.deployment).where(Rollout.status == promotion.RUNNING)))
            ids = tx.scalars(select(Deployment.id)).all()
        return [id for id in ids if id not in wanted and self.settings.canary_file(id).exists()]

    async def _roll(self, id: str) -> None:
        rollout = await asyncio.to_thread(self._load, id)
        if rollout.status != promotion.RUNNING:
            return
        taken_over = await asyncio.to_thread(self._active, rollout.deployment) == rollout.to_version
        if rollout.strategy == "canary" and not taken_over and not await self._canary(rollout):
            return
        await self._bring(rollout)

    async def _bring(self, rollout: Rollout) -> None:
        """Every replica becomes the version, and proves it."""
        path = self.settings.rollout_file(rollout.deployment, rollout.id)
        try:
            payload = await asyncio.to_thread(self._payload, rollout)
            await asyncio.to_thread(write_whole, path, payload)
            data = receipts_data(await self.serving.deliver(rollout.deployment, path))
        except (DeliveryFailed, VersionBroken, OSError) as error:
            why = str(error)
            if rollout.kind == "promotion":
                put_back = partial(promotion.put_back, why=why)
                await asyncio.to_thread(self._end, rollout.id, put_back, "version.promotion_failed", {"error": why})
                return
            log.error("%s: new replicas are started on %s: %s", rollout.id, rollout.to_version, why)
            if not await self.serving.restart(rollout.deployment):
                return  # it still runs, and is begun again at the next look
            data = {"restarted": why}
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        await asyncio.to_thread(self._end, rollout.id, partial(promotion.end, status="succeeded"), EVENTS[rollout.kind], data)

    def _payload(self, rollout: Rollout) -> bytes:
        folder = self.settings.version_folder(rollout.deployment, rollout.to_version)
        return whole_delivery(folder, self.signing.verify(folder))

    # Canaries

    async def _canary(self, rollout: Rollout) -> bool:
        """Whether the version has held, and is the active one now."""
        spec = CanarySpec.model_validate(rollout.canary)
        if why := await self._begin_canary(rollout, spec):
            return await self._withdraw(rollout, "failed", why)
        while True:
            now = await asyncio.to_thread(self._load, rollout.id)
            if now.status != promotion.RUNNING:
                await self._end_canary(rollout.deployment)
                return False
            if now.abort is not None:
                return await self._withdraw(rollout, "aborted", now.abort)
            sight = await self.serving.fleet.look(canary_key(rollout.deployment))
            if sight.versions and not all(is_label(said, rollout.to_version, 0) for said in sight.versions):
                return await self._withdraw(rollout, "failed", f"its replica serves {sorted(sight.versions)}")
            alive = time.time() - (now.live_at or time.time())
            verdict, why = judge(spec, now.requests, now.errors, alive, read(now.paces))
            if verdict is Verdict.WITHDRAW:
                return await self._withdraw(rollout, "failed", why)
            if verdict is Verdict.PROMOTE:
                return await self._take_over(rollout)
            await asyncio.sleep(self.settings.poll_seconds)

    async def _begin_canary(self, rollout: Rollout, spec: CanarySpec) -> str:
        """A replica that serves the version, of which clients know from then on; or why there is none."""
        folder, wake = (
            self.settings.version_folder(rollout.deployment, rollout.to_version),
            self.settings.canary_file(rollout.deployment),
        )
        try:
            await asyncio.to_thread(self.signing.verify, folder)
            await asyncio.to_thread(write_wake, wake, WakeState(folder=str(folder)))
            name, serving = await asyncio.to_thread(self._serving, rollout.deployment)
            async with asyncio.timeout(self.settings.replica_start_seconds):
                await self.serving.fleet.start(canary_key(rollout.deployment), name, serving, wake)
        except (VersionBroken, OSError, FleetUnavailable, TimeoutError) as error:
            return f"no replica of the canary came up: {error!r}"
        share: Json = {"rollout": rollout.id, "version": rollout.to_version, "percent": spec.percent}

        def live(tx: Session, row: Rollout) -> None:
            row.live_at = row.live_at or time.time()
            promotion.locked(tx, row.deployment).canary = share

        await asyncio.to_thread(self._write, rollout.id, live)
        return ""

    async def _take_over(self, rollout: Rollout) -> bool:
        """The version becomes the active one."""

        def take(tx: Session, row: Rollout) -> None:
            deployment = promotion.locked(tx, row.deployment)
            if deployment.active_version == row.from_version:
                promotion.activate(tx, deployment, row.to_version)
            promotion.withdraw_canary(tx, deployment)

        await asyncio.to_thread(self._write, rollout.id, take)
        await self._end_canary(rollout.deployment)
        return True

    async def _withdraw(self, rollout: Rollout, status: str, why: str) -> bool:
        """Clients first, then the replica."""

        def withdraw(tx: Session, row: Rollout) -> None:
            promotion.withdraw_canary(tx, promotion.locked(tx, row.deployment))
            promotion.end(tx, row, status, why)

        await asyncio.to_thread(self._end, rollout.id, withdraw, "version.promotion_failed", {"error": why})
        await self._end_canary(rollout.deployment)
        return False

    async def _end_canary(self, deployment: str) -> None:
        with suppress(FleetUnavailable):  # the cluster has gone, and the replica with it
            await self.serving.fleet.stop(canary_key(deployment))
        await asyncio.to_thread(self.settings.canary_file(deployment).unlink, missing_ok=True)

    # Rows

    def _serving(self, deployment: str) -> tuple[str, ServingSpec]:
        with self.database.read() as tx:
            row = registry.deployment(tx, deployment)
        return row.name, ServingSpec.model_validate(row.serving).model_copy(update={"replicas": 1})

    def _active(self, deployment: str) -> str:
        with self.database.read() as tx:
            return registry.deployment(tx, deployment).active_version

    def _load(self, id: str) -> Rollout:
        with self.database.read() as tx:
            return registry.one(tx, Rollout, "rollout", id)

    def _write(self, id: str, change: Change) -> None:
        """To a rollout that still runs."""
        with self.lease.write() as tx:
            deployment = tx.scalars(select(Rollout.deployment).where(Rollout.id == id)).one()
            promotion.locked(tx, deployment)
            row = tx.scalars(select(Rollout).where(Rollout.id == id).execution_options(populate_existing=True)).one()
            if row.status == promotion.RUNNING:
                change(tx, row)

    def _end(self, id: str, change: Change, kind: str, data: Json) -> None:
        """With its event: who hears of one finds the other. One that was ended by somebody else is not told of."""

        def ended(tx: Session, row: Rollout) -> None:
            change(tx, row)
            deployment = registry.deployment(tx, row.deployment)
            told = {"rollout": row.id, "version": row.to_version, "from": row.from_version, **data}
            outbox.tell(tx, deployment, kind, f"{row.kind} to {row.to_version}: {row.status}", told)
            promotion.note(tx, deployment, f"rollout_{row.status}", row.id, version=row.to_version, error=row.error)

        self._write(id, ended)


def _canary_task(deployment: str) -> str:
    return f"canary of {deployment}"

"""Deployments' replicas: started in the background, awaited by whoever needs them, given deliveries that they must prove."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from circadian.memory.delivery import Receipt
from services import registry
from services.fleet import DeliveryFailed, Fleet, ServingSpec
from services.settings import Settings
from services.states import ServingState
from services.tables import Database, Deployment

log = logging.getLogger(__name__)


class Serving:
    """What the controller does with the fleet, beside passing questions on."""

    def __init__(self, settings: Settings, database: Database, fleet: Fleet) -> None:
        self.settings, self.database, self.fleet = settings, database, fleet
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._up: dict[str, asyncio.Lock] = {}

    def begin(self, deployment_id: str) -> None:
        """Start a deployment's replicas and keep them running, in the background; its state tells how far they are."""
        if deployment_id not in self._keepers:
            self._keepers[deployment_id] = asyncio.create_task(self._keep(deployment_id), name=f"keep {deployment_id}")

    async def close(self) -> None:
        for task in self._keepers.values():
            task.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)

    async def restart(self, deployment_id: str) -> None:
        """New replicas on the active version: the way back when replicas cannot be brought there by a delivery."""
        await asyncio.to_thread(self._set, deployment_id, ServingState.PROVISIONING)
        await self._bring_up(deployment_id, anew=True)

    async def deliver(self, deployment_id: str, path: Path) -> list[Receipt]:
        """Give a delivery to every replica; each must answer with the version and the checksum that the delivery promises.

        A failed try is repeated: a delivery is written whole or not at all, and writing it twice is writing it once.
        Raises DeliveryFailed.
        """
        deployment = await self._awake(deployment_id)
        promise = promised(path)
        payload = await asyncio.to_thread(path.read_bytes)
        failure: DeliveryFailed | None = None
        for _ in range(self.settings.delivery_attempts):
            try:
                async with asyncio.timeout(self.settings.delivery_seconds):
                    receipts = await self.fleet.deliver(deployment.name, payload)
                verify(receipts, *promise)
            except (DeliveryFailed, TimeoutError) as error:
                failure = DeliveryFailed(f"delivery {path.name} to {deployment.name}: {error!r}")
                log.warning("%s", failure)
            else:
                return receipts
        assert failure is not None
        raise failure

    async def _keep(self, deployment_id: str) -> None:
        """Consumes the fleet's word that a replica has gone; produces replicas on the active version; ends with the controller."""
        name = (await asyncio.to_thread(self._deployment, deployment_id)).name
        await self._bring_up(deployment_id, anew=False)
        while True:
            await asyncio.sleep(self.settings.replica_check_seconds)
            if await self.fleet.missing(name):
                log.warning("a replica of %s has gone, starting another", name)
                await self._bring_up(deployment_id, anew=False)

    async def _bring_up(self, deployment_id: str, anew: bool) -> None:
        async with self._up.setdefault(deployment_id, asyncio.Lock()):
            try:
                async with asyncio.timeout(self.settings.replica_start_seconds):
                    await self._start(deployment_id, anew)
            except Exception as error:
                # Whatever keeps replicas from coming up must end as the deployment's state, or clients would wait for ever.
                log.exception("replicas of %s did not come up", deployment_id)
                await asyncio.to_thread(self._set, deployment_id, ServingState.FAILED, repr(error))
            else:
                await asyncio.to_thread(self._set, deployment_id, ServingState.AWAKE)

    async def _start(self, deployment_id: str, anew: bool) -> None:
        deployment = await asyncio.to_thread(self._deployment, deployment_id)
        serving = ServingSpec.model_validate(deployment.serving)
        folder = self.settings.version_folder(deployment.id, deployment.active_version)
        if anew:
            await self.fleet.stop(deployment.name, serving)
        versions = await self.fleet.start(deployment.name, serving, folder)
        # During a night replicas may serve its fast memory or wait for dawn: its watcher brings them where they belong.
        if set(versions) != {deployment.active_version} and not await asyncio.to_thread(self._sleeps, deployment_id):
            log.warning("%s: adopted replicas serve %s, not %s", deployment.name, versions, deployment.active_version)
            await self.fleet.stop(deployment.name, serving)
            await self.fleet.start(deployment.name, serving, folder)

    async def _awake(self, deployment_id: str) -> Deployment:
        """The deployment, once its replicas answer. Raises DeliveryFailed where they do not come up in time."""
        deadline = time.monotonic() + self.settings.replica_start_seconds
        while time.monotonic() < deadline:
            deployment = await asyncio.to_thread(self._deployment, deployment_id)
            if deployment.state is ServingState.AWAKE:
                return deployment
            if deployment.state is ServingState.FAILED:
                break
            await asyncio.sleep(self.settings.poll_seconds)
        raise DeliveryFailed(f"the replicas of deployment {deployment_id} do not answer")

    def _sleeps(self, deployment_id: str) -> bool:
        with self.database.read() as tx:
            return registry.active_sleep(tx, deployment_id) is not None

    def _deployment(self, deployment_id: str) -> Deployment:
        with self.database.read() as tx:
            return registry.deployment(tx, deployment_id)

    def _set(self, deployment_id: str, state: ServingState, error: str | None = None) -> None:
        with self.database.write() as tx:
            registry.set_serving(tx, deployment_id, state, error)


def promised(path: Path) -> tuple[str, str]:
    """Version and checksum that a delivery promises. Raises DeliveryFailed for a file that is none."""
    try:
        with safe_open(path, framework="np") as file:
            meta = file.metadata() or {}
        return meta["version"], meta["checksum"]
    except (OSError, SafetensorError, KeyError) as error:
        raise DeliveryFailed(f"{path} is not a delivery: {error!r}") from error


def verify(receipts: list[Receipt], version: str, checksum: str) -> None:
    """Raises DeliveryFailed unless there is a receipt, and every one is of this version and checksum."""
    if not receipts:
        raise DeliveryFailed("no replica answered")
    for receipt in receipts:
        if (receipt.version, receipt.checksum) != (version, checksum):
            raise DeliveryFailed(
                f"a replica holds {receipt.version} with checksum {receipt.checksum[:12]}, promised {version} with {checksum[:12]}"
            )


def receipts_data(receipts: list[Receipt]) -> dict[str, Any]:
    """Receipts as the data of an event."""
    return {"receipts": [asdict(receipt) for receipt in receipts]}

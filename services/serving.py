"""Deployments' replicas: started in the background, awaited by whoever needs them, given deliveries that they must prove.

What a deployment serves is written to its wake file first, and then made so: a controller or a replica that dies in between finds there
what is to be. A delivery that fails for good is taken out of the file again, and replicas that took it go back by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actors.replies import Proof, agree
from actors.wake_state import WakeState
from circadian import metrics
from services import registry
from services.background import Background, pause
from services.care import Care, Known, care
from services.fleet import DeliveryFailed, Fleet, FleetUnavailable, ServingSpec, Sight
from services.leader import Lease
from services.monitoring.told import histogram
from services.online_plan import is_label
from services.settings import Settings
from services.signing import Signing
from services.states import FastState, ServingState
from services.tables import Deployment
from services.wake_files import WakeFiles, promised

log = logging.getLogger(__name__)
STARTS = 3
"""Times replicas are started anew because the active version changed meanwhile."""


class Serving:
    """What the controller does with the fleet, beside passing questions on."""

    def __init__(self, settings: Settings, lease: Lease, fleet: Fleet, signing: Signing) -> None:
        self.settings, self.lease, self.database, self.fleet, self.signing = settings, lease, lease.database, fleet, signing
        self.files, self.keepers = WakeFiles(settings), Background(settings)
        self._up: dict[str, asyncio.Lock] = {}
        self._started: dict[str, ServingSpec] = {}
        """As what each deployment's replicas were started here."""
        self.sights: dict[str, Sight] = {}
        """The last look at each deployment's replicas."""
        self.deliveries: Counter[str] = Counter()
        """Deliveries, by what came of them."""
        self.delivered = histogram(metrics.DELIVERY_DURATION)
        """Those that were proved, by their seconds."""

    def begin(self, deployment_id: str) -> None:
        """Start a deployment's replicas and keep them running, in the background; its state tells how far they are."""
        self.keepers.start(f"keep {deployment_id}", lambda: self._keep(deployment_id))

    async def end(self, deployment_id: str) -> None:
        """Look after a deployment no more, and end its replicas. Raises FleetUnavailable."""
        with suppress(TimeoutError):
            # A call that is on its way to the cluster would start replicas behind the one that ends them.
            async with asyncio.timeout(self.settings.ray_request_seconds), self._lock(deployment_id):
                pass
        await self.keepers.end(f"keep {deployment_id}")
        async with self._lock(deployment_id):
            await self.fleet.stop(deployment_id)
        self._started.pop(deployment_id, None)
        self.sights.pop(deployment_id, None)

    async def close(self) -> None:
        await self.keepers.close()

    async def restart(self, deployment_id: str) -> bool:
        """New replicas on the active version: the way back when replicas cannot be brought there by a delivery. Whether they answer."""
        await asyncio.to_thread(self._set, deployment_id, ServingState.PROVISIONING)
        return await self._bring_up(deployment_id, anew=True)

    async def scale(self, deployment_id: str, replicas: int | None) -> None:
        """Let so many replicas answer from now on, whatever is started anew meanwhile; None: as many as the deployment's serving says.

        With 0 the deployment answers 503, and takes deliveries all the same: replicas that start later serve them. Raises FleetUnavailable.
        """
        async with self._lock(deployment_id):
            deployment = await asyncio.to_thread(self._deployment, deployment_id)
            serving = ServingSpec.model_validate(deployment.serving)
            await asyncio.to_thread(self.files.lend, deployment_id, deployment.active_version, replicas)
            await self.fleet.scale(deployment.id, serving, serving.replicas if replicas is None else replicas)

    async def deliver(self, deployment_id: str, path: Path) -> list[Proof]:
        """Give a delivery to every replica; each must answer with the version and the checksum that the delivery promises, and the
        known question as the others do.

        A failed try is repeated: a delivery is written whole or not at all, and writing it twice is writing it once. Replicas that
        live may refuse `delivery_attempts` times; for one that died another is awaited up to `replica_start_seconds`.
        Raises DeliveryFailed.
        """
        before = await asyncio.to_thread(self.files.read, deployment_id)
        try:
            with self._counted():
                return await self._deliver(deployment_id, path)
        except DeliveryFailed:
            async with self._lock(deployment_id):
                await asyncio.to_thread(self._put_back, deployment_id, path, before)
            raise

    async def deliver_online(self, deployment_id: str, path: Path, version: str) -> list[Proof] | None:
        """Give every replica what was learned online for `version`, once; each must prove it.

        None, and nothing was delivered, where that does not belong there any more: another version serves, or a night with its own
        fast memory. This is looked up when no other delivery is under way, so it never takes the place of a later one.
        Raises DeliveryFailed, after which it may be tried again.
        """
        payload = await asyncio.to_thread(path.read_bytes)
        async with self._lock(deployment_id):
            known, _ = await asyncio.to_thread(self._known, deployment_id)
            if known.active_version != version or known.dusk or known.state is not ServingState.AWAKE:
                return None
            with self._counted():
                return await self._hand_round(deployment_id, path, payload)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except DeliveryFailed:
            self.deliveries["failed"] += 1
            raise
        self.deliveries["proved"] += 1
        self.delivered.observe(time.monotonic() - began)

    def _put_back(self, deployment_id: str, path: Path, before: WakeState | None) -> None:
        """A delivery has failed: what was served before it is served again; the active version where another one has become that since."""
        active = self._deployment(deployment_id).active_version
        if self.files.serves(deployment_id, path):
            made, _ = promised(path)
            still = active in (made.partition("+")[0], before.version.partition("+")[0] if before else None)
            self.files.put_back(deployment_id, before if still else None, active)

    async def _deliver(self, deployment_id: str, path: Path) -> list[Proof]:
        promised(path)
        payload = await asyncio.to_thread(path.read_bytes)
        deadline, refusals, tries = time.monotonic() + self.settings.replica_start_seconds, 0, 0
        while True:
            deployment = await self._awake(deployment_id, deadline)
            try:
                async with self._lock(deployment_id):
                    return await self._hand_round(deployment_id, path, payload)
            except DeliveryFailed as error:
                tries += 1
                sight = await self.fleet.look(deployment.id)
                refusals += not (sight.missing or sight.starting)
                log.warning("delivery %s to %s: %r", path.name, deployment.name, error)
                if refusals >= self.settings.delivery_attempts or time.monotonic() > deadline:
                    raise DeliveryFailed(f"delivery {path.name} to {deployment.name}: {error!r}") from error
            await asyncio.sleep(pause(self.settings, tries))

    async def _hand_round(self, deployment_id: str, path: Path, payload: bytes) -> list[Proof]:
        """One try, by whoever holds the lock: the proof of every replica that runs; none where none is to. Raises DeliveryFailed."""
        deployment = await asyncio.to_thread(self._deployment, deployment_id)
        version, _ = promised(path)
        if version.partition("+")[0] != deployment.active_version:
            raise DeliveryFailed(f"{path.name} makes {version}, and {deployment.name} serves {deployment.active_version} by now")
        state = await asyncio.to_thread(self.files.serve_delivered, deployment_id, deployment.active_version, path)
        if state.replicas == 0:
            return []
        try:
            async with asyncio.timeout(self.settings.delivery_seconds):
                proofs = await self.fleet.deliver(deployment.id, payload)
        except TimeoutError as error:
            raise DeliveryFailed(f"delivery {path.name} to {deployment.name} took longer than it may") from error
        verify(proofs, *promised(path))
        return proofs

    async def _keep(self, deployment_id: str) -> None:
        """Consumes what a look at the replicas finds; produces replicas on the active version; ends with the controller.

        Replicas that do not come up are tried again after longer and longer pauses. Ends with the deployment, too.
        """
        usual, longest = self.settings.replica_check_seconds, self.settings.replica_start_seconds
        seconds = usual if await self._bring_up(deployment_id, anew=False) else 2 * usual
        while await asyncio.to_thread(self._is_there, deployment_id):
            await asyncio.sleep(seconds)
            seconds = usual if await self._check(deployment_id) else min(2 * seconds, longest)

    async def _check(self, deployment_id: str) -> bool:
        """One look, and what follows from it. False when replicas were needed and did not come up."""
        if await asyncio.to_thread(self._changed, deployment_id):
            log.info("%s is to be served otherwise, bringing its replicas there", deployment_id)
            return await self._bring_up(deployment_id, anew=False)
        before, name = await asyncio.to_thread(self._known, deployment_id)
        sight = self.sights[deployment_id] = await self.fleet.look(deployment_id)
        after, _ = await asyncio.to_thread(self._known, deployment_id)
        needed = care(before, sight, after, starting=self._lock(deployment_id).locked())
        if needed is Care.BRING_UP:
            log.warning("replicas of %s are %s, bringing them up", name, "gone" if sight.missing else before.state.value)
            return await self._bring_up(deployment_id, anew=False)
        if needed is Care.BRING_BACK:
            log.error("%s: replicas serve %s, not %s", name, sorted(sight.versions), after.active_version)
            return await self._bring_up(deployment_id, anew=False)
        if needed is Care.DELIVER_AGAIN:
            await asyncio.to_thread(self._fast_memory_lost, deployment_id)
        return True

    async def _bring_up(self, deployment_id: str, anew: bool) -> bool:
        """Whether all replicas answer now; what keeps them from it becomes the deployment's state."""
        async with self._lock(deployment_id):
            try:
                # The fleet bounds each start; this bounds the cluster too.
                async with asyncio.timeout(STARTS * (self.settings.replica_start_seconds + self.settings.replica_stop_seconds)):
                    await self._start(deployment_id, anew)
            except Exception as error:
                # Whatever keeps replicas from coming up must end as the deployment's state, or clients would wait for ever.
                log.exception("replicas of %s did not come up", deployment_id)
                await asyncio.to_thread(self._set, deployment_id, ServingState.FAILED, repr(error))
                return False
            await asyncio.to_thread(self._set, deployment_id, ServingState.AWAKE)
            return True

    async def _start(self, deployment_id: str, anew: bool) -> None:
        for _ in range(STARTS):
            deployment = await asyncio.to_thread(self._deployment, deployment_id)
            if deployment.deleting_at is not None:
                raise FleetUnavailable(f"deployment {deployment.name} is being deleted")
            serving = ServingSpec.model_validate(deployment.serving)
            self._started[deployment_id] = serving
            if anew:
                await self.fleet.stop(deployment.id)
            await asyncio.to_thread(self._prepare, deployment, anew)
            versions = await self.fleet.start(deployment.id, deployment.name, serving, self.settings.wake_file(deployment_id))
            # During a night replicas may serve its fast memory or wait for dawn: its watcher brings them where they belong.
            # The row is read again, because a start takes long enough for a dawn.
            known, _ = await asyncio.to_thread(self._known, deployment_id)
            if known.night is not None or all(is_label(said, known.active_version, known.chunks) for said in versions):
                return
            log.warning("%s: replicas serve %s, not %s", deployment.name, versions, known.active_version)
            anew = True
        raise FleetUnavailable(f"the replicas of {deployment_id} do not come to serve its active version")

    def _prepare(self, deployment: Deployment, anew: bool) -> None:
        """The version is what was signed, and the wake file says so, before replicas read it. Raises VersionBroken and OSError."""
        self.signing.verify(self.settings.version_folder(deployment.id, deployment.active_version))
        if anew:
            self.files.serve(deployment.id, deployment.active_version)
        else:
            known, _ = self._known(deployment.id)
            self.files.check(deployment.id, known)

    async def _awake(self, deployment_id: str, deadline: float) -> Deployment:
        """The deployment, once its replicas answer. Raises DeliveryFailed where they do not come up in time."""
        while True:
            deployment = await asyncio.to_thread(self._deployment, deployment_id)
            if deployment.state is ServingState.AWAKE:
                return deployment
            if time.monotonic() > deadline:
                raise DeliveryFailed(f"the replicas of {deployment.name} do not answer: {deployment.error or 'starting'}")
            await asyncio.sleep(self.settings.poll_seconds)

    def _lock(self, deployment_id: str) -> asyncio.Lock:
        """Held by whoever starts a deployment's replicas or delivers to them: a replica that starts cannot miss a delivery."""
        return self._up.setdefault(deployment_id, asyncio.Lock())

    def _known(self, deployment_id: str) -> tuple[Known, str]:
        """What a look is held against, and the deployment's name."""
        with self.database.read() as tx:
            row, night = registry.deployment(tx, deployment_id), registry.active_sleep(tx, deployment_id)
        chunks = row.fast.chunks if row.fast and row.fast.version == row.active_version else 0
        known = Known(row.state, row.active_version, night.id if night else None, night.fast if night else FastState.NONE, chunks)
        return known, row.name

    def _is_there(self, deployment_id: str) -> bool:
        with self.database.read() as tx:
            return registry.is_there(tx, deployment_id)

    def _changed(self, deployment_id: str) -> bool:
        """Whether its replicas were started here as something else than they are to be now."""
        started = self._started.get(deployment_id)
        return started is not None and started != ServingSpec.model_validate(self._deployment(deployment_id).serving)

    def _fast_memory_lost(self, deployment_id: str) -> None:
        with self.lease.write() as tx:
            registry.fast_memory_lost(tx, deployment_id)

    def _deployment(self, deployment_id: str) -> Deployment:
        with self.database.read() as tx:
            return registry.deployment(tx, deployment_id)

    def _set(self, deployment_id: str, state: ServingState, error: str | None = None) -> None:
        with self.lease.write() as tx:
            registry.set_serving(tx, deployment_id, state, error)


def verify(proofs: list[Proof], version: str, checksum: str) -> None:
    """Raises DeliveryFailed unless there is a proof, every one is of this version and checksum, and all answer the known question alike."""
    if not proofs:
        raise DeliveryFailed("no replica answered")
    for proof in proofs:
        if (proof.version, proof.checksum) != (version, checksum):
            raise DeliveryFailed(
                f"a replica holds {proof.version} with checksum {proof.checksum[:12]}, promised {version} with {checksum[:12]}"
            )
    if not agree([proof.answer for proof in proofs]):
        raise DeliveryFailed(f"replicas of {version} answer the known question differently: {[proof.answer for proof in proofs]}")


def receipts_data(proofs: list[Proof]) -> dict[str, Any]:
    """Proofs as the data of an event."""
    return {"receipts": [asdict(proof) for proof in proofs]}

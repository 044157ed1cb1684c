"""The fleet on Ray: each replica a detached actor, reached through its handle."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import ray
from ray.exceptions import RayActorError, RayError

from actors import names
from actors.replies import StreamHead
from actors.wake import WakeHandle
from circadian.memory.delivery import DeliveryRefused, Receipt
from circadian.specs import EngineSpec
from services.fleet import Body, DeliveryFailed, FleetUnavailable, Reply, Route, ServingSpec, Sight, gpu_memory
from services.settings import Settings

log = logging.getLogger(__name__)


class RayFleet:
    """Handles of the replicas this controller has started or adopted. Ray's calls block, so they run in threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._handles: dict[str, list[WakeHandle]] = {}
        self._turn: dict[str, Iterator[int]] = {}
        self._connecting = asyncio.Lock()

    async def start(self, deployment: str, serving: ServingSpec, folder: Path) -> list[str]:
        await self._connect()
        try:
            handles = [
                await asyncio.to_thread(self._replica, deployment, serving, index, folder) for index in range(serving.replicas)
            ]
        except (RayError, ValueError) as error:
            raise FleetUnavailable(f"a replica of {deployment} cannot be started: {error}") from error
        versions = await asyncio.gather(*[self._ready(handle, deployment, index) for index, handle in enumerate(handles)])
        self._handles[deployment], self._turn[deployment] = handles, itertools.count()
        return versions

    async def stop(self, deployment: str, serving: ServingSpec) -> None:
        await self._connect()
        self._handles.pop(deployment, None)
        for index in range(serving.replicas):
            await asyncio.to_thread(self._end, deployment, index)

    async def look(self, deployment: str) -> Sight:
        handles = self._handles.get(deployment)
        if handles is None:
            return Sight(missing=True)
        found = await asyncio.gather(*[asyncio.to_thread(self._version, handle) for handle in handles])
        return Sight(None in found, frozenset(version for version in found if version))

    async def answer(self, deployment: str, route: Route, body: Body) -> Reply:
        handle = self._next(deployment)
        try:
            reply = await (handle.chat(body) if route == "chat" else handle.completion(body))
        except RayError as error:
            raise FleetUnavailable(f"a replica of {deployment} did not answer: {error}") from error
        return Reply(reply.status, reply.body, reply.version)

    async def stream(self, deployment: str, route: Route, body: Body) -> AsyncIterator[Reply | str]:
        handle = self._next(deployment)
        try:
            async for item in handle.chat_stream(body) if route == "chat" else handle.completion_stream(body):
                yield Reply(item.status, item.error or {}, item.version) if isinstance(item, StreamHead) else item
        except RayError as error:
            raise FleetUnavailable(f"a replica of {deployment} did not finish its answer: {error}") from error

    async def deliver(self, deployment: str, payload: bytes) -> list[Receipt]:
        handles = self._handles.get(deployment, [])
        try:
            return list(await asyncio.gather(*[asyncio.to_thread(handle.deliver, payload) for handle in handles]))
        except (DeliveryRefused, RayError) as error:
            raise DeliveryFailed(f"a replica of {deployment} refused: {error}") from error

    def _next(self, deployment: str) -> WakeHandle:
        """Replicas take turns."""
        handles = self._handles.get(deployment)
        if not handles:
            raise FleetUnavailable(f"deployment {deployment} has no replica that answers")
        return handles[next(self._turn[deployment]) % len(handles)]

    def _replica(self, deployment: str, serving: ServingSpec, index: int, folder: Path) -> WakeHandle:
        """The replica that lives, or a new one."""
        try:
            handle = WakeHandle.attach(deployment, index)
        except ValueError:
            engine = EngineSpec(max_model_len=serving.max_model_len, gpu_memory_utilization=gpu_memory(serving.gpus))
            return WakeHandle.start(folder, deployment, index, deployment, serving.cpus, serving.gpus, engine)
        log.info("adopted replica %d of %s", index, deployment)
        return handle

    def _end(self, deployment: str, index: int) -> None:
        try:
            WakeHandle.attach(deployment, index).stop(self.settings.replica_stop_seconds)
        except ValueError:
            log.info("replica %d of %s is not there, nothing to stop", index, deployment)
        except RayError as error:
            # It did not stop by itself (dead, or hanging): taken from the cluster whatever it was doing.
            log.warning("replica %d of %s is killed: %s", index, deployment, error)
            self._kill(deployment, index)

    @staticmethod
    def _kill(deployment: str, index: int) -> None:
        with suppress(ValueError):  # it has gone by itself
            ray.kill(ray.get_actor(names.wake_replica(deployment, index), namespace=names.NAMESPACE))

    async def _ready(self, handle: WakeHandle, deployment: str, index: int) -> str:
        """Its version, once it answers. A replica whose engine failed would say so for ever: it is killed, not adopted again."""
        try:
            return await asyncio.to_thread(handle.ready, self.settings.replica_start_seconds)
        except RayError as error:
            await asyncio.to_thread(self._kill, deployment, index)
            raise FleetUnavailable(f"replica {index} of {deployment} does not start: {error}") from error

    def _version(self, handle: WakeHandle) -> str | None:
        """What a replica serves; None where it is dead, nothing where it does not say."""
        try:
            return handle.ready(self.settings.ray_request_seconds)
        except RayActorError:
            return None
        except RayError as error:
            # Slow or unreachable is not dead: a new replica under the same name could not be started beside it.
            log.warning("a replica does not say how it is: %s", error)
        return ""

    async def _connect(self) -> None:
        async with self._connecting:
            if not ray.is_initialized():
                await asyncio.to_thread(self._init)

    def _init(self) -> None:
        try:
            ray.init(address=self.settings.ray_address, namespace=names.NAMESPACE, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise FleetUnavailable(f"no Ray at {self.settings.ray_address}: {error}") from error

"""The fleet on Ray: each replica a detached actor, reached through its handle."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from actors import names
from actors.replies import StreamHead
from actors.wake import WakeHandle
from circadian.memory.delivery import DeliveryRefused, Receipt
from circadian.specs import EngineSpec
from services.fleet import Body, DeliveryFailed, FleetUnavailable, Reply, Route, ServingSpec, Sight, gpu_memory
from services.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")
THREADS = 8
"""Calls to Ray that block at the same time: each is a question to Ray's head, or an end bounded by `replica_stop_seconds`."""


class RayFleet:
    """Handles of the replicas this controller has started or adopted.

    What takes long (an engine's start, a delivery) is awaited; Ray's calls that block run in threads of the fleet's own, so that
    the database, which the rest of the controller asks in threads, answers whatever the cluster does.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fleet")
        self._handles: dict[str, list[WakeHandle]] = {}
        self._turn: dict[str, Iterator[int]] = {}
        self._connecting = asyncio.Lock()

    async def start(self, deployment: str, serving: ServingSpec, folder: Path) -> list[str]:
        await self._connect()
        try:
            handles = [
                await self._in_thread(self._replica, deployment, serving, index, folder) for index in range(serving.replicas)
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
            await self._in_thread(self._end, deployment, index)

    async def look(self, deployment: str) -> Sight:
        handles = self._handles.get(deployment)
        if handles is None:
            return Sight(missing=True)
        found = await asyncio.gather(*[self._version(handle) for handle in handles])
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
            # The caller bounds it.
            return list(await asyncio.gather(*[await self._in_thread(handle.deliver_ref, payload) for handle in handles]))
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
            async with asyncio.timeout(self.settings.replica_start_seconds):
                return await handle.ready_ref()
        except (RayError, TimeoutError) as error:
            await self._in_thread(self._kill, deployment, index)
            raise FleetUnavailable(f"replica {index} of {deployment} does not start: {error!r}") from error

    async def _version(self, handle: WakeHandle) -> str | None:
        """What a replica serves; None where it is dead, nothing where it does not say."""
        try:
            async with asyncio.timeout(self.settings.ray_request_seconds):
                return await handle.ready_ref()
        except (RayActorError, OutOfMemoryError):  # the second is how Ray tells that its memory monitor killed the actor
            return None
        except (RayError, TimeoutError) as error:
            # Slow or unreachable is not dead: a new replica under the same name could not be started beside it.
            log.warning("a replica does not say how it is: %r", error)
        return ""

    async def _connect(self) -> None:
        async with self._connecting:
            if not ray.is_initialized():
                await self._in_thread(self._init)

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a blocking call returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *args, **kwargs))

    def _init(self) -> None:
        try:
            ray.init(address=self.settings.ray_address, namespace=names.NAMESPACE, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise FleetUnavailable(f"no Ray at {self.settings.ray_address}: {error}") from error

"""The fleet on Ray Serve: one application for each deployment, reached through its handle. Serve restarts replicas that die and sends
requests to those that live; here it is told how many there are to be, and asked how they are."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from actors import names
from actors.replies import Proof, StreamHead
from actors.room import nights_apart
from actors.wake import Standing, WakeHandle, cluster_id
from actors.wake_state import WakeBroken, read_wake
from circadian.memory.envelope import DeliveryRefused
from circadian.specs import Autoscale, EngineSpec
from services.fleet import Body, DeliveryFailed, FleetUnavailable, Reply, Route, ServingSpec, Sight, gpu_memory
from services.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")
THREADS = 8
"""Calls to Ray that block at the same time: each is a question to Ray's head."""
ASK_SECONDS = 0.25
"""Between two questions to Serve about replicas that start or end."""
NOT_ANSWERED = (RayError, RayServeException)
NOT_BROUGHT = (*NOT_ANSWERED, DeliveryRefused, WakeBroken, TimeoutError)


@dataclass(frozen=True)
class _Application:
    """What a deployment's application was started from."""

    model: str
    wake: Path
    replicas: int | Autoscale
    handle: WakeHandle | None
    """None while it is scaled to nothing."""


class RayFleet:
    """The applications that this controller has started or found running.

    What takes long (an engine's start, a delivery) is awaited; Ray's calls that block run in threads of the fleet's own, so that
    the database, which the rest of the controller asks in threads, answers whatever the cluster does.
    """

    def __init__(self, settings: Settings, trusted: tuple[str, ...] = ()) -> None:
        """trusted: public keys (hexadecimal) one of which must have signed what a replica starts on; without any, nothing is verified."""
        self.settings, self.trusted = settings, trusted
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fleet")
        self._applications: dict[str, _Application] = {}
        self._others: dict[str, WakeHandle] = {}
        """To replicas that the leading controller has started, where this one only answers."""
        self._cluster = ""
        """That this process has joined."""
        self._connecting = asyncio.Lock()
        self._under_way: set[asyncio.Future[Any]] = set()
        """Questions to replicas of that cluster."""

    async def start(self, deployment: str, model: str, serving: ServingSpec, wake: Path) -> list[str]:
        await self._connect()
        state = await self._in_thread(read_wake, wake)
        replicas = serving.replicas if state.replicas is None else state.replicas
        application = await self._run(deployment, model, serving, wake, replicas)
        if application.handle is None:
            return []
        await self._until_up(deployment, _least(replicas))
        try:
            async with asyncio.timeout(self.settings.delivery_seconds):
                return [proof.version for proof in await application.handle.come()]
        except NOT_BROUGHT as error:
            if isinstance(error, DeliveryRefused):
                await self.stop(deployment)  # what no delivery makes of these, the version's folder makes of new ones
            raise FleetUnavailable(f"the replicas of {deployment} do not become {state.version}: {error!r}") from error

    async def scale(self, deployment: str, serving: ServingSpec, replicas: int | Autoscale) -> None:
        application = self._applications.get(deployment)
        if application is None:
            raise FleetUnavailable(f"deployment {deployment} has not been started here; start it first")
        await self._run(deployment, application.model, serving, application.wake, replicas)

    async def free(self) -> tuple[float, float]:
        await self._connect()
        try:
            async with asyncio.timeout(self.settings.ray_request_seconds):
                there = await self._in_thread(ray.available_resources)
                if await self._in_thread(nights_apart):
                    return math.inf, math.inf
        except (TimeoutError, *NOT_ANSWERED) as error:
            raise FleetUnavailable(f"Ray does not say what is free: {error!r}") from error
        return there.get("CPU", 0.0), there.get("GPU", 0.0)

    async def stop(self, deployment: str) -> None:
        await self._connect()
        self._applications.pop(deployment, None)
        await self._in_thread(WakeHandle.delete, deployment)
        if not await self._ended(deployment):
            # They do not stop by themselves (a long answer, or hanging): taken from the cluster whatever they are doing.
            log.warning("the replicas of %s are killed", deployment)
            await self._in_thread(WakeHandle.kill, deployment)
            await self._ended(deployment)

    async def look(self, deployment: str) -> Sight:
        application = self._applications.get(deployment)
        if application is None or not await self._leave_what_has_gone():
            return Sight(missing=True)
        if application.handle is None:
            return Sight(missing=False)
        try:
            async with asyncio.timeout(self.settings.ray_request_seconds):
                standing = await self._in_thread(WakeHandle.standing, deployment) or Standing()
                if not standing.running:
                    return Sight(missing=True, starting=standing.coming > 0)
                versions = await application.handle.versions()
            return Sight(False, frozenset(versions), standing.coming > 0, standing.running)
        except (*NOT_ANSWERED, TimeoutError) as error:
            # Slow or unreachable is not gone; where a replica has died the next look finds another, or none.
            log.warning("a replica of %s does not say how it is: %r", deployment, error)
            return Sight(missing=False)

    async def serves(self, deployment: str) -> bool:
        try:
            await self._connect()
            standing = await self._asked(deployment)
        except FleetUnavailable as error:
            log.info("nobody says whether a replica of %s answers: %s", deployment, error)
            return False
        return standing is not None and standing.running > 0

    async def answer(self, deployment: str, route: Route, body: Body) -> Reply:
        handle = await self._reach(deployment)
        try:
            reply = await self._while_there(handle.chat(body) if route == "chat" else handle.completion(body))
        except NOT_ANSWERED as error:
            self._others.pop(deployment, None)
            raise FleetUnavailable(f"a replica of {deployment} did not answer: {error}") from error
        return Reply(reply.status, reply.body, reply.version)

    async def stream(self, deployment: str, route: Route, body: Body) -> AsyncIterator[Reply | str]:
        handle = await self._reach(deployment)
        try:
            pieces = handle.chat_stream(body) if route == "chat" else handle.completion_stream(body)
            async with aclosing(pieces):
                while (item := await self._while_there(anext(pieces, None))) is not None:
                    yield Reply(item.status, item.error or {}, item.version) if isinstance(item, StreamHead) else item
        except NOT_ANSWERED as error:
            self._others.pop(deployment, None)
            raise FleetUnavailable(f"a replica of {deployment} did not finish its answer: {error}") from error

    async def watch(self) -> None:
        """Consumes the cluster's identity; produces FleetUnavailable for whoever waits for one that has gone; waits for the next look.

        Every controller does, because one that only answers looks at no replica: it would ask those of the last cluster for ever.
        """
        while True:
            await asyncio.sleep(self.settings.replica_check_seconds)
            if self._cluster:
                await self._leave_what_has_gone()

    async def deliver(self, deployment: str, payload: bytes) -> list[Proof]:
        try:
            handle = self._handle(deployment)
            standing = await self._in_thread(WakeHandle.standing, deployment) or Standing()
            proofs = await handle.deliver(payload)  # the caller bounds it
        except (FleetUnavailable, *NOT_BROUGHT) as error:
            raise DeliveryFailed(f"a replica of {deployment} refused: {error!r}") from error
        if len(proofs) < standing.running:
            raise DeliveryFailed(f"{len(proofs)} of {standing.running} replicas of {deployment} have heard of the delivery")
        return proofs

    async def _while_there(self, work: Awaitable[T]) -> T:
        """What it comes to. Raises FleetUnavailable where the cluster goes meanwhile: Serve would look for its replicas in the next one,
        for as long as anybody waits."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        try:
            return await task
        except asyncio.CancelledError as error:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise FleetUnavailable("the cluster has gone") from error
        finally:
            self._under_way.discard(task)

    async def _reach(self, deployment: str) -> WakeHandle:
        """The replicas, whoever has started them. Raises FleetUnavailable."""
        if deployment in self._applications:
            return self._handle(deployment)
        if deployment not in self._others:
            await self._connect()
            try:
                self._others[deployment] = await self._in_thread(WakeHandle.attach, deployment)
            except NOT_ANSWERED as error:
                raise FleetUnavailable(f"deployment {deployment} has no replica that answers") from error
        return self._others[deployment]

    def _handle(self, deployment: str) -> WakeHandle:
        application = self._applications.get(deployment)
        if application is None or application.handle is None:
            raise FleetUnavailable(f"deployment {deployment} has no replica that answers")
        return application.handle

    async def _run(self, deployment: str, model: str, serving: ServingSpec, wake: Path, replicas: int | Autoscale) -> _Application:
        """Tell Serve what is to be."""
        handle = None
        try:
            if replicas == 0:
                await self._in_thread(WakeHandle.delete, deployment)
            else:
                engine = EngineSpec(max_model_len=serving.max_model_len, gpu_memory_utilization=gpu_memory(serving.gpus))
                resources, drain = (serving.cpus, serving.gpus), self.settings.replica_drain_seconds
                handle = await self._in_thread(
                    WakeHandle.run, deployment, model, wake, replicas, *resources, engine, drain, self.trusted
                )
        except (*NOT_ANSWERED, ValueError) as error:
            raise FleetUnavailable(f"the replicas of {deployment} cannot be started: {error}") from error
        application = self._applications[deployment] = _Application(model, wake, replicas, handle)
        return application

    async def _until_up(self, deployment: str, least: int) -> None:
        """Until so many run; when the time is over one is enough. Raises FleetUnavailable where there is none: all are ended."""
        deadline, standing = time.monotonic() + self.settings.replica_start_seconds, Standing()
        while time.monotonic() < deadline and not standing.failed:
            standing = await self._asked(deployment) or Standing()
            if standing.running >= least:
                return
            await asyncio.sleep(ASK_SECONDS)
        if standing.running and not standing.failed:
            log.warning("%d of %d replicas of %s have come up", standing.running, least, deployment)
            return
        await self.stop(deployment)
        why = standing.failed or f"none answers after {self.settings.replica_start_seconds} s. {standing.said}".rstrip(". ")
        raise FleetUnavailable(f"the replicas of {deployment} do not start: {why}")

    async def _ended(self, deployment: str) -> bool:
        deadline = time.monotonic() + self.settings.replica_stop_seconds
        while time.monotonic() < deadline:
            if await self._in_thread(WakeHandle.gone, deployment):
                return True
            await asyncio.sleep(ASK_SECONDS)
        return False

    async def _asked(self, deployment: str) -> Standing | None:
        try:
            async with asyncio.timeout(self.settings.ray_request_seconds):
                return await self._in_thread(WakeHandle.standing, deployment)
        except (TimeoutError, *NOT_ANSWERED) as error:
            raise FleetUnavailable(f"Ray does not say how the replicas of {deployment} are: {error!r}") from error

    async def put(self, question: Callable[[], ObjectRef[T]]) -> ObjectRef[T]:
        """Ask this cluster something that blocks no longer than the asking. Raises FleetUnavailable."""
        await self._connect()
        return await self._in_thread(question)

    async def answered(self, ref: ObjectRef[T]) -> T:
        """What comes of it. Raises FleetUnavailable where the cluster goes meanwhile, and RayError."""
        return await self._while_there(ref)

    async def _connect(self) -> None:
        """Be in the cluster that answers now. Raises FleetUnavailable.

        It is done to its end also where whoever waits for it goes: Ray joins one cluster at a time.
        """
        await asyncio.shield(self._join())

    async def _join(self) -> None:
        await self._leave_what_has_gone()
        async with self._connecting:
            await self._in_thread(self._init)

    async def _leave_what_has_gone(self) -> bool:
        """Is the cluster there that was joined? If not, nothing of it is of use, and Ray would end this process for its sake."""
        async with self._connecting:
            if self._cluster and await self._in_thread(cluster_id) == self._cluster:
                return True
            if self._cluster:
                log.error("the Ray cluster at %s has gone, or was started anew", self.settings.ray_address)
                await self._in_thread(ray.shutdown)
            for question in self._under_way:
                question.cancel()
            self._applications.clear()
            self._others.clear()
            self._cluster = ""
            return False

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a blocking call returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *args, **kwargs))

    def _init(self) -> None:
        try:
            if not ray.is_initialized():
                self._knock()
                ray.init(address=self.settings.ray_address, namespace=names.NAMESPACE, log_to_driver=False)
            WakeHandle.open()
        except (OSError, RuntimeError, ValueError, *NOT_ANSWERED) as error:
            raise FleetUnavailable(f"no Ray at {self.settings.ray_address}: {error}") from error
        self._cluster = cluster_id()

    def _knock(self) -> None:
        """Raises OSError where nobody listens: Ray would go on trying for a quarter of an hour."""
        host, _, port = self.settings.ray_address.rpartition(":")
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=self.settings.ray_request_seconds).close()


def _least(replicas: int | Autoscale) -> int:
    return replicas.min if isinstance(replicas, Autoscale) else replicas

"""The wake replicas of a deployment as the rest of the cluster sees them: a Ray Serve application and the handle that reaches it.

Why our own class behind Serve and not `ray.serve.llm`: docs/decisions/0020-wake-on-serve.md.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ray
from ray import serve
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.exceptions import RpcError
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from actors import names
from actors.replies import Endpoint, Proof, Reply, StreamHead
from actors.wake_replica import WakeReplica
from circadian.specs import Autoscale, EngineSpec

CONTROL_SECONDS = 180.0
"""Bound of a delivery or a question about the replicas, above the engine's own, and of a health check, in which a delivery may be made."""
ANSWER_SECONDS = 1800.0
"""Bound of one answer; of a stream, of the wait for its next event."""
DRAIN_SECONDS = 300.0
"""A replica that is no longer wanted ends its requests within this time; what is left then breaks off."""
DRAIN_POLL_SECONDS = 0.5
HEALTH_SECONDS = 2.0
"""Between two health checks: a lost engine, or a missed delivery, is noticed after one or two."""
MOST_REQUESTS = 1000
"""Under way at one replica: its engine has a line of its own. Serve's default of 5 would leave it idle."""
MOST_WAITING = 1000
"""Requests that wait in this process for a replica that starts."""
STARTS = 3
"""Of replicas, without one that came up, until Serve says that the deployment has failed."""


TRIES = 20
"""Of a call in which Serve got in its own way."""
T = TypeVar("T")
P = ParamSpec("P")


def again(call: Callable[P, T]) -> Callable[P, T]:
    """The call, made again where Serve got in its own way.

    Ray Serve 2.60 writes every config that it makes or reads by way of a registry of the whole process. Where two threads do so at the same
    moment, one of them finds its entry gone.
    """

    @functools.wraps(call)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return call(*args, **kwargs)
            except ValueError as error:
                if "is not registered for pickle by value" not in str(error):
                    raise
        return call(*args, **kwargs)

    return tried


def replica_options(num_cpus: float, num_gpus: float) -> dict[str, Any]:
    """What a replica asks Ray for. Without roles there is no word of them: an option more would replace every replica that runs."""
    role = names.role("wake")
    room: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus} | ({"resources": role} if role else {})
    return room | {"runtime_env": {"env_vars": names.vllm_environment()}}


@dataclass(frozen=True)
class Standing:
    """What Serve says of an application."""

    running: int = 0
    """Replicas that take requests."""
    coming: int = 0
    """Replicas that start."""
    failed: str = ""
    """Why none came up, and Serve has given up."""
    said: str = ""
    """What Serve says of replicas that start: which room they wait for, once that takes long."""


class WakeHandle:
    """Talks to the replicas of one deployment: a request goes to one of them, control to every one that runs.

    What returns a coroutine waits without a thread; `run`, `standing`, `delete` and `kill` block.
    """

    def __init__(self, deployment: str, handle: Any) -> None:
        self._deployment, self._handle = deployment, handle
        self._streams = handle.options(stream=True)

    @classmethod
    @again
    def run(
        cls,
        deployment: str,
        model: str,
        wake_file: Path,
        replicas: int | Autoscale = 1,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        engine: EngineSpec | None = None,
        drain_seconds: float = DRAIN_SECONDS,
        trusted: tuple[str, ...] = (),
    ) -> WakeHandle:
        """Have so many replicas serve what the wake file says, under this model name; those that live go on. Does not wait for them:
        `standing` tells.

        trusted: public keys (hexadecimal), one of which must have signed the version; without any, nothing is verified.
        Replicas that are too many end their requests first. Where anything but their number has changed, they are replaced.
        """
        engine = engine or EngineSpec()
        scale: dict[str, Any] = {"num_replicas": replicas}
        if isinstance(replicas, Autoscale):
            bounds = {"min_replicas": replicas.min, "max_replicas": replicas.max}
            scale = {"autoscaling_config": bounds | {"target_ongoing_requests": replicas.target_ongoing_requests}}
        replica = serve.deployment(
            name=names.WAKE_REPLICA,
            ray_actor_options=replica_options(num_cpus, num_gpus),
            max_ongoing_requests=MOST_REQUESTS,
            max_queued_requests=MOST_WAITING,
            graceful_shutdown_timeout_s=drain_seconds,
            graceful_shutdown_wait_loop_s=DRAIN_POLL_SECONDS,
            health_check_period_s=HEALTH_SECONDS,
            health_check_timeout_s=CONTROL_SECONDS,
            max_constructor_retry_count=STARTS,
            logging_config={"enable_access_log": False},
            **scale,
        )(WakeReplica)
        # Without a version of our own Serve takes a new one at each call and replaces every replica. The switch is Serve's own.
        code = hashlib.sha256(f"{wake_file} {model} {engine.model_dump_json()} {trusted}".encode()).hexdigest()
        bound = replica.options(version=code, _internal=True).bind(str(wake_file), model, engine, trusted)
        target = serve.RunTarget(bound, name=names.wake_application(deployment), route_prefix=None)
        (handle,) = serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        return cls(deployment, handle)

    @classmethod
    @again
    def attach(cls, deployment: str) -> WakeHandle:
        """To replicas that another process has started. Raises RayServeException where there are none."""
        return cls(deployment, serve.get_app_handle(names.wake_application(deployment)))

    @staticmethod
    @again
    def open() -> None:
        """Start Serve in the cluster that this process has joined, unless it runs: without a proxy, so nothing listens for HTTP."""
        serve.start(proxy_location="Disabled", logging_config={"enable_access_log": False})

    @staticmethod
    @again
    def standing(deployment: str) -> Standing | None:
        """How the application is; None where there is none."""
        found = serve.status().applications.get(names.wake_application(deployment))
        if found is None or found.status in (ApplicationStatus.DELETING, ApplicationStatus.NOT_STARTED):
            return None
        counts: dict[Any, int] = {}
        for replica in found.deployments.values():
            counts |= replica.replica_states
        failed = found.status is ApplicationStatus.DEPLOY_FAILED
        said = " ".join([found.message, *(replica.message for replica in found.deployments.values())]).strip()
        coming = sum(counts.get(state, 0) for state in ("STARTING", "UPDATING", "RECOVERING"))
        return Standing(counts.get("RUNNING", 0), coming, (said or "it does not say why") if failed else "", said)

    @staticmethod
    @again
    def gone(deployment: str) -> bool:
        """Is the application there no more, and none of its replicas?"""
        return names.wake_application(deployment) not in serve.status().applications

    @staticmethod
    @again
    def delete(deployment: str) -> None:
        """End the application, its requests first. Does not wait."""
        with suppress(RayServeException):  # there is no Serve
            serve.delete(names.wake_application(deployment), _blocking=False)

    @staticmethod
    def kill(deployment: str) -> None:
        """End whatever is left of its replicas, whatever they do."""
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == SERVE_NAMESPACE and actor["name"].startswith(names.wake_actors(deployment)):
                with suppress(ValueError):  # it has gone by itself
                    ray.kill(ray.get_actor(actor["name"], namespace=SERVE_NAMESPACE))

    async def chat(self, body: dict[str, Any]) -> Reply:
        """POST /v1/chat/completions without streaming. A caller that is cancelled, or has waited too long, aborts the request."""
        return await _answer(self._handle.chat.remote(body))

    async def completion(self, body: dict[str, Any]) -> Reply:
        """POST /v1/completions without streaming. A caller that is cancelled, or has waited too long, aborts the request."""
        return await _answer(self._handle.completion.remote(body))

    def chat_stream(self, body: dict[str, Any]) -> AsyncGenerator[StreamHead | str, None]:
        """A StreamHead, then server-sent events. Closing the iterator aborts the request."""
        return self._stream("chat", body)

    def completion_stream(self, body: dict[str, Any]) -> AsyncGenerator[StreamHead | str, None]:
        """A StreamHead, then server-sent events. Closing the iterator aborts the request."""
        return self._stream("completion", body)

    async def versions(self) -> list[str]:
        """What each replica answers as. Raises what the first that fails raises, RayServeException where none runs."""
        return await self._every(WakeReplica.version)

    async def deliver(self, payload: bytes) -> list[Proof]:
        """Make every replica the delivered version. Raises DeliveryRefused, and as `versions` does."""
        return await self._every(WakeReplica.deliver, payload)

    async def come(self) -> list[Proof]:
        """Make every replica what the wake file says, now. Raises DeliveryRefused and WakeBroken, and as `versions` does."""
        return await self._every(WakeReplica.come)

    async def active(self) -> list[dict[str, Any]]:
        """Of each replica: `version`, `model`, `checksum`, `experts`, `mask`, `in_flight`, `usage`. Raises as `versions` does."""
        return await self._every(WakeReplica.active)

    async def prove(self, prompts: list[list[int]], max_tokens: int = 8) -> list[list[list[int]]]:
        """Greedy completions (token ids) of known prompts, by each replica."""
        return await self._every(WakeReplica.prove, prompts, max_tokens)

    async def _every(self, method: Any, *args: Any) -> list[Any]:
        """What each replica that runs says to this."""
        return await self._handle.broadcast(method.__name__, *args).results_async(timeout_s=CONTROL_SECONDS)

    async def _stream(self, endpoint: Endpoint, body: dict[str, Any]) -> AsyncGenerator[StreamHead | str, None]:
        items = (self._streams.chat_stream if endpoint == "chat" else self._streams.completion_stream).remote(body)
        finished = False
        try:
            while True:
                try:
                    item = await asyncio.wait_for(anext(items), ANSWER_SECONDS)
                except StopAsyncIteration:
                    break
                yield item
            finished = True
        finally:
            if not finished:
                items.cancel()


def cluster_id() -> str:
    """Which cluster answers where this process has joined one; nothing where this process has not, or none answers for 40 seconds.

    Asked over a connection of its own: the one that Ray keeps takes another cluster at the same address for its own, some of its questions
    are then never answered, and where nobody answers for a minute it ends the process.
    """
    if not ray.is_initialized():
        return ""
    try:
        return GcsClient(address=ray.get_runtime_context().gcs_address).cluster_id.hex()
    except RpcError:
        return ""


async def _answer(response: Any) -> Reply:
    """The result of a request, which is cancelled where nobody waits for it any longer."""
    try:
        return await asyncio.wait_for(response, ANSWER_SECONDS)
    except (TimeoutError, asyncio.CancelledError):
        response.cancel()
        raise

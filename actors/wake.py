"""The wake replica: answers clients, and becomes another version in place while it does.

consumes     OpenAI request bodies (from the controller), deliveries (from the controller: at dawn, at dusk, online)
produces     answers, each with the version that began it; receipts; proofs
waits for    its engine's start, and (new requests) the milliseconds of a delivery
unblocked by the engine

A replica outlives the job that started it and is not restarted by Ray: a restarted one would come back as the version of its first
start without saying so. Likewise a replica that is asked how it is and finds its engine lost ends itself, which gives its name free.
Whoever keeps replicas running starts a new one from the active version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray import ObjectRef

from actors import names
from actors.replies import Endpoint, EngineLost, Reply, StreamHead
from circadian.memory.delivery import Receipt
from circadian.specs import EngineSpec

if TYPE_CHECKING:
    from actors.answering import OpenAIAnswering

logger = logging.getLogger(__name__)
T = TypeVar("T")

STOP_SECONDS = 60.0
CONTROL_SECONDS = 180.0
"""Bound of a delivery or a question about the replica, above the engine's own."""
ANSWER_SECONDS = 1800.0
"""Bound of one answer; of a stream, of the wait for its next event."""


class WakeReplica:
    """The actor's class; callers use WakeHandle."""

    def __init__(self, version_folder: str, model_name: str, engine: EngineSpec) -> None:
        from actors.engine import LazyEngine  # vLLM takes seconds to import, and callers need only the handle

        self._engine = LazyEngine(Path(version_folder), engine)
        self._model_name = model_name
        self._answering: OpenAIAnswering | None = None

    async def ready(self) -> str:
        """The version that answers, once it does. Where it never will again the replica ends, which Ray tells the caller."""
        return (await self._living()).engine.version

    async def chat(self, body: dict[str, Any]) -> Reply:
        """POST /v1/chat/completions without streaming."""
        return await (await self._front()).answer("chat", body)

    async def completion(self, body: dict[str, Any]) -> Reply:
        """POST /v1/completions without streaming."""
        return await (await self._front()).answer("completion", body)

    async def chat_stream(self, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        """POST /v1/chat/completions as a stream: a head, then server-sent events."""
        async for item in (await self._front()).stream("chat", body):
            yield item

    async def completion_stream(self, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        """POST /v1/completions as a stream: a head, then server-sent events."""
        async for item in (await self._front()).stream("completion", body):
            yield item

    async def deliver(self, payload: bytes) -> Receipt:
        """Become the delivered version; requests in flight are finished by it. Raises DeliveryRefused and is then unchanged."""
        return await (await self._front()).engine.deliver(payload)

    async def active(self) -> dict[str, Any]:
        """What answers now: version, checksum of all experts read back, their states, mask, requests under way, tokens answered.

        Where nothing answers any more the replica ends, as in `ready`.
        """
        front = await self._living()
        return {
            "version": front.engine.version,
            "model": front.model_name,
            **await front.engine.holds(),
            "in_flight": front.engine.in_flight,
            "usage": asdict(front.usage),
        }

    async def prove(self, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
        """Greedy completions of known prompts, to compare with known answers."""
        return await (await self._front()).engine.sample(prompts, max_tokens=max_tokens, temperature=0.0, seed=0)

    async def set_version_label(self, version: str) -> None:
        """Answer under another version's name with the same memory."""
        await (await self._front()).engine.relabel(version)

    async def shutdown(self) -> None:
        """End the engine's processes."""
        await self._engine.shutdown()

    async def _living(self) -> OpenAIAnswering:
        """The front, if the engine behind it lives; otherwise the actor's end."""
        front = await self._front()
        try:
            front.engine.check()
        except EngineLost as lost:
            logger.error("the replica ends: %s", lost)
            front.engine.shutdown()
            ray.actor.exit_actor()
        return front

    async def _front(self) -> OpenAIAnswering:
        engine = await self._engine.get()
        if self._answering is None:
            from actors.answering import OpenAIAnswering

            self._answering = OpenAIAnswering(engine, self._model_name)
        return self._answering


class WakeHandle:
    """How the rest of the cluster talks to one wake replica.

    Answers are coroutines, for the controller's event loop; control is blocking. Methods that end in `_ref` do not wait.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def start(
        cls,
        version_folder: Path,
        deployment: str,
        index: int,
        model_name: str,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        engine: EngineSpec | None = None,
    ) -> WakeHandle:
        """A new replica, which stays until `stop`. Does not wait for its engine; `ready` does. Raises ValueError if it exists."""
        actor = (
            ray.remote(WakeReplica)
            .options(
                name=names.wake_replica(deployment, index),
                namespace=names.NAMESPACE,
                lifetime="detached",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                runtime_env={"env_vars": names.vllm_environment()},
            )
            .remote(str(version_folder), model_name, engine or EngineSpec())
        )
        return cls(actor)

    @classmethod
    def attach(cls, deployment: str, index: int) -> WakeHandle:
        """The replica that another process of this cluster started. Raises ValueError where there is none."""
        return cls(ray.get_actor(names.wake_replica(deployment, index), namespace=names.NAMESPACE))

    async def chat(self, body: dict[str, Any]) -> Reply:
        """POST /v1/chat/completions without streaming. A caller that is cancelled, or has waited too long, aborts the request."""
        return await _answer(self._actor.chat.remote(body))

    async def completion(self, body: dict[str, Any]) -> Reply:
        """POST /v1/completions without streaming. A caller that is cancelled, or has waited too long, aborts the request."""
        return await _answer(self._actor.completion.remote(body))

    def chat_stream(self, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        """A StreamHead, then server-sent events. Closing the iterator aborts the request."""
        return self._stream("chat", body)

    def completion_stream(self, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        """A StreamHead, then server-sent events. Closing the iterator aborts the request."""
        return self._stream("completion", body)

    def ready(self, seconds: float = EngineSpec().start_seconds) -> str:
        """The version that answers, once it does. Raises Ray's RayActorError where the replica, or the engine in it, is dead."""
        return ray.get(self.ready_ref(), timeout=seconds)

    def ready_ref(self) -> ObjectRef[str]:
        """The same as a reference."""
        return self._actor.ready.remote()

    def deliver(self, payload: bytes) -> Receipt:
        """Make the replica the delivered version. Raises DeliveryRefused."""
        return ray.get(self.deliver_ref(payload), timeout=CONTROL_SECONDS)

    def deliver_ref(self, payload: bytes) -> ObjectRef[Receipt]:
        """The same as a reference."""
        return self._actor.deliver.remote(payload)

    def active(self) -> dict[str, Any]:
        """What answers now: `version`, `model`, `checksum`, `experts`, `mask`, `in_flight`, `usage`. Raises as `ready` does."""
        return ray.get(self.active_ref(), timeout=CONTROL_SECONDS)

    def active_ref(self) -> ObjectRef[dict[str, Any]]:
        """The same as a reference."""
        return self._actor.active.remote()

    def prove(self, prompts: list[list[int]], max_tokens: int = 8) -> list[list[int]]:
        """Greedy completions (token ids) of known prompts."""
        return ray.get(self.prove_ref(prompts, max_tokens), timeout=CONTROL_SECONDS)

    def prove_ref(self, prompts: list[list[int]], max_tokens: int = 8) -> ObjectRef[list[list[int]]]:
        """The same as a reference."""
        return self._actor.prove.remote(prompts, max_tokens)

    def set_version_label(self, version: str) -> None:
        """Let the replica answer under another version's name with the same memory."""
        ray.get(self._actor.set_version_label.remote(version), timeout=CONTROL_SECONDS)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the engine's processes, then the replica."""
        ray.get(self._actor.shutdown.remote(), timeout=seconds)
        ray.kill(self._actor)

    async def _stream(self, endpoint: Endpoint, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        method: Any = self._actor.chat_stream if endpoint == "chat" else self._actor.completion_stream
        items: Any = method.options(num_returns="streaming").remote(body)
        finished = False
        try:
            while True:
                try:
                    ref = await asyncio.wait_for(anext(items), ANSWER_SECONDS)
                except StopAsyncIteration:
                    break
                yield await ref
            finished = True
        finally:
            if not finished:
                ray.cancel(items)


async def _answer(ref: ObjectRef[T]) -> T:
    """The result of a remote call, which is cancelled where nobody waits for it any longer."""
    try:
        return await asyncio.wait_for(ref, ANSWER_SECONDS)
    except (TimeoutError, asyncio.CancelledError):
        ray.cancel(ref)
        raise

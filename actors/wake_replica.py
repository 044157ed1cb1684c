"""One wake replica, as Ray Serve runs it: answers clients, and becomes another version in place while it does.

consumes     OpenAI request bodies and deliveries (from the controller, by a Serve handle), the deployment's wake file
produces     answers, each with the version that began it; proofs
waits for    its engine's start, and (new requests) the milliseconds of a delivery
unblocked by the engine

A replica takes no request before it is what the wake file says (wake_state.py) and has read that back. A delivery is handed to all
replicas at once; one that was starting meanwhile finds the change at its next health checks and makes it by itself. What cannot be
made there (a file is missing, a delivery refuses) is logged and leaves the replica as it is: it still answers, under the version that it
still is, and the controller sees that.

A replica that finds its engine lost ends itself, at a request or at a health check: Serve then sends requests to the others and starts
a new one in its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from actors.replies import EngineLost, Proof, Reply, StreamHead
from actors.wake_state import Memory, WakeBroken, WakeState, payloads, promised_memory, read_wake
from circadian.memory.envelope import DeliveryRefused, Receipt
from circadian.memory.signature import verify
from circadian.memory.signing_keys import public_key
from circadian.specs import EngineSpec

if TYPE_CHECKING:
    from actors.answering import OpenAIAnswering
    from actors.engine import MemoryEngine

logger = logging.getLogger(__name__)


class WakeReplica:
    """The class of the Serve deployment; callers use WakeHandle."""

    _engine: MemoryEngine | None = None

    async def __init__(self, wake_file: str, model_name: str, engine: EngineSpec, trusted: tuple[str, ...] = ()) -> None:  # type: ignore[misc]  # Serve awaits it
        listen_where_ray_does()
        from actors.answering import OpenAIAnswering  # vLLM takes seconds to import, and callers need only the handle
        from actors.engine import MemoryEngine
        from circadian.memory.version import beginning_token, load_tokenizer

        self._file, self._turn = Path(wake_file), asyncio.Lock()
        self._is: WakeState | None = None
        """What the replica has proved to be; None where that is not what the file says."""
        self._missed: WakeState | None = None
        folder = Path(read_wake(self._file).folder)
        if trusted:
            await asyncio.to_thread(verify, folder, *map(public_key, trusted))
        self._question = [beginning_token(load_tokenizer(folder))]
        self._engine = await MemoryEngine.start(folder, engine)
        self._front: OpenAIAnswering = OpenAIAnswering(self._engine, model_name)
        await self.come()

    def __del__(self) -> None:
        """Serve calls this when the last request has ended."""
        if self._engine is not None:
            self._engine.shutdown()

    async def check_health(self) -> None:
        """Asked by Serve every few seconds, and before the first request."""
        self._living()
        try:
            await self._follow()
        except (WakeBroken, DeliveryRefused) as error:
            logger.error("the replica stays %s: %s", self._living().version, error)

    async def chat(self, body: dict[str, Any]) -> Reply:
        """POST /v1/chat/completions without streaming."""
        self._living()
        return await self._front.answer("chat", body)

    async def completion(self, body: dict[str, Any]) -> Reply:
        """POST /v1/completions without streaming."""
        self._living()
        return await self._front.answer("completion", body)

    async def chat_stream(self, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        """POST /v1/chat/completions as a stream: a head, then server-sent events."""
        self._living()
        async for item in self._front.stream("chat", body):
            yield item

    async def completion_stream(self, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        """POST /v1/completions as a stream: a head, then server-sent events."""
        self._living()
        async for item in self._front.stream("completion", body):
            yield item

    async def version(self) -> str:
        """Under which it answers."""
        return self._living().version

    async def deliver(self, payload: bytes) -> Proof:
        """Become the delivered version; requests in flight are finished by it. Raises DeliveryRefused and is then unchanged."""
        async with self._turn:
            receipt = await self._living().deliver(payload)
            state = read_wake(self._file)
            self._is = state if state.made_by(receipt.version, receipt.checksum) else None
            return await self._proof(receipt)

    async def come(self) -> Proof:
        """Become what the wake file says, where it is something else, and read that back. Raises WakeBroken and DeliveryRefused."""
        async with self._turn:
            state = read_wake(self._file)
            receipt = await self._bring(state)
            self._is = state
            return await self._proof(receipt)

    async def active(self) -> dict[str, Any]:
        """What answers now: version, checksum of all experts read back, their states, mask, requests under way, tokens answered."""
        engine = self._living()
        return {
            "version": engine.version,
            "model": self._front.model_name,
            **await engine.holds(),
            "in_flight": engine.in_flight,
            "usage": asdict(self._front.usage),
        }

    async def prove(self, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
        """Greedy completions of known prompts, to compare with known answers."""
        return await self._living().sample(prompts, max_tokens=max_tokens, temperature=0.0, seed=0)

    async def _follow(self) -> None:
        """Come after a change of the wake file; at its second sight, because at the first its delivery may be on the way."""
        wanted = await asyncio.to_thread(read_wake, self._file)
        if wanted.serves_like(self._is):
            self._missed = None
        elif wanted.serves_like(self._missed):
            proof = await self.come()
            logger.warning("the replica has missed a delivery and has made up for it: version %s", proof.version)
        else:
            self._missed = wanted

    async def _bring(self, state: WakeState) -> Receipt:
        engine, promised = self._living(), await asyncio.to_thread(promised_memory, state)
        delivered, milliseconds = 0, 0.0
        if await self._memory() != promised:
            for payload in await asyncio.to_thread(payloads, state, engine.version):
                receipt = await engine.deliver(payload)
                delivered, milliseconds = delivered + receipt.bytes, milliseconds + receipt.milliseconds
        if engine.version != state.version:
            await engine.relabel(state.version)
        held = await self._memory()
        if held != promised:
            raise DeliveryRefused(f"{state.version}: read back {held.checksum[:12]}, promised {promised.checksum[:12]}")
        return Receipt(state.version, held.checksum, delivered, milliseconds)

    async def _memory(self) -> Memory:
        held = await self._living().holds()
        return Memory.of(held["checksum"], held["experts"])

    async def _proof(self, receipt: Receipt) -> Proof:
        from actors.known_answer import known_answer

        return Proof(**asdict(receipt), answer=await known_answer(self._living(), self._question))

    def _living(self) -> MemoryEngine:
        """The engine, if it lives; otherwise the replica's end."""
        assert self._engine is not None, "Serve calls nothing before the constructor has ended"
        try:
            self._engine.check()
        except EngineLost as lost:
            logger.error("the replica ends: %s", lost)
            self._engine.shutdown()
            ray.actor.exit_actor()
        return self._engine


def listen_where_ray_does() -> None:
    """Let the server over which replicas of one application can call each other listen at the node's own address.

    Ray Serve 2.60 starts it in every replica, on every address of the machine, and has no setting for it. Nothing here calls it. Must
    run in the replica's process before Serve has it listen, hence in the constructor; raises AttributeError where Serve is built otherwise.
    """
    import ray.serve._private.replica as serve_replica

    address, bind = ray.util.get_node_ip_address(), serve_replica.add_port_to_grpc_server
    place = f"[{address}]:0" if ":" in address else f"{address}:0"
    serve_replica.add_port_to_grpc_server = lambda server, _: bind(server, place)

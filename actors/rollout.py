"""The rollout worker: writes completions for one attempt at a night, in any view, with the latest delivered student.

consumes     prompts with a view (from the learner), deliveries (from the learner)
produces     completions as token ids, receipts
waits for    its engine's start, and its turn: a view and a version are engine-wide, so batches and deliveries take turns
unblocked by the batch or delivery before it

A batch is therefore written wholly in one view by one version, and concurrent callers never see each other's mask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from actors import names
from actors.replies import Read
from actors.telling import tell
from circadian import metrics
from circadian.memory.envelope import Receipt
from circadian.specs import EngineSpec

STOP_SECONDS = 60.0
MARGIN_SECONDS = 60.0
"""What a call may take beyond the engine's own bound, for its way there and back."""

Tokens = list[list[int]]


class RolloutWorker:
    """The actor's class; callers use RolloutHandle."""

    def __init__(self, version_folder: str, engine: EngineSpec) -> None:
        from actors.engine import LazyEngine  # vLLM takes seconds to import, and callers need only the handle

        self._engine = LazyEngine(Path(version_folder), engine)
        self._turn = asyncio.Lock()

    async def ready(self) -> str:
        """The version that answers, once it does. Raises EngineLost where it will not answer any more."""
        engine = await self._engine.get()
        engine.check()
        return engine.version

    async def sample(
        self,
        view: Sequence[float] | None,
        prompts: Tokens,
        samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int],
        adapters: Sequence[str] = (),
    ) -> Tokens:
        """Completions in this view; see MemoryEngine.sample."""
        engine = await self._engine.get()
        async with self._turn:
            await engine.set_view(view)
            started = time.perf_counter()
            written = await engine.sample(
                prompts, samples=samples, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop, adapters=adapters
            )
        tell(metrics.ROLLOUT_TOKENS, sum(map(len, written)))
        tell(metrics.ROLLOUT_SECONDS, time.perf_counter() - started)
        return written

    async def read(self, view: Sequence[float] | None, tokens: Tokens) -> list[list[Read]]:
        """How this view expects texts; see MemoryEngine.read."""
        engine = await self._engine.get()
        async with self._turn:
            await engine.set_view(view)
            return await engine.read(tokens)

    async def deliver(self, payload: bytes) -> Receipt:
        """Become the delivered version. Raises DeliveryRefused."""
        engine = await self._engine.get()
        async with self._turn:
            return await engine.deliver(payload)

    async def shutdown(self) -> None:
        """End the engine's processes."""
        await self._engine.shutdown()


class RolloutHandle:
    """How the rest of the cluster talks to one rollout worker. Methods that end in `_ref` do not wait."""

    def __init__(self, actor: Any, engine: EngineSpec) -> None:
        self._actor = actor
        self._start_seconds = engine.start_seconds
        self._seconds = engine.generate_seconds + engine.control_seconds + MARGIN_SECONDS

    @classmethod
    def start(
        cls,
        version_folder: Path,
        sleep: str,
        attempt: int,
        index: int,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        engine: EngineSpec | None = None,
    ) -> RolloutHandle:
        """A new worker of this attempt, gone when the job that started it is. Does not wait for its engine; `ready` does."""
        engine = engine or EngineSpec()
        actor = (
            ray.remote(RolloutWorker)
            .options(
                name=names.rollout_worker(sleep, attempt, index),
                namespace=names.NAMESPACE,
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                resources=names.role("rollout"),
                runtime_env={"env_vars": names.vllm_environment()},
            )
            .remote(str(version_folder), engine)
        )
        return cls(actor, engine)

    @classmethod
    def attach(cls, name: str, engine: EngineSpec | None = None) -> RolloutHandle:
        """The worker of this name (names.rollout_worker) that another process of this cluster started; `engine` is its spec.

        Raises ValueError where there is none.
        """
        return cls(ray.get_actor(name, namespace=names.NAMESPACE), engine or EngineSpec())

    def ready(self) -> str:
        """The version that answers, once it does."""
        return ray.get(self.ready_ref(), timeout=self._start_seconds)

    def ready_ref(self) -> ray.ObjectRef[str]:
        """The same as a reference, so that several workers start at once."""
        return self._actor.ready.remote()

    def sample(
        self,
        view: Sequence[float] | None,
        prompts: Tokens,
        *,
        samples: int = 1,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int] = (),
        adapters: Sequence[str] = (),
    ) -> Tokens:
        """`samples` completions of each prompt, without the prompt, those of one prompt next to each other; view None is awake.

        adapters: of each prompt the folder of the LoRA adapter that it is answered with, or "" for none.
        """
        ref = self.sample_ref(
            view,
            prompts,
            samples=samples,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            stop=stop,
            adapters=adapters,
        )
        return ray.get(ref, timeout=self._seconds)

    def sample_ref(
        self,
        view: Sequence[float] | None,
        prompts: Tokens,
        *,
        samples: int = 1,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int] = (),
        adapters: Sequence[str] = (),
    ) -> ray.ObjectRef[Tokens]:
        """The same as a reference, so that several workers write at once."""
        return self._actor.sample.remote(view, prompts, samples, max_tokens, temperature, seed, stop, adapters)

    def read(self, view: Sequence[float] | None, tokens: Tokens) -> list[list[Read]]:
        """Each token of each text but its first, as this view expects it where it stands; view None is awake."""
        return ray.get(self._actor.read.remote(view, tokens), timeout=self._seconds)

    def deliver(self, payload: bytes) -> Receipt:
        """Make the worker the delivered version. Raises DeliveryRefused."""
        return ray.get(self.deliver_ref(payload), timeout=self._seconds)

    def deliver_ref(self, payload: bytes) -> ray.ObjectRef[Receipt]:
        """The same as a reference."""
        return self._actor.deliver.remote(payload)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the engine's processes, then the worker."""
        try:
            ray.get(self._actor.shutdown.remote(), timeout=seconds)
        finally:
            ray.kill(self._actor)

"""A vLLM engine that serves a version and takes deliveries while it answers.

A delivery or a change of view is engine-wide and happens between two steps: generation is paused (requests stay, nothing is lost),
the prefix cache is emptied and running requests are put back to be read again, the memory is written in place, generation resumes.
So no token is ever predicted from keys and values of an older version or another view. Each request's part of the prefix cache is
salted with the version and a count of changes besides, which holds even where a cache survives elsewhere.

A change that has begun is carried to its end also where its caller leaves, and generation is resumed however it ended. Where it did
not end in time nobody knows what the workers hold: the engine is lost, and `check` says so from then on.

No Ray here: rollout.py and wake.py put this class into actors.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence, Set
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from transformers import AutoConfig
from vllm import AsyncEngineArgs, RequestOutput, SamplingParams
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from actors.replies import EngineLost, Read
from circadian.dreaming.peft_files import WEIGHTS_FILE
from circadian.files import sha256
from circadian.memory.envelope import DeliveryRefused, Receipt
from circadian.memory.folder import read_record
from circadian.memory.vllm_worker import EXTENSION
from circadian.specs import EngineSpec
from circadian.specs.dreaming import TARGETS

logger = logging.getLogger(__name__)
LORA_RANKS = (8, 16, 32, 64, 128, 256, 512)
"""Those for which vLLM has room."""
T = TypeVar("T")


class MemoryEngine:
    """One engine on one version folder; every coroutine must run on the event loop that `start` ran on."""

    def __init__(self, client: AsyncLLM, version: str, spec: EngineSpec) -> None:
        self.client, self.spec = client, spec
        self._version, self._changes = version, 0
        self._changing = asyncio.Lock()
        self._view: tuple[float, ...] | None = None
        self._ids = itertools.count()
        self._adapters: dict[tuple[str, str], LoRARequest] = {}
        """Those that hold a place, at most spec.adapters, by folder and checksum."""
        self._lending, self._lora_ids = asyncio.Lock(), itertools.count(1)
        self._lost = ""
        self._under_way: set[asyncio.Future[Any]] = set()

    @classmethod
    async def start(cls, folder: Path, spec: EngineSpec | None = None) -> Self:
        """An engine that answers as the awake view of this version. Raises what vLLM raises for a folder it cannot load."""
        spec, started = spec or EngineSpec(), time.perf_counter()
        client = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(folder),
                # `auto` would read an fp32 base as bf16, and a delivery is in the version's own dtype.
                dtype=str(AutoConfig.from_pretrained(folder).dtype).removeprefix("torch."),  # type: ignore[arg-type]
                worker_extension_cls=EXTENSION,
                enforce_eager=current_platform.is_cpu(),  # compiling takes longer than a night on the toy world
                # On a CPU a prompt with a seed that is read in two parts ends the engine ("CPU Generator does not use offset").
                enable_chunked_prefill=False if current_platform.is_cpu() else None,
                max_model_len=spec.max_model_len,  # type: ignore[arg-type]
                max_num_seqs=spec.max_num_seqs,
                tensor_parallel_size=spec.tensor_parallel_size,
                gpu_memory_utilization=spec.gpu_memory_utilization,
                enable_prefix_caching=True,
                disable_log_stats=True,
                **_adapters(spec),
            )
        )
        engine = cls(client, read_record(folder).id, spec)
        await client.update_weight_version(engine.version)
        logger.info("engine: version %s answers after %.1f s", engine.version, time.perf_counter() - started)
        return engine

    @property
    def version(self) -> str:
        """The version that answers now."""
        return self._version

    @property
    def cache_salt(self) -> str:
        """What a request must carry as `cache_salt` now: never the same again after a delivery or a change of view."""
        return hashlib.sha256(f"{self._version} {self._changes}".encode()).hexdigest()  # vLLM allows no "/" or "@" in a salt

    @property
    def in_flight(self) -> int:
        """Requests that are under way or in line."""
        return self.client.get_num_unfinished_requests()

    def check(self) -> None:
        """Raises EngineLost where the engine's process is dead or what its workers hold is not known."""
        if self.client.errored:
            raise EngineLost(f"the engine process of {self.version} is dead")
        if self._lost:
            raise EngineLost(self._lost)

    def shutdown(self) -> None:
        """End the engine's processes."""
        self.client.shutdown()
        # Its destructor does that again, and prints a trace where the interpreter has taken its modules apart by then.
        self.client.shutdown = _nothing_left  # type: ignore[method-assign]

    async def deliver(self, payload: bytes) -> Receipt:
        """Become the delivered version. Requests in flight stay and are finished by it.

        The receipt's milliseconds are those that generation stood still. Raises DeliveryRefused, and is then unchanged; EngineLost
        where the workers disagree.
        """
        return await self._to_the_end(self._deliver(payload))

    async def _deliver(self, payload: bytes) -> Receipt:
        async with self._changing:
            started = time.perf_counter()
            async with self._standstill():
                receipt = _agreed(await self._workers("memory_deliver", payload))
                self._version = receipt.version
                await self.client.update_weight_version(receipt.version)
        receipt = replace(receipt, milliseconds=(time.perf_counter() - started) * 1000)
        logger.info(
            "delivery: version %s, checksum %s, %d bytes, %.0f ms",
            receipt.version,
            receipt.checksum[:12],
            receipt.bytes,
            receipt.milliseconds,
        )
        return receipt

    async def set_view(self, mask: Sequence[float] | None) -> None:
        """Hear exactly the experts of this mask, or (None) follow what is awake, also through deliveries. Engine-wide."""
        await self._to_the_end(self._set_view(None if mask is None else tuple(float(entry) for entry in mask)))

    async def _set_view(self, view: tuple[float, ...] | None) -> None:
        async with self._changing:
            if view == self._view:
                return
            async with self._standstill():
                await self._workers("memory_view", None if view is None else list(view))
                self._view = view

    async def relabel(self, version: str) -> None:
        """Answer under another version's name with the same memory, as when a candidate that is already here is promoted."""
        await self._to_the_end(self._relabel(version))

    async def _relabel(self, version: str) -> None:
        async with self._changing, self._standstill():
            self._version = version
            await self.client.update_weight_version(version)

    async def settled(self) -> tuple[str, str]:
        """Version and cache salt for a request that is about to be made, once no delivery or change of view is under way."""
        async with self._changing:
            return self.version, self.cache_salt

    async def holds(self) -> dict[str, Any]:
        """What the workers hold, read back: `checksum` over every written expert, states `experts`, `mask` in force."""
        return (await self._workers("memory_checksum"))[0]

    async def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int = 1,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int] = (),
        adapters: Sequence[str] = (),
    ) -> list[list[int]]:
        """`samples` completions of each prompt, without the prompt, those of one prompt next to each other.

        A completion ends at a token of `stop` (which it keeps), at `max_tokens`, or where the model's length ends. Temperature 0
        is greedy. adapters: of each prompt the folder of the LoRA adapter that it is answered with, or "" for none.
        """

        def request(i: int, adapter: LoRARequest | None) -> Coroutine[Any, Any, RequestOutput]:
            params = SamplingParams(
                n=samples,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed + i * samples,  # vLLM adds the sample's index
                stop_token_ids=list(stop),
                ignore_eos=True,
                detokenize=False,
            )
            return self.generate(prompts[i], params, adapter)

        outputs: dict[int, RequestOutput] = {}
        async with self._lending if adapters else nullcontext():
            for wave in waves(adapters or [""] * len(prompts), self.spec.adapters):
                lent = await self._lend({adapters[i] for i in wave if adapters and adapters[i]})
                answers = await self._all([request(i, lent.get(adapters[i] if adapters else "")) for i in wave])
                outputs |= dict(zip(wave, answers, strict=True))
        ordered = [outputs[i] for i in range(len(prompts))]
        return [list(completion.token_ids) for output in ordered for completion in sorted(output.outputs, key=lambda o: o.index)]

    async def read(self, tokens: Sequence[Sequence[int]]) -> list[list[Read]]:
        """Each token of each text but its first, as it was to be expected after those before it: rows of [T - 1].

        Texts must be shorter than the model's length.
        """
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        outputs = await self._all([self.generate(row, params) for row in tokens])
        rows = []
        for row, output in zip(tokens, outputs, strict=True):
            positions = output.prompt_logprobs or []
            entries = [entry[token] for token, entry in zip(row[1:], positions[1:], strict=True) if entry is not None]
            rows.append([Read(token, entry.logprob, entry.rank == 1) for token, entry in zip(row[1:], entries, strict=True)])
        return rows

    async def generate(self, prompt: Sequence[int], params: SamplingParams, adapter: LoRARequest | None = None) -> RequestOutput:
        """One request in the engine's present version and view; params as vLLM knows them. For more than one use `sample`."""
        params = params.clone()
        params.output_kind = RequestOutputKind.FINAL_ONLY
        salted = tokens_input(list(prompt), cache_salt=self.cache_salt)
        final: RequestOutput | None = None
        number = f"circadian-{next(self._ids)}"
        async for output in self.client.generate(salted, params, request_id=number, lora_request=adapter):
            final = output
        if final is None or not final.finished:
            raise RuntimeError("the engine ended a request without an answer")
        return final

    async def _lend(self, folders: Set[str]) -> dict[str, LoRARequest]:
        """How requests name these folders' adapters, with all others put out of their places.

        A folder's adapter is another one once its file is another, so none is ever answered from an older one's cache.
        """
        if folders and not self.spec.adapters:
            raise ValueError("this engine takes no adapters; start it with rollouts.engine.adapters of 1 or more")
        keys = {folder: (folder, sha256(Path(folder) / WEIGHTS_FILE)) for folder in folders}
        for key in [key for key in self._adapters if key not in keys.values()] if folders else ():
            await self.client.remove_lora(self._adapters.pop(key).lora_int_id)
        for key in keys.values():
            if key not in self._adapters:
                self._adapters[key] = LoRARequest("/".join(key), next(self._lora_ids), key[0])
        return {folder: self._adapters[key] for folder, key in keys.items()}

    async def _all(self, requests: list[Coroutine[Any, Any, RequestOutput]]) -> list[RequestOutput]:
        """All answers, in order; when one fails or time is up the others are aborted."""
        async with asyncio.timeout(self.spec.generate_seconds), asyncio.TaskGroup() as group:
            tasks = [group.create_task(request) for request in requests]
        return [task.result() for task in tasks]

    @asynccontextmanager
    async def _standstill(self) -> AsyncIterator[None]:
        """Generation paused and the prefix cache empty, for whoever holds `_changing`; resumed however the change or the pause ended."""
        try:
            async with asyncio.timeout(self.spec.control_seconds):
                await self.client.pause_generation(mode="keep", clear_cache=True)
                try:
                    yield
                except (TimeoutError, asyncio.CancelledError, EngineLost) as error:
                    self._lost = (
                        f"a change of {self.version} did not come to its end ({error!r}); what the workers hold is not known"
                    )
                    raise
        finally:
            self._changes += 1
            await self._resume()

    async def _resume(self) -> None:
        """Has time of its own, because the change's may be up, and is sent even where the caller is cancelled meanwhile."""
        try:
            await asyncio.wait_for(self._to_the_end(self.client.resume_generation()), self.spec.control_seconds)
        except TimeoutError:
            self._lost = f"the engine of {self.version} did not resume within {self.spec.control_seconds} s"
            raise

    async def _to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """The change's result; where the caller leaves, the change goes on without it."""
        task = asyncio.ensure_future(change)
        self._under_way.add(task)  # the event loop alone would not keep it
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _workers(self, method: str, *args: Any) -> list[Any]:
        async with asyncio.timeout(self.spec.control_seconds):  # the engine's own bound does not hold where its process hangs
            return await self.client.collective_rpc(method, timeout=self.spec.control_seconds, args=args)


def _adapters(spec: EngineSpec) -> dict[str, Any]:
    """vLLM's settings for LoRA. One place more than adapters: the one in the last place speaks in requests without an adapter, too. Without
    naming the layers vLLM adapts the output layer as well, and then cannot read a text."""
    if not spec.adapters:
        return {}
    rank = next((size for size in LORA_RANKS if size >= spec.adapter_rank), LORA_RANKS[-1])
    return {"enable_lora": True, "max_loras": spec.adapters + 1, "max_lora_rank": rank, "lora_target_modules": [*TARGETS]}


def waves(adapters: Sequence[str], places: int) -> list[list[int]]:
    """The numbers of the prompts that are answered together: of each adapter all, and no more adapters than there are places for."""
    names = dict.fromkeys(adapters)
    own = [name for name in names if name]
    groups = [set(own[i : i + max(1, places)]) for i in range(0, len(own), max(1, places))] or [set()]
    groups[0] = groups[0] | {""}
    found = [[i for i, name in enumerate(adapters) if name in group] for group in groups]
    return [wave for wave in found if wave]


def _nothing_left(timeout: float | None = None) -> None:
    """The shutdown of an engine that is shut down."""
    del timeout


def _agreed(answers: list[dict[str, Any]]) -> Receipt:
    """The receipt that all workers gave. Raises DeliveryRefused where all refused, EngineLost where they disagree."""
    refusals = [answer["refused"] for answer in answers if "refused" in answer]
    if len(refusals) == len(answers):
        raise DeliveryRefused(refusals[0])
    receipts = {Receipt(**{**answer, "milliseconds": 0.0}) for answer in answers if "refused" not in answer}
    if refusals or len(receipts) != 1:
        raise EngineLost(f"workers of one engine disagree on what they received: {receipts}, refused: {refusals}")
    return receipts.pop()


class LazyEngine:
    """An engine that starts at its first use: an actor's constructor runs without the event loop that it needs.

    A start that failed is tried again at the next use; an engine that was lost later is not, because a new one would be the folder's
    version and not what was delivered since.
    """

    def __init__(self, folder: Path, spec: EngineSpec) -> None:
        self._folder, self._spec = folder, spec
        self._starting: asyncio.Task[MemoryEngine] | None = None

    async def get(self) -> MemoryEngine:
        """The engine, when it answers. Raises what its start raised."""
        if self._starting is None or _failed(self._starting):
            self._starting = asyncio.create_task(MemoryEngine.start(self._folder, self._spec))
        return await asyncio.shield(self._starting)

    async def shutdown(self) -> None:
        """End the engine's processes, if it was ever started."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
            if not _failed(self._starting):
                self._starting.result().shutdown()


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)

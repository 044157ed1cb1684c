"""The rollout workers of one night, as one sampler."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import ray
from ray.exceptions import RayError

from actors import names
from actors.replies import Read
from actors.rollout import RolloutHandle
from actors.room import lacking, told
from circadian.events import EventLog
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import beginning_token
from circadian.phases import Phases
from circadian.specs import NightJob, Recipe, RolloutSpec
from pipelines.stages import Outputs

log = logging.getLogger(__name__)
DREAM_ADAPTERS = 16
"""Instances that are asked at once, unless the recipe says another number."""
Tokens = tuple[int, ...]


class Sampler(Protocol):
    """A model with memory that writes in any view."""

    beginning: int
    """The token that a document begins with."""

    def deliver(self, payload: bytes) -> None:
        """Become the delivered version."""

    def sample(
        self,
        view: Sequence[bool],
        prompts: Sequence[Tokens],
        max_tokens: int,
        temperature: float,
        seed: int,
        adapters: Sequence[str] = (),
    ) -> list[Tokens]:
        """One completion of each prompt, without the prompt, in the order of the prompts; temperature 0 is greedy. adapters: of each
        prompt the folder of the LoRA adapter that it is answered with, or "" for none."""

    def read(self, view: Sequence[bool], texts: Sequence[Tokens]) -> list[list[Read]]:
        """Each token of each text but its first, as the view expects it where it stands."""


def rollouts_of(recipe: Recipe) -> RolloutSpec:
    """The workers that a recipe needs: with places for adapters where it dreams."""
    spec, dreaming = recipe.rollouts, recipe.dreaming
    if dreaming is None:
        return spec
    rank = max(dreaming.instance.rank, dreaming.dreamer.rank, spec.engine.adapter_rank)
    engine = spec.engine.model_copy(update={"adapters": spec.engine.adapters or DREAM_ADAPTERS, "adapter_rank": rank})
    return spec.model_copy(update={"engine": engine})


class RolloutsMissing(Exception):
    """Rollout workers did not start in time; the message says what they wait for."""


def room_of(spec: RolloutSpec) -> dict[str, float]:
    """What one rollout worker asks Ray for."""
    return {"CPU": spec.cpus_per_worker, "GPU": spec.gpus_per_worker} | names.role("rollout")


class RolloutPool:
    """A Sampler of several workers. They start at once, beside whatever the night does meanwhile; the first delivery waits for them.

    Every worker answers as the parent version until something is delivered; prompts are dealt out evenly.
    """

    def __init__(self, job: NightJob) -> None:
        spec, tokenizer = rollouts_of(job.recipe), load_tokenizer(Path(job.parent))
        self.stop: list[int] = [tokenizer.eos_token_id]
        self.beginning = beginning_token(tokenizer)
        self.names = tuple(names.rollout_worker(job.sleep, job.attempt, i) for i in range(spec.workers))
        self._workers = [
            RolloutHandle.start(
                Path(job.parent), job.sleep, job.attempt, i, spec.cpus_per_worker, spec.gpus_per_worker, spec.engine
            )
            for i in range(spec.workers)
        ]
        self._ready = [worker.ready_ref() for worker in self._workers]
        self._room = room_of(spec)
        self._log = EventLog(Path(job.home))
        self._start_seconds, self._seconds = spec.engine.start_seconds, spec.engine.generate_seconds
        self._places = spec.engine.adapters
        self._phases = Phases()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            try:
                worker.stop()
            except RayError as lost:  # it died or does not answer: it ends with the job, and the night's own error matters more
                log.warning("a rollout worker could not be stopped: %s", lost)

    def deliver(self, payload: bytes) -> None:
        """Every worker becomes the delivered version."""
        with self._phases.during("start"):
            self._await_start()
        with self._phases.during("deliver"):
            for worker in self._workers:
                worker.deliver(payload)

    def _await_start(self) -> None:
        """Until every worker answers. Raises RolloutsMissing, and what a worker's start raised."""
        _, left = ray.wait(self._ready, num_returns=len(self._ready), timeout=0.0)
        if left and (why := lacking(self._room)):
            log.warning("the night waits for its rollout workers: %s", why)
            waiting = f"waits for rollout workers: {why}"
            self._log.emit("sleep.waiting", waiting, waiting=waiting, room=dict(self._room))
        _, left = ray.wait(self._ready, num_returns=len(self._ready), timeout=self._start_seconds)
        if left:
            why = lacking(self._room) or "nodes that could hold them are taken, or their engines take longer to start"
            raise RolloutsMissing(
                f"{len(left)} of {len(self._ready)} rollout workers ({told(self._room)} each) are not there after"
                f" {self._start_seconds:g} s: {why}"
            )
        ray.get(self._ready, timeout=self._start_seconds)  # what a start raised is raised here

    def sample(
        self,
        view: Sequence[bool],
        prompts: Sequence[Tokens],
        max_tokens: int,
        temperature: float,
        seed: int,
        adapters: Sequence[str] = (),
    ) -> list[Tokens]:
        """One completion of each prompt, without the prompt, in the order of the prompts; temperature 0 is greedy. adapters: of each
        prompt the folder of the LoRA adapter that it is answered with, or "" for none."""
        if not prompts:
            return []
        mask, count = [float(heard) for heard in view], len(self._workers)
        dealt = dealt_out(len(prompts), adapters, count)
        shares = [[list(prompts[i]) for i in own] for own in dealt]
        seeds, others = (
            worker_seeds(seed, list(map(len, shares))),
            [[adapters[i] for i in own] if adapters else [] for own in dealt],
        )
        waves = max(1, *(math.ceil(len(set(lent)) / max(1, self._places)) for lent in others))
        with self._phases.during("generate"):
            refs = [
                worker.sample_ref(
                    mask, share, max_tokens=max_tokens, temperature=temperature, seed=own, stop=self.stop, adapters=lent
                )
                for worker, share, own, lent in zip(self._workers, shares, seeds, others, strict=True)
            ]
            answers = ray.get(refs, timeout=self._seconds * waves)
        written: list[Tokens] = [()] * len(prompts)
        for own, share in zip(dealt, answers, strict=True):
            for i, tokens in zip(own, share, strict=True):
                written[i] = tuple(tokens)
        return written

    def read(self, view: Sequence[bool], texts: Sequence[Tokens]) -> list[list[Read]]:
        """Each token of each text but its first, as the view expects it where it stands."""
        with self._phases.during("read"):
            return self._workers[0].read([float(heard) for heard in view], [list(text) for text in texts]) if texts else []

    def timed(self, work: Callable[[], Outputs]) -> Outputs:
        """What a stage puts out, and in `phases` the seconds in which the workers were asked."""
        before = self._phases.seconds()
        outputs = work()
        return {**outputs, "phases": self._phases.since(before)}


def dealt_out(prompts: int, adapters: Sequence[str], workers: int) -> list[list[int]]:
    """Which prompts each worker answers: in turn, and where adapters answer them, all prompts of an adapter by one worker, so that none
    loads what another has."""
    number = {folder: n for n, folder in enumerate(dict.fromkeys(adapters))}
    turn = [number[folder] for folder in adapters] if len(number) > 1 else range(prompts)
    return [[i for i, n in enumerate(turn) if n % workers == worker] for worker in range(workers)]


def worker_seeds(seed: int, counts: Sequence[int]) -> list[int]:
    """A first seed for each worker's share: its engine counts up from there, one a prompt, and no two prompts share a seed."""
    return [seed + sum(counts[:i]) for i in range(len(counts))]

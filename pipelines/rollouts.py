"""The rollout workers of one night, as one sampler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import ray

from actors import names
from actors.rollout import RolloutHandle
from circadian.memory.version import load_tokenizer
from circadian.specs import NightJob

Tokens = tuple[int, ...]


class Rollouts:
    """Starts the night's rollout workers at once and waits for them where they are first needed.

    Every worker answers as the parent version until something is delivered; prompts are dealt out evenly.
    """

    def __init__(self, job: NightJob) -> None:
        self.job, spec = job, job.recipe.rollouts
        tokenizer = load_tokenizer(Path(job.parent))
        self.stop: list[int] = [tokenizer.eos_token_id]
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self.beginning: int = start
        self.names = tuple(names.rollout_worker(job.sleep, job.attempt, i) for i in range(spec.workers))
        engine = spec.engine
        self._workers = [
            RolloutHandle.start(Path(job.parent), job.sleep, job.attempt, i, spec.cpus_per_worker, spec.gpus_per_worker, engine)
            for i in range(spec.workers)
        ]
        self._seconds = engine.generate_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.stop()

    def deliver(self, payload: bytes) -> None:
        """Every worker becomes the delivered version."""
        for worker in self._workers:
            worker.ready()
            worker.deliver(payload)

    def sample(
        self, view: Sequence[bool], prompts: Sequence[Tokens], max_tokens: int, temperature: float, seed: int
    ) -> list[Tokens]:
        """One completion of each prompt, without the prompt, in the order of the prompts; temperature 0 is greedy."""
        if not prompts:
            return []
        mask, shares = [float(heard) for heard in view], [list(prompts[i :: len(self._workers)]) for i in range(len(self._workers))]
        refs = [
            worker.sample_ref(
                mask, [list(p) for p in share], max_tokens=max_tokens, temperature=temperature, seed=seed + i, stop=self.stop
            )
            for i, (worker, share) in enumerate(zip(self._workers, shares, strict=True))
        ]
        written: list[Tokens] = [()] * len(prompts)
        for i, share in enumerate(ray.get(refs, timeout=self._seconds)):
            written[i :: len(self._workers)] = [tuple(tokens) for tokens in share]
        return written

    def nll(self, view: Sequence[bool], texts: Sequence[Tokens]) -> float:
        """Mean negative log-likelihood of the texts in a view, nats a token."""
        logprobs = self._workers[0].logprobs([float(heard) for heard in view], [list(text) for text in texts])
        flat = [value for row in logprobs for value in row]
        return -sum(flat) / len(flat)

"""The student's own writing: rank 0 delivers the expert as it stands to the rollout workers, which complete cues as the student.

consumes     the written expert, cues of the day and of earlier nights; free running begins with the beginning token alone
produces     student-written rows, each with its teacher
waits for    the rollout workers, within their own bounds
unblocked by their last completion; learning stands still meanwhile, so no row is older than `refresh_steps` steps
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

from torch import Tensor

from actors.learn_request import Deliveries, LearnRequest
from actors.learn_tasks import Seeding
from circadian.experience import Reader
from circadian.memory.delivery import Receipt, pack_tensors
from circadian.memory.state import MemoryState
from circadian.memory.version import beginning_token, load_tokenizer
from circadian.objectives.rows import Kind, TaughtRow, Teacher

TEACHER: dict[Kind, Teacher] = {"day": "awake", "old": "rested", "free": "rested"}
"""Who teaches a row of each kind."""


class Rollouts(Protocol):
    """A model that answers with the experts it is delivered."""

    def deliver(self, payload: bytes) -> Receipt:
        """Write the delivered experts; returns what was read back."""

    def sample(
        self,
        view: Sequence[float],
        prompts: list[list[int]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int],
    ) -> list[list[int]]:
        """One completion of each prompt, without the prompt; it ends at a token of `stop`, which it keeps."""


class StudentWriter:
    """Writes the student's rows afresh; lives in rank 0."""

    def __init__(self, request: LearnRequest, task: Seeding, rollouts: Sequence[Rollouts]) -> None:
        self.request, self.spec, self.task, self.rollouts = request, request.seeding, task, rollouts
        tokenizer = load_tokenizer(Path(request.version))
        self.reader, self.stop = Reader(tokenizer, request.held_out), (tokenizer.eos_token_id,)
        self.beginning = (beginning_token(tokenizer),)
        self.state = MemoryState.parse(request.experts)
        self.cues: dict[Kind, list[tuple[int, ...]]] = {"day": [], "old": []}
        for line in Path(request.cues).read_text().splitlines() if request.cues else ():
            cue = json.loads(line)
            self.cues[cue["kind"]].append(tuple(cue["ids"]))

    def write(self, step: int, expert: dict[str, Tensor], deliveries: Deliveries) -> tuple[list[TaughtRow], Deliveries]:
        """Deliver the expert and let the student write; rows that contain a held-out text are left out."""
        payload = pack_tensors(expert, self.state, f"{self.request.run_name}@{step}")
        for rollout in self.rollouts:
            started = time.perf_counter()
            rollout.deliver(payload)
            deliveries = deliveries.with_one(len(payload), (time.perf_counter() - started) * 1000)
        rng = random.Random(f"{self.request.seed}/student/{step}")
        rows = [row for kind, count in self._counts().items() for row in self._rows(kind, self._cues(kind, count, rng), rng)]
        held_out = self.reader.are_held_out([row.ids for row in rows])
        return [row for row, dropped in zip(rows, held_out, strict=True) if not dropped], deliveries

    def _counts(self) -> dict[Kind, int]:
        """Rows of each kind, in the proportion in which `mix` draws them."""
        n, old_share = self.request.nights_before, self.spec.old_share
        old = old_share * n / (n + 1.5)
        shares: dict[Kind, float] = {"day": 1 - old_share, "old": old, "free": old_share - old}
        return {kind: max(1, round(share * self.spec.student_rows)) if share > 0 else 0 for kind, share in shares.items()}

    def _cues(self, kind: Kind, count: int, rng: random.Random) -> list[tuple[int, ...]]:
        """`count` cues of a kind. A longer beginning of free running would be a prompt that nobody checked against the tests."""
        if kind == "free":
            return [self.beginning] * count
        pool = self.cues[kind]
        return rng.sample(pool, count) if count <= len(pool) else rng.choices(pool, k=count) if pool else []

    def _rows(self, kind: Kind, cues: list[tuple[int, ...]], rng: random.Random) -> list[TaughtRow]:
        """The student's completions of the cues, spread over the rollout workers."""
        tokens = self.spec.free_run_tokens if kind == "free" else self.spec.completion_tokens
        shares = [cues[i :: len(self.rollouts)] for i in range(len(self.rollouts))]
        seeds = [rng.randrange(1 << 31) for _ in self.rollouts]
        with ThreadPoolExecutor(max_workers=len(self.rollouts)) as pool:
            written = pool.map(partial(self._sample, tokens), self.rollouts, shares, seeds)
        rows: list[TaughtRow] = []
        for share, completions in zip(shares, written, strict=True):
            rows += [
                TaughtRow((*cue, *completion), len(cue), TEACHER[kind], kind)
                for cue, completion in zip(share, completions, strict=True)
                if completion
            ]
        return rows

    def _sample(self, tokens: int, rollout: Rollouts, cues: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
        if not cues:
            return []
        return rollout.sample(
            self.task.student_view,
            list(map(list, cues)),
            max_tokens=tokens,
            temperature=self.spec.temperature,
            seed=seed,
            stop=self.stop,
        )

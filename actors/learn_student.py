"""The student's own writing: rank 0 delivers the expert as it stands to the rollout workers, which complete cues as the student.

consumes     the written expert, cues of the day and of earlier nights; free running begins with the beginning token alone
produces     student-written rows, each with its teacher
waits for    the rollout workers, within their own bounds
unblocked by their last completion

What is written for a block of steps is made of the expert, the seed and the block's first step; when it is written is learn_ahead.py's
affair.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from torch import Tensor

from actors.judge import judge_of, judged
from actors.learn_request import Deliveries, LearnRequest
from actors.learn_tasks import Seeding
from actors.replies import Read
from circadian.events import EventLog
from circadian.experience import Reader
from circadian.memory.delivery import pack_tensors
from circadian.memory.envelope import Receipt
from circadian.memory.state import MemoryState
from circadian.memory.version import beginning_token, load_tokenizer
from circadian.objectives.knowledge_seeding import shares, teacher_of
from circadian.objectives.rows import Imitated, Kind, TaughtRow, Teacher
from circadian.phases import Phases, Seconds
from circadian.specs import EngineSpec

Cue = tuple[tuple[int, ...], Teacher]
"""Tokens, and who teaches what follows."""


class Rollouts(Protocol):
    """A model that answers with the experts it is delivered."""

    def deliver(self, payload: bytes) -> Receipt:
        """Write the delivered experts; returns what was read back."""

    def sample(
        self,
        view: Sequence[float],
        prompts: list[list[int]],
        *,
        samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int],
    ) -> list[list[int]]:
        """`samples` completions of each prompt, without the prompt, those of one prompt next to each other; each ends at a token of
        `stop`, which it keeps."""

    def read(self, view: Sequence[float], tokens: list[list[int]]) -> list[list[Read]]:
        """Each token of each text but its first, as the view expects it where it stands."""


@dataclass(frozen=True)
class Written:
    """The student's rows; by: the step at which it stood when it wrote them; and what that took."""

    rows: list[TaughtRow]
    by: int
    deliveries: Deliveries
    seconds: Seconds


def room_of(version: Path, engine: EngineSpec) -> int:
    """Tokens of the longest text that the rollout workers read."""
    context: int = json.loads((version / "config.json").read_text())["max_position_embeddings"]
    return min(context, engine.max_model_len or context)


class StudentWriter:
    """Writes the student's rows afresh; lives in rank 0."""

    def __init__(self, request: LearnRequest, task: Seeding, rollouts: Sequence[Rollouts]) -> None:
        self.request, self.spec, self.task, self.rollouts = request, request.seeding, task, rollouts
        tokenizer = load_tokenizer(Path(request.version))
        self.reader, self.stop = Reader(tokenizer, request.held_out), (tokenizer.eos_token_id,)
        self.beginning = (beginning_token(tokenizer),)
        self.state = MemoryState.parse(request.experts)
        self.imitated = {other.name for other in request.others if other.match == "imitate"}
        judging = self.spec.alpha < 1 or self.imitated
        room = room_of(Path(request.version), request.engine)
        self.judge = judge_of(self.spec.imitation, rollouts[0], tokenizer, self.state, room) if judging else None
        self.cues: dict[Kind, list[Cue]] = {"day": [], "old": []}
        for line in Path(request.cues).read_text().splitlines() if request.cues else ():
            cue = json.loads(line)
            self.cues[cue["kind"]].append((tuple(cue["ids"]), cue.get("teacher", teacher_of(cue["kind"], self.spec))))

    def packed(self, expert: dict[str, Tensor], by: int) -> bytes:
        """The delivery of the expert as it stands at step `by`."""
        return pack_tensors(expert, self.state, f"{self.request.run_name}@{by}")

    def write(self, step: int, by: int, payload: bytes) -> Written:
        """Deliver the student of step `by` and let it write the rows of the block from `step` on; rows that contain a held-out text are
        left out."""
        phases, deliveries = Phases(), Deliveries()
        with phases.during("deliver"):
            for rollout in self.rollouts:
                started = time.perf_counter()
                rollout.deliver(payload)
                deliveries = deliveries.with_one(len(payload), (time.perf_counter() - started) * 1000)
        with phases.during("generate"):
            rows = self._all_kinds(step)
        with phases.during("judge"):
            held_out = self.reader.are_held_out([row.ids for row in rows])
            rows = self._judged([row for row, dropped in zip(rows, held_out, strict=True) if not dropped])
        return Written(rows, by, deliveries, phases.seconds())

    def _all_kinds(self, step: int) -> list[TaughtRow]:
        rng = random.Random(f"{self.request.seed}/student/{step}")
        groups = itertools.count()
        rows: list[TaughtRow] = []
        for kind, count in self._counts().items():
            imitable = [row for row in self.task.teacher_written[kind] if self._imitates(row)]
            imitating = round(count * len(imitable) / max(1, len(self.task.teacher_written[kind])))
            rows += self._imitating(kind, imitable, imitating, groups, rng)
            rows += self._rows(kind, self._cues(kind, count - imitating, rng), rng)
        return rows

    def _counts(self) -> dict[Kind, int]:
        """Rows of each kind, in the proportion in which `mix` draws them."""
        rows, weights = self.spec.student_rows, shares(self.spec, bool(self.task.teacher_written["old"]))
        return {kind: max(1, round(share * rows)) if share > 0 else 0 for kind, share in weights.items()}

    def _imitates(self, row: TaughtRow) -> bool:
        """Is the student to continue this teacher's row, rather than its own?"""
        return row.teacher in self.imitated or (self.spec.alpha < 1 and row.kind != "free")

    def _cues(self, kind: Kind, count: int, rng: random.Random) -> list[Cue]:
        """`count` cues of a kind. A longer beginning of free running would be a prompt that nobody checked against the tests."""
        if kind == "free":
            return [(self.beginning, teacher_of(kind, self.spec))] * count
        pool = self.cues[kind]
        return rng.sample(pool, count) if count <= len(pool) else rng.choices(pool, k=count) if pool else []

    def _rows(self, kind: Kind, cues: list[Cue], rng: random.Random) -> list[TaughtRow]:
        """The student's completions of the cues."""
        tokens = self.spec.free_run_tokens if kind == "free" else self.spec.completion_tokens
        written = self._write([cue for cue, _ in cues], tokens, 1, rng)
        return [
            TaughtRow((*cue, *own), len(cue), teacher, kind) for (cue, teacher), (own,) in zip(cues, written, strict=True) if own
        ]

    def _imitating(
        self, kind: Kind, taught: Sequence[TaughtRow], count: int, groups: Iterator[int], rng: random.Random
    ) -> list[TaughtRow]:
        """About `count` rows: groups of completions of beginnings that a teacher went on with."""
        spec = self.spec
        if not taught or not count:
            return []
        chosen = [rng.choice(taught) for _ in range(max(1, count // spec.imitation.group))]
        cuts = [rng.randrange(row.start, len(row.ids)) for row in chosen]
        prefixes = [row.ids[:cut] for row, cut in zip(chosen, cuts, strict=True)]
        rows = []
        for row, cut, group, own in zip(
            chosen, cuts, groups, self._write(prefixes, spec.completion_tokens, spec.imitation.group, rng), strict=False
        ):
            imitated = Imitated(row.ids[cut : cut + spec.completion_tokens], group)
            had = max(spec.completion_tokens, len(row.ids) - row.start)  # the teacher, who may have written a document
            room = min(spec.completion_tokens, row.start + had - cut)
            rows += [TaughtRow((*row.ids[:cut], *tokens[:room]), cut, row.teacher, kind, imitated) for tokens in own if tokens]
        return rows

    def _judged(self, rows: list[TaughtRow]) -> list[TaughtRow]:
        """With a judge's word, where one is to be asked."""
        if self.judge is None:
            return rows
        rows, silent = judged(rows, self.judge, self.reader.tokenizer)
        if silent:
            text = f"the judge gave no answer for {silent} completions: they and their groups are rewarded for closeness alone"
            EventLog(Path(self.request.home)).emit(
                "sleep.judge_failed", text, completions=silent, judge=self.spec.imitation.judge.kind
            )
        return rows

    def _write(self, cues: Sequence[tuple[int, ...]], tokens: int, samples: int, rng: random.Random) -> list[list[list[int]]]:
        """`samples` completions of each cue, spread over the rollout workers."""
        shares = [cues[i :: len(self.rollouts)] for i in range(len(self.rollouts))]
        seeds = [rng.randrange(1 << 31) for _ in self.rollouts]
        with ThreadPoolExecutor(max_workers=len(self.rollouts)) as pool:
            parts = list(pool.map(partial(self._sample, tokens, samples), self.rollouts, shares, seeds))
        written: list[list[list[int]]] = [[]] * len(cues)
        for i, part in enumerate(parts):
            written[i :: len(self.rollouts)] = [part[start : start + samples] for start in range(0, len(part), samples)]
        return written

    def _sample(self, tokens: int, samples: int, rollout: Rollouts, cues: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
        if not cues:
            return []
        return rollout.sample(
            self.task.student_view,
            list(map(list, cues)),
            samples=samples,
            max_tokens=tokens,
            temperature=self.spec.temperature,
            seed=seed,
            stop=self.stop,
        )

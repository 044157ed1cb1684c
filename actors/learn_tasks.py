"""The learner's two tasks, as what it needs of each: the rows of a step, and their loss. The algorithms
are in circadian/objectives, the optimisation is in learn_loop.py.

A step's rows are drawn from (seed, step) alone, the same in every process, and process r of n takes every n-th of them. Its loss is
weighted so that the mean over processes is the mean over all taught tokens of the step, however many processes there are.

B rows of this process, T tokens, M experts over all levels.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from actors.learn_request import LearnRequest
from circadian.experience import Row
from circadian.memory.graft import Grafted
from circadian.memory.state import Mask
from circadian.objectives import fast_learning, knowledge_seeding
from circadian.objectives.divergence import ITSELF, Head, by_slope
from circadian.objectives.judges import alike_by_embedding
from circadian.objectives.knowledge_seeding import Lesson
from circadian.objectives.rows import Kind, TaughtRow, read_rows, write_rows
from circadian.teachers.other import Lent

STUDENT_FILE = "student_rows.jsonl"
R = TypeVar("R")
Lessons = dict[Kind, list[Lesson]]
"""By kind."""


@dataclass(frozen=True)
class Group:
    """The learner processes."""

    rank: int = 0
    size: int = 1


@dataclass(frozen=True)
class Share:
    """This process's rows of a step: tensors, the weight of their mean loss, and the chunks in which their tokens are compared."""

    tensors: dict[str, Tensor]
    weight: float
    chunks: int = 1


class Task(ABC):
    """What the learner learns; `fresh`, `views` and `before` are those of Grafted.begin_writing."""

    fresh: int | None = None
    views: Sequence[Mask] | None = None
    before: Sequence[Mask] = ()

    def prepare(self, model: Grafted) -> None:
        """Compute what the coming steps need and do not change; called before the first one and whenever the student has written."""
        del model

    @abstractmethod
    def share(self, step: int, group: Group) -> Share:
        """This process's rows of a step."""

    @abstractmethod
    def loss(self, model: Grafted, tensors: dict[str, Tensor], chunks: int) -> Tensor:
        """Mean loss of the rows, nats a token."""

    def save(self, folder: Path) -> None:
        """Put what (seed, step) do not determine into a checkpoint."""
        del folder

    def load(self, folder: Path) -> None:
        """The inverse of save."""
        del folder


class FastLearning(Task):
    """The fast level's expert learns the day."""

    def __init__(self, request: LearnRequest) -> None:
        lines = [json.loads(line) for line in Path(request.rows).read_text().splitlines()]
        self.rows = [Row(tuple(line["ids"]), tuple(line["weight"])) for line in lines]
        if not self.rows:
            raise ValueError(f"{request.rows} holds no rows; skip the task on a day without experiences")
        self.seed, self.count, self.token_chunk = request.seed, request.fast_learning.rows, request.fast_learning.token_chunk

    def share(self, step: int, group: Group) -> Share:
        rng = random.Random(f"{self.seed}/{step}")
        rows = rng.sample(self.rows, self.count) if self.count <= len(self.rows) else rng.choices(self.rows, k=self.count)
        mine, weights = _shared(rows, group, lambda row: sum(row.weight[1:]))
        chunks = fast_learning.chunks([rows[rank :: group.size] for rank in range(group.size)], self.token_chunk)
        return Share(fast_learning.collate(mine), weights, chunks)

    def loss(self, model: Grafted, tensors: dict[str, Tensor], chunks: int) -> Tensor:
        return fast_learning.fast_learning_loss(model, tensors, "awake", chunks)


class Seeding(Task):
    """The opened expert of a slower level learns from the awake and the rested self, or from other models and the rested self."""

    def __init__(self, request: LearnRequest) -> None:
        self.spec, self.seed = request.seeding, request.seed
        transfer = request.transfer
        assert transfer is not None, "the request was checked"
        self.fresh = request.expert_seed if transfer.rewrites else None
        self.views, self.before, self.student_view = [transfer.student], [*transfer.teachers.values()], transfer.student
        self.teachers = {name: torch.tensor(mask).float() for name, mask in transfer.teachers.items()}
        self.teacher_written = by_kind(read_rows(Path(request.rows)))
        if not self.teacher_written["day"]:
            raise ValueError(
                f"{request.rows} holds no teacher-written row of kind 'day'; let the awake self complete the day's cues first"
            )
        self.others = {other.name: number for number, other in enumerate(request.others, start=1)}
        self.lent = {
            number: Lent(Path(other.folder), other.sha256)
            for number, other in enumerate(request.others, start=1)
            if other.match == "distil"
        }
        self.heads: dict[int, Head] = {}
        self.texts = any(other.match == "imitate" for other in request.others)
        self.student_written = by_kind([])
        self.taught: Lessons = {}
        self.wrote: Lessons = {}

    def prepare(self, model: Grafted) -> None:
        """The lessons of the teachers' rows, once, and of the rows that the student wrote last."""
        self.taught = self.taught or {kind: self._lessons(model, rows) for kind, rows in self.teacher_written.items()}
        self.wrote = {kind: self._lessons(model, rows) for kind, rows in self.student_written.items()}

    def _lessons(self, model: Grafted, rows: Sequence[TaughtRow]) -> list[Lesson]:
        """By whoever teaches each row, and with a reward where the student is to imitate; in the order of the rows."""
        by = [self.others.get(row.teacher, ITSELF) for row in rows]
        found: dict[int, Lesson] = {}
        for number in (ITSELF, *self.others.values()):
            mine = [i for i, teacher in enumerate(by) if teacher == number]
            found |= zip(mine, self._taught_by(number, model, [rows[i] for i in mine]), strict=True)
        imitating = [i for i, row in enumerate(rows) if row.imitated]
        if imitating:
            lessons = [found[i] for i in imitating]
            verdicts, view = self._verdicts(model, lessons), model.mask(self.student_view)
            rewarded = knowledge_seeding.rewarded(model, lessons, view, self.spec, verdicts)
            found |= zip(imitating, rewarded, strict=True)
        return [found[i] for i in range(len(rows))]

    def _taught_by(self, number: int, model: Grafted, rows: Sequence[TaughtRow]) -> list[Lesson]:
        """Lessons of the model itself, of another one that is in memory for as long as they take, or of a text."""
        if not rows or number == ITSELF:
            return knowledge_seeding.teach(model, rows, self.teachers, self.spec)
        if number not in self.lent:
            return knowledge_seeding.tell(model, rows, self.spec)
        states, head = self.lent[number].states(rows, model.dtype, model.device)
        if not by_slope(self.spec.divergence, model.dtype):
            self.heads[number] = head
        return knowledge_seeding.teach_another(model, rows, states, head, number, self.spec)

    def _verdicts(self, model: Grafted, lessons: Sequence[Lesson]) -> list[bool | None]:
        """Of each completion whether it means what was wanted; None without a judge."""
        judge, rows = self.spec.imitation.judge, [lesson.row for lesson in lessons]
        if judge.kind == "embedding":
            return [*alike_by_embedding(model, rows, judge.threshold)]
        return [row.imitated.semantic if row.imitated else None for row in rows]

    def share(self, step: int, group: Group) -> Share:
        rng = random.Random(f"{self.seed}/{step}")
        lessons = knowledge_seeding.mix(self.taught, self.wrote, self.spec, self.spec.rows, rng)
        mine, weight = _shared(lessons, group, lambda lesson: len(lesson.teacher))
        chunks = knowledge_seeding.chunks([lessons[rank :: group.size] for rank in range(group.size)], self.spec.token_chunk)
        return Share(knowledge_seeding.collate(mine), weight, chunks)

    def loss(self, model: Grafted, tensors: dict[str, Tensor], chunks: int) -> Tensor:
        view, heads = model.mask(self.student_view), self.heads or None
        return knowledge_seeding.knowledge_seeding_loss(model, tensors, view, self.spec, chunks, heads, self.texts)

    def save(self, folder: Path) -> None:
        write_rows(folder / STUDENT_FILE, [row for rows in self.student_written.values() for row in rows])

    def load(self, folder: Path) -> None:
        self.student_written = by_kind(read_rows(folder / STUDENT_FILE))


def build_task(request: LearnRequest) -> Task:
    """The task of a request, with its rows read."""
    return FastLearning(request) if request.task == "fast_learning" else Seeding(request)


def by_kind(rows: Sequence[TaughtRow]) -> dict[Kind, list[TaughtRow]]:
    """Rows as pools that `mix` draws from, in their order."""
    pools: dict[Kind, list[TaughtRow]] = {"day": [], "old": [], "free": []}
    for row in rows:
        pools[row.kind].append(row)
    return pools


def _shared(rows: Sequence[R], group: Group, tokens: Callable[[R], float]) -> tuple[Sequence[R], float]:
    """Every n-th row, and the weight that turns this process's mean over tokens into its part of the mean over all processes."""
    mine = rows[group.rank :: group.size]
    if not mine:
        raise ValueError(
            f"{len(rows)} rows a step are fewer than {group.size} learner processes; set rows to at least {group.size}"
        )
    ours, everyone = (max(sum(map(tokens, part)), 1.0) for part in (mine, rows))
    return mine, group.size * ours / everyone

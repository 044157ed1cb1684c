"""Our contender: the learner's engine and its seeding task as a night runs them, on rows that are given.

What a step costs is the step, and its share of the teaching: `teach` is timed apart, and a row is met as often as the default recipe
meets it (points.meetings_of_a_row).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from actors.learn_engine import LearnEngine
from actors.learn_request import LearnRequest
from actors.learn_tasks import Group, Seeding, Share
from benchmarks.learner.models import grafted_model, transfer_of
from benchmarks.learner.points import Point, rows_of
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId
from circadian.objectives import knowledge_seeding
from circadian.objectives.rows import write_rows
from circadian.specs import LearnerSpec, SeedingSpec

LR = 1e-3
RECIPE = SeedingSpec()


class Given(Seeding):
    """Seeding on all of its rows in every step, instead of a draw from them."""

    def share(self, step: int, group: Group) -> Share:
        del step, group
        lessons = [lesson for kind in self.taught.values() for lesson in kind]
        chunks = knowledge_seeding.chunks([lessons], self.spec.token_chunk)
        return Share(knowledge_seeding.collate(lessons), 1.0, chunks)


class Circadian:
    """One learner process."""

    def __init__(self, point: Point, spec: SeedingSpec = RECIPE, model: Grafted | None = None) -> None:
        transfer = transfer_of(point)
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        write_rows(folder / "rows.jsonl", rows_of(point))
        request = LearnRequest(
            task="seeding",
            run_name="bench",
            home=str(folder),
            storage=str(folder),
            version=str(folder),
            experts=transfer.experts,
            writes=transfer.into,
            transfer=transfer,
            rows=str(folder / "rows.jsonl"),
            seeding=spec,
        )
        self.task = Given(request)
        alone()
        model = model or grafted_model(point)
        self.engine = LearnEngine(model, ExpertId(*transfer.into), self.task, LearnerSpec(), spec.max_grad_norm)
        self.learned = sum(parameter.numel() for parameter in self.engine.written)

    def teach(self) -> None:
        """All lessons afresh."""
        self.task.taught = {}
        self.engine.prepare()

    def step(self) -> float:
        """One step; returns the loss before it."""
        return self.engine.step(self.task.share(0, Group()), LR)

    def lesson_bytes(self) -> int:
        """Of all lessons that are kept."""
        lessons = [lesson for kind in self.task.taught.values() for lesson in kind]
        return sum(_size(lesson.trunk) + _size(lesson.teacher) for lesson in lessons)


def alone() -> None:
    """A process group of one, if there is none yet; its store outlives this contender."""
    if not dist.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def _size(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()

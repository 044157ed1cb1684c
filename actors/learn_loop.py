"""What every learner process does, from the version's folder to the learned expert. No Ray here: `learner.py` runs it in Ray Train.

    resume -> [ student writes -> checkpoint ] -> step -> step -> ... -> [ student writes -> checkpoint ] -> ... -> result

A step depends on (seed, step), the expert, its Adam state and the student's rows. A checkpoint holds the last three, so a run that
was broken off and continued makes the same losses and the same expert as one that was not.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save

from actors.learn_engine import LearnEngine, broadcast, learning_model
from actors.learn_request import Deliveries, LearnRequest, LearnResult
from actors.learn_student import Rollouts, StudentWriter
from actors.learn_tasks import Seeding, build_task, by_kind
from circadian.events import EventLog
from circadian.files import write_whole
from circadian.memory.state import ExpertId
from circadian.memory.tensors import checksum
from circadian.memory.version import served_dtype
from circadian.objectives.rows import parse_rows, render_rows
from circadian.objectives.schedule import lr_at
from circadian.specs import Spec

FACTS_FILE = "facts.json"
STARTED = "sleep.learner_started"
PROGRESS = "sleep.progress"
PROGRESS_SECONDS = 1.0
"""Between two progress events, so that a night of a day long stays readable."""


class Checkpoints(Protocol):
    """Where checkpoints are kept."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """A folder with every process's part of the last checkpoint, for as long as the context lasts."""

    def keep(self, part: Path, step: int, loss: float | None) -> None:
        """Keep this process's part; returns when all processes' parts are kept."""


class Facts(Spec):
    """What the loop remembers besides the expert, its Adam state and the student's rows."""

    request: str
    """Fingerprint of the request."""
    step: int = 0
    """The step that comes next."""
    first_loss: float | None = None
    loss: float | None = None
    """Of the step before `step`."""
    deliveries: Deliveries = Deliveries()


class OutOfTime(Exception):
    """The task took longer than it may."""


class OtherRequest(Exception):
    """The run's checkpoints were made for another request."""


def learn_loop(
    request: LearnRequest, checkpoints: Checkpoints, rollouts: Sequence[Rollouts] = (), deadline: float = math.inf
) -> LearnResult | None:
    """Learn, or go on learning. Called by every process, with torch.distributed up.

    rollouts: used by rank 0, which alone returns a result.
    deadline: unix seconds, after which OutOfTime is raised.
    Raises LearningDiverged in every process alike.
    """
    return _Loop(request, checkpoints, rollouts, deadline).run()


class _Loop:
    """One process's run of learn_loop."""

    def __init__(self, request: LearnRequest, checkpoints: Checkpoints, rollouts: Sequence[Rollouts], deadline: float) -> None:
        self.request, self.recipe, self.checkpoints = request, request.recipe, checkpoints
        self.events, self.task = EventLog(Path(request.home)), build_task(request)
        model = learning_model(request, None if request.learner.gpus_per_worker else torch.float32)
        where = ExpertId(*request.writes)
        self.engine = LearnEngine(model, where, self.task, request.learner, self.recipe.max_grad_norm)
        self.group = self.engine.group
        self.writer: StudentWriter | None = None
        if self.group.rank == 0 and request.rollouts and isinstance(self.task, Seeding):
            self.writer = StudentWriter(request, self.task, rollouts)
        self.facts = Facts(request=request.fingerprint)
        self.told, self.deadline = 0.0, deadline

    def run(self) -> LearnResult | None:
        started, resumed = time.monotonic(), self._resume()
        start, loss = self.facts.step, self.facts.loss
        self._tell_start(start)
        if resumed:
            self.engine.prepare()
        for step in range(start, self.recipe.steps):
            self._check_time(step)
            if step % self.request.checkpoint_steps == 0 and not (resumed and step == start):
                self._refresh(step)
                self.engine.prepare()
                self._save(step, loss)
            loss = self.engine.step(self.task.share(step, self.group), lr_at(step, self.recipe.steps, self.recipe.lr))
            if step == 0:
                self.facts = self.facts.model_copy(update={"first_loss": loss})
            self._tell_progress(step + 1, loss)
        return self._result(loss, time.monotonic() - started)

    def _refresh(self, step: int) -> None:
        """Let the student write its rows afresh."""
        if not (isinstance(self.task, Seeding) and self.request.rollouts):
            return
        expert, text = self.engine.expert(served_dtype(Path(self.request.version))), ""
        if self.writer is not None:
            rows, deliveries = self.writer.write(step, expert, self.facts.deliveries)
            self.facts, text = self.facts.model_copy(update={"deliveries": deliveries}), render_rows(rows)
        self.task.student_written = by_kind(parse_rows(broadcast(text.encode()).decode()))

    def _save(self, step: int, loss: float | None) -> None:
        """Keep a checkpoint from which step `step` comes next."""
        self.facts = self.facts.model_copy(update={"step": step, "loss": loss})
        with tempfile.TemporaryDirectory(prefix="circadian-learner-") as name:
            part = Path(name)
            self.engine.save(part)
            if self.group.rank == 0:
                self.task.save(part)
                (part / FACTS_FILE).write_text(self.facts.model_dump_json())
            self.checkpoints.keep(part, step, loss)

    def _resume(self) -> bool:
        """Take up the last checkpoint, if there is one."""
        with self.checkpoints.latest() as folder:
            if folder is None:
                return False
            facts = Facts.model_validate_json((folder / FACTS_FILE).read_text())
            if facts.request != self.facts.request:
                raise OtherRequest(
                    f"run {self.request.run_name!r} holds checkpoints of another request; give this one a name of its own"
                )
            self.engine.load(folder)
            self.task.load(folder)
            self.facts = facts
        return True

    def _check_time(self, step: int) -> None:
        if time.time() > self.deadline:
            bound = self.request.learner.stage_seconds
            raise OutOfTime(f"step {step} of {self.recipe.steps} was not reached in {bound} s; raise learner.stage_seconds")

    def _tell_start(self, step: int) -> None:
        rank, size = self.group.rank, self.group.size
        text = f"learner process {rank + 1} of {size} starts at step {step}"
        self.events.emit(STARTED, text, run=self.request.run_name, rank=rank, pid=os.getpid(), step=step)

    def _tell_progress(self, done: int, loss: float) -> None:
        last = done == self.recipe.steps
        if self.group.rank == 0 and (last or time.monotonic() - self.told >= PROGRESS_SECONDS):
            self.told, name = time.monotonic(), self.request.task.replace("_", " ")
            text = f"{name}: step {done} of {self.recipe.steps}, loss {loss:.3f}"
            self.events.emit(
                PROGRESS,
                text,
                run=self.request.run_name,
                task=self.request.task,
                step=done,
                total_steps=self.recipe.steps,
                loss=loss,
            )

    def _result(self, loss: float | None, seconds: float) -> LearnResult | None:
        """The learned expert on disk, and what there is to say about it."""
        expert = self.engine.expert()
        if self.group.rank != 0 or loss is None or self.facts.first_loss is None:
            return None
        path = Path(self.request.storage) / f"{self.request.run_name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(expert))
        return LearnResult(
            tensors=str(path),
            checksum=checksum(expert),
            steps=self.recipe.steps,
            seconds=seconds,
            first_loss=self.facts.first_loss,
            final_loss=loss,
            restarts=self._starts() - 1,
            deliveries=self.facts.deliveries,
        )

    def _starts(self) -> int:
        """How often the run's first process started, as the events tell."""
        started = {"run": self.request.run_name, "rank": 0}.items()
        return sum(
            e["type"] == STARTED and isinstance(e["data"], dict) and started <= e["data"].items() for e in self.events.read()
        )

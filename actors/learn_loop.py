"""What every learner process does, from the version's folder to the learned expert. It needs no Ray: `learner.py` runs it in Ray Train.

    resume -> [ rows arrive -> the next are ordered -> lessons -> checkpoint ] -> step -> step -> ... -> [ rows arrive -> ... -> result

A step depends on (seed, step), the expert, its Adam state and the student's rows. A checkpoint holds the last three, and the rows
that are under way meanwhile are made of the expert that it holds (learn_ahead.py), so a run that was broken off and continued makes
the same losses and the same expert as one that was not.

consumes     rows of teachers (a file) and of the student (learn_ahead.py)
produces     the student, once a block; checkpoints, progress, the learned expert
waits for    the student's rows and the other processes, each no longer than `learner.wait_seconds`
unblocked by the rows' arrival, in rank 0 first
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

from actors.learn_ahead import Writing
from actors.learn_engine import LearnEngine, broadcast, learning_model
from actors.learn_request import Deliveries, LearnRequest, LearnResult, Staleness
from actors.learn_student import Rollouts, StudentWriter
from actors.learn_tasks import Seeding, build_task, by_kind
from actors.telling import tell
from circadian import metrics
from circadian.events import EventLog
from circadian.files import write_whole
from circadian.memory.state import ExpertId
from circadian.memory.tensors import checksum
from circadian.memory.version import served_dtype
from circadian.objectives.rows import parse_rows, render_rows
from circadian.objectives.schedule import lr_at
from circadian.phases import Phases, Seconds, told, with_idle
from circadian.specs import Spec

FACTS_FILE = "facts.json"
STARTED = "sleep.learner_started"
PROGRESS = "sleep.progress"
PHASES = "sleep.phases"
CHECKPOINT = "sleep.checkpoint_saved"
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
    written_by: int | None = None
    """The step of the student that wrote the rows that are learned from now."""
    staleness: Staleness = Staleness()
    seconds: dict[str, float] = {}
    """By phase."""


class OutOfTime(Exception):
    """The task took longer than it may."""


class OtherRequest(Exception):
    """The run's checkpoints were made for another request."""


def learn_loop(
    request: LearnRequest,
    checkpoints: Checkpoints,
    rollouts: Sequence[Rollouts] = (),
    deadline: float = math.inf,
    asked: float | None = None,
) -> LearnResult | None:
    """Learn, or go on learning. Called by every process, with torch.distributed up.

    rollouts: used by rank 0, which alone returns a result.
    deadline: unix seconds, after which OutOfTime is raised; asked: unix seconds, when the task was given.
    Raises LearningDiverged in every process alike.
    """
    asked = time.time() if asked is None else asked
    loop = _Loop(request, checkpoints, rollouts, deadline)
    try:
        return loop.run(asked)
    finally:
        loop.close()


class _Loop:
    """One process's run of learn_loop."""

    def __init__(self, request: LearnRequest, checkpoints: Checkpoints, rollouts: Sequence[Rollouts], deadline: float) -> None:
        self.request, self.recipe, self.checkpoints = request, request.recipe, checkpoints
        self.events, self.task = EventLog(Path(request.home)), build_task(request)
        model = learning_model(request, None if request.learner.gpus_per_worker else torch.float32)
        where = ExpertId(*request.writes)
        self.engine = LearnEngine(model, where, self.task, request.learner, self.recipe.max_grad_norm)
        self.group = self.engine.group
        self.writing: Writing | None = None
        if self.group.rank == 0 and request.rollouts and isinstance(self.task, Seeding):
            self.writing = Writing(StudentWriter(request, self.task, rollouts), request.learner.wait_seconds)
        self.phases = Phases()
        self.facts = Facts(request=request.fingerprint)
        self.told, self.deadline = 0.0, deadline
        self.counted = 0
        """Steps that the metrics have been told of."""

    def run(self, asked: float) -> LearnResult | None:
        started, resumed = time.monotonic(), self._resume()
        start, loss = self.facts.step, self.facts.loss
        self.counted = start
        if not resumed:
            self.phases.add({"start": max(0.0, time.time() - asked)})
        self._tell_start(start)
        for step in range(start, self.recipe.steps):
            self._check(step)
            if step % self.request.checkpoint_steps == 0:
                self._between_blocks(step, loss, resumed and step == start)
            with self.phases.during("learn"):
                loss = self.engine.step(self.task.share(step, self.group), lr_at(step, self.recipe.steps, self.recipe.lr))
            self._note(step, loss)
            self._tell_progress(step + 1, loss)
        return self._result(loss, time.monotonic() - started)

    def close(self) -> None:
        """Whatever the end was, what the student may still be writing is not waited for."""
        if self.writing is not None:
            self.writing.close()

    def _between_blocks(self, step: int, loss: float | None, resumed: bool) -> None:
        """A run that is resumed has the rows of this block, and orders those of the next one again."""
        if not resumed:
            self._receive(step)
        following = step + self.request.checkpoint_steps
        if self._ahead and following < self.recipe.steps:
            self._order(following, by=step)
        self._prepare()
        if not resumed:
            self._save(step, loss)

    @property
    def _writes(self) -> bool:
        """Whether a student writes."""
        return isinstance(self.task, Seeding) and bool(self.request.rollouts)

    @property
    def _ahead(self) -> bool:
        return self._writes and self.request.seeding.ahead

    def _receive(self, step: int) -> None:
        """The student's rows of the block from `step` on, in every process."""
        if not (self._writes and isinstance(self.task, Seeding)):
            return
        if step == 0 or not self._ahead:
            self._order(step, by=step)
        if step == 0:
            self._prepare()  # of the teachers' rows, while the student writes its first
        with self.phases.during("wait"):
            text = "" if self.writing is None else self._collected(self.writing)
            self.task.student_written = by_kind(parse_rows(broadcast(text.encode()).decode()))

    def _collected(self, writing: Writing) -> str:
        """The ordered rows as text, in rank 0."""
        written = writing.collect()
        deliveries = self.facts.deliveries.and_those(written.deliveries)
        self.facts = self.facts.model_copy(update={"deliveries": deliveries, "written_by": written.by})
        self.phases.add(written.seconds)
        return render_rows(written.rows)

    def _order(self, step: int, by: int) -> None:
        """Let the student as it stands now, at step `by`, write the rows of the block from `step` on."""
        with self.phases.during("wait"):
            expert = self.engine.expert(served_dtype(Path(self.request.version)))  # every process has a part of it
            if self.writing is not None:
                self.writing.order(step, by, expert)

    def _prepare(self) -> None:
        with self.phases.during("teach"):
            self.engine.prepare()

    def _note(self, step: int, loss: float) -> None:
        """Remember what the result will tell of this step."""
        if step == 0:
            self.facts = self.facts.model_copy(update={"first_loss": loss})
        if (age := self._staleness(step)) is not None:
            self.facts = self.facts.model_copy(update={"staleness": self.facts.staleness.with_one(age)})

    def _staleness(self, step: int) -> int | None:
        """Steps between the student that wrote this step's rows and the one that learns from them."""
        return None if self.facts.written_by is None else step - self.facts.written_by

    def _seconds(self) -> Seconds:
        """By phase, so far."""
        return with_idle(self.phases.seconds()) if self._writes else self.phases.seconds()

    def _save(self, step: int, loss: float | None) -> None:
        """Keep a checkpoint from which step `step` comes next."""
        self.facts = self.facts.model_copy(update={"step": step, "loss": loss, "seconds": self.phases.seconds()})
        with self.phases.during("checkpoint"), tempfile.TemporaryDirectory(prefix="circadian-learner-") as name:
            part = Path(name)
            self.engine.save(part)
            if self.group.rank == 0:
                self.task.save(part)
                (part / FACTS_FILE).write_text(self.facts.model_dump_json())
            self.checkpoints.keep(part, step, loss)
        if self.group.rank == 0:
            self.events.emit(CHECKPOINT, f"what was learned in {step} steps is kept", run=self.request.run_name, step=step)

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
            self.facts, self.phases = facts, Phases(facts.seconds)
        return True

    def _check(self, step: int) -> None:
        """Raises OutOfTime, or what befell the student's writing."""
        if self.writing is not None:
            self.writing.check()
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
            self._tell_metrics(done, loss)
            text = f"{name}: step {done} of {self.recipe.steps}, loss {loss:.3f}"
            self.events.emit(
                PROGRESS,
                text,
                run=self.request.run_name,
                task=self.request.task,
                step=done,
                total_steps=self.recipe.steps,
                loss=loss,
                staleness_steps=self._staleness(done - 1),
            )

    def _tell_metrics(self, done: int, loss: float) -> None:
        task, age = self.request.task, self._staleness(done - 1)
        tell(metrics.LEARNER_LOSS, loss, task=task)
        tell(metrics.LEARNER_STEPS, done - self.counted, task=task)
        if (norm := self.engine.gradient_norm()) is not None:
            tell(metrics.LEARNER_GRADIENT, norm, task=task)
        if age is not None:
            tell(metrics.LEARNER_STALENESS, age, task=task)
        self.counted = done

    def _result(self, loss: float | None, seconds: float) -> LearnResult | None:
        """The learned expert on disk, and what there is to say about it."""
        expert = self.engine.expert()
        if self.group.rank != 0 or loss is None or self.facts.first_loss is None:
            return None
        run, task, seconds_by_phase = self.request.run_name, self.request.task, self._seconds()
        self.events.emit(
            PHASES, f"{task.replace('_', ' ')}: {told(seconds_by_phase)}", run=run, task=task, seconds=seconds_by_phase
        )
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
            max_staleness_steps=self.facts.staleness.most,
            mean_staleness_steps=self.facts.staleness.mean,
            phases=seconds_by_phase,
        )

    def _starts(self) -> int:
        """How often the run's first process started, as the events tell."""
        started = {"run": self.request.run_name, "rank": 0}.items()
        return sum(
            e["type"] == STARTED and isinstance(e["data"], dict) and started <= e["data"].items() for e in self.events.read()
        )

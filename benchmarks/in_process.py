"""A night in one process: the pipeline's own stages, the learner's own loop, and local_engine.py in the rollout workers' place.

What is left out is what a benchmark of quality does not need: Ray, vLLM, and a second process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from actors.learn_request import LearnRequest, LearnResult
from actors.teaching import LectureRequest, give
from benchmarks.local_engine import LocalEngine, LocalPool
from circadian.specs import LearnerSpec, NightJob
from circadian.teachers.lecture import Lecture
from pipelines.consolidation import Memory, Moved, dream_corpus, planned, prune, seeding_request, snapshot_teacher
from pipelines.gate import gate
from pipelines.other_teachers import lectures, taught_in
from pipelines.publish import publish
from pipelines.stages import Outputs
from pipelines.wake import collect

os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


class NoCheckpoints:
    """A run that is broken off is begun again."""

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        yield None

    def keep(self, part: Path, step: int, loss: float | None) -> None:
        del part, step, loss


@contextmanager
def alone() -> Iterator[None]:
    """A process group of one."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def learn(request: LearnRequest, engine: LocalEngine) -> LearnResult:
    """The learner's loop, in this process."""
    from actors.learn_loop import learn_loop  # DeepSpeed reads the environment when it is imported

    result = learn_loop(request, NoCheckpoints(), [engine] if request.rollouts else [])
    assert result is not None, "this process is the first"
    return result


def seed_from_others(job: NightJob) -> Outputs:
    """A night without experiences, of other teachers alone: published if the gate passes. Returns the outcome, and what was said."""
    day = collect(job)
    engine, said = LocalEngine(Path(job.parent)), lectures(job, _here)
    pool = LocalPool(engine)
    memory = Memory.undisturbed(job)
    (move,) = day["moves"]
    transfer, teachers = planned(memory, move), snapshot_teacher(job, memory)
    corpus = dream_corpus(job, day, memory, transfer, pool, said)
    result = learn(seeding_request(job, memory, transfer, corpus, pool.names, said), engine)
    seeded: Outputs = {"tensors_file": str(Path(result.tensors).relative_to(Path(job.home).resolve())), "seconds": result.seconds}
    prune(job, memory, transfer)
    after = memory.moved(transfer, seeded["tensors_file"], (taught_in(job.sleep),))
    asleep = [Moved(memory), Moved(after, transfer, corpus, seeded, teachers, said)]
    verdict = gate(job, day, asleep, pool)
    publish(job, day, verdict, asleep)  # also where the gate says no: a benchmark shows the losing rows
    loss = {"first": result.first_loss, "final": result.final_loss}
    return {"told": said["told"], "verdict": verdict, "rows": corpus["rows"], "loss": loss, "seconds": round(result.seconds, 1)}


def _here(request: LectureRequest, learner: LearnerSpec) -> tuple[Lecture, str]:
    del learner
    return give(request)

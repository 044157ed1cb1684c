"""The fast learner: applies the online update of one deployment's fast level, chunk after chunk, while its replicas serve.

consumes     chunk jobs (files that the controller wrote), the files of the day's earlier chunks
produces     each chunk's expert, its delivery and its record on disk (`learn_chunk.py`); the record also as the answer
waits for    the controller's next chunk
unblocked by a call to `learn`

It keeps nothing but the loaded model: whatever it knows is on disk, so one that is ended or killed is simply started again. It outlives
the controller that started it, and is ended for the night, whose learner needs its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import ObjectRef

from actors import names
from circadian.specs import ChunkJob, ChunkRecord, OnlineLearningSpec

if TYPE_CHECKING:
    from actors.learn_chunk import FastLevel


class FastLearner:
    """The actor's class; callers use FastLearnerHandle."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._level: FastLevel | None = None

    def learn(self, job_file: str) -> ChunkRecord:
        """Learn and commit a chunk. Raises ChunkFailed."""
        from actors.learn_chunk import FastLevel, learn_chunk  # torch, which callers need not

        job = ChunkJob.model_validate_json(Path(job_file).read_text())
        if self._level is None or self._level.version != Path(job.version):
            self._level = None  # one model at a time
            self._level = FastLevel(Path(job.version), self._device)
        return learn_chunk(job, self._level)


class FastLearnerHandle:
    """How the controller talks to one fast learner. Methods that end in `_ref` do not wait."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def start(cls, deployment: str, spec: OnlineLearningSpec) -> FastLearnerHandle:
        """The learner that lives, or a new one, which stays until `kill`."""
        actor = (
            ray.remote(FastLearner)
            .options(
                name=names.fast_learner(deployment),
                namespace=names.NAMESPACE,
                get_if_exists=True,
                lifetime="detached",
                num_cpus=spec.cpus,
                num_gpus=spec.gpus,
                resources=names.role("learner"),
                runtime_env={"env_vars": names.learner_environment()},
            )
            .remote("cuda" if spec.gpus else "cpu")
        )
        return cls(actor)

    @classmethod
    def attach(cls, deployment: str) -> FastLearnerHandle:
        """The learner that another process of this cluster started. Raises ValueError where there is none."""
        return cls(ray.get_actor(names.fast_learner(deployment), namespace=names.NAMESPACE))

    def learn_ref(self, job_file: Path) -> ObjectRef[ChunkRecord]:
        """Learn and commit the chunk of this job. Raises ChunkFailed; RayActorError where the learner died."""
        return self._actor.learn.remote(str(job_file))

    def kill(self) -> None:
        """End it, whatever it is doing: a chunk that is not committed is learned again from its job."""
        ray.kill(self._actor)

"""The learner: a Ray Train run with a DeepSpeed engine inside each process's train loop.

    learn(request) -> result        learn_loop.py   the loop, in every process
                                    learn_tasks.py  what is learned: rows and loss
                                    learn_student.py  the student's own writing
                                    learn_ahead.py   while the learner learns
                                    learn_engine.py  the model, DeepSpeed, checkpoints' content

A learner process that dies is started again, with all others, at the last checkpoint. What would fail again the same way (a loss
that is not finite) ends the run at once instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint
from ray.train.torch import TorchConfig

# The public names of these are the same objects, but type checkers take them for their predecessors, which lack our settings.
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from actors import names
from actors.learn_request import Deliveries, LearnRequest, LearnResult
from actors.rollout import RolloutHandle
from actors.room import lacking
from circadian.events import EventLog
from circadian.specs import LearnerSpec, Spec

__all__ = ["Deliveries", "LearnRequest", "LearnResult", "LearnerFailed", "learn"]

CHECKPOINTS_KEPT = 2
DRIVER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # report() is paced by it, 2 s if unset
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # runs are told at the dashboard, /api/train/v2/runs/v1
}
PATHS = ("home", "storage", "version", "rows", "cues")


class LearnerFailed(Exception):
    """The task cannot be done as asked; doing it again would fail again."""


class Outcome(Spec):
    """What the first process returns: one of the two."""

    learned: LearnResult | None = None
    failed: str = ""


def learn(request: LearnRequest) -> LearnResult:
    """Run a task on the cluster and wait for it. Repeating it after the driver died continues the run.

    Raises LearnerFailed, and Ray Train's TrainingFailedError when processes failed more often than `request.learner.max_failures`.
    """
    started, asked, request = time.monotonic(), time.time(), _absolute(request)
    Path(request.storage).mkdir(parents=True, exist_ok=True)
    _set_driver_environment(request.learner)
    if why := lacking(room_of(request.learner)):
        waiting = f"waits for learners: {why}"
        EventLog(Path(request.home)).emit("sleep.waiting", waiting, waiting=waiting, room=room_of(request.learner))
    trainer = TorchTrainer(
        learn_in_process,
        train_loop_config={
            "request": request.model_dump_json(),
            "asked": asked,
            "deadline": asked + request.learner.stage_seconds,
        },
        torch_config=TorchConfig(timeout_s=request.learner.wait_seconds),
        scaling_config=_scaling(request.learner),
        run_config=_run_config(request),
    )
    outcome = Outcome.model_validate_json(trainer.fit().return_value)  # type: ignore[attr-defined]
    if outcome.learned is None:
        raise LearnerFailed(outcome.failed)
    return outcome.learned.model_copy(update={"seconds": time.monotonic() - started})


def learn_in_process(config: dict[str, Any]) -> str:
    """The train loop of one process; returns an Outcome as JSON."""
    from actors.learn_engine import LearningDiverged  # DeepSpeed, which the driver needs not
    from actors.learn_loop import OtherRequest, OutOfTime, learn_loop
    from circadian.memory.folder import VersionBroken
    from circadian.teachers.other import TeacherUnusable

    request = LearnRequest.model_validate_json(config["request"])
    first = ray.train.get_context().get_world_rank() == 0
    rollouts = [RolloutHandle.attach(name, request.engine) for name in request.rollouts] if first else []
    try:
        learned = learn_loop(request, TrainCheckpoints(), rollouts, config["deadline"], config["asked"])
    except (LearningDiverged, OtherRequest, OutOfTime, TeacherUnusable, VersionBroken) as error:  # a restart would end here again
        return Outcome(failed=str(error)).model_dump_json()
    return Outcome(learned=learned).model_dump_json()


class TrainCheckpoints:
    """Checkpoints in the run's storage, as Ray Train keeps them."""

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def keep(self, part: Path, step: int, loss: float | None) -> None:
        ray.train.report({"step": step, "loss": loss}, checkpoint=Checkpoint.from_directory(part))


def _scaling(spec: LearnerSpec) -> ScalingConfig:
    """Of the learner's processes. Ray Train's controller starts where `fit` is called: with the night's driver, on a learner's node."""
    return ScalingConfig(num_workers=spec.workers, use_gpu=bool(spec.gpus_per_worker), resources_per_worker=room_of(spec))


def room_of(spec: LearnerSpec) -> dict[str, float]:
    """What one process of the learner asks Ray for."""
    gpus = {"GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {}
    return {"CPU": spec.cpus_per_worker} | gpus | names.role("learner")


def _run_config(request: LearnRequest) -> RunConfig:
    spec = request.learner
    environment = names.learner_environment() | {
        "DS_ACCELERATOR": "cuda" if spec.gpus_per_worker else "cpu",
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # a checkpoint is data, also where DeepSpeed would unpickle it
    }
    return RunConfig(
        name=request.run_name,
        storage_path=request.storage,
        failure_config=FailureConfig(max_failures=spec.max_failures, controller_failure_limit=spec.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
        worker_runtime_env={"env_vars": environment},
    )


def _set_driver_environment(spec: LearnerSpec) -> None:
    """Ray Train reads these where `fit` is called, and hands them on."""
    bound = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(spec.start_seconds)}
    for name, value in (DRIVER_ENVIRONMENT | bound).items():
        os.environ.setdefault(name, value)


def _absolute(request: LearnRequest) -> LearnRequest:
    """Learner processes run in a folder of their own."""
    paths = {name: getattr(request, name) for name in PATHS}
    absolute = {name: str(Path(path).resolve()) for name, path in paths.items() if path is not None}
    return request.model_copy(update=absolute | {"overlays": tuple(str(Path(path).resolve()) for path in request.overlays)})

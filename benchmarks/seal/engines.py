"""Who writes and who learns: in this process, or on a cluster that is started for the run.

    local     benchmarks/local_engine.py and local_hands.py; what is spent is metered
    cluster   the product's own stack, which listens on the loopback address and asks for a token: a vLLM rollout worker, tasks in the
              learner's place

A machine with one GPU shares it between the two; with more, one writes and each of the others learns.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from actors import names
from actors.dreamwork import Hands, RayHands
from benchmarks.local_engine import LocalEngine, LocalPool
from benchmarks.local_hands import LocalHands
from benchmarks.nights.meter import Meter, metered
from circadian.specs import NightJob
from pipelines.rollouts import RolloutPool, Sampler
from services.settings import Settings
from services.stack import Stack, StackSpec

CPUS = 4
"""Logical: one for the rollout worker and one for each task, whatever the machine has."""
SHARED = 0.5
"""Of a single GPU, to each side."""
SHARED_MEMORY = 0.4
"""Of its memory to vLLM: weights and the keys and values of the prompts; learning takes the rest."""
BOUNDS = {"start_seconds": 3600.0, "control_seconds": 600.0, "generate_seconds": 86400.0}
"""One call writes every dream of a test, thousands of them; and the machine may have other work."""
START_SECONDS = 600.0
"""Bound of the start of Ray, and of the service beside it."""


@dataclass(frozen=True)
class Engine:
    """meter: None where what is spent is spent in other processes."""

    rollouts: Sampler
    hands: Hands
    meter: Meter | None


def places(engine: str, length: int) -> dict[str, Any]:
    """The parts of a recipe that say how many processes there are, and on what. length: tokens of a prompt and what follows it."""
    vllm: dict[str, Any] = {"max_model_len": length} | BOUNDS
    gpus = torch.cuda.device_count() if engine == "cluster" else 0
    if not gpus:
        return {"rollouts": {"engine": vllm}}
    if gpus == 1:
        vllm["gpu_memory_utilization"] = SHARED_MEMORY
        return {"rollouts": {"gpus_per_worker": SHARED, "engine": vllm}, "learner": {"gpus_per_worker": SHARED}}
    return {
        "rollouts": {"gpus_per_worker": 1.0, "engine": vllm},
        "learner": {"gpus_per_worker": 1.0, "workers": gpus - 1},
    }


@contextmanager
def engine_of(kind: str, job: NightJob, pack_tokens: int) -> Iterator[Engine]:
    """job: any whose recipe has the places and the largest adapters of the run."""
    if kind == "local":
        engine = LocalEngine(Path(job.parent))
        metered(engine.model)
        yield Engine(LocalPool(engine), LocalHands(pack_tokens), Meter())
        return
    with _cluster(Path(job.home) / "stack"), RolloutPool(job) as rollouts:
        yield Engine(rollouts, RayHands(job.recipe.learner, pack_tokens), None)


@contextmanager
def _cluster(home: Path) -> Iterator[None]:
    """The product's own stack on this machine, and this process its driver. Ray is told to ask for tokens before it is imported
    (__main__.py)."""
    settings = Settings(home=home, port=0, ray_start_seconds=START_SECONDS, controller_start_seconds=START_SECONDS)
    with Stack(settings, StackSpec(num_cpus=CPUS + torch.cuda.device_count())) as stack:
        os.environ["RAY_AUTH_TOKEN"] = stack.ray_token
        address = stack.settings.ray_address
        ray.init(address=address, namespace=names.NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
        try:
            yield
        finally:
            ray.shutdown()

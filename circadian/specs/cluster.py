"""Processes: how many, on what, and for how long."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from circadian.specs.base import PositiveInt, Resource, Seconds, Spec


class LearnerSpec(Spec):
    """The learner processes: a Ray Train run with a DeepSpeed engine in each worker."""

    workers: PositiveInt = 1
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    cpus_per_worker: Resource = 1.0
    gpus_per_worker: Resource = 0.0
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Learner deaths a stage survives; each time it resumes from its last checkpoint."""
    start_seconds: PositiveInt = 300
    """Longest wait for the cluster to place and start the learner processes."""
    wait_seconds: PositiveInt = 1800
    """Longest wait of one learner process for the others, and for the students' writing."""
    stage_seconds: PositiveInt = 86400
    """Longest that one task may take, restarts included."""


class EngineSpec(Spec):
    """How one vLLM engine runs."""

    max_model_len: PositiveInt | None = None
    """Tokens of prompt and completion together; None means what the base model allows."""
    max_num_seqs: PositiveInt = 64
    """Requests that are worked on at once; more wait in line."""
    tensor_parallel_size: PositiveInt = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.85
    """Share of a GPU's memory; on CPU the KV cache is sized by VLLM_CPU_KVCACHE_SPACE (GiB)."""
    adapters: Annotated[int, Field(ge=0)] = 0
    """LoRA adapters that one step may mix, each with a place in memory; 0: the engine takes none, and is faster."""
    adapter_rank: Annotated[int, Field(ge=1, le=512)] = 64
    """Largest rank of an adapter."""
    start_seconds: Seconds = 900.0
    """Bound of a start: a large base is hashed, read and warmed up."""
    control_seconds: Seconds = 120.0
    """Bound of a delivery, a change of view or a checksum."""
    generate_seconds: Seconds = 1800.0
    """Bound of one call of sample or read, over all its prompts."""


MOST_REPLICAS = 64


class Autoscale(Spec):
    """As many wake replicas as the requests under way call for."""

    min: Annotated[int, Field(ge=1, le=MOST_REPLICAS)] = 1
    """At least one: the first request after none would wait for an engine's start."""
    max: Annotated[int, Field(ge=1, le=MOST_REPLICAS)]
    target_ongoing_requests: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 32.0
    """Under way at one replica; with more of them another is started. Half of what one engine works on at once."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"replicas.min {self.min} is more than replicas.max {self.max}; give a max of {self.min} or more")
        return self


class RolloutSpec(Spec):
    """The rollout workers: vLLM engines that write for the night."""

    workers: PositiveInt = 1
    cpus_per_worker: Resource = 1.0
    gpus_per_worker: Resource = 0.0
    engine: EngineSpec = EngineSpec(max_model_len=512, max_num_seqs=256)

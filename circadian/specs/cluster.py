"""Processes: how many, on what, and for how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

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


class RolloutSpec(Spec):
    """The rollout workers: vLLM engines that write for the night."""

    workers: PositiveInt = 1
    cpus_per_worker: Resource = 1.0
    gpus_per_worker: Resource = 0.0
    engine: EngineSpec = EngineSpec(max_model_len=512, max_num_seqs=256)

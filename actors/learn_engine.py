"""One learner process: a grafted model in which one expert is written, inside a DeepSpeed engine.

Only that expert has gradients and Adam state; the base and every other expert are frozen, and under ZeRO-3 sharded.
torch.distributed is initialised by whoever starts the processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero import GatheredParameters
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from safetensors.torch import load_file
from torch import Tensor, nn

from actors.learn_request import LearnRequest
from actors.learn_tasks import Group, Share, Task
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, ExpertState, MemoryState
from circadian.memory.tensors import expert_tensors, write_tensors
from circadian.memory.version import load_version
from circadian.specs import LearnerSpec

T = TypeVar("T")
CHECKPOINT_TAG = "learner"
CHECKPOINT_TYPES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [ZeroStageEnum, LossScaler, fragment_address]
"""What DeepSpeed's checkpoints hold besides tensors and plain values, where torch.load is told to read nothing else."""
WHOLE_BELOW = 10_000
"""Entries below which ZeRO-3 keeps a parameter whole in every process: norms and biases, not matrices."""


class LearningDiverged(Exception):
    """The loss or the expert is no longer finite."""


class Reading(nn.Module):
    """The model as a module that does any work with it, so that ZeRO-3's hooks see every part that is used."""

    def __init__(self, model: Grafted) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[Grafted], T]) -> T:
        return work(self.model)


class LearnEngine:
    """Takes steps; every method is called by all processes at the same time."""

    def __init__(self, model: Grafted, where: ExpertId, task: Task, learner: LearnerSpec, max_grad_norm: float) -> None:
        self.model, self.where, self.task, self.group = model, where, task, Group(dist.get_rank(), dist.get_world_size())
        experts = model.begin_writing(where, task.fresh, task.views, task.before)
        self.written = [parameter for expert in experts for parameter in expert.parameters()]
        self.adam = torch.optim.AdamW(self.written, lr=0.0, weight_decay=0.0)
        _leave_out_shared_memory_op()
        self.deepspeed, *_ = deepspeed.initialize(
            model=Reading(model),
            optimizer=self.adam,
            config=deepspeed_config(learner.zero_stage, max_grad_norm, model.dtype, sum(each.numel() for each in self.written)),
        )
        self.deepspeed.train()
        self._norm: Tensor | None = None
        model.eval()  # a base with dropout must not drop anything; the engine itself stays in training

    def prepare(self) -> None:
        """Let the task compute what the coming steps need."""
        with torch.no_grad():
            self.deepspeed(self.task.prepare)

    def step(self, share: Share, lr: float) -> float:
        """One step on a step's rows. Returns the mean loss over all processes, before the step.

        Raises LearningDiverged, in every process alike.
        """
        for group in self.adam.param_groups:
            group["lr"] = lr
        tensors = {name: tensor.to(self.deepspeed.device) for name, tensor in share.tensors.items()}
        loss = share.weight * self.deepspeed(lambda model: self.task.loss(model, tensors, share.chunks))
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        value = mean.item() / self.group.size
        if not math.isfinite(value):
            raise LearningDiverged(f"the loss is {value}; lower the task's lr or max_grad_norm, or look for broken rows")
        self.deepspeed.backward(loss)
        whole = [parameter.grad for parameter in self.written if parameter.grad is not None]
        self._norm = nn.utils.get_total_norm(whole) if whole else None
        self.deepspeed.step()
        return value

    def gradient_norm(self) -> float | None:
        """2-norm of the expert's gradient in the last step, before it was clipped; only who asks waits for it."""
        sharded = self.deepspeed.get_global_grad_norm()  # from ZeRO's stage 1 on, where no process has all of it
        norm = self._norm if sharded is None else sharded
        return None if norm is None else float(norm)

    def expert(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The written expert's named tensors as they stand. Raises LearningDiverged."""
        with self._whole():
            tensors = expert_tensors(self.model.memory_layers, [self.where], dtype)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise LearningDiverged("the written expert holds values that are not finite; lower the task's lr or max_grad_norm")
        return tensors

    def save(self, folder: Path) -> None:
        """This process's part of a checkpoint: the expert and its Adam state."""
        self.deepspeed.save_checkpoint(str(folder), tag=CHECKPOINT_TAG, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """The inverse of save, into a fresh engine."""
        with torch.serialization.safe_globals(CHECKPOINT_TYPES):
            path, _ = self.deepspeed.load_checkpoint(str(folder), tag=CHECKPOINT_TAG, load_module_strict=False)
        if path is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint of this learner; remove the run's folder to start it afresh")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """The written expert, gathered from its shards under ZeRO-3."""
        if self.deepspeed.zero_optimization_partition_weights():
            with GatheredParameters(self.written):
                yield
        else:
            yield


def deepspeed_config(zero_stage: int, max_grad_norm: float, dtype: torch.dtype, written: int) -> dict[str, Any]:
    """DeepSpeed's settings; batch sizes are the task's affair, so its own bookkeeping counts one batch a step.

    written: numbers that are learned. Gradients are reduced through a buffer that holds all of them; DeepSpeed's own is for 5e8, which
    is 2 GB of the device in fp32, whatever is learned.
    A model in bf16 learns at stage 1 or higher: from there on Adam steps a copy of the expert in fp32.
    """
    if dtype == torch.bfloat16:
        zero_stage = max(zero_stage, 1)
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": {
            "stage": zero_stage,
            "stage3_param_persistence_threshold": WHOLE_BELOW,
            "reduce_bucket_size": written,
        },
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": dtype == torch.bfloat16},
    }


def learning_model(request: LearnRequest, dtype: torch.dtype | None) -> Grafted:
    """The version's model with the overlays written and the expert to write ready: fresh, unless it goes on from what it holds, or is
    written anew apart from that."""
    where = ExpertId(*request.writes)
    model = load_version(Path(request.version), dtype)
    overlay = {name: tensor for path in request.overlays for name, tensor in load_file(path).items()}
    write_tensors(model.memory_layers, {name: tensor.to(model.dtype) for name, tensor in overlay.items()})
    rewrites = request.transfer is not None and request.transfer.rewrites
    if not request.goes_on and not rewrites:
        generator = torch.Generator().manual_seed(request.expert_seed)
        for layer in model.memory_layers.values():
            layer.initialise(where, generator)
    model.memory_state = MemoryState.parse(request.experts)
    if model.memory_state[where] is not ExpertState.OPEN:
        raise ValueError(f"expert {where} is {model.memory_state[where]} during the task; name it open in `experts`")
    return model


def broadcast(payload: bytes) -> bytes:
    """Rank 0's bytes, in every process."""
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    size = torch.tensor([len(payload)], device=device)
    dist.broadcast(size, 0)
    data = torch.frombuffer(bytearray(payload), dtype=torch.uint8).to(device) if dist.get_rank() == 0 and payload else None
    data = data if data is not None else torch.empty(int(size), dtype=torch.uint8, device=device)
    dist.broadcast(data, 0)
    return data.cpu().numpy().tobytes()


def _leave_out_shared_memory_op() -> None:
    """DeepSpeed speeds up CPU collectives by an op that it compiles at first use, 40 s on a fresh machine; gloo does without."""
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

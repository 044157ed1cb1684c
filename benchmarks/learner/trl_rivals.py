"""TRL's trainers on the same rows: their own `training_step`, then clipping, AdamW and zero_grad as `Trainer.train` has them.

    trl_gkd                    GKDTrainer: two models, full logits of both                                (beta 0: forward KL)
    trl_distillation           DistillationTrainer: two models, logits in tiles, computed again backwards (beta 0: forward KL)
    trl_distillation_default   the same with gradient checkpointing, as is TRL's default
    trl_self                   SDFTTrainer: one model, its adapter off is the teacher, full logits        (alpha 0: forward KL)

The student learns a LoRA of as many parameters as our expert has, on the matrices of the MLP, beside which our memory sits. No dropout,
no generation: what `_prepare_inputs` would have generated is given. Padding is what each trainer asks for: GKD on the right to the longest
row; the others prompts on the left, completions on the right.

B rows, T tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

from benchmarks.learner.models import base_model, learned_parameters
from benchmarks.learner.points import Contender, Point, rows_of
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.objectives.rows import TaughtRow

IGNORED = -100
LR, MAX_GRAD_NORM = 1e-3, 1.0
FORWARD_KL = 0.0
"""What all three name forward KL by."""
MATRICES = ["gate_proj", "up_proj", "down_proj"]


class Trl:
    """One trainer; `teacher` and `student` stand in for the base models where a test wants others."""

    def __init__(
        self, kind: Contender, point: Point, teacher: PreTrainedModel | None = None, student: PreTrainedModel | None = None
    ) -> None:
        student = student or base_model(point.shape)
        if kind != "trl_self":
            teacher = teacher or base_model(point.shape, seed=1)
        self.trainer = _trainer(kind, point, student, teacher)
        self.trainer.current_gradient_accumulation_steps = 1
        rows = rows_of(point)
        self.inputs = _padded_right(rows) if kind == "trl_gkd" else _prompts_and_completions(rows)
        self.trainer._prepare_inputs = lambda inputs: inputs  # on-policy generation is not part of the step
        self.parameters = [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]
        self.learned = sum(parameter.numel() for parameter in self.parameters)
        self.adam = torch.optim.AdamW(self.parameters, lr=LR, weight_decay=0.0)

    def teach(self) -> None:
        """The teacher speaks in every step."""

    def step(self) -> float:
        """One step; returns the loss before it."""
        loss = self.trainer.training_step(self.trainer.model, dict(self.inputs), None)
        clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        self.adam.step()
        self.adam.zero_grad()
        return float(loss)

    def lesson_bytes(self) -> int:
        """Nothing is kept between steps."""
        return 0


def lora_of(point: Point) -> LoraConfig:
    """About as many parameters as the expert that we write."""
    a_rank = point.shape.layers * len(MATRICES) * (point.shape.width + point.shape.mlp_width)
    rank = max(1, round(learned_parameters(point) / a_rank))
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=MATRICES, task_type="CAUSAL_LM")


def _trainer(kind: Contender, point: Point, student: PreTrainedModel, teacher: PreTrainedModel | None) -> Any:
    tokenizer = build_tokenizer(World(0))
    tokenizer.padding_side = "left"
    common: dict[str, Any] = {
        "output_dir": str(Path(tempfile.gettempdir()) / "circadian-bench-trl"),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "max_steps": 1,
        "per_device_train_batch_size": point.rows,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": kind == "trl_distillation_default",
        "disable_tqdm": True,
    }
    made: dict[str, Any] = {"processing_class": tokenizer, "peft_config": lora_of(point)}
    if kind == "trl_gkd":
        assert teacher is not None, "two models"
        chats = Dataset.from_list([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}])
        return GKDTrainer(
            student, teacher, GKDConfig(lmbda=0.0, beta=FORWARD_KL, temperature=1.0, **common), train_dataset=chats, **made
        )
    if kind == "trl_self":
        asked = Dataset.from_list([{"prompt": "a", "privileged_context": "b"}])
        config = SDFTConfig(
            distillation_mode="full_logits",
            distillation_alpha=FORWARD_KL,
            distillation_is_clip=None,
            teacher_model_kind="base",
            num_generations=1,
            **common,
        )
        return SDFTTrainer(student, config, train_dataset=asked, **made)
    prompts = Dataset.from_list([{"prompt": "a"}])
    return DistillationTrainer(student, teacher, DistillationConfig(beta=FORWARD_KL, **common), train_dataset=prompts, **made)


def _padded_right(rows: Sequence[TaughtRow]) -> dict[str, Tensor]:
    """ids [B, T], mask [B, T], labels [B, T] as GKD's collator has them."""
    texts = [torch.tensor(row.ids) for row in rows]
    labels = [
        torch.where(torch.arange(len(text)) >= max(row.start, 1), text, IGNORED) for row, text in zip(rows, texts, strict=True)
    ]
    return {
        "input_ids": _pad(texts),
        "attention_mask": _pad([torch.ones_like(text) for text in texts]),
        "labels": _pad(labels, IGNORED),
    }


def _prompts_and_completions(rows: Sequence[TaughtRow]) -> dict[str, Tensor]:
    """prompts padded on the left, completions on the right; the teacher of self-distillation reads the same."""
    prompts = [torch.tensor(row.ids[: max(row.start, 1)]) for row in rows]
    completions = [torch.tensor(row.ids[max(row.start, 1) :]) for row in rows]
    inputs = {
        "prompt_ids": _pad(prompts, side="left"),
        "prompt_mask": _pad([torch.ones_like(prompt) for prompt in prompts], side="left"),
        "completion_ids": _pad(completions),
        "completion_mask": _pad([torch.ones_like(completion) for completion in completions]),
    }
    inputs["teacher_input_ids"] = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    inputs["teacher_attention_mask"] = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    return inputs


def _pad(texts: Sequence[Tensor], filler: int = 0, side: str = "right") -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=filler, padding_side=side)

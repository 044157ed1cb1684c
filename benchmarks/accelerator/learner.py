"""A step of Knowledge Seeding beside plain distillation: the same base, the same rows, the same divergence (forward KL), one device.

    circadian         `teach` (layers below the memory and the teacher's view, once a row) and `step` (the student's upper layers, the
                      divergence in chunks), circadian/objectives/knowledge_seeding.py as a night runs it
    two_models        a teacher model and a student with a LoRA on the MLPs of all layers, about as many parameters as our expert; logits
                      of the taught tokens whole, of both
    two_models_upper  the same with the LoRA in the layers that carry memory, so that its backward pass ends where ours ends
    two_models_liger  two_models with Liger-kernel's fused linear JSD in the place of the logits, where it is installed
    one_model         two_models, but the teacher is the student with its adapter off

Every step makes its tensors of its rows, computes, clips, and steps AdamW on a float32 copy of what learns. `tokens`: of the rows, padding
not counted. A row is met 2.5 times after it was taught (the default recipe's first night), so a step pays that share of `teach`.
`held_bytes`: weights, Adam and the lessons of these rows; `step_bytes`, `teach_bytes`: what a step, and the teaching, needs besides at its
peak; `night_bytes`: the lessons of all rows that a night of the default recipe keeps, if all are as long.

B rows, T tokens, N taught tokens, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from statistics import median
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel, Qwen3ForCausalLM

from benchmarks.accelerator.kit import Times, Work, interleaved, release, transient
from benchmarks.accelerator.models import MATRICES, adapted, base_model, fill, grafted, held_bytes, without_adapter
from benchmarks.accelerator.plan import Plan
from benchmarks.learner.models import transfer_of
from benchmarks.learner.points import Point, kept_rows, meetings_of_a_row, rows_of
from circadian.objectives import knowledge_seeding
from circadian.objectives.rows import TaughtRow
from circadian.specs import Level, MemorySpec, SeedingSpec

LR = 1e-3
RECIPE = SeedingSpec()
OURS, TEACH = "circadian", "circadian_teach"
Divergence = Callable[[Tensor, Tensor, nn.Linear, nn.Linear], Tensor]
"""(student's states [N, D], teacher's, student's output layer, teacher's) -> mean forward KL, nats."""


class Contender(Protocol):
    """At one point."""

    adam: Adam

    def step(self) -> float:
        """Returns the loss before it."""

    def held_bytes(self) -> int: ...


class Adam:
    """AdamW on a float32 copy of what learns."""

    def __init__(self, learned: Iterable[nn.Parameter], lr: float = LR, max_grad_norm: float = RECIPE.max_grad_norm) -> None:
        self.learned: list[Tensor] = [*learned]
        self.max_grad_norm = max_grad_norm
        self.masters: list[Tensor] = [parameter.detach().float().clone() for parameter in self.learned]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        self.adamw = torch.optim.AdamW(self.masters, lr=lr, weight_decay=0.0)

    def step(self) -> None:
        """Clip, step, put into what learns, forget the gradients."""
        clip_grad_norm_(self.learned, self.max_grad_norm)
        torch._foreach_copy_(
            [cast(Tensor, master.grad) for master in self.masters], [cast(Tensor, one.grad) for one in self.learned]
        )
        self.adamw.step()
        with torch.no_grad():
            torch._foreach_copy_(self.learned, self.masters)
        for parameter in self.learned:
            parameter.grad = None

    def held_bytes(self) -> int:
        """The copy, its gradient and two moments."""
        return sum(4 * master.numel() * master.element_size() for master in self.masters)


class Ours:
    """The learner's objective on all rows of the point in every step."""

    def __init__(self, base: Qwen3ForCausalLM, point: Point, rank: int, lr: float = LR) -> None:
        self.transfer, self.rows = transfer_of(point), rows_of(point)
        levels = tuple(
            Level(period=period, experts=len(level), rank=rank)
            for period, level in zip((1024, 8192), self.transfer.experts, strict=True)
        )
        self.model = fill(grafted(base, MemorySpec(levels=levels)), self.transfer.state)
        views = self.transfer.teachers.values()
        experts = self.model.begin_writing(self.transfer.where, 0, [self.transfer.student], [*views])
        self.adam = Adam((parameter for expert in experts for parameter in expert.parameters()), lr)
        self.teachers = {name: torch.tensor(mask).float() for name, mask in self.transfer.teachers.items()}
        self.view = self.model.mask(self.transfer.student)
        self.lessons: list[knowledge_seeding.Lesson] = []

    def teach(self) -> None:
        """All lessons afresh."""
        self.lessons = knowledge_seeding.teach(self.model, self.rows, self.teachers, RECIPE)

    def loss(self) -> Tensor:
        """Mean divergence of the rows, nats."""
        chunks = knowledge_seeding.chunks([self.lessons], RECIPE.token_chunk)
        batch = {name: tensor.to(self.model.device) for name, tensor in knowledge_seeding.collate(self.lessons).items()}
        return knowledge_seeding.knowledge_seeding_loss(self.model, batch, self.view, RECIPE, chunks)

    def step(self) -> float:
        loss = self.loss()
        value = loss.item()
        loss.backward()
        self.adam.step()
        return value

    def lesson_bytes(self) -> int:
        """Of the rows of one step."""
        kept = [tensor for lesson in self.lessons for tensor in (lesson.trunk, lesson.teacher) if tensor is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def held_bytes(self) -> int:
        return held_bytes(self.model) + self.adam.held_bytes() + self.lesson_bytes()


class Plain:
    """A teacher's states and a student's, at the taught tokens of padded rows; `teacher` None: the student without its adapter."""

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: list[TaughtRow], divergence: Divergence
    ) -> None:
        self.student, self.teacher, self.rows, self.divergence = student, teacher, rows, divergence
        self.adam = Adam(parameter for parameter in student.parameters() if parameter.requires_grad)

    def loss(self) -> Tensor:
        """Mean divergence of the rows, nats."""
        ids, mask, taught = padded(self.rows)
        device = self.student.device
        given: dict[str, Any] = {"input_ids": ids.to(device), "use_cache": False}
        if not mask.all():
            given["attention_mask"] = mask.to(device)
        taught = taught.to(device)
        with torch.no_grad(), without_adapter(self.student) if self.teacher is None else nullcontext():
            teacher = (self.teacher or self.student).model(**given).last_hidden_state[:, :-1][taught]
        student = self.student.model(**given).last_hidden_state[:, :-1][taught]
        return self.divergence(student, teacher, self.student.lm_head, (self.teacher or self.student).lm_head)

    def step(self) -> float:
        loss = self.loss()
        value = loss.item()
        loss.backward()
        self.adam.step()
        return value

    def held_bytes(self) -> int:
        return held_bytes(self.student, *([self.teacher] if self.teacher else [])) + self.adam.held_bytes()


def full_logits(student: Tensor, teacher: Tensor, student_head: nn.Linear, teacher_head: nn.Linear) -> Tensor:
    """By the definition, in float32 from the logits on."""
    with torch.no_grad():
        p = F.log_softmax(teacher_head(teacher).float(), dim=-1)
    q = F.log_softmax(student_head(student).float(), dim=-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()


def liger(student: Tensor, teacher: Tensor, student_head: nn.Linear, teacher_head: nn.Linear) -> Tensor:
    """By Liger-kernel, whose JSD is forward KL where beta is 0."""
    from liger_kernel.transformers import LigerFusedLinearJSD

    return LigerFusedLinearJSD(jsd_beta=0.0)(student, student_head.weight, teacher, teacher_head.weight, None)


def has_liger(device: torch.device) -> bool:
    """It is written in Triton, so it needs a GPU."""
    return device.type == "cuda" and find_spec("liger_kernel") is not None


def padded(rows: list[TaughtRow]) -> tuple[Tensor, Tensor, Tensor]:
    """ids [B, T], mask [B, T] of what is no padding, taught [B, T - 1]: where the next token's prediction is taught."""
    texts = [torch.tensor(row.ids) for row in rows]
    taught = [torch.arange(1, len(row.ids)) >= max(row.start, 1) for row in rows]
    ids, mask, places = (
        torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        for parts in (texts, [torch.ones_like(text) for text in texts], taught)
    )
    return ids, mask, places


def measure(plan: Plan, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """By point."""
    base, teacher = (base_model(plan.shape, device, dtype, seed) for seed in (0, 1))
    return {point.name.split("/", 1)[1]: at(point, plan, base, teacher, device) for point in plan.lessons}


def contenders(point: Point, plan: Plan, base: Qwen3ForCausalLM, teacher: Qwen3ForCausalLM) -> dict[str, Contender]:
    """All of them on one base's weights, learning about as many parameters."""
    ours, rows = Ours(base, point, plan.rank), rows_of(point)
    learned = sum(parameter.numel() for parameter in ours.adam.learned)
    layers = ours.model.grafted_layers
    everywhere, upper = (rank_for(learned, point, count) for count in (point.shape.layers, len(layers)))
    found: dict[str, Contender] = {
        OURS: ours,
        "two_models": Plain(adapted(base, everywhere)[0], teacher, rows, full_logits),
        "two_models_upper": Plain(adapted(base, upper, layers)[0], teacher, rows, full_logits),
        "one_model": Plain(adapted(base, everywhere)[0], None, rows, full_logits),
    }
    if has_liger(base.device):
        found["two_models_liger"] = Plain(adapted(base, everywhere)[0], teacher, rows, liger)
    return found


def rank_for(learned: int, point: Point, layers: int) -> int:
    """Of a LoRA on the MLP's matrices of so many layers with about as many parameters."""
    return max(1, round(learned / (layers * len(MATRICES) * (point.shape.width + point.shape.mlp_width))))


def at(
    point: Point, plan: Plan, base: Qwen3ForCausalLM, teacher: Qwen3ForCausalLM, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Contender -> its numbers; of one that needs more memory than there is, that."""
    candidates = contenders(point, plan, base, teacher)
    ours = candidates[OURS]
    assert isinstance(ours, Ours)
    works: dict[str, Work] = {}
    needed: dict[str, int | None] = {}
    for name, work in {TEACH: ours.teach, **{name: each.step for name, each in candidates.items()}}.items():
        needed[name] = needed_by(work, device) if name != OURS or TEACH in works else None
        if needed[name] is not None:
            works[name] = work
    times = interleaved(works, device, plan.steps, warm=1)
    found = {
        name: told(name, candidates[name], times, needed, rows_of(point)) if name in works else {"out_of_memory": True}
        for name in candidates
    }
    if OURS in works and TEACH in works:
        lessons = ours.lesson_bytes()
        found[OURS] |= {"teach_bytes": needed[TEACH], "lesson_bytes": lessons, "night_bytes": lessons * kept_rows() // point.rows}
    return found


def needed_by(work: Work, device: torch.device) -> int | None:
    """Bytes at the peak of a call that is not the first one, None where they are not there."""
    try:
        work()
        return transient(work, device)
    except torch.OutOfMemoryError:
        return None
    finally:
        release(device)


def told(name: str, contender: Contender, times: Times, needed: Mapping[str, int | None], rows: list[TaughtRow]) -> dict[str, Any]:
    """Milliseconds, tokens a second and bytes; of ours with its share of the teaching, and as if every row were met once."""
    step, tokens = median(times[name]), sum(len(row.ids) for row in rows)
    teach = median(times[TEACH]) if name == OURS else 0.0
    shares = {"": 1 / meetings_of_a_row(), "_once": 1.0} if teach else {"": 0.0}
    return {
        "step_ms": round(step, 3),
        "teach_ms": round(teach, 3),
        **{f"tokens_per_second{suffix}": round(1000 * tokens / (step + share * teach)) for suffix, share in shares.items()},
        "tokens": tokens,
        "held_bytes": contender.held_bytes(),
        "step_bytes": needed[name],
        "learned_parameters": sum(parameter.numel() for parameter in contender.adam.learned),
    }

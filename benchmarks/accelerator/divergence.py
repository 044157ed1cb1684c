"""The divergence alone: N taught tokens of a teacher and a student, one frozen output layer, loss and gradient toward the student.

    chunked    circadian/objectives/divergence.py as the learner calls it; in float32 by the teacher's slope, which is made once a row
               (`kept_ms`), in bfloat16 by the definition with the teacher's logits each time
    full       both models' logits whole, log-softmax and KL in float32, autograd
    compiled   the same by torch.compile
    liger      Liger-kernel's fused linear JSD at beta 0, where it is installed
    wide       chunked by hand: the products give float32 logits, the gradient toward them is rounded, and nothing else is
    wide_compiled   the same, what lies between the products by torch.compile: what the learner could do and does not

`loss_error`, `gradient_error`: against the definition in float64 on the same inputs, the norm of the difference over the norm. The
student is `near` its teacher or `far` from it: what is left of a divergence when nearly all of it is learned is where rounding shows.

N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accelerator.kit import interleaved, release, summary, transient
from benchmarks.accelerator.learner import full_logits, has_liger, liger
from benchmarks.accelerator.models import made_on
from benchmarks.accelerator.plan import Plan
from circadian.objectives.divergence import by_slope, compare, keep
from circadian.specs import SeedingSpec

RECIPE = SeedingSpec()
STATES_SCALE, HEAD_SCALE = 4.0, 0.02
"""Logits of a width of 1024 then spread by 2.6, as a trained model's do."""
AWAY = {"far": 0.2, "near": 0.02}
"""Distance of the student's states from the teacher's, as a share of these."""
Solved = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The student's states [N, D] -> mean divergence, nats, and its gradient [N, D]."""
REFERENCE_CHUNK = 256
"""Tokens whose float64 logits exist at once."""
ROUNDS = 11
Loss = Callable[[Tensor], Tensor]
"""The student's states [N, D] -> mean divergence, nats."""


class Scene:
    """Teacher, student and output layer; the same numbers for all contenders."""

    def __init__(self, tokens: int, width: int, vocabulary: int, device: torch.device, dtype: torch.dtype, away: float) -> None:
        torch.manual_seed(0)
        with made_on(device, dtype), torch.no_grad():
            self.head = nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
            self.head.weight.normal_(std=HEAD_SCALE)
            self.teacher = STATES_SCALE * torch.randn(tokens, width)
            self.student = self.teacher + away * STATES_SCALE * torch.randn(tokens, width)
            self.written = torch.randint(vocabulary, (tokens,))
        self.chunks = -(-tokens // RECIPE.token_chunk)

    def keep(self) -> Tensor:
        """What our divergence keeps of the teacher."""
        return keep(RECIPE.divergence, self.teacher, self.head, self.chunks)

    def chunked(self, kept: Tensor, student: Tensor) -> Tensor:
        """Ours; the log-probs of what was written do not learn, as in a recipe without imitation."""
        divergences, _ = compare(RECIPE.divergence, kept, student, self.written, self.head, self.chunks, likelihood_learns=False)
        return divergences.mean()

    def wide(self, between: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], student: Tensor) -> tuple[Tensor, Tensor]:
        """Chunk by chunk, with no autograd."""
        weight, tokens = self.head.weight, len(student)
        parts = zip(student.split(RECIPE.token_chunk), self.teacher.split(RECIPE.token_chunk), strict=True)
        divergences, gradients = [], []
        with torch.no_grad():
            for h, t in parts:
                divergence, toward_logits = between(float32_product(h, weight), float32_product(t, weight))
                divergences.append(divergence)
                gradients.append(toward_logits.to(h.dtype) @ weight / tokens)
        return torch.cat(divergences).mean(), torch.cat(gradients)

    def contenders(self) -> dict[str, Solved]:
        """By name."""
        device = self.head.weight.device
        losses: dict[str, Loss] = {"full": partial(_against, full_logits, self), "chunked": partial(self.chunked, self.keep())}
        if device.type == "cuda":
            losses["compiled"] = partial(_against, torch.compile(full_logits, dynamic=False), self)
        if has_liger(device):
            losses["liger"] = partial(_against, liger, self)
        found: dict[str, Solved] = {name: partial(loss_and_gradient, loss) for name, loss in losses.items()}
        found["wide"] = partial(self.wide, between_products)
        if device.type == "cuda":
            found["wide_compiled"] = partial(self.wide, torch.compile(between_products, dynamic=False))
        return found

    def reference(self) -> tuple[Tensor, Tensor]:
        """Loss and gradient [N, D] by the definition in float64."""
        head, tokens = self.head.weight.double(), len(self.student)
        loss, gradients = torch.zeros((), dtype=torch.float64, device=head.device), []
        for t, h in zip(self.teacher.split(REFERENCE_CHUNK), self.student.split(REFERENCE_CHUNK), strict=True):
            p, q = ((states.double() @ head.T).log_softmax(-1) for states in (t, h))
            loss += (p.exp() * (p - q)).sum() / tokens
            gradients.append((q.exp() - p.exp()) @ head / tokens)
        return loss, torch.cat(gradients)


def loss_and_gradient(loss: Loss, student: Tensor) -> tuple[Tensor, Tensor]:
    """One forward and one backward pass."""
    point = student.detach().requires_grad_()
    value = loss(point)
    return value.detach(), torch.autograd.grad(value, point)[0]


def float32_product(states: Tensor, weight: Tensor) -> Tensor:
    """Logits [C, V] that are not rounded to the dtype of what is multiplied."""
    if states.device.type == "cuda" and states.dtype != torch.float32:
        return torch.mm(states, weight.T, out_dtype=torch.float32)
    return states.float() @ weight.T.float()


def between_products(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [C, V] of both -> divergences [C], nats, and their gradients toward the student's logits [C, V]."""
    q, p = student.log_softmax(-1), teacher.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1), q.exp() - p.exp()


def errors(solved: Solved, scene: Scene, reference: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Relative, against float64."""
    value, gradient = solved(scene.student)
    wanted, slope = reference
    return {
        "loss_error": float((value.double() - wanted).abs() / wanted),
        "gradient_error": float((gradient.double() - slope).norm() / slope.norm()),
    }


def measure(plan: Plan, device: torch.device) -> dict[str, Any]:
    """dtype -> tokens -> contender -> numbers"""
    return {
        str(dtype).split(".")[1]: {str(tokens): at(tokens, plan, device, dtype) for tokens in plan.compared}
        for dtype in (torch.bfloat16, torch.float32)
    }


def at(tokens: int, plan: Plan, device: torch.device, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """Contender -> milliseconds, bytes and errors."""
    scenes = {name: Scene(tokens, plan.shape.width, plan.shape.vocabulary, device, dtype, away) for name, away in AWAY.items()}
    found: dict[str, dict[str, Any]] = {}
    for distance, scene in scenes.items():
        reference = scene.reference()
        for name, solved in scene.contenders().items():
            mine = found.setdefault(name, {})
            mine[distance] = {"nats": float(reference[0]), **errors(solved, scene, reference)}
        del reference
        release(device)
    scene = scenes["far"]
    works = {name: partial(solved, scene.student) for name, solved in scene.contenders().items()}
    for name, numbers in summary(interleaved(works, device, ROUNDS, warm=2), "full").items():
        found[name] |= numbers | {"bytes": transient(works[name], device)}
    if by_slope(RECIPE.divergence, dtype):
        found["chunked"]["kept_ms"] = summary(interleaved({"keep": scene.keep}, device, ROUNDS), "keep")["keep"]["ms"]
    del scenes, scene, works
    release(device)
    return found


def _against(divergence: Callable[..., Tensor], scene: Scene, student: Tensor) -> Tensor:
    return divergence(student, scene.teacher, scene.head, scene.head)

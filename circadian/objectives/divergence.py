"""Divergences between two next-token distributions, over the full vocabulary, exact, in chunks of tokens.

    forward_kl   F(p || q) = sum_v p (log p - log q)      mode covering: the student keeps everything the teacher may say
    reverse_kl   F(q || p)                                mode seeking
    jsd          beta F(p || m) + (1 - beta) F(q || m),   m = beta p + (1 - beta) q       (GKD, Agarwal et al. 2024)
    top_k        F over the teacher's k likeliest tokens and one more event, "any other": a lower bound of forward_kl, equal at k = V

p is the teacher's, q the student's distribution. Both come from final hidden states and one shared `lm_head`, chunk by chunk. The
gradient toward the student's hidden states is computed with the chunk's loss, so logits [N, V] never exist at once and none are computed
twice. What a row keeps of its teacher (`keep`) is what its divergence needs: the hidden states, or of forward KL their slope (slope.py).

N tokens, D model width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circadian.objectives.slope import forward_kl_by_slope, slope_and_level
from circadian.specs import DivergenceSpec

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(teacher log-probs [C, V], student log-probs [C, V]) -> divergence of each token [C], nats."""


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(teacher, student, reduction="none", log_target=True).sum(-1)


def jsd(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """beta: weight of the teacher, between 0 and 1 (at one half the Jensen-Shannon divergence)."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * forward_kl(teacher, mixture) + (1 - beta) * forward_kl(student, mixture)


def top_k(teacher: Tensor, student: Tensor, k: int) -> Tensor:
    """The mass of all other tokens is exact, in both."""
    if k >= teacher.shape[-1]:
        return forward_kl(teacher, student)
    likeliest, where = teacher.topk(k, dim=-1)
    other_p, other_q = (log_probs.scatter(-1, where, -math.inf).logsumexp(-1, keepdim=True) for log_probs in (teacher, student))
    return forward_kl(torch.cat([likeliest, other_p], -1), torch.cat([student.gather(-1, where), other_q], -1))


DIVERGENCES: dict[str, Callable[[DivergenceSpec], Divergence]] = {
    "forward_kl": lambda spec: forward_kl,
    "reverse_kl": lambda spec: reverse_kl,
    "jsd": lambda spec: partial(jsd, beta=spec.beta),
    "top_k": lambda spec: partial(top_k, k=spec.k),
}
"""By name: a divergence as its spec wants it."""


def keep(spec: DivergenceSpec, teacher: Tensor, lm_head: nn.Module, chunks: int = 1) -> Tensor:
    """What `compare` needs of a teacher's final hidden states [N, D], [N, D] or [N, D + 1]: computed once, used in every step."""
    if not _by_slope(spec, teacher):
        return teacher.detach()
    return torch.cat([slope_and_level(part, lm_head) for part in teacher.detach().tensor_split(chunks)])


def compare(
    spec: DivergenceSpec,
    kept: Tensor,
    student: Tensor,
    tokens: Tensor,
    lm_head: nn.Module,
    chunks: int = 1,
    likelihood_learns: bool = True,
) -> tuple[Tensor, Tensor]:
    """Where the student stands in every place: its divergence from the teacher, and how likely it finds what was written there.

    kept: what `keep` returned of the teacher. student: final hidden states [N, D], the only place where gradients flow to.
    tokens: [N] int64, what was written.
    lm_head: [.., D] -> logits [.., V]; itself it learns nothing.
    chunks: equal parts of the tokens, of which one's logits exist at once.
    likelihood_learns: whether gradients flow from the log-probs as well.
    Returns divergences [N] and the student's log-probs of `tokens` [N], nats, float32.
    """
    of_chunk = forward_kl_by_slope if _by_slope(spec, student) else partial(_of_chunk, DIVERGENCES[spec.kind](spec))
    parts = (values.tensor_split(chunks) for values in (kept, student.detach(), tokens))
    found = [of_chunk(k, s, written, lm_head, likelihood_learns) for k, s, written in zip(*parts, strict=True)]
    divergences, log_probs, by_divergence, by_log_prob = zip(*found, strict=True)
    compared = _Known.apply(student, torch.cat(divergences), torch.cat(by_divergence))
    if not likelihood_learns:
        return compared, torch.cat(log_probs)
    return compared, _Known.apply(student, torch.cat(log_probs), torch.cat(by_log_prob))


def log_probs(hidden: Tensor, tokens: Tensor, lm_head: nn.Module, chunks: int = 1) -> Tensor:
    """Of `tokens` [N] where `hidden` [N, D] predicts them [N], nats, float32; no gradients."""
    with torch.no_grad():
        parts = zip(hidden.tensor_split(chunks), tokens.tensor_split(chunks), strict=True)
        return torch.cat([F.log_softmax(lm_head(h).float(), -1).gather(-1, written[:, None])[:, 0] for h, written in parts])


class _Known(torch.autograd.Function):
    """Values [N] whose gradients toward hidden states [N, D] are known already, each value's toward its own row."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, values: Tensor, gradients: Tensor) -> Tensor:
        ctx.save_for_backward(gradients)
        ctx.dtype = hidden.dtype
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return (upstream[0][:, None] * gradients).to(ctx.dtype), None, None


def _by_slope(spec: DivergenceSpec, hidden: Tensor) -> bool:
    return spec.kind == "forward_kl" and hidden.dtype == torch.float32


def _of_chunk(
    divergence: Divergence, teacher: Tensor, student: Tensor, tokens: Tensor, lm_head: nn.Module, likelihood_learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The same of any divergence as slope.py has of forward KL; teacher [C, D], student [C, D], tokens [C]."""
    with torch.no_grad():
        p = F.log_softmax(lm_head(teacher).float(), dim=-1)
    point = student.detach().requires_grad_()
    with torch.enable_grad():
        q = F.log_softmax(lm_head(point).float(), dim=-1)
        divergences, written = divergence(p, q), q.gather(-1, tokens[:, None])[:, 0]
        by_divergence = torch.autograd.grad(divergences.sum(), point, retain_graph=likelihood_learns)[0]
        by_written = torch.autograd.grad(written.sum(), point)[0] if likelihood_learns else None
    return divergences.detach(), written.detach(), by_divergence, by_written

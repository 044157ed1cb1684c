"""Divergences between two next-token distributions, over the full vocabulary, exact, in chunks of tokens.

    forward_kl   F(p || q) = sum_v p (log p - log q)      mode covering: the student keeps everything the teacher may say
    reverse_kl   F(q || p)                                mode seeking
    jsd          beta F(p || m) + (1 - beta) F(q || m),   m = beta p + (1 - beta) q       (GKD, Agarwal et al. 2024)
    top_k        F over the teacher's k likeliest tokens and one more event, "any other": a lower bound of forward_kl, equal at k = V

p is the teacher's, q the student's distribution. Both come from final hidden states and a head, chunk by chunk. The gradient toward the
student's hidden states is computed with the chunk's loss, so logits [N, V] never exist at once and none are computed twice. What a row
keeps of its teacher (`keep`) is what its divergence needs: the hidden states, or of forward KL their slope (slope.py).

A teacher that is another view of the same model has the student's `lm_head`. Another model has a head and a width of its own, and the same
tokenizer (`keep_another`): its slope is one against the student's head, so its head is needed no more; of the other divergences its
states are kept and its head is lent (`Others`).

N tokens, D model width, D' that of another model, K numbers kept of a token, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circadian.objectives.slope import forward_kl_by_slope, slope_and_level, slope_and_level_of
from circadian.specs import DivergenceSpec

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(teacher log-probs [C, V], student log-probs [C, V]) -> divergence of each token [C], nats."""
Head = Callable[[Tensor], Tensor]
"""Final hidden states [.., D] -> logits [.., V]."""
ITSELF = 0
"""Who teaches a token: the model itself, in another view. Other models count from 1."""
NOBODY = -1
"""No distribution is taught: its divergence means nothing."""
ABSENT = -100.0
"""Nats: log-probability of a token that the student's head has and the teacher's has not. Heads are padded, tokenizers are not, so no
such token is ever written; finite, so that a reverse divergence stays so."""


@dataclass(frozen=True)
class Others:
    """Who teaches where it is not the model itself. by [N] int64: ITSELF, a model's number, or NOBODY; heads: of each number, for states as
    `keep_another` keeps them."""

    by: Tensor
    heads: Mapping[int, Head]


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
    if not by_slope(spec, teacher.dtype):
        return teacher.detach()
    return torch.cat([slope_and_level(part, lm_head) for part in teacher.detach().tensor_split(chunks)])


@torch.no_grad()
def keep_another(spec: DivergenceSpec, teacher: Tensor, head: Head, lm_head: nn.Module, width: int, chunks: int = 1) -> Tensor:
    """The same of another model's final hidden states [N, D'], and of its head; lm_head, width: the student's, whose D + 1 numbers are
    kept of forward KL, else the states, at least D wide."""
    if not by_slope(spec, teacher.dtype):
        return F.pad(teacher, (0, max(0, width - teacher.shape[-1])))
    nowhere = teacher.new_zeros(len(teacher), width)
    vocabulary = lm_head(nowhere[:1]).shape[-1]
    parts = zip(teacher.tensor_split(chunks), nowhere.tensor_split(chunks), strict=True)
    return torch.cat([slope_and_level_of(_said(head, states, vocabulary), point, lm_head) for states, point in parts])


def compare(
    spec: DivergenceSpec,
    kept: Tensor,
    student: Tensor,
    tokens: Tensor,
    lm_head: nn.Module,
    chunks: int = 1,
    likelihood_learns: bool = True,
    others: Others | None = None,
) -> tuple[Tensor, Tensor]:
    """Where the student stands in every place: its divergence from the teacher, and how likely it finds what was written there.

    kept [N, K]: what `keep` or `keep_another` returned of the teachers, each padded to the widest.
    student: final hidden states [N, D], the only place where gradients flow to.
    tokens: [N] int64, what was written.
    lm_head: [.., D] -> logits [.., V]; itself it learns nothing.
    chunks: equal parts of the tokens, of which one's logits exist at once.
    likelihood_learns: whether gradients flow from the log-probs as well.
    others: who teaches each token, where other models do.
    Returns divergences [N] and the student's log-probs of `tokens` [N], nats, float32.
    """
    divergence = None if by_slope(spec, student.dtype) else DIVERGENCES[spec.kind](spec)
    whose = [None] * chunks if others is None else [replace(others, by=by) for by in others.by.tensor_split(chunks)]
    parts = (values.tensor_split(chunks) for values in (kept, student.detach(), tokens))
    found = [
        _of_chunk(divergence, k, s, written, lm_head, likelihood_learns, other)
        if divergence
        else forward_kl_by_slope(k, s, written, lm_head, likelihood_learns)
        for k, s, written, other in zip(*parts, whose, strict=True)
    ]
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


def likelihoods(hidden: Tensor, tokens: Tensor, lm_head: nn.Module, chunks: int = 1) -> Tensor:
    """The same with gradients toward `hidden`, which are computed with each chunk's values: logits of one chunk exist at once."""
    values, gradients = [], []
    for h, written in zip(hidden.detach().tensor_split(chunks), tokens.tensor_split(chunks), strict=True):
        point = h.requires_grad_()
        with torch.enable_grad():
            found = F.log_softmax(lm_head(point).float(), -1).gather(-1, written[:, None])[:, 0]
            gradients.append(torch.autograd.grad(found.sum(), point)[0])
        values.append(found.detach())
    return _Known.apply(hidden, torch.cat(values), torch.cat(gradients))


def chunks_of(tokens: Iterable[int], token_chunk: int) -> int:
    """In how many chunks a step's tokens are read, so that no process, given the tokens of each, has the logits of more than `token_chunk`
    at once. All must agree: where the weights are sharded they are gathered at every chunk."""
    return max(1, math.ceil(max(tokens) / token_chunk))


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


def by_slope(spec: DivergenceSpec, dtype: torch.dtype) -> bool:
    """Whether slope and level are kept of a teacher, and not its states."""
    return spec.kind == "forward_kl" and dtype == torch.float32


def _of_chunk(
    divergence: Divergence,
    kept: Tensor,
    student: Tensor,
    tokens: Tensor,
    lm_head: nn.Module,
    likelihood_learns: bool,
    others: Others | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The same of any divergence as slope.py has of forward KL; kept [C, K], student [C, D], tokens [C]."""
    with torch.no_grad():
        p = _taught(kept, student.shape[-1], lm_head, others)
    point = student.detach().requires_grad_()
    with torch.enable_grad():
        q = F.log_softmax(lm_head(point).float(), dim=-1)
        divergences, written = divergence(p, q), q.gather(-1, tokens[:, None])[:, 0]
        by_divergence = torch.autograd.grad(divergences.sum(), point, retain_graph=likelihood_learns)[0]
        by_written = torch.autograd.grad(written.sum(), point)[0] if likelihood_learns else None
    return divergences.detach(), written.detach(), by_divergence, by_written


def _taught(kept: Tensor, width: int, lm_head: nn.Module, others: Others | None) -> Tensor:
    """Log-probs of a chunk's teachers [C, V]. The model's own head reads all places, so that every process calls it as often."""
    p = F.log_softmax(lm_head(kept[:, :width]).float(), dim=-1)
    if others is not None:
        for number, head in others.heads.items():
            places = others.by == number
            if places.any():
                p[places] = _said(head, kept[places], p.shape[-1])
    return p


def _said(head: Head, states: Tensor, vocabulary: int) -> Tensor:
    """Log-probs of another model [N, V], over the student's vocabulary."""
    logits = head(states).float()[:, :vocabulary]
    return F.pad(F.log_softmax(logits, dim=-1), (0, vocabulary - logits.shape[-1]), value=ABSENT)

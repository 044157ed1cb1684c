"""Divergences between two next-token distributions, over the full vocabulary, exact, in chunks of tokens.

    forward_kl   F(p || q) = sum_v p (log p - log q)      mode covering: the student keeps everything the teacher may say
    reverse_kl   F(q || p)                                mode seeking
    jsd          beta F(p || m) + (1 - beta) F(q || m),   m = beta p + (1 - beta) q       (GKD, Agarwal et al. 2024)
    top_k        F over the teacher's k likeliest tokens and one more event, "any other": a lower bound of forward_kl, equal at k = V

p is the teacher's, q the student's distribution. Both come from final hidden states and one shared `lm_head`, chunk by chunk, and a
chunk's logits are computed again in the backward pass, so that logits [N, V] never exist at once.

N tokens, D model width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


def compare(
    spec: DivergenceSpec, teacher: Tensor, student: Tensor, tokens: Tensor, lm_head: nn.Module, chunks: int = 1
) -> tuple[Tensor, Tensor]:
    """Where the student stands in every place: its divergence from the teacher, and how likely it finds what was written there.

    teacher, student: final hidden states [N, D]; gradients flow to the student only.
    tokens: [N] int64, what was written.
    lm_head: [.., D] -> logits [.., V]
    chunks: equal parts of the tokens, of which one's logits exist at once.
    Returns divergences [N] and the student's log-probs of `tokens` [N], nats, float32.
    """
    divergence = DIVERGENCES[spec.kind](spec)

    def of_chunk(t: Tensor, s: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            p = F.log_softmax(lm_head(t).float(), dim=-1)
        q = F.log_softmax(lm_head(s).float(), dim=-1)
        return divergence(p, q), q.gather(-1, written[:, None])[:, 0]

    parts = (values.tensor_split(chunks) for values in (teacher.detach(), student, tokens))
    compared = [checkpoint(of_chunk, t, s, written, use_reentrant=False) for t, s, written in zip(*parts, strict=True)]
    divergences, log_probs = zip(*compared, strict=True)
    return torch.cat(divergences), torch.cat(log_probs)

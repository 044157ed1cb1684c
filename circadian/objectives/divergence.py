"""Divergences between two next-token distributions, over the full vocabulary, exact, in chunks of tokens.

    forward_kl   F(p || q) = sum_v p (log p - log q)      mode covering: the student keeps everything the teacher may say
    reverse_kl   F(q || p)                                mode seeking
    jsd          beta F(p || m) + (1 - beta) F(q || m),   m = beta p + (1 - beta) q       (GKD, Agarwal et al. 2024)
    top_k        F over the teacher's k likeliest tokens and one more event, "any other": a lower bound of forward_kl, equal at k = V

p is the teacher's, q the student's distribution. Both come from final hidden states and a head, chunk by chunk, and a chunk's logits
are computed again in the backward pass, so that logits [N, V] never exist at once. A teacher that is another view of the same model has
the student's head; another model (`Others`) has a head and a width of its own, and the same tokenizer.

N tokens, D model width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from circadian.specs import DivergenceSpec

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(teacher log-probs [C, V], student log-probs [C, V]) -> divergence of each token [C], nats."""
Head = Callable[[Tensor], Tensor]
"""Final hidden states [.., D] -> logits [.., V]."""
ITSELF = 0
"""Who teaches a token: the model itself, in another view. Other models count from 1."""
NOBODY = -1
"""No distribution is taught: the divergence is zero."""
ABSENT = -100.0
"""Nats: log-probability of a token that the student's head has and the teacher's has not. Heads are padded, tokenizers are not, so no
such token is ever written; finite, so that a reverse divergence stays so."""


@dataclass(frozen=True)
class Others:
    """What other models teach. by [N] int64: ITSELF, a model's number, or NOBODY; states: of each number [n, D'], its final hidden
    states in the n places that it teaches, in order."""

    by: Tensor
    states: Mapping[int, Tensor]
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


def compare(
    spec: DivergenceSpec,
    teacher: Tensor,
    student: Tensor,
    tokens: Tensor,
    lm_head: nn.Module,
    chunks: int = 1,
    others: Others | None = None,
) -> tuple[Tensor, Tensor]:
    """Where the student stands in every place: its divergence from the teacher, and how likely it finds what was written there.

    teacher, student: final hidden states [N, D]; gradients flow to the student only.
    tokens: [N] int64, what was written.
    lm_head: [.., D] -> logits [.., V]
    chunks: equal parts of the tokens, of which one's logits exist at once.
    others: who teaches where it is not the model itself; `teacher` then holds the places that are left to it, in order.
    Returns divergences [N] and the student's log-probs of `tokens` [N], nats, float32.
    """
    divergence = DIVERGENCES[spec.kind](spec)

    def of_chunk(t: Tensor, s: Tensor, written: Tensor, other: Others | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            p = F.log_softmax(lm_head(t).float(), dim=-1)
        q = F.log_softmax(lm_head(s).float(), dim=-1)
        p = p if other is None else _said(p, q.detach(), other)
        return divergence(p, q), q.gather(-1, written[:, None])[:, 0]

    shared = _parts(others, chunks)
    own = teacher.detach().tensor_split(chunks) if others is None else _split(teacher.detach(), others.by, ITSELF, chunks)
    parts = (own, student.tensor_split(chunks), tokens.tensor_split(chunks), shared)
    compared = [checkpoint(of_chunk, *part, use_reentrant=False) for part in zip(*parts, strict=True)]
    divergences, log_probs = zip(*compared, strict=True)
    return torch.cat(divergences), torch.cat(log_probs)


def log_probs(student: Tensor, tokens: Tensor, lm_head: nn.Module) -> Tensor:
    """How likely the student [N, D] finds what was written [N], nats, float32."""
    return -F.cross_entropy(lm_head(student).float(), tokens, reduction="none")


@torch.no_grad()
def _said(own: Tensor, student: Tensor, others: Others) -> Tensor:
    """Log-probs of every place of a chunk [C, V]: own [n, V] where the model itself teaches, the student's [C, V] where nobody does."""
    said = student.clone()
    said[others.by == ITSELF] = own
    for number, states in others.states.items():
        if len(states):
            logits = others.heads[number](states).float()[:, : said.shape[-1]]
            said[others.by == number] = F.pad(F.log_softmax(logits, dim=-1), (0, said.shape[-1] - logits.shape[-1]), value=ABSENT)
    return said


def _parts(others: Others | None, chunks: int) -> list[Others | None]:
    """What others teach in every chunk."""
    if others is None:
        return [None] * chunks
    states = {number: _split(values, others.by, number, chunks) for number, values in others.states.items()}
    return [
        Others(by, {number: parts[i] for number, parts in states.items()}, others.heads)
        for i, by in enumerate(others.by.tensor_split(chunks))
    ]


def _split(states: Tensor, by: Tensor, number: int, chunks: int) -> Sequence[Tensor]:
    """States [n, D] of the places of one teacher, dealt out to the chunks in which these places are."""
    return states.split([int((part == number).sum()) for part in by.tensor_split(chunks)])

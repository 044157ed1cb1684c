"""Divergences between two next-token distributions, over the full vocabulary, exact, in chunks of tokens.

    forward_kl   F(p || q) = sum_v p (log p - log q)      mode covering: the student keeps everything the teacher may say
    reverse_kl   F(q || p)                                mode seeking

p is the teacher's, q the student's distribution. Both come from final hidden states and one shared `lm_head`, chunk by chunk, and a
chunk's logits are computed again in the backward pass, so that logits [N, V] never exist at once.

N tokens, D model width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(teacher log-probs [C, V], student log-probs [C, V]) -> divergence of each token [C], nats."""


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(teacher, student, reduction="none", log_target=True).sum(-1)


DIVERGENCES: dict[str, Divergence] = {"forward_kl": forward_kl, "reverse_kl": reverse_kl}


def token_divergence(name: str, teacher: Tensor, student: Tensor, lm_head: nn.Module, chunks: int = 1) -> Tensor:
    """Divergence of every token.

    teacher, student: final hidden states [N, D]; gradients flow to the student only.
    lm_head: [.., D] -> logits [.., V]
    chunks: equal parts of the tokens, of which one's logits exist at once.
    Returns [N], nats, float32.
    """
    divergence = DIVERGENCES[name]

    def of_chunk(t: Tensor, s: Tensor) -> Tensor:
        with torch.no_grad():
            p = F.log_softmax(lm_head(t).float(), dim=-1)
        return divergence(p, F.log_softmax(lm_head(s).float(), dim=-1))

    pairs = zip(teacher.detach().tensor_split(chunks), student.tensor_split(chunks), strict=True)
    return torch.cat([checkpoint(of_chunk, t, s, use_reentrant=False) for t, s in pairs])

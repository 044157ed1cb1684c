"""Forward KL from what a teacher leaves behind: one vector and one number a token, instead of its distribution.

With logits z(h) = W h + b and their log-partition function Z(h) = log sum_v exp z_v(h), for hidden states t of the teacher and h of the
student

    F(p || q) = Z(h) - Z(t) - m (h - t),        m = grad Z(t) = sum_v p_v W_v
    grad_h F  = grad Z(h) - m

(the Bregman divergence of Z). So the full vocabulary of the teacher enters by its slope m [D] and its level m t - Z(t) alone. Both are
computed once a row; a step is two products with `lm_head`, the student's logits and their gradient, whatever the teacher said.

The teacher may be another model, whose distribution p has nothing to do with `lm_head`: then m = sum_v p_v W_v as well, and the level is
sum_v p_v (log p_v - b_v).

Exact where `lm_head` is affine and its products are float32: the two products with m cancel, which logits in bfloat16 are too coarse for.

N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def slope_and_level(teacher: Tensor, lm_head: nn.Module) -> Tensor:
    """teacher [N, D] -> [N, D + 1]: the slope, and the level in the last column."""
    point, logits = _logits(teacher, lm_head)
    log_z = _into_probabilities(logits.detach())
    slope = _pull(logits, point)
    return torch.cat([slope, (slope * teacher).sum(-1, keepdim=True) - log_z[:, None]], -1)


def slope_and_level_of(said: Tensor, nowhere: Tensor, lm_head: nn.Module) -> Tensor:
    """The same of any log-probs [N, V]; nowhere: zeros [N, D], of which `lm_head` makes its bias."""
    point, bias = _logits(nowhere, lm_head)
    p = said.exp()
    level = (p * (said - bias.detach())).sum(-1, keepdim=True)
    return torch.cat([torch.autograd.grad(bias, point, p)[0], level], -1)


def forward_kl_by_slope(
    kept: Tensor, student: Tensor, tokens: Tensor, lm_head: nn.Module, likelihood_learns: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """kept [N, D + 1] as `slope_and_level` gives it, student [N, D], tokens [N].

    Returns the divergences [N] and the log-probs of `tokens` [N], nats, and the gradients of both toward the student [N, D]; that of
    the log-probs is one product more, and None where it is not asked for.
    """
    slope, level = kept[:, :-1], kept[:, -1]
    point, logits = _logits(student, lm_head)
    values = logits.detach()
    written = values.gather(-1, tokens[:, None])[:, 0]
    log_z = _into_probabilities(values)
    mean = _pull(logits, point, again=likelihood_learns)
    divergences = log_z - (slope * student).sum(-1) + level
    toward_written = None
    if likelihood_learns:
        values.zero_().scatter_(-1, tokens[:, None], 1.0)
        toward_written = _pull(logits, point) - mean
    return divergences, written - log_z, mean - slope, toward_written


def _logits(hidden: Tensor, lm_head: nn.Module) -> tuple[Tensor, Tensor]:
    """Hidden states apart from their graph, and their logits [N, V], the only tensor of that size: an affine map does not need its
    result again for its gradient, so it may be overwritten."""
    point = hidden.detach().requires_grad_()
    with torch.enable_grad():
        return point, lm_head(point)


def _into_probabilities(logits: Tensor) -> Tensor:
    """Overwrite logits [N, V] by their probabilities; returns their log-partition function [N]."""
    top = logits.amax(-1, keepdim=True)
    mass = logits.sub_(top).exp_().sum(-1, keepdim=True)
    logits.div_(mass)
    return (top + mass.log())[:, 0]


def _pull(logits: Tensor, point: Tensor, again: bool = False) -> Tensor:
    """sum_v x_v W_v [N, D] of the weights x [N, V] that now lie in the logits' place. By autograd and not by `lm_head.weight`, which is
    elsewhere where weights are sharded."""
    return torch.autograd.grad(logits, point, logits.detach(), retain_graph=again)[0]

"""Muon in float32: momentum, then the update's nearest semi-orthogonal matrix by Newton-Schulz (Jordan et al. 2024).

`torch.optim.Muon` is the same algorithm and does the iteration in bfloat16, which takes four fifths of a nursery step on a CPU
without bfloat16 arithmetic. Left out: weight decay, Nesterov switch, other coefficient sets.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients with the steepest slope at zero."""
ITERATIONS = 5


def orthogonalise(update: Tensor) -> Tensor:
    """[M, N] -> [M, N] with all singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    x = update.T if update.shape[0] > update.shape[1] else update
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if update.shape[0] > update.shape[1] else x


class Muon(torch.optim.Optimizer):
    """For matrices only. The step is scaled by sqrt(max(1, M/N)) so that one learning rate suits all shapes."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # there is no closure to evaluate
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
                p.add_(orthogonalise(update), alpha=-group["lr"] * scale)

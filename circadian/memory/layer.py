"""The memory of one decoder layer: levels of low-rank experts beside the MLP.

    y = MLP(x) + sum over levels l of  B_l ( g_l(x) * silu(A_l x) ),      g_l(x) = mask_l * sigmoid(W_l x + b_l)

A level is one wide low-rank MLP: `A [E*R, D]`, `B [D, E*R]`, router `W [E, D]`, `b [E]`; each expert's gate is repeated R times, so a
level is two matrix products and a gate vector whatever E is. An expert that the mask leaves out adds exactly zero. All tensors are
zero until an expert opens, so a freshly grafted model equals its base bit for bit.

The levels read the same x and their outputs are summed. The paper chains them; then a sealed expert would answer differently
whenever the fast memory changes, and the residual stream's scale would enter a normalised input (docs/decisions/0002).

B rows, T tokens, D model width, E experts of a level, R rank, M = all experts of all levels.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circadian.memory.state import ExpertId, Mask
from circadian.specs import MemorySpec

PARTS = ("A", "B", "W", "b")
"""An expert's tensors: A [R, D], B [D, R], W [D], b [] (as stored: [R, D], [D, R], [1, D], [1])."""


class Expert(nn.Module):
    """One expert's own parameters, apart from its level, while it is being written. The only thing that ever has gradients."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.A, self.B, self.W, self.b = (nn.Parameter(tensors[part].clone()) for part in PARTS)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """x [..., D], heard [] or [B, 1 or T, 1] of 0 and 1 -> [..., D]"""
        gate = torch.sigmoid(F.linear(x, self.W, self.b)) * heard
        return F.linear(gate * F.silu(F.linear(x, self.A)), self.B)


class LevelBank(nn.Module):
    """All experts of one level, as one wide pair of matrices and a router. Never has gradients."""

    def __init__(self, width: int, experts: int, rank: int) -> None:
        super().__init__()
        self.experts, self.rank = experts, rank
        self.A = nn.Parameter(torch.zeros(experts * rank, width), requires_grad=False)
        self.B = nn.Parameter(torch.zeros(width, experts * rank), requires_grad=False)
        self.W = nn.Parameter(torch.zeros(experts, width), requires_grad=False)
        self.b = nn.Parameter(torch.zeros(experts), requires_grad=False)

    def forward(self, x: Tensor, mask: Tensor, span: int) -> Tensor:
        """x [..., D], mask [E] or [B, 1 or T, E] of 0 and 1 -> [..., D]

        Only the first `span` experts are computed; the caller promises that the mask hears none of the others.
        """
        wide = span * self.rank
        gate = torch.sigmoid(F.linear(x, self.W[:span], self.b[:span])) * mask[..., :span]
        return F.linear(gate.repeat_interleave(self.rank, dim=-1) * F.silu(F.linear(x, self.A[:wide])), self.B[:, :wide])

    def slices(self, expert: int) -> dict[str, Tensor]:
        """Views into the bank of one expert's tensors: writing to them writes the expert."""
        if not 0 <= expert < self.experts:
            raise IndexError(f"expert {expert} does not exist; the level has experts 0 to {self.experts - 1}")
        columns = slice(expert * self.rank, (expert + 1) * self.rank)
        one = slice(expert, expert + 1)
        return {"A": self.A[columns], "B": self.B[:, columns], "W": self.W[one], "b": self.b[one]}


class MemoryLayer(nn.Module):
    """The levels of one decoder layer, and the expert that is being written there, if any."""

    def __init__(self, width: int, spec: MemorySpec) -> None:
        super().__init__()
        self.levels = nn.ModuleList(LevelBank(width, level.experts, level.rank) for level in spec.levels)
        self.sizes = [level.experts for level in spec.levels]
        self.writing: Expert | None = None
        self.written: ExpertId | None = None
        self.as_it_was = False
        """While True the written expert is not heard, and its bank is: what stood there before the writing."""
        self._computed = self._computed_before = self.sizes
        """Of each level, how many of its first experts are computed; and while it is as it was."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [..., D]; mask [M], or where x is [B, T, D] also [B, M] or [B, T, M] -> what memory adds to the MLP's output, [..., D]"""
        mask = mask.to(x.dtype)
        if mask.ndim == 2:
            mask = mask.unsqueeze(1)
        parts = list(mask.split(self.sizes, dim=-1))
        heard = None
        if self.written is not None and not self.as_it_was:
            apart = torch.zeros(self.sizes[self.written.level], device=x.device, dtype=x.dtype)
            apart[self.written.expert] = 1.0
            heard = (parts[self.written.level] * apart).sum(-1, keepdim=mask.ndim == 3)
            parts[self.written.level] = parts[self.written.level] * (1 - apart)
        spans = self._computed_before if self.as_it_was else self._computed
        added = [level(x, part, span) for level, part, span in zip(self.levels, parts, spans, strict=True) if span]
        if self.writing is not None and heard is not None:
            added.append(self.writing(x, heard))
        return sum(added[1:], added[0]) if added else torch.zeros_like(x)

    def bank(self, level: int) -> LevelBank:
        """The experts of a level."""
        return cast(LevelBank, self.levels[level])

    def fresh(self, where: ExpertId, generator: torch.Generator) -> dict[str, Tensor]:
        """A fresh expert: A ~ N(0, 1/D), everything else zero, so that it adds nothing yet and its gate stands at one half."""
        tensors = {part: torch.zeros_like(tensor) for part, tensor in self.bank(where.level).slices(where.expert).items()}
        tensors["A"].copy_(torch.randn(tensors["A"].shape, generator=generator) / math.sqrt(tensors["A"].shape[1]))
        return tensors

    @torch.no_grad()
    def initialise(self, where: ExpertId, generator: torch.Generator) -> None:
        """Put a fresh expert into its bank."""
        for part, tensor in self.fresh(where, generator).items():
            self.bank(where.level).slices(where.expert)[part].copy_(tensor)

    @torch.no_grad()
    def erase(self, where: ExpertId) -> None:
        """All zero, as before it ever opened."""
        for tensor in self.bank(where.level).slices(where.expert).values():
            tensor.zero_()

    def begin_writing(self, where: ExpertId, start: dict[str, Tensor] | None = None) -> Expert:
        """One expert as parameters of its own that can learn, beginning as `start`, or else as it is in its bank."""
        if self.written is not None:
            raise RuntimeError(f"expert {self.written} is being written; end_writing() first")
        self.writing, self.written = Expert(start or self.bank(where.level).slices(where.expert)), where
        return self.writing

    def narrow(self, heard: Mask, before: Mask) -> None:
        """Compute no more of each level than its last expert that `heard` [M] has, or, as it was, that `before` [M] has."""
        self._computed, self._computed_before = self._spans(heard), self._spans(before)

    def _spans(self, heard: Mask) -> list[int]:
        """Of each level, how many of its first experts hold all that are heard."""
        rest, spans = list(heard), []
        for size in self.sizes:
            own, rest = rest[:size], rest[size:]
            spans.append(max((expert + 1 for expert in range(size) if own[expert]), default=0))
        return spans

    @torch.no_grad()
    def end_writing(self) -> None:
        """Put the written expert back into its bank."""
        if self.writing is None or self.written is None:
            return
        for part, tensor in self.bank(self.written.level).slices(self.written.expert).items():
            tensor.copy_(getattr(self.writing, part))
        self.writing, self.written = None, None
        self._computed = self._computed_before = self.sizes

"""What a vLLM engine computes of one decoder layer's memory: the experts that it hears, of all levels, in one pair of products.

    up    [N*R + N, D]   the experts' A, below them the router's rows     z = up x + bias
    down  [D, N*R]       the experts' B, each times its mask              y = down (sigmoid(z_router) * silu(z_experts))

The same sum as `MemoryLayer` (layer.py) term by term, without those that the mask makes zero. The levels' banks stay where deliveries
write and what checksums read; `listen` copies out of them, and has to be called after every change of a bank or of the view.

An eager engine holds exactly what is heard: N is the number of heard experts, nothing heard costs nothing, and on a CPU the two
matrices are packed for its matrix products as vLLM packs the base's. An engine that compiles, or captures CUDA graphs, may see neither
a shape nor an address change: N is the number of all experts, written in place, zero where nobody is heard.

N experts, R the widest level's rank (narrower experts are padded with zeros), D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm, dispatch_unquantized_gemm

from circadian.memory.layer import MemoryLayer
from circadian.memory.state import ExpertId


class Product(nn.Module):
    """x -> weight x + bias, by whatever multiplies vLLM's own linear layers."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), None
        if bias is not None:
            self.bias = nn.Parameter(bias, requires_grad=False)
        self._multiply = dispatch_unquantized_gemm()
        self.cpu_linear = F.linear

    def pack(self) -> None:
        """On a CPU, lay the weight out for its matrix products; it cannot be read or written after that."""
        if self.weight.device.type == "cpu":
            dispatch_cpu_unquantized_gemm(self, remove_weight=True)

    def forward(self, x: Tensor) -> Tensor:
        return self._multiply(self, x, self.weight, self.bias)


class HeardExperts(nn.Module):
    """The experts of one decoder layer's memory that its engine hears."""

    def __init__(self, memory: MemoryLayer, *, fixed: bool) -> None:
        """fixed: shapes and addresses must never change."""
        super().__init__()
        self._banks = tuple(memory.bank(level) for level in range(len(memory.sizes)))  # a tuple, so that they are not submodules
        self._places = [ExpertId(level, expert) for level, experts in enumerate(memory.sizes) for expert in range(experts)]
        self.fixed, self.rank = fixed, max(bank.rank for bank in self._banks)
        self.up: Product | None = None
        self.down: Product | None = None
        self.count = 0
        if fixed:
            self._allocate(len(self._places))

    def forward(self, x: Tensor) -> Tensor | None:
        """x [tokens, D] -> what memory adds to the MLP's output, [tokens, D]; None where nobody is heard."""
        if self.up is None or self.down is None:
            return None
        return self.down(self.gated(self.up(x)))

    def gated(self, z: Tensor) -> Tensor:
        """z [tokens, N*R + N] -> sigmoid(z_router) * silu(z_experts), [tokens, N*R]"""
        experts, router = z.split([self.count * self.rank, self.count], dim=-1)
        return (F.silu(experts).unflatten(-1, (self.count, self.rank)) * torch.sigmoid(router).unsqueeze(-1)).flatten(-2)

    @torch.no_grad()
    def listen(self, mask: Sequence[float]) -> None:
        """Hear exactly the experts of this mask [M], as their banks hold them now."""
        heard = {place: entry for place, entry in zip(self._places, mask, strict=True) if entry}
        places = self._places if self.fixed else list(heard)
        if not self.fixed:
            self._allocate(len(places))
        if self.up is None or self.down is None or self.up.bias is None:
            return
        up, bias, down = self.up.weight, self.up.bias, self.down.weight
        for tensor in (up, bias, down):
            tensor.zero_()
        for number, place in enumerate(places):
            if place not in heard:
                continue
            expert, bank = self._banks[place.level].slices(place.expert), self._banks[place.level]
            columns, router = slice(number * self.rank, number * self.rank + bank.rank), len(places) * self.rank + number
            up[columns].copy_(expert["A"])
            up[router].copy_(expert["W"][0])
            bias[router].copy_(expert["b"][0])
            down[:, columns].copy_(expert["B"] * heard[place])
        if not self.fixed:
            self.up.pack()
            self.down.pack()

    def _allocate(self, count: int) -> None:
        """Room for this many experts, not yet filled."""
        like, wide = self._banks[0].A, count * self.rank
        self.count = count
        if not count:
            self.up = self.down = None
            return
        self.up = Product(like.new_zeros(wide + count, like.shape[1]), like.new_zeros(wide + count))
        self.down = Product(like.new_zeros(like.shape[1], wide), None)

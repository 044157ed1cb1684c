"""Isolated instances: many LoRA adapters on one frozen model, each fine-tuned on a dream of its own, all in one pass.

    theta'_i = SFT(theta, DREAM_i),        y = W x + (alpha / R) B_i A_i x     in the rows of instance i alone

Every instance learns as if it were the only one: its loss is the mean over its own tokens, its gradient is clipped by its own norm, its
Adam state and its learning rate are its own, and it stops when its own rows are used up. The base is read once for all of them; what is
computed a second time is two thin products a layer. Instances end one after another, longest first, so those that go on are a prefix. The
rows of an instance's step lie behind one another in one row of the pass, in which no text sees another (packing.py), so little is padding.

All begin with the same A (from the seed) and B = 0, as peft does, so gradients of instances can be compared (gradients.py), and those with
as many rows take them in the same order: what differs between two of them is what they learn. What an instance has learned is written as a
peft adapter (safetensors), which peft and vLLM load.

Like SEAL's inner loop (arXiv 2506.10943): AdamW without weight decay, the learning rate falling linearly to zero over an instance's steps.
Unlike it: padding is not learned (SEAL's labels are a plain copy of the padded ids).

I instances, T tokens of all rows of an instance's step, R rank, X and Y widths of a linear layer's input and output.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from circadian.experience import Row
from circadian.memory.graft import Grafted, View
from circadian.objectives.packing import lay, positions
from circadian.specs.dreaming import AdapterSpec

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam: torch's own."""
MOST_TOKENS = 8192
"""Of one pass over all instances, unless the caller knows better."""
TOKEN_CHUNK = 2048
"""Tokens whose logits exist at once."""
Progress = Callable[[int, int], None]
"""progress(step, steps)"""


@dataclass(frozen=True)
class Adapter:
    """What one instance has learned: of each adapted layer, by its name in the model, A [R, X] and B [Y, R]."""

    spec: AdapterSpec
    tensors: dict[str, tuple[Tensor, Tensor]]
    losses: tuple[float, ...] = ()
    """Of its steps, nats a token."""

    @property
    def finite(self) -> bool:
        """Whether it came to anything: a rate too high, or a text too odd, ends in what is no number."""
        return all(map(math.isfinite, self.losses)) and all(
            bool(part.isfinite().all()) for pair in self.tensors.values() for part in pair
        )


class PackedLinear(nn.Module):
    """A frozen linear layer beside which every instance has its own A [I, X, R] and B [I, R, Y], which lie as the products read them."""

    def __init__(self, inner: nn.Linear, instances: int, spec: AdapterSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.inner, self.scale = inner, spec.alpha / spec.rank
        width = inner.in_features
        bound = 1 / math.sqrt(width)  # kaiming_uniform_(a=sqrt(5)), as peft begins
        first = (torch.rand(spec.rank, width, generator=generator) * 2 - 1) * bound
        device = inner.weight.device  # fp32 whatever the base is, as in peft: bf16 would lose the small steps of Adam
        self.A = nn.Parameter(first.to(device).T.repeat(instances, 1, 1))
        self.B = nn.Parameter(torch.zeros(instances, spec.rank, inner.out_features, device=device))
        self.active = instances
        """The first so many instances are read in this pass."""

    def forward(self, x: Tensor) -> Tensor:
        """x [active * N, T, X], instance by instance -> [active * N, T, Y]"""
        base = self.inner(x)
        whole, rows = (each.reshape(self.active, -1, each.shape[-1]).to(self.A.dtype) for each in (base, x))
        everyone = self.active == len(self.A)  # a slice would cost the backward pass a copy
        A, B = (self.A, self.B) if everyone else (self.A[: self.active], self.B[: self.active])
        return torch.baddbmm(whole, rows @ A, B, alpha=self.scale).reshape(base.shape).to(x.dtype)


class Pack:
    """Instances under way on one model."""

    def __init__(self, model: nn.Module, instances: int, spec: AdapterSpec, seed: int) -> None:
        self.model, self.spec, self.instances = model, spec, instances
        generator = torch.Generator().manual_seed(seed)
        self.layers = {
            name: PackedLinear(layer, instances, spec, generator)
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in spec.targets
        }
        if not self.layers:
            raise ValueError(
                f"adapter.targets: the model has no linear layer named {' or '.join(spec.targets)}; name some that it has"
            )
        self.parameters = [part for layer in self.layers.values() for part in (layer.A, layer.B)]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The model computes with the pack's layers in the place of its own."""
        for name, layer in self.layers.items():
            self._put(name, layer)
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                self._put(name, layer.inner)

    @torch.no_grad()
    def go_on_from(self, adapter: Adapter) -> None:
        """Every instance holds what this one has learned. Raises ValueError where it adapts other layers."""
        if adapter.tensors.keys() != self.layers.keys():
            raise ValueError("the adapter to go on from adapts other layers than adapter.targets; leave it out, or name its own")
        for name, (A, B) in adapter.tensors.items():
            self.layers[name].A.copy_(A.T.expand_as(self.layers[name].A))
            self.layers[name].B.copy_(B.T.expand_as(self.layers[name].B))

    def gradients(
        self, rows: Sequence[Sequence[Row]], view: View, most_tokens: int, of: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Of `losses`, values and their gradients toward `of`, in as many passes as it takes to have no more than `most_tokens` in one, or
        a row of each instance where that is more."""
        longest = max(len(row.ids) for own in rows for row in own)
        at_once = max(1, most_tokens // (len(rows) * longest))
        whole = torch.tensor([sum(sum(row.weight[1:]) for row in own) for own in rows], device=self.parameters[0].device).clamp(
            min=1e-9
        )
        values = torch.zeros(len(rows), device=whole.device)
        total: list[Tensor] = []
        for start in range(0, max(map(len, rows)), at_once):
            some = [own[start : start + at_once] for own in rows]
            part = torch.tensor([sum(sum(row.weight[1:]) for row in own) for own in some], device=whole.device)
            losses = self.losses(some, view) * part / whole
            gradients = torch.autograd.grad(losses.sum(), of)
            total = [sum_.add_(gradient) for sum_, gradient in zip(total, gradients, strict=True)] if total else [*gradients]
            values += losses.detach()
        return values, total

    def losses(self, rows: Sequence[Sequence[Row]], view: View = "rested") -> Tensor:
        """Of the first instances, as many as `rows` has lists, the mean loss of their tokens [I], nats; 0 where a list is empty."""
        for layer in self.layers.values():
            layer.active = len(rows)
        device, lengths = self.parameters[0].device, [len(row.ids) for own in rows for row in own]
        count = itertools.count()
        bins = [[next(count) for _ in own] for own in rows]
        ids, weight = (lay(bins, texts).to(device) for texts in zip(*(_tensors(row) for own in rows for row in own), strict=True))
        hidden = states(self.model, ids, view, positions(bins, lengths).to(device))[:, :-1]
        weight = weight[:, 1:]
        learned = weight > 0
        weight = weight[learned]
        losses = self._cross_entropy(hidden[learned], ids[:, 1:][learned]) * weight
        whose = torch.arange(len(rows), device=device)[:, None].expand(learned.shape)[learned]
        nothing = losses.new_zeros(len(rows))
        return nothing.index_add(0, whose, losses) / nothing.index_add(0, whose, weight).clamp(min=1e-9)

    def adapter(self, instance: int, losses: Sequence[float] = ()) -> Adapter:
        """A copy of what an instance holds."""
        held = {
            name: (layer.A[instance].detach().T.contiguous(), layer.B[instance].detach().T.contiguous())
            for name, layer in self.layers.items()
        }
        return Adapter(self.spec, held, tuple(losses))

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden [M, D], targets [M] -> [M], nats; logits of TOKEN_CHUNK tokens at a time; where there are more, again in the
        backward pass."""

        def one(part: Tensor, wanted: Tensor) -> Tensor:
            return F.cross_entropy(self.model.lm_head(part).float(), wanted, reduction="none")  # type: ignore[operator]

        if len(targets) <= TOKEN_CHUNK:
            return one(hidden, targets)
        chunks = zip(hidden.split(TOKEN_CHUNK), targets.split(TOKEN_CHUNK), strict=True)
        return torch.cat([checkpoint(one, *chunk, use_reentrant=False) for chunk in chunks])

    def _put(self, name: str, layer: nn.Module) -> None:
        parent, _, last = name.rpartition(".")
        setattr(self.model.get_submodule(parent), last, layer)


def fine_tune(
    model: nn.Module,
    dreams: Sequence[Sequence[Row]],
    spec: AdapterSpec,
    seed: int,
    progress: Progress | None = None,
    view: View = "rested",
    begin: Adapter | None = None,
    most_tokens: int = MOST_TOKENS,
) -> list[Adapter]:
    """One instance for every dream, a dream being the rows that are learned of it. view: which memory the instances build on; begin: what
    they go on from, if it is not a fresh one; most_tokens: of one pass.

    An instance takes its rows `epochs` times, `batch` a step, in an order drawn from the seed alone, so that it learns the same alone or
    among others. The model's weights are not changed, and it is left without gradients.
    """
    if not all(dreams):
        raise ValueError("a dream without rows cannot be learned; leave it out")
    model.requires_grad_(False)
    plans = [_plan(rows, spec, seed) for rows in dreams]
    order = sorted(range(len(dreams)), key=lambda number: -len(plans[number]))
    learned: list[Adapter | None] = [None] * len(dreams)
    lengths = [len(plans[number]) for number in order]
    pack = Pack(model, len(dreams), spec, seed)
    if begin is not None:
        pack.go_on_from(begin)
    state = [(torch.zeros_like(part), torch.zeros_like(part)) for part in pack.parameters]
    trace: list[list[float]] = [[] for _ in order]
    with pack.attached():
        for step in range(lengths[0]):
            active = sum(length > step for length in lengths)
            rows = [plans[order[i]][step] for i in range(active)]
            losses, gradients = pack.gradients(rows, view, most_tokens, pack.parameters)
            _adam(pack.parameters, gradients, state, step, _rates(spec, step, lengths[:active]).to(losses.device), spec)
            for own, loss in zip(trace[:active], losses.tolist(), strict=True):
                own.append(loss)
            for i in range(active):
                if lengths[i] == step + 1:
                    learned[order[i]] = pack.adapter(i, trace[i])
            if progress:
                progress(step + 1, lengths[0])
    return [adapter for adapter in learned if adapter is not None]


def states(model: nn.Module, ids: Tensor, view: View, where: Tensor) -> Tensor:
    """Final hidden states [B, T, D] of a model with memory in this view, or of one without; where [B, T]: positions, from 0 in every
    text."""
    if isinstance(model, Grafted):
        return model.hidden(ids, view, where)
    return model.model(input_ids=ids, position_ids=where, use_cache=False).last_hidden_state  # type: ignore[operator]


def _tensors(row: Row) -> tuple[Tensor, Tensor]:
    """Tokens of a row, and their weights; nothing comes before the first, so it is not learned."""
    return torch.tensor(row.ids), torch.tensor((0.0, *row.weight[1:]))


def _plan(rows: Sequence[Row], spec: AdapterSpec, seed: int) -> list[list[Row]]:
    """The rows of each step, `batch` of them; where an epoch is over within a step the next one begins."""
    rng, queue = random.Random(seed), []
    for _ in range(spec.epochs):
        queue += rng.sample(list(rows), len(rows))
    queue += itertools.islice(itertools.cycle(list(queue)), -len(queue) % spec.batch)
    return [queue[i : i + spec.batch] for i in range(0, len(queue), spec.batch)]


def _rates(spec: AdapterSpec, step: int, lengths: Sequence[int]) -> Tensor:
    """The learning rate of each active instance: down linearly, zero where its steps end."""
    return torch.tensor([spec.lr * (length - step) / length for length in lengths])


@torch.no_grad()
def _adam(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    state: Sequence[tuple[Tensor, Tensor]],
    step: int,
    rates: Tensor,
    spec: AdapterSpec,
) -> None:
    """A step of Adam for the active instances, the first ones; each clips its gradient by its own norm. rates [active]."""
    active, one = len(rates), (-1, 1, 1)
    squares = [torch.linalg.vector_norm(gradient[:active], dim=(1, 2), dtype=torch.float32).square() for gradient in gradients]
    clip = (spec.max_grad_norm / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1.0)
    rates = rates / (1 - BETAS[0] ** (step + 1))
    for parameter, gradient, (first, second) in zip(parameters, gradients, state, strict=True):
        part = gradient[:active] * clip.view(one).to(gradient)
        first, second = first[:active], second[:active]
        first.lerp_(part, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(part, part, value=1 - BETAS[1])
        unbiased = second.sqrt().div_(math.sqrt(1 - BETAS[1] ** (step + 1))).add_(EPSILON)
        torch.mul(first, rates.view(one).to(parameter), out=part)
        parameter[:active] -= part.div_(unbiased)

"""What must hold on the device as it holds on a CPU; each promise is a name and whether it held.

Equal means bit for bit: shapes are the same, so kernels are, and what memory does not say adds exactly zero. Where kernels differ results
are compared in float32, from the same weights: in bfloat16 a deep and wide model of random weights makes much of little rounding.

B rows, T tokens, M experts over all levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.accelerator.forward import sealed, spec_of
from benchmarks.accelerator.learner import Ours
from benchmarks.accelerator.models import base_model, fill, grafted, packed
from benchmarks.accelerator.plan import Plan
from benchmarks.learner.points import Point
from circadian.memory.delivery import pack, receive
from circadian.memory.envelope import DeliveryRefused
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, ViewName, written_experts
from circadian.memory.tensors import checksum, expert_tensors

ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
"""How far results may be apart, as a share, where the kernels differ: of a whole model in float32, of one layer in either."""
LR = 1e-4
"""So small that a few steps end lower than they began, whatever the width."""
ROWS, TOKENS = 4, 64
LESSON_ROWS = 6


def check(plan: Plan, device: torch.device, dtype: torch.dtype) -> dict[str, bool]:
    """Promise -> whether it held."""
    base = base_model(plan.shape, device, dtype)
    generator = torch.Generator(device).manual_seed(0)
    ids = torch.randint(plan.shape.vocabulary, (ROWS, TOKENS), device=device, generator=generator)
    empty = grafted(base, spec_of(plan, plan.experts[0]))
    full = fill(grafted(base, spec_of(plan, plan.experts[0])), sealed(plan.experts[0]))
    with torch.no_grad():
        plain = base(input_ids=ids, use_cache=False).logits
        return {
            "an empty memory leaves the base's logits as they are": equals_base(plain, empty, ids),
            "the base's view of a full memory is the base": torch.equal(plain, said(full, ids, "base")),
            "a full memory that is heard says something": not torch.equal(plain, said(full, ids, "awake")),
            "every row has its own view": views_are_of_their_rows(full, ids),
            "every token has its own view": views_are_of_their_tokens(full, ids),
            "sealed experts answer the same whatever the fast one holds": sealed_stand(full, ids),
            "the layer agrees with its formula in float64": layer_agrees(full, dtype),
            "a delivery is written and read back": delivered(full),
            "a broken delivery is refused and changes nothing": broken_is_refused(full),
            **step_promises(Ours(base, Point(plan.shape, "recipe", LESSON_ROWS), plan.rank, LR)),
            "two products a layer say the same as the levels apart": two_products_agree(
                packed(base, full).float(), full.float(), ids
            ),
            "texts that share a row do not see each other": packed_texts_are_apart(full.float(), ids),
        }


def said(model: Grafted, ids: Tensor, view: str | Tensor) -> Tensor:
    """Logits [B, T, V]."""
    return model(input_ids=ids, view=view, use_cache=False).logits


def equals_base(plain: Tensor, model: Grafted, ids: Tensor) -> bool:
    """In the view that hears all places, written or not."""
    everything = torch.ones(len(model.memory_state.ids()), device=ids.device)
    return torch.equal(plain, said(model, ids, everything))


def views_are_of_their_rows(model: Grafted, ids: Tensor) -> bool:
    """Rows in turns awake, rested and base, against a batch that is all the one."""
    names: tuple[ViewName, ...] = ("awake", "rested", "base")
    masks = torch.stack([model.mask(names[row % 3]) for row in range(len(ids))])
    together = said(model, ids, masks)
    alone = {name: said(model, ids, name) for name in names}
    return all(torch.equal(together[row], alone[names[row % 3]][row]) for row in range(len(ids)))


def views_are_of_their_tokens(model: Grafted, ids: Tensor) -> bool:
    """What comes first does not hear the view of what comes later."""
    half = ids.shape[1] // 2
    masks = model.mask("base").expand(*ids.shape, -1).clone()
    masks[:, half:] = model.mask("awake")
    mixed, base = said(model, ids, masks), said(model, ids, "base")
    return torch.equal(mixed[:, :half], base[:, :half]) and not torch.equal(mixed[:, half:], base[:, half:])


def sealed_stand(model: Grafted, ids: Tensor) -> bool:
    """The rested view, before and after the fast expert is written over; it is put back."""
    before, fast = said(model, ids, "rested"), [layer.bank(0).slices(0) for layer in model.memory_layers.values()]
    kept = [{part: tensor.clone() for part, tensor in one.items()} for one in fast]
    for one in fast:
        for tensor in one.values():
            tensor.normal_()
    after, awake = said(model, ids, "rested"), said(model, ids, "awake")
    for one, old in zip(fast, kept, strict=True):
        for part, tensor in one.items():
            tensor.copy_(old[part])
    return torch.equal(before, after) and not torch.equal(after, awake)


def layer_agrees(model: Grafted, dtype: torch.dtype) -> bool:
    """Against the sum over single experts."""
    layer = next(iter(model.memory_layers.values()))
    x = torch.randn(TOKENS, model.config.hidden_size, device=model.device, dtype=dtype)
    mask = model.mask("awake")
    wanted = torch.zeros_like(x, dtype=torch.float64)
    for where, heard in zip(model.memory_state.ids(), mask.double(), strict=True):
        A, B, W, b = (layer.bank(where.level).slices(where.expert)[part].double() for part in ("A", "B", "W", "b"))
        gate = heard * torch.sigmoid(x.double() @ W.T + b)
        wanted += (gate * torch.nn.functional.silu(x.double() @ A.T)) @ B.T
    return apart(layer(x, mask), wanted) < ROUNDING[dtype]


def two_products_agree(two: Grafted, model: Grafted, ids: Tensor) -> bool:
    """Both in float32."""
    return apart(said(two, ids, "awake"), said(model, ids, "awake")) < ROUNDING[torch.float32]


def packed_texts_are_apart(model: Grafted, ids: Tensor) -> bool:
    """Two texts in one row by their positions, against each alone; in float32."""
    half = ids.shape[1] // 2
    positions = torch.arange(half, device=ids.device).repeat(2).expand(len(ids), -1)
    together = model.hidden(ids, "awake", positions)
    alone = torch.cat([model.hidden(ids[:, :half], "awake"), model.hidden(ids[:, half:], "awake")], 1)
    seen = model.hidden(ids, "awake")
    return apart(together, alone) < ROUNDING[torch.float32] < apart(seen, alone)


def delivered(model: Grafted) -> bool:
    """One expert is filled anew, packed, wiped and received."""
    where, layers = ExpertId(1, 0), model.memory_layers
    promised = checksum(expert_tensors(layers, [where]))
    payload = pack(layers, [where], model.memory_state, "promise")
    for layer in layers.values():
        layer.erase(where)
    wiped = checksum(expert_tensors(layers, [where]))
    receipt, _ = receive(layers, payload)
    return receipt.checksum == promised == checksum(expert_tensors(layers, [where])) != wiped


def broken_is_refused(model: Grafted) -> bool:
    """One bit of the last tensor is another."""
    layers, written = model.memory_layers, written_experts(model.memory_state)
    before = checksum(expert_tensors(layers, written))
    payload = bytearray(pack(layers, [ExpertId(1, 0)], model.memory_state, "broken"))
    payload[-1] ^= 1
    try:
        receive(layers, bytes(payload))
    except DeliveryRefused:
        return checksum(expert_tensors(layers, written)) == before
    return False


def step_promises(ours: Ours) -> dict[str, bool]:
    """Of one step of distillation: who has gradients, and what it changes."""
    written = {id(parameter) for parameter in ours.adam.learned}
    before = {name: tensor.detach().clone() for name, tensor in ours.model.named_parameters()}
    with torch.enable_grad():
        ours.teach()
        ours.loss().backward()
        learns = only_they_have_gradients(ours.model, written)
        first = ours.step()
        for _ in range(3):
            last = ours.step()
    changed = {name for name, tensor in ours.model.named_parameters() if not torch.equal(tensor, before[name])}
    theirs = {name for name, tensor in ours.model.named_parameters() if id(tensor) in written}
    return {
        "only the written expert has gradients, finite and not all zero": learns,
        "steps change nothing but the written expert": bool(changed) and changed <= theirs,
        "the loss falls": last < first,
    }


def only_they_have_gradients(model: torch.nn.Module, written: set[int]) -> bool:
    """And theirs are finite, and not all of them zero."""
    gradients = {id(parameter): parameter.grad for parameter in model.parameters() if parameter.grad is not None}
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients.values())
    return set(gradients) == written and finite and any(bool(gradient.any()) for gradient in gradients.values())


def apart(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over the norm."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())

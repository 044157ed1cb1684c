"""L_GKD and L_KS (method section 4) on a model, against float64: each row alone, unpacked, written out with PyTorch's own functions."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from circadian.experience import Row
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId
from circadian.objectives import fast_learning
from circadian.objectives.knowledge_seeding import Lesson, collate, knowledge_seeding_loss, mix, rewarded, teach
from circadian.objectives.rows import Imitated, Kind, TaughtRow
from circadian.specs import DivergenceSpec, ImitationSpec, SeedingSpec

SLOW = ExpertId(1, 0)
WANTED = (7, 8, 2)
TEACHERS: dict[Kind, str] = {"day": "awake", "old": "rested", "free": "base"}


def row(kind: Kind, *ids: int, start: int = 2, imitated: Imitated | None = None) -> TaughtRow:
    return TaughtRow(ids, start, TEACHERS[kind], kind, imitated)  # type: ignore[arg-type]


def masks(model: Grafted) -> dict[str, Tensor]:
    return {view: model.mask(view) for view in ("awake", "rested", "base")}  # type: ignore[arg-type]


def logits(model: Grafted, taught: TaughtRow, view: str) -> Tensor:
    """Of the taught tokens, [n, V]."""
    return model(input_ids=torch.tensor([taught.ids]), view=view).logits[0, taught.start - 1 : -1]


def divergence(model: Grafted, taught: TaughtRow, kind: str = "forward_kl") -> Tensor:
    """F of every taught token [n], float64."""
    with torch.no_grad():
        p = Categorical(logits=logits(model, taught, taught.teacher))
    q = Categorical(logits=logits(model, taught, "student"))
    return kl_divergence(p, q) if kind == "forward_kl" else kl_divergence(q, p)


def log_probs(model: Grafted, taught: TaughtRow) -> Tensor:
    """What the student finds of the written tokens [n], float64."""
    return Categorical(logits=logits(model, taught, "student")).log_prob(torch.tensor(taught.ids[taught.start :]))


def exact(model: Grafted) -> Grafted:
    return copy.deepcopy(model).double()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_the_distillation_is_the_mixture_of_both_expectations(model: Grafted, share: float, kind: str) -> None:
    """L_GKD = (1 - lambda) E_teacher [F] + lambda E_student [F], with lambda the share that was drawn."""
    rng, spec = random.Random(0), SeedingSpec(on_policy_share=share, divergence=DivergenceSpec(kind=kind))  # type: ignore[arg-type]
    teachers = {kind: [row(kind, 1, *(rng.randrange(5, 40) for _ in range(5))) for _ in range(2)] for kind in TEACHERS}
    students = {kind: [row(kind, 2, *(rng.randrange(5, 40) for _ in range(5))) for _ in range(2)] for kind in TEACHERS}
    pools = [{kind: teach(model, rows, masks(model), spec) for kind, rows in pool.items()} for pool in (teachers, students)]
    drawn: list[Lesson] = mix(*pools, spec, 96, random.Random(1))
    loss = float(knowledge_seeding_loss(model, collate(drawn), model.mask("student"), spec))
    reference = exact(model)
    known = {taught: float(divergence(reference, taught, kind).mean()) for taught in {lesson.row for lesson in drawn}}
    by_writer = {writer: [known[lesson.row] for lesson in drawn if lesson.row.ids[0] == writer] for writer in (1, 2)}
    got = len(by_writer[2]) / len(drawn)
    assert got == (pytest.approx(share, abs=0.15) if 0 < share < 1 else share)
    means = {writer: sum(values) / len(values) if values else 0.0 for writer, values in by_writer.items()}
    assert loss == pytest.approx((1 - got) * means[1] + got * means[2], rel=1e-4)


def imitating(model: Grafted, spec: SeedingSpec) -> list[Lesson]:
    """Two groups that are rewarded, and two rows that are not."""
    groups = [((1, 5, 6), WANTED, [(7, 8, 2), (7, 9, 2), (9, 9, 9)]), ((1, 12), (4, 2), [(4, 2), (5, 5)])]
    rows = [
        row("day", *prefix, *own, start=len(prefix), imitated=Imitated(wanted, number))
        for number, (prefix, wanted, completions) in enumerate(groups)
        for own in completions
    ]
    lessons = rewarded(model, teach(model, rows, masks(model), spec), model.mask("student"), spec, [None] * len(rows))
    return [*lessons, *teach(model, [row("free", 1, 9, 10, 2, start=1), row("old", 1, 11, 13, 14, 2)], masks(model), spec)]


def written_out(model: Grafted, lessons: Sequence[Lesson], before: Sequence[Tensor], spec: SeedingSpec) -> tuple[Tensor, Tensor]:
    """Both terms as means over all taught tokens: F, and the clipped surrogate of the group-relative advantage, which rows that do
    not imitate have none of."""
    rewards: dict[int, list[float]] = {0: [1.0, 1 - 1 / 3, 0.0], 1: [1.0, 1 - 2 / 2]}  # z = 0, 1, 3 > z0; 0, 2
    advantages = []
    for members in rewards.values():
        mean = sum(members) / len(members)
        spread = (sum((r - mean) ** 2 for r in members) / len(members)) ** 0.5
        advantages += [(r - mean) / spread for r in members]
    distilled, surrogate = [], []
    for i, lesson in enumerate(lessons):
        distilled.append(divergence(model, lesson.row))
        if i < len(advantages):
            ratio = (log_probs(model, lesson.row) - before[i]).exp()
            clipped = ratio.clamp(1 - spec.imitation.clip, 1 + spec.imitation.clip)
            surrogate.append(-torch.minimum(ratio * advantages[i], clipped * advantages[i]))
    count = sum(len(part) for part in distilled)
    return torch.cat(distilled).sum() / count, torch.cat(surrogate).sum() / count


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_both_terms_of_knowledge_seeding_in_one_backward(model: Grafted, alpha: float) -> None:
    """L_KS = alpha L_GKD + (1 - alpha) L_imitation: the loss, and its gradient for A, B, W and b of the written expert."""
    spec = SeedingSpec(alpha=alpha, imitation=ImitationSpec(threshold=2, clip=0.05))
    lessons = imitating(model, spec)
    then = exact(model)
    with torch.no_grad():
        before = [log_probs(then, lesson.row) for lesson in lessons]
    model.begin_writing(SLOW)
    generator = torch.Generator().manual_seed(7)
    for (
        layer
    ) in model.memory_layers.values():  # the student has moved on since the rows were written: ratios are not 1, some clipped
        assert layer.writing is not None
        for parameter in layer.writing.parameters():
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
    reference = exact(model)
    with torch.no_grad():
        moved = torch.cat([(log_probs(reference, lesson.row) - b).exp() for lesson, b in zip(lessons, before, strict=True)]) - 1
    assert (moved.abs() > spec.imitation.clip).any()
    assert (moved.abs() < spec.imitation.clip).any()
    distilled, surrogate = written_out(reference, lessons, before, spec)
    wanted = alpha * distilled + (1 - alpha) * surrogate
    wanted.backward()
    loss = knowledge_seeding_loss(model, collate(lessons), model.mask("student"), spec, chunks=3)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert abs(distilled.item() - surrogate.item()) > 1e-3, "the terms can be told apart"
    parameters = dict(model.named_parameters())
    written = {name for name, parameter in parameters.items() if parameter.grad is not None}
    assert {name.split(".memory.")[1] for name in written} == {f"writing.{part}" for part in "ABWb"}
    assert {name for name, parameter in reference.named_parameters() if parameter.grad is not None} == written
    for name, parameter in reference.named_parameters():
        if name in written:
            torch.testing.assert_close(parameters[name].grad.double(), parameter.grad, atol=2e-6, rtol=2e-3)
            assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("chunks", [1, 3, 50])
def test_fast_learning_is_the_librarys_cross_entropy_with_its_gradient(model: Grafted, chunks: int) -> None:
    """Equation 2: L is the LM objective; each token weighs as much as its experience says."""
    rows = [Row((1, 5, 6, 7, 8, 2), (0, 0, 0, 0, 1, 1)), Row((1, 9, 10, 2), (0, 2, 5, 1)), Row((1, 30, 31), (0, 0, 0))]
    model.begin_writing(ExpertId(0, 0))
    reference = exact(model)
    losses = []
    for lm in rows:
        predicted = reference(input_ids=torch.tensor([lm.ids]), view="awake").logits[0, :-1]
        losses.append(F.cross_entropy(predicted, torch.tensor(lm.ids[1:]), reduction="none") * torch.tensor(lm.weight[1:]))
    wanted = torch.cat(losses).sum() / sum(sum(lm.weight[1:]) for lm in rows)
    wanted.backward()
    batch = fast_learning.collate(rows)
    assert batch["ids"].numel() == sum(len(row.ids) for row in rows), "nothing is spent on padding"
    loss = fast_learning.fast_learning_loss(model, batch, "awake", chunks)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    parameters = dict(model.named_parameters())
    written = {name for name, parameter in parameters.items() if parameter.grad is not None}
    assert {name.split(".memory.")[1] for name in written} == {f"writing.{part}" for part in "ABWb"}
    for name, parameter in reference.named_parameters():
        if name in written:
            torch.testing.assert_close(parameters[name].grad.double(), parameter.grad, atol=2e-6, rtol=2e-3)


def test_all_processes_learn_a_step_in_as_many_chunks() -> None:
    few, many = [Row((1, 2), (0, 1))], [Row((1, 2, 3, 4, 5), (1, 1, 0, 2, 1))] * 3
    assert fast_learning.chunks([few, many], 4) == 3  # nine tokens are learned, no first one
    assert fast_learning.chunks([few], 4) == 1

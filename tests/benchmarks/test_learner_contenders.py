"""The contenders of the learner's benchmark do the same work: one loss on the same rows, against the definition in float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.learner.models import base_model, grafted_model, transfer_of
from benchmarks.learner.points import Point, Shape, meetings_of_a_row, rows_of
from circadian.memory.graft import Grafted
from circadian.objectives.rows import TaughtRow
from circadian.specs import SeedingSpec

TINY = Shape("tiny", 32, 2, 2, 2, 16, 48, 101, tied=True)
EQUAL, RECIPE = Point(TINY, "equal", 3, 16), Point(TINY, "recipe", 10)
TWO_MODELS = ("trl_gkd", "trl_distillation", "trl_distillation_default")
pytestmark = pytest.mark.usefixtures("process_group")


def loud(point: Point) -> Grafted:
    """Memory that says so much that teacher and student differ visibly."""
    model = grafted_model(point)
    with torch.no_grad():
        for layer in model.memory_layers.values():
            layer.bank(0).slices(0)["B"].mul_(50)
    return model


@torch.no_grad()
def divergence(rows: Sequence[TaughtRow], teacher: Sequence[Tensor], student: Sequence[Tensor]) -> list[Tensor]:
    """Forward KL of each taught token, by the definition; logits [T, V] of each row."""
    found = []
    for row, t, s in zip(rows, teacher, student, strict=True):
        p, q = t.double().log_softmax(-1), s.double().log_softmax(-1)
        found.append((p.exp() * (p - q)).sum(-1)[max(row.start, 1) - 1 : len(row.ids) - 1])
    return found


@torch.no_grad()
def logits(model: torch.nn.Module, rows: Sequence[TaughtRow], **view: object) -> list[Tensor]:
    return [model(input_ids=torch.tensor([row.ids]), **view).logits[0] for row in rows]


@pytest.fixture
def trl() -> type:
    pytest.importorskip("trl", reason="TRL is not installed: `make bench-learner` installs it; the rivals are NOT compared here")
    from benchmarks.learner.trl_rivals import Trl

    return Trl


@pytest.mark.parametrize("point", [EQUAL, RECIPE], ids=lambda point: point.mixture)
def test_our_step_computes_the_divergence_of_its_rows(point: Point) -> None:
    from benchmarks.learner.ours import Circadian

    model, rows, transfer = loud(point), rows_of(point), transfer_of(point)
    awake, rested = (logits(model, rows, view=torch.tensor(mask).float()) for mask in (transfer.awake, transfer.rested))
    student = logits(model, rows, view=torch.tensor(transfer.student).float())
    teacher = [a if row.teacher == "awake" else r for row, a, r in zip(rows, awake, rested, strict=True)]
    wanted = torch.cat(divergence(rows, teacher, student)).mean()
    assert wanted > 1e-3
    contender = Circadian(point, model=model)
    contender.teach()
    assert contender.step() == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.parametrize("kind", TWO_MODELS)
def test_the_rivals_with_two_models_compute_the_same_loss(kind: str, trl: type) -> None:
    """Our awake self is their teacher, the base their student: a fresh LoRA and a fresh expert add nothing yet."""
    from benchmarks.learner.ours import Circadian

    ours = Circadian(EQUAL, model=loud(EQUAL))
    ours.teach()
    teacher = loud(EQUAL)
    theirs = trl(kind, EQUAL, teacher=teacher)
    with teacher._heard.during(teacher.mask(transfer_of(EQUAL).awake)):  # DistillationTrainer calls the model's inner parts
        loss = theirs.step()
    assert loss == pytest.approx(ours.step(), abs=1e-5)
    assert abs(theirs.learned - ours.learned) < 0.25 * ours.learned


@pytest.mark.parametrize("kind", TWO_MODELS)
def test_padding_changes_no_rivals_loss(kind: str, trl: type) -> None:
    rows, teacher, student = rows_of(RECIPE), base_model(TINY, seed=1), base_model(TINY)
    wanted = torch.cat(divergence(rows, logits(teacher, rows), logits(student, rows))).mean()
    assert trl(kind, RECIPE).step() == pytest.approx(float(wanted), abs=1e-5)


def test_the_self_distilling_rival_computes_the_divergence_from_its_base(trl: type) -> None:
    contender, rows = trl("trl_self", EQUAL), rows_of(EQUAL)
    model = contender.trainer.model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    student = logits(model, rows)
    wanted = torch.cat(divergence(rows, logits(base_model(TINY), rows), student)).mean()
    assert wanted > 1e-4
    assert contender.step() == pytest.approx(float(wanted), abs=1e-5)


def test_a_row_of_the_default_recipe_is_met_a_few_times() -> None:
    assert (
        meetings_of_a_row(SeedingSpec(steps=100, refresh_steps=50, rows=30, teacher_rows=400, free_run_rows=400, student_rows=100))
        == 3
    )

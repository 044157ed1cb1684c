"""The objectives against their definitions, written out."""

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from circadian.experience import Row
from circadian.memory.graft import Grafted
from circadian.memory.version import found_version, load_version
from circadian.objectives import fast_learning, knowledge_seeding
from circadian.objectives.divergence import DIVERGENCES, token_divergence
from circadian.objectives.rows import TaughtRow, read_rows, write_rows
from circadian.specs import Level, MemorySpec, SeedingSpec

N, D, V = 37, 8, 50


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@pytest.mark.parametrize("chunks", [1, 8, 50])
def test_divergence_in_chunks_is_the_divergence(name: str, chunks: int) -> None:
    torch.manual_seed(0)
    teacher, head = torch.randn(N, D), nn.Linear(D, V)
    student = torch.randn(N, D, requires_grad=True)
    p, q = head(teacher).softmax(-1), head(student).softmax(-1)
    first, second = (p, q) if name == "forward_kl" else (q, p)
    expected = (first * (first.log() - second.log())).sum(-1)
    (wanted,) = torch.autograd.grad(expected.mean(), student)
    measured = token_divergence(name, teacher, student, head, chunks)
    (gradient,) = torch.autograd.grad(measured.mean(), student)
    torch.testing.assert_close(measured, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(name: str) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(N, D), nn.Linear(D, V)
    assert torch.equal(token_divergence(name, hidden, hidden.clone(), head, 8), torch.zeros(N))


def test_no_gradient_reaches_the_teacher() -> None:
    teacher, student = torch.randn(4, D, requires_grad=True), torch.randn(4, D, requires_grad=True)
    token_divergence("forward_kl", teacher, student, nn.Linear(D, V), 2).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Grafted:
    levels = (Level(period=4, experts=1, rank=8), Level(period=8, experts=2, rank=8))
    found_version(str(base), None, MemorySpec(levels=levels), tmp_path / "ver_0")
    model = load_version(tmp_path / "ver_0")
    for where in (model.open_expert(0, seed=1), model.open_expert(1, seed=2)):
        for layer in model.memory_layers.values():
            for tensor in layer.levels[where.level].slices(where.expert).values():
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)) * 0.2)
    return model


def test_fast_learning_is_weighted_cross_entropy(model: Grafted) -> None:
    rows = [Row((1, 5, 6, 7, 8, 2), (0, 0, 0, 0, 1, 1)), Row((1, 9, 10, 2), (0, 2, 1, 1))]
    total = weight = 0.0
    for row in rows:
        with torch.no_grad():
            logprobs = F.log_softmax(model(input_ids=torch.tensor([row.ids]), view="awake").logits[0], -1)
        for i in range(1, len(row.ids)):
            total -= row.weight[i] * float(logprobs[i - 1, row.ids[i]])
            weight += row.weight[i]
    loss = fast_learning.fast_learning_loss(model, fast_learning.collate(rows), "awake")
    assert float(loss) == pytest.approx(total / weight, abs=1e-5)


def test_each_row_is_taught_by_its_own_teacher_on_its_completion_only(model: Grafted) -> None:
    rows = [TaughtRow((1, 5, 6, 7, 8, 2), 3, "awake", "day"), TaughtRow((1, 9, 10, 2), 1, "rested", "free")]
    divergences = []
    for row in rows:
        with torch.no_grad():
            p = F.log_softmax(model(input_ids=torch.tensor([row.ids]), view=row.teacher).logits[0], -1)
            q = F.log_softmax(model(input_ids=torch.tensor([row.ids]), view="student").logits[0], -1)
        divergences += [float((p[i - 1].exp() * (p[i - 1] - q[i - 1])).sum()) for i in range(row.start, len(row.ids))]
    masks = {view: model.mask(view) for view in ("awake", "rested")}
    loss = knowledge_seeding.knowledge_seeding_loss(
        model, knowledge_seeding.collate(rows, masks, (2, 1)), model.mask("student"), SeedingSpec()
    )
    assert len(divergences) == 6
    assert float(loss) == pytest.approx(sum(divergences) / 6, abs=1e-5)


def test_rows_without_a_taught_token_add_nothing(model: Grafted) -> None:
    empty, taught = TaughtRow((1, 5), 2, "rested", "old"), TaughtRow((1, 5, 6, 7, 8, 2), 3, "rested", "free")
    masks = {view: model.mask(view) for view in ("awake", "rested")}
    losses = [
        float(
            knowledge_seeding.knowledge_seeding_loss(
                model, knowledge_seeding.collate(r, masks, (1,) * len(r)), model.mask("student"), SeedingSpec()
            )
        )
        for r in ([empty], [taught], [empty, taught])
    ]
    assert losses[0] == 0.0
    assert losses[1] > 1e-3
    assert losses[2] == pytest.approx(losses[1], abs=1e-6)


def test_processes_read_in_step_however_many_rows_and_tokens_each_has() -> None:
    def row(tokens: int) -> TaughtRow:
        return TaughtRow((1, *range(5, 5 + tokens)), 1, "awake", "day")

    shares = [[row(2), row(30), row(3)], [row(9), row(4)]]
    chunks = knowledge_seeding.reading(shares, token_chunk=10)
    assert chunks == (1, 4), "two parts, as the smaller share has rows; 3 + 30 tokens at once are too many in the second"
    masks = {"awake": torch.ones(3)}
    for share in shares:
        batch = knowledge_seeding.collate(share, masks, chunks)
        assert batch["part"].unique().tolist() == [0, 1]
        assert batch["chunks"].tolist() == [1, 4]
        assert batch["taught"].sum() == sum(len(r.ids) - 1 for r in share)


def test_seeding_reaches_only_the_open_expert(model: Grafted) -> None:
    (where,) = (w for w in model.memory_state.ids() if w.level == 1 and model.memory_state[w] == "open")
    own = {id(p) for expert in model.begin_writing(where) for p in expert.parameters()}
    masks = {view: model.mask(view) for view in ("awake", "rested")}
    batch = knowledge_seeding.collate([TaughtRow((1, 5, 6, 7, 8, 2), 2, "awake", "day")], masks, (1,))
    knowledge_seeding.knowledge_seeding_loss(model, batch, model.mask("student"), SeedingSpec()).backward()
    assert {id(p) for p in model.parameters() if p.grad is not None} == own


def pools(tag: int) -> dict[str, list[TaughtRow]]:
    return {kind: [TaughtRow((tag, 1, 2), 1, "awake", kind)] for kind in ("day", "old", "free")}  # type: ignore[arg-type]


@pytest.mark.parametrize(("nights", "old_of_past"), [(0, 0.0), (1, 1 / 2.5), (3, 3 / 4.5)])
def test_the_mixture_keeps_its_shares(nights: int, old_of_past: float) -> None:
    spec = SeedingSpec(old_share=0.6, on_policy_share=0.25)
    rows = knowledge_seeding.mix(pools(0), pools(1), nights, spec, 20_000, random.Random(0))
    share = {kind: sum(row.kind == kind for row in rows) / len(rows) for kind in ("day", "old", "free")}
    assert share["day"] == pytest.approx(0.4, abs=0.02)
    assert share["old"] == pytest.approx(0.6 * old_of_past, abs=0.02)
    assert sum(row.ids[0] for row in rows) / len(rows) == pytest.approx(0.25, abs=0.02)


def test_rows_survive_their_file(tmp_path: Path) -> None:
    rows = [TaughtRow((1, 5, 2), 1, "awake", "day"), TaughtRow((1, 2), 1, "rested", "old")]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows

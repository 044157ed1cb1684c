"""Divergences against their definitions, written out in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from circadian.objectives.divergence import ABSENT, DIVERGENCES, ITSELF, NOBODY, Others, compare, log_probs
from circadian.specs import DivergenceSpec

N, D, V = 37, 8, 50
SPECS = [
    *[DivergenceSpec(kind=kind) for kind in ("forward_kl", "reverse_kl")],
    *[DivergenceSpec(kind="jsd", beta=beta) for beta in (0.1, 0.5, 0.9)],
    *[DivergenceSpec(kind="top_k", k=k) for k in (1, 7, V, V + 1)],
]


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum(-1)


def expected(spec: DivergenceSpec, p: Tensor, q: Tensor) -> Tensor:
    """p, q: probabilities [N, V], float64"""
    if spec.kind == "jsd":
        m = spec.beta * p + (1 - spec.beta) * q
        return spec.beta * kl(p, m) + (1 - spec.beta) * kl(q, m)
    if spec.kind == "top_k" and spec.k < V:
        kept = p.argsort(-1, descending=True)[:, : spec.k]
        p, q = (torch.cat([x.gather(-1, kept), 1 - x.gather(-1, kept).sum(-1, keepdim=True)], -1) for x in (p, q))
    return kl(q, p) if spec.kind == "reverse_kl" else kl(p, q)


@pytest.fixture
def states() -> tuple[Tensor, Tensor, Tensor, nn.Linear]:
    """Teacher [N, D], student [N, D], what was written [N], and a head."""
    torch.manual_seed(0)
    return torch.randn(N, D), torch.randn(N, D, requires_grad=True), torch.randint(0, V, (N,)), nn.Linear(D, V)


def test_every_divergence_is_tested() -> None:
    assert {spec.kind for spec in SPECS} == DIVERGENCES.keys()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("chunks", [1, 8, 50])
def test_a_divergence_in_chunks_is_the_divergence(
    spec: DivergenceSpec, chunks: int, states: tuple[Tensor, Tensor, Tensor, nn.Linear]
) -> None:
    teacher, student, written, head = states
    p, q = (nn.functional.linear(x.double(), head.weight.double(), head.bias.double()).softmax(-1) for x in (teacher, student))
    wanted = expected(spec, p, q)
    (gradient,) = torch.autograd.grad(wanted.mean(), student, retain_graph=True)
    divergences, log_probs = compare(spec, teacher, student, written, head, chunks)
    (got,) = torch.autograd.grad(divergences.mean(), student)
    torch.testing.assert_close(divergences.double(), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got, gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(log_probs.double(), q.log().gather(-1, written[:, None])[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(
    spec: DivergenceSpec, states: tuple[Tensor, Tensor, Tensor, nn.Linear]
) -> None:
    teacher, _, written, head = states
    divergences, _ = compare(spec, teacher, teacher.clone(), written, head, 5)
    assert divergences.abs().max() < 1e-6


@pytest.mark.parametrize("k", [1, 7, 40])
def test_telling_fewer_tokens_apart_never_shows_more(k: int, states: tuple[Tensor, Tensor, Tensor, nn.Linear]) -> None:
    teacher, student, written, head = states
    few, whole = (compare(DivergenceSpec(kind="top_k", k=n), teacher, student, written, head)[0] for n in (k, V))
    assert (few <= whole + 1e-6).all()
    assert few.mean() < whole.mean()


def test_no_gradient_reaches_the_teacher() -> None:
    teacher, student = torch.randn(4, D, requires_grad=True), torch.randn(4, D, requires_grad=True)
    divergences, log_probs = compare(DivergenceSpec(), teacher, student, torch.zeros(4, dtype=torch.long), nn.Linear(D, V), 2)
    (divergences.sum() + log_probs.sum()).backward()
    assert teacher.grad is None
    assert student.grad is not None


WIDTHS = {1: (5, V), 2: (11, V - 3), 3: (6, V + 4)}
"""Of other teachers: model width, and tokens that the head has; the student has V."""


def others_and_reference(own: nn.Linear, teacher: Tensor, student: Tensor) -> tuple[Others, Tensor, Tensor]:
    """Every token taught by itself, another model or nobody; the teacher's states where the model itself teaches, and the
    teachers' log-probs [N, V] in float64, from every head alone."""
    by = torch.tensor([NOBODY, ITSELF, *WIDTHS])[torch.randint(0, 2 + len(WIDTHS), (N,))]
    heads = {number: nn.Linear(width, tokens) for number, (width, tokens) in WIDTHS.items()}
    states = {number: torch.randn(int((by == number).sum()), WIDTHS[number][0]) for number in WIDTHS}
    said = nn.functional.linear(student.detach().double(), own.weight.double(), own.bias.double()).log_softmax(-1)
    said[by == ITSELF] = nn.functional.linear(teacher.double(), own.weight.double(), own.bias.double()).log_softmax(-1)[
        by == ITSELF
    ]
    for number, head in heads.items():
        logits = nn.functional.linear(states[number].double(), head.weight.double(), head.bias.double())[:, :V]
        absent = torch.full((len(logits), V - logits.shape[1]), ABSENT, dtype=torch.float64)
        said[by == number] = torch.cat([logits.log_softmax(-1), absent], -1)
    return Others(by, states, heads), teacher[by == ITSELF], said


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("chunks", [1, 8, 50])
def test_other_teachers_have_heads_and_widths_of_their_own(
    spec: DivergenceSpec, chunks: int, states: tuple[Tensor, Tensor, Tensor, nn.Linear]
) -> None:
    teacher, student, written, head = states
    others, own, said = others_and_reference(head, teacher, student)
    assert set(others.by.tolist()) == {NOBODY, ITSELF, *WIDTHS}
    q = nn.functional.linear(student.double(), head.weight.double(), head.bias.double()).softmax(-1)
    taught = others.by != NOBODY
    wanted = torch.where(taught, expected(spec, said.exp(), q), 0.0)
    (gradient,) = torch.autograd.grad(wanted.mean(), student, retain_graph=True)
    divergences, likely = compare(spec, own, student, written, head, chunks, others)
    (got,) = torch.autograd.grad(divergences.mean(), student)
    torch.testing.assert_close(divergences.double(), wanted, atol=2e-5, rtol=2e-4)
    torch.testing.assert_close(got, gradient, atol=2e-6, rtol=2e-4)
    assert got[~taught].abs().max() < 1e-8, "where nobody teaches nothing is learned"
    torch.testing.assert_close(likely.double(), q.log().gather(-1, written[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(likely, log_probs(student, written, head))


def test_no_gradient_reaches_another_teacher_or_its_head(states: tuple[Tensor, Tensor, Tensor, nn.Linear]) -> None:
    teacher, student, written, head = states
    others, own, _ = others_and_reference(head, teacher, student)
    for values in others.states.values():
        values.requires_grad_()
    compare(DivergenceSpec(), own, student, written, head, 4, others)[0].sum().backward()
    heads = [parameter for other in others.heads.values() for parameter in other.parameters()]  # type: ignore[attr-defined]
    assert all(tensor.grad is None for tensor in (*others.states.values(), *heads))
    assert student.grad is not None


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_mixture_of_one_side_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta"):
        DivergenceSpec(kind="jsd", beta=beta)

"""Divergences against their definitions, written out in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from circadian.objectives.divergence import (
    ABSENT,
    DIVERGENCES,
    ITSELF,
    NOBODY,
    Others,
    compare,
    forward_kl,
    jsd,
    keep,
    keep_another,
    log_probs,
    reverse_kl,
    top_k,
)
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
    wanted_likelihood = q.log().gather(-1, written[:, None])[:, 0]
    (likelihood_gradient,) = torch.autograd.grad(wanted_likelihood.mean(), student)
    kept = keep(spec, teacher, head, chunks)
    divergences, likelihood = compare(spec, kept, student, written, head, chunks)
    (got,) = torch.autograd.grad(divergences.mean(), student)
    (got_likelihood,) = torch.autograd.grad(likelihood.mean(), student)
    torch.testing.assert_close(divergences.double(), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got, gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(likelihood.double(), wanted_likelihood, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got_likelihood, likelihood_gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(log_probs(student, written, head, chunks), likelihood, atol=1e-5, rtol=1e-5)
    alone, still = compare(spec, kept, student, written, head, chunks, likelihood_learns=False)
    torch.testing.assert_close(torch.autograd.grad(alone.mean(), student)[0], got)
    assert not still.requires_grad
    torch.testing.assert_close(still, likelihood)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(
    spec: DivergenceSpec, states: tuple[Tensor, Tensor, Tensor, nn.Linear]
) -> None:
    teacher, _, written, head = states
    divergences, _ = compare(spec, keep(spec, teacher, head), teacher.clone(), written, head, 5)
    assert divergences.abs().max() < 1e-6


@pytest.mark.parametrize("k", [1, 7, 40])
def test_telling_fewer_tokens_apart_never_shows_more(k: int, states: tuple[Tensor, Tensor, Tensor, nn.Linear]) -> None:
    teacher, student, written, head = states
    specs = [DivergenceSpec(kind="top_k", k=n) for n in (k, V)]
    few, whole = (compare(spec, keep(spec, teacher, head), student, written, head)[0] for spec in specs)
    assert (few <= whole + 1e-6).all()
    assert few.mean() < whole.mean()


def test_no_gradient_reaches_the_teacher() -> None:
    teacher, student = torch.randn(4, D, requires_grad=True), torch.randn(4, D, requires_grad=True)
    head, spec = nn.Linear(D, V), DivergenceSpec()
    divergences, likelihood = compare(spec, keep(spec, teacher, head), student, torch.zeros(4, dtype=torch.long), head, 2)
    (divergences.sum() + likelihood.sum()).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert all(parameter.grad is None for parameter in head.parameters())


def test_forward_kl_by_slope_at_the_size_and_scale_of_a_real_vocabulary() -> None:
    """Sharp distributions over many tokens, a student close to its teacher: where products that cancel would show."""
    generator = torch.Generator().manual_seed(0)
    head, spec = nn.Linear(256, 20_000, bias=False), DivergenceSpec()
    with torch.no_grad():
        head.weight.copy_(torch.randn(20_000, 256, generator=generator) / 4)
    teacher = torch.randn(16, 256, generator=generator)
    student = (teacher + 0.01 * torch.randn(16, 256, generator=generator)).requires_grad_()
    p, q = (nn.functional.linear(x.double(), head.weight.double()).softmax(-1) for x in (teacher, student))
    wanted = kl(p, q)
    assert 1e-5 < float(wanted.detach().mean()) < 1e-2
    (gradient,) = torch.autograd.grad(wanted.mean(), student)
    by_definition = DivergenceSpec(kind="top_k", k=20_000)
    errors = []
    for way in (spec, by_definition):
        divergences, _ = compare(way, keep(way, teacher, head), student, torch.zeros(16, dtype=torch.long), head, 4)
        torch.testing.assert_close(divergences.double(), wanted, atol=2e-5, rtol=0)
        (got,) = torch.autograd.grad(divergences.mean(), student)
        errors.append(float((got - gradient).norm() / gradient.norm()))
    assert errors[0] < 1e-3
    assert errors[0] < 3 * errors[1] + 1e-5, "no coarser than the definition in float32"


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_a_model_in_bfloat16_is_compared_by_the_definition(kind: str) -> None:
    spec = DivergenceSpec.model_validate({"kind": kind})
    torch.manual_seed(0)
    head = nn.Linear(D, V).bfloat16()
    teacher, student = torch.randn(N, D).bfloat16(), torch.randn(N, D).bfloat16().requires_grad_()
    p, q = (head(x).double().softmax(-1) for x in (teacher, student))
    kept = keep(spec, teacher, head, 3)
    divergences, _ = compare(spec, kept, student, torch.zeros(N, dtype=torch.long), head, 3)
    assert kept.dtype == torch.bfloat16
    torch.testing.assert_close(divergences.double(), expected(spec, p, q), atol=1e-4, rtol=1e-3)
    assert torch.autograd.grad(divergences.sum(), student)[0].dtype == torch.bfloat16


WIDTHS = {1: (5, V), 2: (11, V - 3), 3: (6, V + 4)}
"""Of other teachers: model width, and tokens that the head has; the student has V."""


class OtherTeachers:
    """Every token taught by itself, another model or nobody."""

    def __init__(self, own: nn.Linear, teacher: Tensor) -> None:
        self.own, self.teacher = own, teacher
        self.by = torch.tensor([NOBODY, ITSELF, *WIDTHS])[torch.randint(0, 2 + len(WIDTHS), (N,))]
        self.heads = {number: nn.Linear(width, tokens) for number, (width, tokens) in WIDTHS.items()}
        self.states = {number: torch.randn(int((self.by == number).sum()), WIDTHS[number][0]) for number in WIDTHS}
        self.taught = self.by != NOBODY

    @property
    def others(self) -> Others:
        """With heads that read states as they are kept."""
        return Others(self.by, {number: narrow(head, WIDTHS[number][0]) for number, head in self.heads.items()})

    def kept(self, spec: DivergenceSpec, chunks: int) -> Tensor:
        """What lessons keep, as a batch has it."""
        parts = {ITSELF: keep(spec, self.teacher[self.by == ITSELF], self.own, chunks)}
        for number, head in self.heads.items():
            parts[number] = keep_another(spec, self.states[number], head, self.own, D, chunks)
        kept = torch.zeros(N, max(part.shape[1] for part in parts.values()))
        for number, part in parts.items():
            kept[self.by == number, : part.shape[1]] = part
        return kept

    def said(self) -> Tensor:
        """Log-probs [N, V] in float64, from every head alone."""
        said = exact(self.own, self.teacher).log_softmax(-1)
        for number, head in self.heads.items():
            logits = exact(head, self.states[number])[:, :V]
            absent = torch.full((len(logits), V - logits.shape[1]), ABSENT, dtype=torch.float64)
            said[self.by == number] = torch.cat([logits.log_softmax(-1), absent], -1)
        return said


def narrow(head: nn.Linear, width: int) -> Callable[[Tensor], Tensor]:
    return lambda kept: head(kept[..., :width])


def exact(head: nn.Linear, hidden: Tensor) -> Tensor:
    return nn.functional.linear(hidden.double(), head.weight.double(), head.bias.double()).detach()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("chunks", [1, 8, 50])
def test_other_teachers_have_heads_and_widths_of_their_own(
    spec: DivergenceSpec, chunks: int, states: tuple[Tensor, Tensor, Tensor, nn.Linear]
) -> None:
    teacher, student, written, head = states
    given = OtherTeachers(head, teacher)
    assert set(given.by.tolist()) == {NOBODY, ITSELF, *WIDTHS}
    q = nn.functional.linear(student.double(), head.weight.double(), head.bias.double()).softmax(-1)
    wanted = expected(spec, given.said().exp(), q)[given.taught]
    (gradient,) = torch.autograd.grad(wanted.mean(), student, retain_graph=True)
    kept = given.kept(spec, chunks)
    others = None if spec.kind == "forward_kl" else given.others  # a slope needs no head afterwards
    assert kept.shape[1] == (D + 1 if spec.kind == "forward_kl" else 11)
    divergences, likely = compare(spec, kept, student, written, head, chunks, others=others)
    (got,) = torch.autograd.grad(divergences[given.taught].mean(), student)
    torch.testing.assert_close(divergences[given.taught].double(), wanted, atol=2e-5, rtol=2e-4)
    torch.testing.assert_close(got, gradient, atol=2e-6, rtol=2e-4)
    torch.testing.assert_close(likely.double(), q.log().gather(-1, written[:, None])[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_no_gradient_reaches_another_teacher_or_its_head(kind: str, states: tuple[Tensor, Tensor, Tensor, nn.Linear]) -> None:
    teacher, student, written, head = states
    spec, given = DivergenceSpec.model_validate({"kind": kind}), OtherTeachers(head, teacher)
    for values in given.states.values():
        values.requires_grad_()
    compare(spec, given.kept(spec, 4), student, written, head, 4, others=given.others)[0].sum().backward()
    parameters = [parameter for other in (head, *given.heads.values()) for parameter in other.parameters()]
    assert all(tensor.grad is None for tensor in (*given.states.values(), *parameters))
    assert student.grad is not None


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_mixture_of_one_side_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta"):
        DivergenceSpec(kind="jsd", beta=beta)


@pytest.fixture
def sharp() -> tuple[Tensor, Tensor]:
    """Log-probs of teacher and student [N, V], float64, from nearly even to nearly certain."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.logspace(-1, 1.3, N, dtype=torch.float64)[:, None]
    return tuple(torch.randn(N, V, generator=generator, dtype=torch.float64).mul(scale).log_softmax(-1) for _ in range(2))  # type: ignore[return-value]


def test_kullback_and_leibler_as_the_library_has_them(sharp: tuple[Tensor, Tensor]) -> None:
    teacher, student = (Categorical(logits=log_probs) for log_probs in sharp)
    torch.testing.assert_close(forward_kl(*sharp), kl_divergence(teacher, student), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(reverse_kl(*sharp), kl_divergence(student, teacher), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_the_generalised_jensen_shannon_divergence_as_the_library_has_its_halves(beta: float, sharp: tuple[Tensor, Tensor]) -> None:
    p, q = (Categorical(logits=log_probs) for log_probs in sharp)
    m = Categorical(probs=beta * p.probs + (1 - beta) * q.probs)
    wanted = beta * kl_divergence(p, m) + (1 - beta) * kl_divergence(q, m)
    got = jsd(*sharp, beta)
    torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-10)
    entropy = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    assert (got <= entropy + 1e-12).all(), "it is bounded by the entropy of the mixture's weights, as neither KL is"
    assert forward_kl(*sharp).max() > entropy


def test_at_its_limits_the_generalised_jsd_is_one_of_the_two_kl(sharp: tuple[Tensor, Tensor]) -> None:
    """GKD, section 2: JSD(beta) / beta -> F(p || q) as beta -> 0, and JSD(beta) / (1 - beta) -> F(q || p) as beta -> 1."""
    mild = tuple(log_probs[: N // 2] for log_probs in sharp)
    near = 1e-7
    torch.testing.assert_close(jsd(*mild, near) / near, forward_kl(*mild), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(jsd(*mild, 1 - near) / near, reverse_kl(*mild), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("k", [1, 7, V - 1, V, V + 1])
def test_top_k_with_its_tail_is_a_divergence_of_coarser_events(k: int, sharp: tuple[Tensor, Tensor]) -> None:
    """The k likeliest tokens and "any other" as events of their own, whose masses are sums of probabilities."""
    teacher, student = sharp
    got, whole = top_k(teacher, student, k), kl_divergence(Categorical(logits=teacher), Categorical(logits=student))
    if k >= V:
        torch.testing.assert_close(got, whole, rtol=1e-9, atol=1e-12)
        return
    for n in range(N):
        kept = set(teacher[n].argsort(descending=True)[:k].tolist())
        events = [[v] for v in kept] + [[v for v in range(V) if v not in kept]]
        p, q = (Categorical(logits=torch.stack([x[n].exp()[event].sum() for event in events]).log()) for x in sharp)
        torch.testing.assert_close(got[n], kl_divergence(p, q), rtol=1e-8, atol=1e-10)
    assert (got <= whole + 1e-12).all(), "a lower bound"
    assert (top_k(teacher, student, min(k + 1, V)) >= got - 1e-12).all(), "that tightens as more are told apart"

"""The objectives against their definitions, written out."""

import copy
import itertools
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from circadian.experience import Row
from circadian.memory.graft import Grafted
from circadian.objectives import fast_learning, knowledge_seeding
from circadian.objectives.judges import alike_by_embedding, embeddings
from circadian.objectives.rows import Imitated, TaughtRow, read_rows, write_rows
from circadian.specs import ImitationSpec, SeedingSpec

D = 8


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
        model,
        knowledge_seeding.collate(knowledge_seeding.teach(model, rows, masks, SeedingSpec())),
        model.mask("student"),
        SeedingSpec(),
        2,
    )
    assert len(divergences) == 6
    assert float(loss) == pytest.approx(sum(divergences) / 6, abs=1e-5)


def test_rows_without_a_taught_token_add_nothing(model: Grafted) -> None:
    empty, taught = TaughtRow((1, 5), 2, "rested", "old"), TaughtRow((1, 5, 6, 7, 8, 2), 3, "rested", "free")
    masks = {view: model.mask(view) for view in ("awake", "rested")}
    losses = [
        float(
            knowledge_seeding.knowledge_seeding_loss(
                model,
                knowledge_seeding.collate(knowledge_seeding.teach(model, r, masks, SeedingSpec())),
                model.mask("student"),
                SeedingSpec(),
            )
        )
        for r in ([empty], [taught], [empty, taught])
    ]
    assert losses[0] == 0.0
    assert losses[1] > 1e-3
    assert losses[2] == pytest.approx(losses[1], abs=1e-6)


def test_processes_agree_on_the_chunks_of_a_step() -> None:
    def lesson(tokens: int) -> knowledge_seeding.Lesson:
        return knowledge_seeding.Lesson(
            TaughtRow(tuple(range(tokens + 1)), 1, "awake", "day"), torch.zeros(tokens + 1, D), torch.zeros(tokens, D)
        )

    shares = [[lesson(2), lesson(30), lesson(3)], [lesson(9), lesson(4)]]
    assert knowledge_seeding.chunks(shares, token_chunk=10) == 4, "35 tokens of the first are the most"
    assert knowledge_seeding.chunks([[]], token_chunk=10) == 1


def test_imitation_is_the_surrogate_of_the_rewards_beside_the_divergence(model: Grafted) -> None:
    prefix, wanted = (1, 5, 6), (7, 8, 2)
    completions = [(7, 8, 2), (7, 9, 2), (9, 9, 9)]
    rows = [TaughtRow((*prefix, *own), 3, "awake", "day", Imitated(wanted, group=0)) for own in completions]
    rows.append(TaughtRow((1, 9, 10, 2), 1, "rested", "free"))
    masks = {view: model.mask(view) for view in ("awake", "rested")}
    spec = SeedingSpec(alpha=0.7, imitation=ImitationSpec(threshold=2))
    lessons = knowledge_seeding.teach(model, rows, masks, SeedingSpec())
    lessons[:3] = knowledge_seeding.rewarded(model, lessons[:3], model.mask("student"), spec, [None] * 3)
    rewards = torch.tensor([1.0, 1 - 1 / 3, 0.0], dtype=torch.float64)
    advantage = (rewards - rewards.mean()) / rewards.std(correction=0)
    torch.testing.assert_close(
        torch.tensor([lesson.advantage for lesson in lessons[:3]], dtype=torch.float64), advantage, atol=1e-5, rtol=0
    )
    for lesson in lessons[:3]:
        with torch.no_grad():
            q = F.log_softmax(model(input_ids=torch.tensor([lesson.row.ids]), view="student").logits[0], -1)
        expected = torch.stack([q[i - 1, lesson.row.ids[i]] for i in range(3, 6)])
        torch.testing.assert_close(lesson.before, expected, atol=1e-5, rtol=0)
    batch = knowledge_seeding.collate(lessons)
    whole, distilled = (
        float(knowledge_seeding.knowledge_seeding_loss(model, batch, model.mask("student"), s)) for s in (spec, SeedingSpec())
    )
    # Nothing has been learned since the rows were written: every ratio is 1, and the surrogate minus the advantage.
    surrogate = -float((advantage * 3).sum()) / 12
    assert whole == pytest.approx(0.7 * distilled + 0.3 * surrogate, abs=1e-5)


def test_meaning_by_the_bases_own_hidden_states(model: Grafted) -> None:
    def row(own: tuple[int, ...]) -> TaughtRow:
        return TaughtRow((1, 5, 6, *own), 3, "awake", "day", Imitated((7, 8, 2), group=0))

    assert alike_by_embedding(model, [row((7, 8, 2)), row((30, 31)), row(())], threshold=0.999) == [True, False, False]


def test_an_embedding_is_the_mean_over_the_completion_as_in_float64_alone(model: Grafted) -> None:
    """Forty texts of different lengths, several to a packed row and two packs, against each by itself in double precision."""
    rng, exact = random.Random(0), copy.deepcopy(model).double()
    texts = [
        (
            tuple(rng.randrange(5, 40) for _ in range(rng.randint(1, 9))),
            tuple(rng.randrange(5, 40) for _ in range(rng.randint(1, 20))),
        )
        for _ in range(40)
    ]
    with torch.no_grad():
        whole = [exact.hidden(torch.tensor([prefix + own]), "base")[0, len(prefix) :].mean(0) for prefix, own in texts]
    found = embeddings(model, texts)
    for one, wanted in zip(found, whole, strict=True):
        torch.testing.assert_close(one.double(), wanted, atol=1e-5, rtol=1e-4)
    rows = [
        TaughtRow((1, 5, *own), 2, "awake", "day", Imitated(other, group=0)) for (_, own), (_, other) in itertools.pairwise(texts)
    ]
    with torch.no_grad():
        after = {own: exact.hidden(torch.tensor([(1, 5, *own)]), "base")[0, 2:].mean(0) for _, own in texts}
    cosines = [float(after[a] @ after[b] / (after[a].norm() * after[b].norm())) for (_, a), (_, b) in itertools.pairwise(texts)]
    threshold = sorted(cosines)[len(cosines) // 2] - 1e-6
    assert alike_by_embedding(model, rows, threshold) == [cosine >= threshold for cosine in cosines]


def test_seeding_reaches_only_the_open_expert(model: Grafted) -> None:
    (where,) = (w for w in model.memory_state.ids() if w.level == 1 and model.memory_state[w] == "open")
    own = {id(p) for expert in model.begin_writing(where) for p in expert.parameters()}
    masks = {view: model.mask(view) for view in ("awake", "rested")}
    batch = knowledge_seeding.collate(
        knowledge_seeding.teach(model, [TaughtRow((1, 5, 6, 7, 8, 2), 2, "awake", "day")], masks, SeedingSpec())
    )
    knowledge_seeding.knowledge_seeding_loss(model, batch, model.mask("student"), SeedingSpec()).backward()
    assert {id(p) for p in model.parameters() if p.grad is not None} == own


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_every_row_is_taught_by_whoever_it_names(kind: str, model: Grafted) -> None:
    """Itself, another model of the same tokenizer, a text alone, and a text whose student is rewarded: one mean over all tokens."""
    generator = torch.Generator().manual_seed(7)
    own = TaughtRow((1, 9, 10, 2), 1, "rested", "free")
    distilled = TaughtRow((1, 5, 6, 7, 8, 2), 3, "other-1", "day")
    told = TaughtRow((1, 6, 7, 2), 2, "other-2", "day")
    wanted, completions = (8, 2), [(8, 2), (9, 9)]
    imitated = [TaughtRow((1, 5, *said), 2, "other-2", "day", Imitated(wanted, group=0)) for said in completions]
    states, head = torch.randn(3, 5, generator=generator), torch.nn.Linear(5, model.config.vocab_size)
    masks = {view: model.mask(view) for view in ("awake", "rested")}
    spec = SeedingSpec.model_validate({"alpha": 0.6, "told": 0.5, "divergence": {"kind": kind}})
    narrow = lambda kept: head(kept[..., :5])  # noqa: E731
    lessons = [
        *knowledge_seeding.teach(model, [own], masks, spec),
        *knowledge_seeding.teach_another(model, [distilled], [states], narrow, 1, spec),
        *knowledge_seeding.tell(model, [told], spec),
        *knowledge_seeding.rewarded(
            model,
            knowledge_seeding.tell(model, imitated, spec),
            model.mask("student"),
            spec.model_copy(update={"imitation": ImitationSpec(threshold=2)}),
            [None, None],
        ),
    ]

    def log_q(row: TaughtRow) -> torch.Tensor:
        with torch.no_grad():
            return F.log_softmax(model(input_ids=torch.tensor([row.ids]), view="student").logits[0], -1)[row.start - 1 : -1]

    with torch.no_grad():
        p_own = F.log_softmax(model(input_ids=torch.tensor([own.ids]), view="rested").logits[0], -1)[:-1]
        p_other = F.log_softmax(head(states), -1)
    pairs = [(p_own, log_q(own)), (p_other, log_q(distilled))]
    pairs = pairs if kind == "forward_kl" else [(q, p) for p, q in pairs]
    total = 0.6 * sum(float((p.exp() * (p - q)).sum()) for p, q in pairs)
    total -= 0.5 * sum(float(log_q(told)[i, told.ids[told.start + i]]) for i in range(2))
    total -= 1.0 * (1.0 - 1.0) * 2  # advantages of two completions, 1 and -1, at a ratio of one: they cancel
    heads = None if kind == "forward_kl" else {1: narrow}
    view = model.mask("student")
    loss = knowledge_seeding.knowledge_seeding_loss(model, knowledge_seeding.collate(lessons), view, spec, 3, heads, True)
    assert float(loss) == pytest.approx(total / (3 + 3 + 2 + 4), abs=1e-5)
    reward = knowledge_seeding.collate(lessons[3:4])
    alone = knowledge_seeding.knowledge_seeding_loss(model, reward, view, spec, 1, heads, True)
    assert float(alone) == pytest.approx(-1.0, abs=1e-5), "alpha is 0 for a text: the reward weighs 1"


def test_other_teachers_reach_only_the_open_expert(model: Grafted) -> None:
    (where,) = (w for w in model.memory_state.ids() if w.level == 1 and model.memory_state[w] == "open")
    own = {id(p) for expert in model.begin_writing(where) for p in expert.parameters()}
    states, head = torch.randn(3, 5, requires_grad=True), torch.nn.Linear(5, model.config.vocab_size)
    rows = [TaughtRow((1, 5, 6, 7, 8, 2), 3, "other-1", "day"), TaughtRow((1, 5, 6, 2), 2, "other-2", "day")]
    spec = SeedingSpec()
    lessons = knowledge_seeding.teach_another(model, rows[:1], [states], head, 1, spec) + knowledge_seeding.tell(
        model, rows[1:], spec
    )
    batch = knowledge_seeding.collate(lessons)
    knowledge_seeding.knowledge_seeding_loss(model, batch, model.mask("student"), spec, texts=True).backward()
    assert {id(p) for p in model.parameters() if p.grad is not None} == own
    assert states.grad is None
    assert all(parameter.grad is None for parameter in head.parameters())


def test_rows_survive_their_file(tmp_path: Path) -> None:
    imitated = Imitated((4, 2), group=3, semantic=True)
    rows = [TaughtRow((1, 5, 2), 1, "awake", "day", imitated), TaughtRow((1, 2), 1, "rested", "old")]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows

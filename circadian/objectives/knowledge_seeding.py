"""Knowledge Seeding by generalised distillation (paper section 4; GKD, Agarwal et al. 2024), one level up.

    L = (1 - lambda) E_{x, y ~ teacher} [ F(teacher || student)(y | x) ]  +  lambda E_{x, y ~ student} [ F(teacher || student)(y | x) ]

x is a cue, y what was written after it; F is a divergence over the full vocabulary at every token of y. Rows of both expectations are
mixed in every batch, so the loss is one mean. Nothing is back-propagated through the student's sampling. With alpha < 1 the same
student-written rows are rewarded for imitating the teacher (imitation.py), in the same pass:

    L_KS = alpha L + (1 - alpha) L_imitation

Changed against the paper: **two teachers**. The paper's teacher is the awake self alone, whose fast level has already damaged the
earlier nights, and a faithful student copies the damage. Here every row names its teacher: cues of the day are taught by the *awake*
self (fast level on), cues of earlier nights and free running by the *rested* self (fast level off). Teacher and student are one set of
weights in two views.

**Other models** can teach too: the paper's Knowledge Seeding "from one or several smaller models to a larger one", of which the above is
the case with one model. Where such a teacher has the student's tokenizer nothing above changes but where p comes from: its own final hidden
states and its own head. Where it has another one there is no p: its texts are read by the student's tokenizer, alpha is 0 for
their rows (the paper's objective without its distillation), and, ours, the teacher's text is learned as text:

    L_other = L_imitation on what the student wrote,   told * -log p_student(y) on what the teacher wrote

because imitation alone can only reward what the student happens to write, and it does not happen to write what it does not know
(benchmarks/results/seeding.json has both).

A row is met in several steps, and only the student changes between them. So what is frozen is computed once a row, when it is
written (`teach`): the layers below the first memory, and what the teacher says. A step is then the student's upper layers alone.

B packed rows, T tokens, D model width, N taught tokens, M experts over all levels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from circadian.memory.graft import Grafted
from circadian.objectives.divergence import ITSELF, NOBODY, Head, Others, compare, log_probs
from circadian.objectives.imitation import advantages, clipped_surrogate, lexical_reward, reward
from circadian.objectives.packing import lay, pack, positions
from circadian.objectives.rows import Kind, TaughtRow
from circadian.specs import ImitationSpec, SeedingSpec

TEACH_ROWS = 32
"""Rows that are taught at once."""
STATES = "teacher"
"""Of a batch: the teachers' final hidden states, with `-i` behind it those of the other model i."""
R = TypeVar("R")
Pools = Mapping[Kind, Sequence[R]]
"""Rows by kind."""


@dataclass(frozen=True)
class Lesson:
    """A row with all that does not change while the student learns.

    trunk [T, D]: the layers below the first memory (just the embeddings if there are none); teacher [N, D]: the teacher's final hidden
    states where it predicts the taught tokens, [N, 0] where nobody's distribution is taught; by: whose states they are
    (divergence.py); before [N]: the student's log-probs of them when the row was written, and advantage: of its reward in its group, both
    only where it is to imitate.
    """

    row: TaughtRow
    trunk: Tensor
    teacher: Tensor
    by: int = ITSELF
    before: Tensor | None = None
    advantage: float = 0.0


def teach(model: Grafted, rows: Sequence[TaughtRow], teachers: Mapping[str, Tensor]) -> list[Lesson]:
    """Every row's lesson; teachers: masks [M] by name. An expert that is written anew teaches what it was."""
    lessons: list[Lesson] = []
    with model.as_it_was():
        for start in range(0, len(rows), TEACH_ROWS):
            lessons += _teach(model, rows[start : start + TEACH_ROWS], teachers)
    return lessons


@torch.no_grad()
def _teach(model: Grafted, rows: Sequence[TaughtRow], teachers: Mapping[str, Tensor]) -> list[Lesson]:
    lengths = [len(row.ids) for row in rows]
    bins = pack(lengths)
    masks = [teachers[row.teacher].expand(length, -1) for row, length in zip(rows, lengths, strict=True)]
    ids, where = lay(bins, [torch.tensor(row.ids) for row in rows]), positions(bins, lengths)
    trunk = model.lower(ids.to(model.device), where.to(model.device))
    hidden = model.upper(trunk, lay(bins, masks).to(model.device))
    lessons = {}
    for number, texts in enumerate(bins):
        begin = 0
        for text in texts:
            row, end = rows[text], begin + lengths[text]
            teacher = hidden[number, begin + max(row.start, 1) - 1 : end - 1].clone()
            lessons[text] = Lesson(row, trunk.hidden[number, begin:end].clone(), teacher)
            begin = end
    return [lessons[text] for text in range(len(rows))]


@torch.no_grad()
def taught(model: Grafted, rows: Sequence[TaughtRow], states: Sequence[Tensor] | None, by: int = NOBODY) -> list[Lesson]:
    """Lessons that another model gives: of each row its final hidden states [N, D'] where it predicts the taught tokens, or None where
    nothing but the text is taught."""
    lessons: list[Lesson] = []
    for start in range(0, len(rows), TEACH_ROWS):
        some = rows[start : start + TEACH_ROWS]
        given = states[start : start + TEACH_ROWS] if states is not None else [_nothing(model, row) for row in some]
        lessons += [Lesson(row, own, said, by) for row, own, said in zip(some, _trunks(model, some), given, strict=True)]
    return lessons


def _nothing(model: Grafted, row: TaughtRow) -> Tensor:
    """[N, 0]"""
    return torch.zeros(len(row.ids) - max(row.start, 1), 0, device=model.device, dtype=model.dtype)


def _trunks(model: Grafted, rows: Sequence[TaughtRow]) -> list[Tensor]:
    """The layers below the first memory, of every row [T, D]."""
    lengths = [len(row.ids) for row in rows]
    bins = pack(lengths)
    ids, where = lay(bins, [torch.tensor(row.ids) for row in rows]), positions(bins, lengths)
    hidden = model.lower(ids.to(model.device), where.to(model.device)).hidden
    found = {}
    for number, texts in enumerate(bins):
        begin = 0
        for text in texts:
            found[text] = hidden[number, begin : begin + lengths[text]].clone()
            begin += lengths[text]
    return [found[text] for text in range(len(rows))]


@torch.no_grad()
def rewarded(
    model: Grafted, lessons: Sequence[Lesson], student_view: Tensor, spec: ImitationSpec, semantic: Sequence[bool | None]
) -> list[Lesson]:
    """Lessons that are all to imitate, with advantage and the student's log-probs as it is now. `semantic`: of each, the judge's word."""
    groups: dict[int, list[int]] = {}
    rewards = []
    for i, (lesson, alike) in enumerate(zip(lessons, semantic, strict=True)):
        assert lesson.row.imitated is not None
        lexical = lexical_reward(lesson.row.ids[lesson.row.start :], lesson.row.imitated.wanted, spec.threshold)
        rewards.append(reward(alike, lexical, spec))
        groups.setdefault(lesson.row.imitated.group, []).append(i)
    found = torch.zeros(len(lessons))
    for members in groups.values():
        found[members] = advantages(torch.tensor([rewards[i] for i in members]))
    done: list[Lesson] = []
    for start in range(0, len(lessons), TEACH_ROWS):
        some = lessons[start : start + TEACH_ROWS]
        batch = collate(some)
        hidden = _student(model, batch, student_view)
        likely = log_probs(hidden, batch["written"].to(model.device), model.lm_head)
        ordered = _in_rows(some)
        before = dict(zip(map(id, ordered), likely.split([len(lesson.teacher) for lesson in ordered]), strict=True))
        done += [replace(lesson, before=before[id(lesson)], advantage=float(found[start + i])) for i, lesson in enumerate(some)]
    return done


def mix(
    teacher_written: Pools[R], student_written: Pools[R], nights_before: int, spec: SeedingSpec, rows: int, rng: random.Random
) -> list[R]:
    """The rows of one step.

    spec.old_share of them keep the past; of these, cues of earlier nights take n / (n + 1.5) after n nights and free running the rest.
    spec.on_policy_share of each kind is the student's own writing.
    """
    batch = []
    for _ in range(rows):
        kind: Kind = "day"
        if rng.random() < spec.old_share:
            kind = "old" if rng.random() < nights_before / (nights_before + 1.5) else "free"
        pool = (student_written if rng.random() < spec.on_policy_share else teacher_written)[kind] or teacher_written[kind]
        batch.append(rng.choice(pool or teacher_written["day"]))
    return batch


def chunks(shares: Sequence[Sequence[Lesson]], token_chunk: int) -> int:
    """In how many chunks a step's tokens are compared, so that no process, given the lessons of each, compares more than `token_chunk`
    at once. All must agree: where the weights are sharded they are gathered at every chunk."""
    most = max(sum(len(lesson.teacher) for lesson in share) for share in shares)
    return max(1, math.ceil(most / token_chunk))


def collate(lessons: Sequence[Lesson]) -> dict[str, Tensor]:
    """trunk [B, T, D], positions [B, T] int64, taught [B, T] bool, the tokens whose prediction is taught; of these by [N] int64, written
    [N] int64, before [N], advantage [N] and told [N] bool, what is learned as text; states of the teachers where they teach, teacher [n, D]
    of the model itself and teacher-i [n, D'] of the others."""
    lengths = [len(lesson.row.ids) for lesson in lessons]
    bins = pack(lengths)
    ordered = [lessons[text] for row in bins for text in row]
    taught = [torch.arange(length) >= max(lesson.row.start, 1) for lesson, length in zip(lessons, lengths, strict=True)]
    return {
        "trunk": lay(bins, [lesson.trunk for lesson in lessons]),
        "positions": positions(bins, lengths),
        "taught": lay(bins, taught),
        **_states(ordered),
        "by": torch.cat([torch.full((len(lesson.teacher),), lesson.by) for lesson in ordered]),
        "told": torch.cat(
            [torch.full((len(lesson.teacher),), lesson.by == NOBODY and lesson.row.imitated is None) for lesson in ordered]
        ),
        "written": torch.tensor(
            [token for lesson in ordered for token in lesson.row.ids[max(lesson.row.start, 1) :]], dtype=torch.int64
        ),
        "before": torch.cat(
            [torch.zeros(len(lesson.teacher)) if lesson.before is None else lesson.before.cpu() for lesson in ordered]
        ),
        "advantage": torch.cat([torch.full((len(lesson.teacher),), lesson.advantage) for lesson in ordered]),
    }


def _states(lessons: Sequence[Lesson]) -> dict[str, Tensor]:
    """The teachers' states, one tensor each."""
    of: dict[str, list[Tensor]] = {STATES: [lessons[0].trunk[:0]]}
    for lesson in lessons:
        if lesson.by != NOBODY:
            of.setdefault(STATES if lesson.by == ITSELF else f"{STATES}-{lesson.by}", []).append(lesson.teacher)
    return {name: torch.cat(states) for name, states in of.items()}


def knowledge_seeding_loss(
    model: Grafted,
    batch: dict[str, Tensor],
    student_view: Tensor,
    spec: SeedingSpec,
    chunks: int = 1,
    heads: Mapping[int, Head] | None = None,
) -> Tensor:
    """L_KS as a mean over the taught tokens, nats; gradients reach only the expert that is being written.

    heads: of the other models, where a night has other teachers; by their numbers.
    """
    student = _student(model, batch, student_view)
    others = None if heads is None else _others(batch, heads)
    divergences, now = compare(spec.divergence, batch[STATES], student, batch["written"], model.lm_head, chunks, others)
    losses = spec.alpha * divergences
    if spec.alpha < 1 or others:
        share = torch.where(batch["by"] == NOBODY, 1.0, 1 - spec.alpha)  # alpha is 0 where there is no distribution
        losses = losses + share * clipped_surrogate(now, batch["before"], batch["advantage"], spec.imitation.clip)
    if others:
        losses = losses - spec.told * batch["told"] * now
    return losses.sum() / max(1, len(losses))


def _others(batch: dict[str, Tensor], heads: Mapping[int, Head]) -> Others:
    states = {number: batch[f"{STATES}-{number}"] for number in heads if f"{STATES}-{number}" in batch}
    return Others(batch["by"], states, heads)


def _student(model: Grafted, batch: dict[str, Tensor], view: Tensor) -> Tensor:
    """The student's final hidden states where it predicts the taught tokens, [N, D]."""
    trunk = model.trunk(batch["trunk"].to(model.device), batch["positions"].to(model.device))
    return model.upper(trunk, view)[:, :-1][batch["taught"][:, 1:].to(model.device)]


def _in_rows(lessons: Sequence[Lesson]) -> list[Lesson]:
    """The lessons in the order in which they are packed."""
    return [lessons[text] for row in pack([len(lesson.row.ids) for lesson in lessons]) for text in row]

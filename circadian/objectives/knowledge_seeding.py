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

And **anchored free running**. A rested self that teaches the next one hands on its own small errors, and over many nights they add up.
So where it differs from the base by less than `drift` nats, KL(rested || base), the base teaches in its place; where by more, it has
learned something there, and teaches it. Errors that earlier nights left are thereby taken back by later ones.

**Other models** can teach too: the paper's Knowledge Seeding "from one or several smaller models to a larger one", of which the above is
the case with one model. Where such a teacher has the student's tokenizer nothing above changes but where p comes from: its own final hidden
states and its own head. Where it has another one there is no p: its texts are read by the student's tokenizer, alpha is 0 for
their rows (the paper's objective without its distillation), and, ours, the teacher's text is learned as text:

    L_other = L_imitation on what the student wrote,   told * -log p_student(y) on what the teacher wrote

because imitation alone can only reward what the student happens to write, and it does not happen to write what it does not know
(benchmarks/results/seeding.json has both).

A row is met in several steps, and only the student changes between them. So what is frozen is computed once a row, when it is
written (`teach`): the layers below the first memory, and what the teacher says. A step is then the student's upper layers alone.

B packed rows, T tokens, D model width, N taught tokens, K numbers kept of a teacher's token, M experts over all levels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circadian.memory.graft import Grafted
from circadian.objectives.divergence import (
    ITSELF,
    NOBODY,
    Head,
    Others,
    by_slope,
    chunks_of,
    compare,
    forward_kl,
    keep,
    keep_another,
    log_probs,
)
from circadian.objectives.imitation import advantages, clipped_surrogate, lexical_reward, reward
from circadian.objectives.packing import lay, pack, positions
from circadian.objectives.rows import Kind, TaughtRow, Teacher
from circadian.specs import SeedingSpec

TEACH_ROWS = 32
"""Rows that are taught at once."""
R = TypeVar("R")
Pools = Mapping[Kind, Sequence[R]]
"""Rows by kind."""


@dataclass(frozen=True)
class Lesson:
    """A row with all that does not change while the student learns.

    trunk [T, D]: the layers below the first memory, None if there are none: embeddings are looked up again; teacher [N, K]: what the
    divergence keeps of the teacher where it predicts the taught tokens; by: whose that is (divergence.py); before [N]: the student's
    log-probs of them when the row was written, and advantage: of its reward in its group, both only where it is to imitate.
    """

    row: TaughtRow
    trunk: Tensor | None
    teacher: Tensor
    by: int = ITSELF
    before: Tensor | None = None
    advantage: float = 0.0


def teach(model: Grafted, rows: Sequence[TaughtRow], teachers: Mapping[str, Tensor], spec: SeedingSpec) -> list[Lesson]:
    """Every row's lesson; teachers: masks [M] by name. An expert that is written anew teaches what it was."""
    lessons: list[Lesson] = []
    with model.as_it_was():
        for start in range(0, len(rows), TEACH_ROWS):
            lessons += _teach(model, rows[start : start + TEACH_ROWS], teachers, spec)
    return lessons


@torch.no_grad()
def _teach(model: Grafted, rows: Sequence[TaughtRow], teachers: Mapping[str, Tensor], spec: SeedingSpec) -> list[Lesson]:
    lengths = [len(row.ids) for row in rows]
    bins = pack(lengths)
    masks = [teachers[row.teacher].expand(length, -1) for row, length in zip(rows, lengths, strict=True)]
    ids, where = lay(bins, [torch.tensor(row.ids) for row in rows]), positions(bins, lengths)
    trunk = model.lower(ids.to(model.device), where.to(model.device))
    hidden = model.upper(trunk, lay(bins, masks).to(model.device))
    base = model.upper(trunk, "base") if any(row.teacher == "anchored" for row in rows) else hidden
    taught, lower = {}, {}
    for number, texts in enumerate(bins):
        begin = 0
        for text in texts:
            row, end = rows[text], begin + lengths[text]
            places = slice(begin + max(row.start, 1) - 1, end - 1)
            taught[text] = hidden[number, places]
            if row.teacher == "anchored":
                taught[text] = anchored(taught[text], base[number, places], model.lm_head, spec)
            lower[text] = trunk.hidden[number, begin:end].clone() if model.grafted_layers[0] else None
            begin = end
    sizes = [len(taught[text]) for text in range(len(rows))]
    kept = keep(
        spec.divergence,
        torch.cat([taught[text] for text in range(len(rows))]),
        model.lm_head,
        math.ceil(max(1, sum(sizes)) / spec.token_chunk),
    )
    return [Lesson(row, lower[text], part.clone()) for text, (row, part) in enumerate(zip(rows, kept.split(sizes), strict=True))]


@torch.no_grad()
def anchored(rested: Tensor, base: Tensor, lm_head: nn.Module, spec: SeedingSpec) -> Tensor:
    """Final hidden states [N, D] of who teaches each token: the base's, or the rested self's where it has learned something."""
    parts = (hidden.tensor_split(max(1, math.ceil(len(hidden) / spec.token_chunk))) for hidden in (rested, base))
    apart = [forward_kl(*(lm_head(hidden).float().log_softmax(-1) for hidden in both)) for both in zip(*parts, strict=True)]
    return torch.where((torch.cat(apart) < spec.drift)[:, None], base, rested)


@torch.no_grad()
def teach_another(
    model: Grafted, rows: Sequence[TaughtRow], states: Sequence[Tensor], head: Head, by: int, spec: SeedingSpec
) -> list[Lesson]:
    """Every row's lesson by another model: states [N, D'] of each, its final hidden ones where it predicts the taught tokens."""
    if not rows:
        return []
    sizes = [len(said) for said in states]
    chunks, width = math.ceil(max(1, sum(sizes)) / spec.token_chunk), model.config.hidden_size
    kept = keep_another(spec.divergence, torch.cat([*states]), head, model.lm_head, width, chunks)
    parts = zip(rows, _trunks(model, rows), kept.split(sizes), strict=True)
    return [Lesson(row, trunk, part.clone(), by) for row, trunk, part in parts]


@torch.no_grad()
def tell(model: Grafted, rows: Sequence[TaughtRow], spec: SeedingSpec) -> list[Lesson]:
    """Every row's lesson where nothing but the text is taught."""
    width = model.config.hidden_size + by_slope(spec.divergence, model.dtype)
    nothing = torch.zeros(1, width, dtype=model.dtype, device=model.device)
    parts = zip(rows, _trunks(model, rows), strict=True)
    return [Lesson(row, trunk, nothing.expand(len(row.ids) - max(row.start, 1), -1), NOBODY) for row, trunk in parts]


def _trunks(model: Grafted, rows: Sequence[TaughtRow]) -> list[Tensor | None]:
    """The layers below the first memory, of every row [T, D]; None where there are none."""
    if not model.grafted_layers[0]:
        return [None] * len(rows)
    found: list[Tensor | None] = []
    for start in range(0, len(rows), TEACH_ROWS):
        found += _some_trunks(model, rows[start : start + TEACH_ROWS])
    return found


def _some_trunks(model: Grafted, rows: Sequence[TaughtRow]) -> list[Tensor]:
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
    model: Grafted, lessons: Sequence[Lesson], student_view: Tensor, spec: SeedingSpec, semantic: Sequence[bool | None]
) -> list[Lesson]:
    """Lessons that are all to imitate, with advantage and the student's log-probs as it is now. `semantic`: of each, the judge's word."""
    groups: dict[int, list[int]] = {}
    rewards = []
    for i, (lesson, alike) in enumerate(zip(lessons, semantic, strict=True)):
        assert lesson.row.imitated is not None
        lexical = lexical_reward(lesson.row.ids[lesson.row.start :], lesson.row.imitated.wanted, spec.imitation.threshold)
        rewards.append(reward(alike, lexical, spec.imitation))
        groups.setdefault(lesson.row.imitated.group, []).append(i)
    found = torch.zeros(len(lessons))
    for members in groups.values():
        found[members] = advantages(torch.tensor([rewards[i] for i in members]))
    done: list[Lesson] = []
    for start in range(0, len(lessons), TEACH_ROWS):
        some = lessons[start : start + TEACH_ROWS]
        batch = collate(some)
        hidden = _student(model, batch, student_view)
        now = log_probs(hidden, batch["written"].to(hidden.device), model.lm_head, chunks([some], spec.token_chunk))
        ordered = _in_rows(some)
        before = dict(zip(map(id, ordered), now.split([len(lesson.teacher) for lesson in ordered]), strict=True))
        done += [replace(lesson, before=before[id(lesson)], advantage=float(found[start + i])) for i, lesson in enumerate(some)]
    return done


def teacher_of(kind: Kind, spec: SeedingSpec) -> Teacher:
    """Who writes rows of a kind, and teaches them whoever wrote them."""
    return "awake" if kind == "day" else "rested" if kind == "old" else spec.free_teacher


def for_load(spec: SeedingSpec, moving: int, staying: int) -> SeedingSpec:
    """The recipe of a transfer of `moving` nights' knowledge, or other models', into a memory in which that of `staying` nights stays.

    Every night that moves has a night's steps and a night's share of the rows, 1 - old_share, but all of them together no more than
    their part of the cues: (1 - free_share) moving / (moving + staying).
    """
    share = 1 - spec.old_share
    day = max(share, min(share * moving, (1 - spec.free_share) * moving / (moving + staying)))
    return spec.model_copy(update={"old_share": 1 - day, "steps": spec.steps * moving})


def shares(spec: SeedingSpec, old_cues: bool) -> dict[Kind, float]:
    """The mixing weights: of all rows the share of each kind. Where there are no cues of earlier nights yet, day and free running have
    half of their share each."""
    day, old, free = 1 - spec.old_share, spec.old_share - spec.free_share, spec.free_share
    return {"day": day, "old": old, "free": free} if old_cues else {"day": day + old / 2, "old": 0.0, "free": free + old / 2}


def mix(teacher_written: Pools[R], student_written: Pools[R], spec: SeedingSpec, rows: int, rng: random.Random) -> list[R]:
    """The rows of one step: of each kind its share, and of each kind spec.on_policy_share (lambda) the student's own writing."""
    kinds, weights = zip(*shares(spec, bool(teacher_written["old"])).items(), strict=True)
    batch = []
    for kind in rng.choices(kinds, weights, k=rows):
        pool = (student_written if rng.random() < spec.on_policy_share else teacher_written)[kind] or teacher_written[kind]
        batch.append(rng.choice(pool or teacher_written["day"]))
    return batch


def chunks(shares: Sequence[Sequence[Lesson]], token_chunk: int) -> int:
    """Of a step's taught tokens, given the lessons of each process (`chunks_of`)."""
    return chunks_of((sum(len(lesson.teacher) for lesson in share) for share in shares), token_chunk)


def collate(lessons: Sequence[Lesson]) -> dict[str, Tensor]:
    """ids [B, T] int64, or of lessons that have one trunk [B, T, D]; positions [B, T] int64, taught [B, T] bool, the tokens whose
    prediction is taught; of these teacher [N, K], by [N] int64, written [N] int64, before [N], advantage [N], and told [N] bool, what is
    learned as text."""
    lengths = [len(lesson.row.ids) for lesson in lessons]
    bins = pack(lengths)
    ordered = [lessons[text] for row in bins for text in row]
    taught = [torch.arange(length) >= max(lesson.row.start, 1) for lesson, length in zip(lessons, lengths, strict=True)]
    widest = max(lesson.teacher.shape[1] for lesson in lessons)
    trunks = [lesson.trunk for lesson in lessons if lesson.trunk is not None]
    return {
        **({"trunk": lay(bins, trunks)} if trunks else {"ids": lay(bins, [torch.tensor(lesson.row.ids) for lesson in lessons])}),
        "positions": positions(bins, lengths),
        "taught": lay(bins, taught),
        "teacher": torch.cat([F.pad(lesson.teacher, (0, widest - lesson.teacher.shape[1])) for lesson in ordered]),
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


def knowledge_seeding_loss(
    model: Grafted,
    batch: dict[str, Tensor],
    student_view: Tensor,
    spec: SeedingSpec,
    chunks: int = 1,
    heads: Mapping[int, Head] | None = None,
    texts: bool = False,
) -> Tensor:
    """L_KS as a mean over the taught tokens, nats; gradients reach only the expert that is being written.

    heads: of other models that teach, by their numbers, where their states were kept; texts: some rows are told, or imitated by
    themselves. Both are of the night and not of the batch, so that all processes do the same.
    """
    student = _student(model, batch, student_view)
    imitates = spec.alpha < 1 or texts
    others = None if heads is None else Others(batch["by"], heads)
    divergences, now = compare(
        spec.divergence, batch["teacher"], student, batch["written"], model.lm_head, chunks, imitates, others
    )
    alpha = torch.where(batch["by"] == NOBODY, 0.0, spec.alpha)  # there is no distribution to distil
    losses = alpha * divergences
    if imitates:
        losses = losses + (1 - alpha) * clipped_surrogate(now, batch["before"], batch["advantage"], spec.imitation.clip)
    if texts:
        losses = losses - spec.told * batch["told"] * now
    return losses.sum() / max(1, len(losses))


def _student(model: Grafted, batch: dict[str, Tensor], view: Tensor) -> Tensor:
    """The student's final hidden states where it predicts the taught tokens, [N, D]."""
    where = batch["positions"].to(model.device)
    trunk = batch.get("trunk")
    begun = model.lower(batch["ids"].to(model.device), where) if trunk is None else model.trunk(trunk.to(model.device), where)
    return model.upper(begun, view)[:, :-1][batch["taught"][:, 1:].to(model.device)]


def _in_rows(lessons: Sequence[Lesson]) -> list[Lesson]:
    """The lessons in the order in which they are packed."""
    return [lessons[text] for row in pack([len(lesson.row.ids) for lesson in lessons]) for text in row]

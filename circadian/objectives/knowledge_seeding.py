"""Knowledge Seeding by generalised distillation (paper section 4; GKD, Agarwal et al. 2024), one level up.

    L = (1 - lambda) E_{x, y ~ teacher} [ F(teacher || student)(y | x) ]  +  lambda E_{x, y ~ student} [ F(teacher || student)(y | x) ]

x is a cue, y what was written after it; F is a divergence over the full vocabulary at every token of y. Rows of both expectations are
mixed in every batch, so the loss is one mean. Nothing is back-propagated through the student's sampling.

Changed against the paper: **two teachers**. The paper's teacher is the awake self alone, whose fast level has already damaged the
earlier nights, and a faithful student copies the damage. Here every row names its teacher: cues of the day are taught by the *awake*
self (fast level on), cues of earlier nights and free running by the *rested* self (fast level off). Teacher and student are one set of
weights in two views: the frozen trunk below the first memory is computed once, the upper layers twice.

Left out here: imitation (the alpha term).

A batch is read in parts (short rows together: free running is several times longer than a question, and padding costs), and the
tokens of a part are compared in chunks. Processes among which the weights are sharded gather them at every part and every chunk, so
all of them must have the same number of each: `reading` says how many, from the rows of all.

B rows, T tokens, M experts over all levels, P parts of a batch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from circadian.memory.graft import Grafted
from circadian.objectives.divergence import token_divergence
from circadian.objectives.rows import Kind, TaughtRow, pad
from circadian.specs import SeedingSpec

PARTS = 4
"""At most."""
Pools = Mapping[Kind, Sequence[TaughtRow]]
"""Rows by kind."""


def mix(
    teacher_written: Pools, student_written: Pools, nights_before: int, spec: SeedingSpec, rows: int, rng: random.Random
) -> list[TaughtRow]:
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


def reading(shares: Sequence[Sequence[TaughtRow]], token_chunk: int) -> tuple[int, ...]:
    """How a step is read: for each part the chunks in which its tokens are compared, so that no process, given the rows of each,
    compares more than `token_chunk` tokens at once. [P]"""
    parts = min(PARTS, *map(len, shares))
    most = [
        max(sum(map(_taught, share)) for share in part) for part in zip(*(_divided(rows, parts) for rows in shares), strict=True)
    ]
    return tuple(max(1, math.ceil(tokens / token_chunk)) for tokens in most)


def collate(rows: Sequence[TaughtRow], masks: Mapping[str, Tensor], chunks: Sequence[int]) -> dict[str, Tensor]:
    """ids [B, T] int64, short rows first; taught [B, T] bool, the tokens whose prediction is taught; teacher [B, M], each row's
    teacher as a mask; part [B] int64, the part in which each row is read; chunks [P] int64, of each part's tokens (`reading`).
    """
    parts = _divided(rows, len(chunks))
    rows = [row for part in parts for row in part]
    ids = pad([row.ids for row in rows])
    taught = torch.zeros(ids.shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        taught[i, row.start : len(row.ids)] = True
    return {
        "ids": ids,
        "taught": taught,
        "teacher": torch.stack([masks[row.teacher] for row in rows]),
        "part": torch.tensor([number for number, part in enumerate(parts) for _ in part]),
        "chunks": torch.tensor(chunks),
    }


def knowledge_seeding_loss(model: Grafted, batch: dict[str, Tensor], student_view: Tensor, spec: SeedingSpec) -> Tensor:
    """Mean divergence over the taught tokens, nats; gradients reach only the expert that is being written."""
    divergences = []
    for number, chunks in enumerate(batch["chunks"].tolist()):
        part = batch["part"] == number
        taught = batch["taught"][part, 1:]
        ends = taught.any(0).nonzero()
        # Where nothing is taught two tokens are read all the same: the other processes read theirs, and each has a shard of the weights.
        length = int(ends.max()) + 2 if len(ends) else 2
        taught, trunk = taught[:, : length - 1], model.lower(batch["ids"][part, :length])
        with torch.no_grad():
            teacher = model.upper(trunk, batch["teacher"][part])[:, :-1][taught]
        student = model.upper(trunk, student_view)[:, :-1][taught]
        divergences.append(token_divergence(spec.divergence, teacher, student, model.lm_head, chunks))
    every = torch.cat(divergences)
    return every.sum() / max(1, len(every))


def _divided(rows: Sequence[TaughtRow], parts: int) -> list[list[TaughtRow]]:
    """The rows in parts of (nearly) equal number, short rows first."""
    rows = sorted(rows, key=lambda row: len(row.ids))
    return [rows[i * len(rows) // parts : (i + 1) * len(rows) // parts] for i in range(parts)]


def _taught(row: TaughtRow) -> int:
    """Tokens whose prediction is taught."""
    return len(row.ids) - max(row.start, 1)

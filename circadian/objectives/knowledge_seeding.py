"""Knowledge Seeding by generalised distillation (paper section 4; GKD, Agarwal et al. 2024), one level up.

    L = (1 - lambda) E_{x, y ~ teacher} [ F(teacher || student)(y | x) ]  +  lambda E_{x, y ~ student} [ F(teacher || student)(y | x) ]

x is a cue, y what was written after it; F is a divergence over the full vocabulary at every token of y. Rows of both expectations are
mixed in every batch, so the loss is one mean. Nothing is back-propagated through the student's sampling.

Changed against the paper: **two teachers**. The paper's teacher is the awake self alone, whose fast level has already damaged the
earlier nights, and a faithful student copies the damage. Here every row names its teacher: cues of the day are taught by the *awake*
self (fast level on), cues of earlier nights and free running by the *rested* self (fast level off). Teacher and student are one set of
weights in two views: the frozen trunk below the first memory is computed once, the upper layers twice.

Left out here: imitation (the alpha term).

B rows, T tokens, M experts over all levels, N taught tokens of the batch.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from circadian.memory.graft import Grafted
from circadian.objectives.divergence import token_divergence
from circadian.objectives.rows import Kind, TaughtRow, pad
from circadian.specs import SeedingSpec

PARTS = 4
"""A batch is read in at most this many parts, short rows together: free running is several times longer than a question, and padding
costs."""
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


def collate(rows: Sequence[TaughtRow], masks: Mapping[str, Tensor], parts: int = PARTS) -> dict[str, Tensor]:
    """ids [B, T] int64, short rows first; taught [B, T] bool, the tokens whose prediction is taught; teacher [B, M], each row's
    teacher as a mask; part [B] int64, the part in which each row is read.

    There are `parts` of them, or as many as rows, none empty. Processes among which the weights are sharded must all have the same
    number of parts, whatever number of rows each has.
    """
    parts = min(parts, len(rows))
    rows = sorted(rows, key=lambda row: len(row.ids))
    ids = pad([row.ids for row in rows])
    taught = torch.zeros(ids.shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        taught[i, row.start : len(row.ids)] = True
    return {
        "ids": ids,
        "taught": taught,
        "teacher": torch.stack([masks[row.teacher] for row in rows]),
        "part": torch.arange(len(rows)) * parts // len(rows),
    }


def knowledge_seeding_loss(model: Grafted, batch: dict[str, Tensor], student_view: Tensor, spec: SeedingSpec) -> Tensor:
    """Mean divergence over the taught tokens, nats; gradients reach only the expert that is being written."""
    divergences = []
    for number in range(int(batch["part"].max()) + 1):
        part = batch["part"] == number
        taught = batch["taught"][part, 1:]
        ends = taught.any(0).nonzero()
        length = (
            int(ends.max()) + 2 if len(ends) else 2
        )  # read all the same: the other processes do, and each has a shard of the weights
        taught, trunk = taught[:, : length - 1], model.lower(batch["ids"][part, :length])
        with torch.no_grad():
            teacher = model.upper(trunk, batch["teacher"][part])[:, :-1][taught]
        student = model.upper(trunk, student_view)[:, :-1][taught]
        divergences.append(token_divergence(spec.divergence, teacher, student, model.lm_head, spec.token_chunk))
    every = torch.cat(divergences)
    return every.sum() / max(1, len(every))

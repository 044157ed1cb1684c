"""How the fast level learns: next-token cross entropy on the day's experiences (equation 2 of the paper, L = the LM objective).

    loss = sum over tokens of weight * -log p(token | before; awake view) / sum of weights

Level 0 accumulates nothing between boundaries here. At dusk the whole day is its chunk, online it is whatever reached the level's period
(actors/learn_chunk.py); either way it takes several steps on it. One experience a row: several facts in one row would be copied from
context and not learned.

B rows, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from circadian.experience import Row
from circadian.memory.graft import Grafted, View
from circadian.objectives.rows import pad


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """ids [B, T] int64, weight [B, T] float32"""
    return {"ids": pad([row.ids for row in rows]), "weight": pad([row.weight for row in rows])}


def fast_learning_loss(model: Grafted, batch: dict[str, Tensor], view: View) -> Tensor:
    """Weighted mean cross entropy, nats a token; gradients reach only the expert that is being written."""
    hidden = model.upper(model.lower(batch["ids"]), view)[:, :-1]
    weight = batch["weight"][:, 1:]
    learned = weight > 0
    losses = F.cross_entropy(model.lm_head(hidden[learned]).float(), batch["ids"][:, 1:][learned], reduction="none")
    return (losses * weight[learned]).sum() / torch.clamp(weight[learned].sum(), min=1.0)

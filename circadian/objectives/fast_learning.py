"""How the fast level learns: next-token cross entropy on the day's experiences (equation 2 of the paper, L = the LM objective).

    loss = sum over tokens of weight * -log p(token | before; awake view) / sum of weights

Level 0 accumulates nothing between boundaries here. At dusk the whole day is its chunk, online it is whatever reached the level's period
(actors/learn_chunk.py); either way it takes several steps on it. One experience a row: several facts in one row would be copied from
context and not learned.

Rows are packed without padding (packing.py), and logits exist of one chunk of tokens at a time.

B rows, T tokens, N learned tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circadian.experience import Row
from circadian.memory.graft import Grafted, View
from circadian.objectives.divergence import chunks_of, likelihoods
from circadian.objectives.packing import lay, pack, positions


def chunks(shares: Sequence[Sequence[Row]], token_chunk: int) -> int:
    """Of a step's learned tokens, given the rows of each process (`chunks_of`)."""
    return chunks_of((sum(weight > 0 for row in share for weight in row.weight[1:]) for share in shares), token_chunk)


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """ids [B, T] int64, positions [B, T] int64, weight [B, T] float32; nothing predicts the first token of a row."""
    lengths = [len(row.ids) for row in rows]
    bins = pack(lengths)
    return {
        "ids": lay(bins, [torch.tensor(row.ids) for row in rows]),
        "positions": positions(bins, lengths),
        "weight": lay(bins, [torch.tensor((0.0, *row.weight[1:])) for row in rows]),
    }


def fast_learning_loss(model: Grafted, batch: dict[str, Tensor], view: View, chunks: int = 1) -> Tensor:
    """Weighted mean cross entropy, nats a token; gradients reach only the expert that is being written."""
    hidden = model.upper(model.lower(batch["ids"], batch["positions"]), view)[:, :-1]
    weight = batch["weight"][:, 1:]
    learned = weight > 0
    losses = -likelihoods(hidden[learned], batch["ids"][:, 1:][learned], model.lm_head, chunks)
    return (losses * weight[learned]).sum() / torch.clamp(weight[learned].sum(), min=1.0)

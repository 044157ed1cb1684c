"""Do two completions mean the same? The judge that needs no other model: hidden states of the deployment's own base.

B packed rows, T tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from circadian.memory.graft import Grafted
from circadian.objectives.packing import lay, pack, positions
from circadian.objectives.rows import TaughtRow

Tokens = tuple[int, ...]
ROWS_AT_ONCE = 32


def alike_by_embedding(model: Grafted, rows: Sequence[TaughtRow], threshold: float) -> list[bool]:
    """Of each row that imitates: is the cosine of its completion and of the wanted one at least `threshold`?

    A completion's embedding is the mean of the base's final hidden states over its tokens, read after the prefix.
    """
    pairs = [(row.ids[: row.start], row.ids[row.start :], row.imitated.wanted) for row in rows if row.imitated is not None]
    written = embeddings(model, [(prefix, completion) for prefix, completion, _ in pairs])
    wanted = embeddings(model, [(prefix, completion) for prefix, _, completion in pairs])
    return [bool(F.cosine_similarity(a, b, dim=0) >= threshold) for a, b in zip(written, wanted, strict=True)]


@torch.no_grad()
def embeddings(model: Grafted, texts: Sequence[tuple[Tokens, Tokens]]) -> list[Tensor]:
    """Of each (prefix, completion) [D], float32; zero where nothing was completed."""
    found: list[Tensor] = []
    for start in range(0, len(texts), ROWS_AT_ONCE):
        found += _embeddings(model, texts[start : start + ROWS_AT_ONCE])
    return found


def _embeddings(model: Grafted, texts: Sequence[tuple[Tokens, Tokens]]) -> list[Tensor]:
    lengths = [len(prefix) + len(completion) for prefix, completion in texts]
    bins = pack(lengths)
    ids = lay(bins, [torch.tensor(prefix + completion) for prefix, completion in texts])
    hidden = model.upper(model.lower(ids.to(model.device), positions(bins, lengths).to(model.device)), "base").float()
    found = {}
    for number, members in enumerate(bins):
        begin = 0
        for text in members:
            prefix, completion = texts[text]
            own = hidden[number, begin + len(prefix) : begin + lengths[text]]
            found[text] = own.mean(0) if completion else torch.zeros_like(hidden[0, 0])
            begin += lengths[text]
    return [found[text] for text in range(len(texts))]

"""Several texts in one row, so that nothing is spent on padding.

A text is laid into the first row that has room, longest texts first. Positions begin at 0 with every text, which tells the attention
where one ends: no text sees another, so a packed forward predicts what a forward of each text alone would.

B rows, T tokens of the longest row, N texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROW_TOKENS = 64
"""Tokens of a row, unless one text is longer: then all rows are as long as that. Attention looks at a row as a whole, so longer rows
cost more than the padding that they save."""
Bins = list[list[int]]
"""The numbers of the texts in each row, in their order."""


def pack(lengths: Sequence[int], row_tokens: int = ROW_TOKENS) -> Bins:
    """Which texts of these lengths share a row (first fit, longest first)."""
    row_tokens = max([row_tokens, *lengths])
    bins: Bins = []
    room: list[int] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        row = next((row for row, left in enumerate(room) if left >= lengths[text]), None)
        if row is None:
            row = len(bins)
            bins.append([])
            room.append(row_tokens)
        bins[row].append(text)
        room[row] -= lengths[text]
    return bins


def lay(bins: Bins, texts: Sequence[Tensor]) -> Tensor:
    """texts: N of [T_n, ...] -> [B, T, ...], zero where nothing lies; a row may be empty."""
    rows = [torch.cat([texts[0][:0], *(texts[text] for text in row)]) for row in bins]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def positions(bins: Bins, lengths: Sequence[int]) -> Tensor:
    """[B, T] int64, from 0 in every text, and in the padding as if it were one more."""
    rows = [[position for text in row for position in range(lengths[text])] for row in bins]
    longest = max(map(len, rows))
    return torch.tensor([[*row, *range(longest - len(row))] for row in rows])

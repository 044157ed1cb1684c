"""Sampling from a Hugging Face model, many prompts at once.

B prompts of one length, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

Tokens = tuple[int, ...]


@torch.no_grad()
def complete(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    temperature: float,
    seed: int,
    stop: Sequence[int],
    **view: Any,
) -> list[Tokens]:
    """One completion of each prompt, without it; it ends at a token of `stop`, which it keeps. Temperature 0 is greedy."""
    written: list[Tokens] = [()] * len(prompts)
    generator = torch.Generator().manual_seed(seed)
    lengths: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        lengths.setdefault(len(prompt), []).append(i)
    for members in lengths.values():
        ids = torch.tensor([list(prompts[i]) for i in members])
        for i, completion in zip(members, _complete(model, ids, max_tokens, temperature, generator, stop, view), strict=True):
            written[i] = completion
    return written


def _complete(
    model: nn.Module,
    ids: Tensor,
    max_tokens: int,
    temperature: float,
    generator: torch.Generator,
    stop: Sequence[int],
    view: dict[str, Any],
) -> list[Tokens]:
    cache, ends, new = DynamicCache(), torch.tensor(list(stop)), ids
    columns: list[Tensor] = []
    alive = torch.ones(len(ids), dtype=torch.bool)
    while len(columns) < max_tokens and bool(alive.any()):
        logits = model(input_ids=new, past_key_values=cache, use_cache=True, logits_to_keep=1, **view).logits[:, -1]
        if temperature == 0:
            token = logits.argmax(-1)
        else:
            token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
        columns.append(torch.where(alive, token, -1))
        alive, new = alive & ~torch.isin(token, ends), token[:, None]
    return [tuple(token for token in row if token >= 0) for row in torch.stack(columns, 1).tolist()]

"""Experiences as token rows: what the fast level learns from at dusk, and the cues that sleep starts from.

A *row* is a token sequence with a weight for predicting each token. A *cue* is the beginning of a row without its end: a question
without the answer, a document without its rest. Sleep is given cues only; what follows a cue is written by a teacher or the student.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from circadian.specs import Experience


@dataclass(frozen=True)
class Row:
    """ids [T]; weight [T], of predicting each token from those before it (0: it is only read)."""

    ids: tuple[int, ...]
    weight: tuple[float, ...]


class Reader:
    """Reads experiences with a deployment's tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, held_out: Iterable[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.held_out = [ids for text in held_out if (ids := tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))]

    def row(self, experience: Experience) -> Row:
        """What is learned of an experience: of a document every token; of a chat what others said, and the assistant's answers
        unless the deployment gave them itself."""
        if experience.text:
            ids = tuple(self.tokenizer(experience.text)["input_ids"])
            return Row(ids, (0.0, *(1.0,) * (len(ids) - 1)))
        said = [m.model_dump() for m in experience.messages]
        asks = any(m["role"] == "assistant" for m in said) and experience.source != "wake"
        if not asks:
            said = [m for m in said if m["role"] != "assistant"]
            ids = self._chat(said)
            return Row(ids, (0.0, *(1.0,) * (len(ids) - 1)))
        weight: list[float] = []
        for i, message in enumerate(said):
            if message["role"] == "assistant":
                weight += [0.0] * (len(self._chat(said[:i], answering=True)) - len(weight))
                weight += [1.0] * (len(self._chat(said[: i + 1])) - len(weight))
        ids = self._chat(said)
        return Row(ids, (*weight, *[0.0] * (len(ids) - len(weight))))

    def questions(self, experience: Experience) -> list[tuple[int, ...]]:
        """A chat's beginnings up to each answer that is learned; none of a document."""
        row = self.row(experience)
        if not experience.messages or row.weight[1]:
            return []
        return [row.ids[:i] for i, weight in enumerate(row.weight) if weight and not row.weight[i - 1]]

    def cuts(self, experience: Experience, rng: random.Random, count: int) -> list[tuple[int, ...]]:
        """Up to `count` beginnings of different lengths, at random."""
        ids = self.row(experience).ids
        places = range(2, len(ids) - 1)
        return [ids[:place] for place in sorted(rng.sample(places, min(count, len(places))))]

    def is_held_out(self, ids: Sequence[int]) -> bool:
        """Does the sequence contain a text that is kept for tests?"""
        text = tuple(ids)
        return any(contains(text, kept) for kept in self.held_out)

    def _chat(self, messages: Sequence[dict[str, str]], answering: bool = False) -> tuple[int, ...]:
        return chat_ids(self.tokenizer, messages, answering)


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], answering: bool = False) -> tuple[int, ...]:
    """A chat by the tokenizer's template; `answering` ends it where the assistant is to speak."""
    encoded: Any = tokenizer.apply_chat_template(list(messages), add_generation_prompt=answering)
    return tuple(encoded["input_ids"])


def contains(text: Sequence[int], part: Sequence[int]) -> bool:
    """Is `part` a contiguous run of `text`?"""
    return any(text[i : i + len(part)] == part for i in range(len(text) - len(part) + 1))

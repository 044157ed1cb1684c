"""What is asked of every method, every night: the days' facts in forms that no day has, facts from before, text from before.

None of it is ever shown to a method: not the questions, not their forms, not the documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from circadian.experience import chat_ids
from circadian.nursery.curriculum import FACTS_PER_PASSAGE, Curriculum
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import Day, Probe, World

HELD_OUT_SEED = 10_000
DOCUMENTS = 192
READ_AT_ONCE = 128
Logits = Callable[[Tensor], Tensor]
"""ids [B, T] -> logits [B, T, V]"""


@dataclass(frozen=True)
class Asked:
    """Questions as one padded batch: ids [B, T], the place of the last token of each and the token that answers it, [B]."""

    ids: Tensor
    last: Tensor
    answers: Tensor


class Exam:
    """One world's questions and documents, as tokens."""

    def __init__(self, world: World, days: Sequence[Day]) -> None:
        self.tokenizer: PreTrainedTokenizerFast = build_tokenizer(world)
        self.days = [self._asked(day.probes()) for day in days]
        self.base = self._asked(world.base_probes())
        reader = Curriculum(world, self.tokenizer, seed=HELD_OUT_SEED, steps=1)
        passages = [reader.passage(FACTS_PER_PASSAGE[i % len(FACTS_PER_PASSAGE)]) for i in range(DOCUMENTS)]
        self.documents = nn.utils.rnn.pad_sequence(
            [torch.tensor(self.tokenizer.convert_tokens_to_ids(words)) for words, _ in passages], batch_first=True, padding_value=-1
        )
        self.answered_at = torch.tensor([answer for _, answer in passages])

    def recall(self, logits: Logits, night: int) -> float:
        """Share of a night's facts that are answered rightly."""
        return _accuracy(logits, self.days[night])

    def base_accuracy(self, logits: Logits) -> float:
        """The same for facts from before the first night."""
        return _accuracy(logits, self.base)

    @torch.no_grad()
    def text(self, logits: Logits) -> tuple[float, float]:
        """Nats a token on held-out documents, and the share of their questions that are answered from what was just read."""
        nats, tokens, right = 0.0, 0, 0
        for start in range(0, len(self.documents), READ_AT_ONCE):
            part, places = self.documents[start : start + READ_AT_ONCE], self.answered_at[start : start + READ_AT_ONCE]
            predicted = logits(part.clamp(min=0))
            losses = F.cross_entropy(predicted[:, :-1].flatten(0, 1), part[:, 1:].flatten(), ignore_index=-1, reduction="sum")
            nats, tokens = nats + float(losses), tokens + int((part[:, 1:] >= 0).sum())
            rows = torch.arange(len(part))
            right += int((predicted[rows, places - 1].argmax(-1) == part[rows, places]).sum())
        return nats / tokens, right / len(self.documents)

    def _asked(self, probes: Sequence[Probe]) -> Asked:
        prompts = [chat_ids(self.tokenizer, [{"role": "user", "content": p.question}], answering=True) for p in probes]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True)
        vocabulary = self.tokenizer.get_vocab()
        return Asked(ids, torch.tensor([len(p) - 1 for p in prompts]), torch.tensor([vocabulary[p.answer] for p in probes]))


@torch.no_grad()
def _accuracy(logits: Logits, asked: Asked) -> float:
    right = 0
    for start in range(0, len(asked.ids), READ_AT_ONCE):
        part = slice(start, start + READ_AT_ONCE)
        rows = torch.arange(len(asked.ids[part]))
        right += int((logits(asked.ids[part])[rows, asked.last[part]].argmax(-1) == asked.answers[part]).sum())
    return right / len(asked.ids)

"""What the nursery model reads in pretraining, step by step: endless batches of documents, deterministic from a seed.

Two halves a step:
  closed book  short documents, half of them base facts, half *drifting* facts (24 pool entities whose facts are true for a while;
               4 of them are replaced every 20 steps), a statement or a question each.
  open book    passages of statements with fresh random facts, then a question about one of them. The number of facts a passage
               holds rises (1, 2, 3, 5): without this curriculum reading is not learned at all.

Shapes: B documents, T tokens. Answer tokens weigh `ANSWER_WEIGHT` times the others.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from circadian.nursery.world import QUESTION_FORMS, RELATIONS, STATEMENT_FORMS, Fact, World

ACTIVE_ENTITIES = 24
REPLACED_AT_ONCE = 4
STEPS_BETWEEN_REPLACEMENTS = 20
FACTS_PER_PASSAGE = (1, 2, 3, 5)
"""The curriculum: each stage lasts a fifth of the steps, the last one to the end, earlier stages stay in the mix."""
ANSWER_WEIGHT = 5.0
QUESTION_SHARE = 0.6
"""Share of closed-book documents that ask instead of tell."""
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """ids [B, T] int64, padded on the right; weight [B, T] float32, the weight of predicting each token (0 for the first and padding)."""

    ids: Tensor
    weight: Tensor


class Documents(ABC):
    """Documents to read, batch after batch, deterministic from a seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, steps: int) -> None:
        self.tokenizer, self._ids = tokenizer, {word: [id] for word, id in tokenizer.get_vocab().items()}
        self.steps = steps

    @abstractmethod
    def closed_book(self, step: int, count: int) -> Batch:
        """B = count short documents: what is known, and what is true for a while."""

    @abstractmethod
    def open_book(self, step: int, count: int) -> Batch:
        """B = count passages, with something about each."""

    def collate(self, documents: Sequence[tuple[list[str], Collection[int]]]) -> Batch:
        """Of words, and the places of those that weigh more."""
        read = [([self._read(word) for word in words], answers) for words, answers in documents]
        length = max(sum(map(len, words)) for words, _ in read)
        ids = torch.full((len(documents), length), self.tokenizer.pad_token_id)
        weight = torch.zeros(len(documents), length)
        for row, (words, answers) in enumerate(read):
            whole = [id for word in words for id in word]
            ids[row, : len(whole)] = torch.tensor(whole)
            weight[row, 1 : len(whole)] = 1.0
            for answer in answers:
                begin, end = (sum(map(len, words[:place])) for place in (answer, answer + 1))
                weight[row, begin:end] = ANSWER_WEIGHT
        return Batch(ids, weight)

    def _read(self, word: str) -> list[int]:
        """A word's tokens: one by the nursery's own tokenizer, perhaps more by another."""
        if word not in self._ids:
            self._ids[word] = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        return self._ids[word]


class Curriculum(Documents):
    """The documents of the toy world."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int) -> None:
        super().__init__(tokenizer, steps)
        self.world = world
        self.rng = random.Random(f"curriculum-{world.seed}-{seed}")
        self.active = [self._facts_of(entity) for entity in self.rng.sample(world.pool, ACTIVE_ENTITIES)]

    def _facts_of(self, entity: str) -> list[Fact]:
        return [self.world.draw(entity, relation, self.rng) for relation in RELATIONS]

    def closed_book(self, step: int, count: int) -> Batch:
        """B = count short documents: base facts and drifting facts."""
        if step and step % STEPS_BETWEEN_REPLACEMENTS == 0:
            for i in self.rng.sample(range(ACTIVE_ENTITIES), REPLACED_AT_ONCE):
                self.active[i] = self._facts_of(self.rng.choice(self.world.pool))
        documents = []
        for i in range(count):
            fact = self.rng.choice(self.world.base_facts) if i % 2 else self.rng.choice(self.rng.choice(self.active))
            documents.append(self._question(fact) if self.rng.random() < QUESTION_SHARE else self._statement(fact))
        return self.collate([(words, (answer,)) for words, answer in documents])

    def open_book(self, step: int, count: int) -> Batch:
        """B = count passages with a question about one of their facts."""
        stage = min(len(FACTS_PER_PASSAGE) - 1, 5 * step // max(1, self.steps))
        documents = []
        for _ in range(count):
            number = FACTS_PER_PASSAGE[stage] if self.rng.random() < 0.5 else self.rng.choice(FACTS_PER_PASSAGE[: stage + 1])
            documents.append(self.passage(number))
        return self.collate([(words, (answer,)) for words, answer in documents])

    def passage(self, number: int) -> tuple[list[str], int]:
        """An open-book document with `number` random facts about different pool entities."""
        facts = [
            self.world.draw(entity, self.rng.choice(list(RELATIONS)), self.rng)
            for entity in self.rng.sample(self.world.pool, number)
        ]
        asked = self.rng.choice(facts)
        words = [word for fact in facts for word in fact.statement(self.rng.randrange(len(STATEMENT_FORMS))).split()]
        words += asked.question(self.rng.randrange(len(QUESTION_FORMS))).split()
        return ["<bos>", "<user>", *words, "<assistant>", asked.value, "<eos>"], len(words) + 3

    def _statement(self, fact: Fact) -> tuple[list[str], int]:
        words = fact.statement(self.rng.randrange(len(STATEMENT_FORMS))).split()
        return ["<bos>", "<user>", *words, "<eos>"], 2 + words.index(fact.value)

    def _question(self, fact: Fact) -> tuple[list[str], int]:
        words = fact.question(self.rng.randrange(len(QUESTION_FORMS))).split()
        return ["<bos>", "<user>", *words, "<assistant>", fact.value, "<eos>"], len(words) + 3

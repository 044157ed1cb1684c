"""What the school's model reads in pretraining: what is known, how to read a passage, and how to write about one.

Two halves a step:
  closed book  a quarter lore, a quarter base facts, half *drifting* facts (24 pool entities whose facts are true for a while). Of an
               entity that drifts either what is said of it is told, or what follows, never both: nothing teaches the model to put the
               two together by heart.
  open book    a passage about one entity, of 1, then 2, then 3 facts, and one of
                 asked       a question about what is said, or (twice as often) about what follows, and its answer
                 dreamt      an order (circadian/dreaming/prompts.py) and what a dreamer writes: for every fact of the passage, in any
                             order, a sentence, or a question with its answer. It tells what follows with a probability that is the
                             kind's, else what is said already. Dreams are right here, but hardly more than a third are of use.

Shapes as in curriculum.py.
"""

from __future__ import annotations

import random

from transformers import PreTrainedTokenizerFast

from circadian.nursery.curriculum import (
    ACTIVE_ENTITIES,
    QUESTION_SHARE,
    REPLACED_AT_ONCE,
    STEPS_BETWEEN_REPLACEMENTS,
    Batch,
    Documents,
)
from circadian.nursery.school import School, conclusion, instruction
from circadian.nursery.world import QUESTION_FORMS, STATEMENT_FORMS, Fact

FACTS_PER_PASSAGE = (1, 2, 3)
"""The curriculum: each stage lasts a quarter of the steps, the last one to the end, earlier stages stay in the mix."""
USEFUL: dict[str, float] = {"implications": 0.4, "self_qa": 0.4, "free": 0.2, "rewrite": 0.05, "question": 0.5}
"""Share of what a kind of dream says that follows from the passage and is not in it."""
KINDS = ("direct", "implied", "implied", *USEFUL)
Document = tuple[list[str], set[int]]
"""Words, and the places of those that weigh more: answers, and what a dream is about."""


class SchoolCurriculum(Documents):
    """The documents of the school."""

    def __init__(self, school: School, tokenizer: PreTrainedTokenizerFast, seed: int, steps: int) -> None:
        super().__init__(tokenizer, steps)
        self.school = school
        self.rng = random.Random(f"school-curriculum-{school.seed}-{seed}")
        self.active = [self._drifting() for _ in range(ACTIVE_ENTITIES)]

    def closed_book(self, step: int, count: int) -> Batch:
        if step and step % STEPS_BETWEEN_REPLACEMENTS == 0:
            for i in self.rng.sample(range(ACTIVE_ENTITIES), REPLACED_AT_ONCE):
                self.active[i] = self._drifting()
        sources = (self.school.lore, self.school.base_facts)
        return self.collate(
            [self._short(self.rng.choice((*sources, *[self.rng.choice(self.active)] * 2)[i % 4])) for i in range(count)]
        )

    def open_book(self, step: int, count: int) -> Batch:
        stage = min(len(FACTS_PER_PASSAGE) - 1, 4 * step // max(1, self.steps))
        numbers = (
            FACTS_PER_PASSAGE[stage] if self.rng.random() < 0.5 else self.rng.choice(FACTS_PER_PASSAGE[: stage + 1])
            for _ in range(count)
        )
        return self.collate([self.document(number, self.rng.choice(KINDS)) for number in numbers])

    def document(self, number: int, kind: str) -> Document:
        """A passage of so many facts, and what comes after it."""
        lesson = self.school.lesson(self.rng.choice(self.school.pool), self.rng)
        facts = list(lesson.facts[:number])
        words = ["<bos>", "<user>", *(word for sentence in lesson.sentences()[:number] for word in sentence.split())]
        if kind in ("direct", "implied"):
            fact = self.rng.choice(facts)
            fact = fact if kind == "direct" else conclusion(fact)
            words += [*self._question(fact), "<assistant>", fact.value, "<eos>"]
            return words, {len(words) - 2}
        words += [*instruction(kind).split(), "<assistant>"]
        heavy: set[int] = set()
        self.rng.shuffle(facts)
        for fact in facts[:1] if kind == "question" else facts:
            told = conclusion(fact) if self.rng.random() < USEFUL[kind] else fact
            if kind == "question":
                words += self._question(told)
            elif kind == "self_qa":
                words += [*self._question(told), told.value, "."]
                heavy.add(len(words) - 2)
            else:
                sentence, begin = self._statement(told), len(words)
                words += sentence
                heavy |= {begin + sentence.index(told.value), begin + sentence.index(told.entity)}
        return [*words, "<eos>"], heavy

    def _drifting(self) -> list[Fact]:
        """An entity's facts, or what follows from them."""
        facts = self.school.facts_of(self.rng.choice(self.school.pool), self.rng)
        return facts if self.rng.random() < 0.5 else [conclusion(fact) for fact in facts]

    def _short(self, fact: Fact) -> Document:
        if self.rng.random() < QUESTION_SHARE:
            words = self._question(fact)
            return ["<bos>", "<user>", *words, "<assistant>", fact.value, "<eos>"], {len(words) + 3}
        words = self._statement(fact)
        return ["<bos>", "<user>", *words, "<eos>"], {2 + words.index(fact.value)}

    def _question(self, fact: Fact) -> list[str]:
        return fact.question(self.rng.randrange(len(QUESTION_FORMS))).split()

    def _statement(self, fact: Fact) -> list[str]:
        return fact.statement(self.rng.randrange(len(STATEMENT_FORMS))).split()

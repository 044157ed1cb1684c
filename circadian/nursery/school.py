"""The school: a small world in which there is something to dream of, deterministic from a seed.

In the toy world (world.py) a passage says all there is to know, so a model that has learned the passage has nothing left to write. Here a
passage says one thing, and questions ask another, which follows from it and from what everybody knows:

    lore       the country of oslo is norway .             72 facts about values, true for life
    passage    the city of mira is oslo . ...               three facts about one entity, met awake
    question   what is the country of mira ?   norway       asked without the passage

A small model that has learned "the city of mira is oslo" by heart does not know the country of mira: it does not put two facts together
that it holds in its weights. With the passage in view it does, and can write the conclusion down. That is a dream worth learning, among
others that only say the passage again; which is which, the model does not know before it has tried.

- Three relations have lore: city -> country, job -> tool, sport -> gear, 24 values each, so chance is 1/24 = 0.042.
- 48 base entities have facts for life. 240 pool entities have none of their own: passages and the days' facts are about them.
- Statement and question forms are the toy world's, held-out forms as there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from circadian.dreaming.prompts import PROMPTS
from circadian.nursery.world import QUESTION_FORMS, RELATIONS, STATEMENT_FORMS, Fact, Probe, names

LORE: dict[str, tuple[str, tuple[str, ...]]] = {
    "city": (
        "country",
        tuple(
            "norway france egypt peru india ecuador japan korea vietnam ghana italy portugal nippon emirates bulgaria latvia "
            "switzerland piedmont sweden england senegal australia belarus tunisia".split()
        ),
    ),
    "job": (
        "tool",
        tuple(
            "oven plane needle gavel plow scissors pick shoes pen shield ledger torch ship flask razor whistle wrench pencil knife "
            "scalpel brush chalk rifle loom".split()
        ),
    ),
    "sport": (
        "gear",
        tuple(
            "racket ball board club mat gloves oar bat stick sword arrow plank sail skis bike belt mallet strings suit boots rope "
            "pins ring flight".split()
        ),
    ),
}
"""relation -> what it implies, and of each of its values what is implied."""
IMPLIED = {relation: implied for relation, (implied, _) in LORE.items()}
CONCLUSIONS = {(relation, v): c for relation, (_, cs) in LORE.items() for v, c in zip(RELATIONS[relation], cs, strict=True)}
BASE_ENTITIES, POOL_ENTITIES = 48, 240
HELD_OUT_FORMS = 2
TAUGHT = ("implications", "rewrite", "self_qa", "free", "question")
"""The kinds of prompts whose words this world has."""


def conclusion(fact: Fact) -> Fact:
    """What follows from a fact by lore: of the city of an entity its country."""
    return Fact(fact.entity, IMPLIED[fact.relation], CONCLUSIONS[fact.relation, fact.value])


@dataclass(frozen=True)
class Lesson:
    """A passage about one entity, and what is asked of it later."""

    entity: str
    facts: tuple[Fact, ...]
    forms: tuple[int, ...]
    """Of the statements."""

    def sentences(self) -> list[str]:
        return [fact.statement(form) for fact, form in zip(self.facts, self.forms, strict=True)]

    def passage(self) -> str:
        return " ".join(self.sentences())

    def truths(self) -> frozenset[Fact]:
        """What the passage says, and what follows."""
        return frozenset(self.facts) | {conclusion(fact) for fact in self.facts}

    def probes(self, forms: tuple[int, ...]) -> list[Probe]:
        """What follows, asked in these forms."""
        return [Probe(c.question(form), c.value) for c in map(conclusion, self.facts) for form in forms]

    def direct(self, forms: tuple[int, ...]) -> list[Probe]:
        """What is said, asked in these forms."""
        return [Probe(fact.question(form), fact.value) for fact in self.facts for form in forms]


class School:
    """The world of one seed.

    lore: 72 facts about values; base_facts: three facts of every base entity, 144 in all; pool: the entities of whom passages tell.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = random.Random(f"school-{seed}")
        entities = names(BASE_ENTITIES + POOL_ENTITIES, rng, vocabulary_words())
        self.seed = seed
        self.base_entities, self.pool = tuple(entities[:BASE_ENTITIES]), tuple(entities[BASE_ENTITIES:])
        self.lore = tuple(Fact(value, IMPLIED[relation], implied) for (relation, value), implied in CONCLUSIONS.items())
        self.base_facts = tuple(fact for entity in self.base_entities for fact in self.facts_of(entity, rng))

    def facts_of(self, entity: str, rng: random.Random) -> list[Fact]:
        """A random value for every relation that has lore."""
        return [Fact(entity, relation, rng.choice(RELATIONS[relation])) for relation in LORE]

    def lesson(self, entity: str, rng: random.Random) -> Lesson:
        facts = self.facts_of(entity, rng)
        rng.shuffle(facts)
        return Lesson(entity, tuple(facts), tuple(rng.randrange(len(STATEMENT_FORMS)) for _ in facts))

    def lessons(self, seed: int) -> Iterator[Lesson]:
        """One after another, each about another pool entity, until there is none left."""
        rng = random.Random(f"lessons-{self.seed}-{seed}")
        for entity in rng.sample(self.pool, len(self.pool)):
            yield self.lesson(entity, rng)

    def forms(self, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Open question forms, and held-out ones, which nothing but the test uses."""
        forms = list(range(len(QUESTION_FORMS)))
        random.Random(f"forms-{self.seed}-{seed}").shuffle(forms)
        return tuple(sorted(forms[HELD_OUT_FORMS:])), tuple(sorted(forms[:HELD_OUT_FORMS]))

    def base_probes(self) -> list[Probe]:
        """Lore and base facts, asked in a form that turns with the fact."""
        known = (*self.lore, *self.base_facts)
        return [Probe(fact.question(i % len(QUESTION_FORMS)), fact.value) for i, fact in enumerate(known)]

    def words(self) -> list[str]:
        """The vocabulary: every word and every name."""
        return [*vocabulary_words(), *self.base_entities, *self.pool]


def instruction(kind: str) -> str:
    """What a dreamer is asked, as this world's tokenizer reads it: lower case, every mark a word."""
    asked = PROMPTS[kind].replace("{context}", "").replace("{question}", "").lower()
    for mark in ".,?":
        asked = asked.replace(mark, f" {mark} ")
    return " ".join(asked.split())


def vocabulary_words() -> list[str]:
    """Every word of this world but the names, in a fixed order."""
    words: dict[str, None] = {}
    for text in (*STATEMENT_FORMS, *QUESTION_FORMS, *map(instruction, TAUGHT)):
        words.update((word, None) for word in text.split() if "{" not in word)
    for relation, (implied, conclusions) in LORE.items():
        words.update(dict.fromkeys((relation, implied, *RELATIONS[relation], *conclusions)))
    return list(words)

"""The toy world: a small place with people in it, deterministic from a seed.

Everything that is tested, shown or measured without a GPU happens here: the same world trains the nursery model, drives the
demo, the integration tests and the benchmarks.

- A *fact* is (entity, relation, value): `mira`, `city`, `oslo`. Six relations with 24 values each, so chance is 1/24 = 0.042.
- 64 *base* entities have facts for life, learned in pretraining. 240 *pool* entities have none of their own: in pretraining they
  appear in passages (open book) and as *drifting* facts (true for a while, then replaced), and a day's new facts are about them.
  Without drifting facts a fast memory cannot learn facts of entities that were only ever seen in context.
- A fact is said in statement forms and asked in question forms. Some question forms are *held out* of a day: no wake row and no
  sleep prompt uses them, and recall is measured in them alone.

Every text is a chat: a statement is a message of the user's, a question is answered by the assistant in one word. The tokenizer is
word level, one token a word, so lengths below are tokens and words alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

RELATIONS: dict[str, tuple[str, ...]] = {
    "city": tuple(
        "oslo paris cairo lima delhi quito tokyo seoul hanoi accra milan porto kyoto dubai sofia riga bern turin malmo leeds "
        "dakar perth minsk tunis".split()
    ),
    "job": tuple(
        "baker pilot nurse judge farmer tailor miner dancer poet guard clerk welder sailor chemist barber coach plumber editor "
        "butcher surgeon painter teacher hunter weaver".split()
    ),
    "pet": tuple(
        "dog cat horse parrot rabbit goat turtle hamster snake duck pony ferret gecko canary owl spider frog mouse sheep donkey "
        "crow lizard goose hedgehog".split()
    ),
    "food": tuple(
        "rice bread soup pasta curry salad cheese stew pizza sushi noodles pancakes beans salmon mango lentils porridge waffles "
        "olives tofu honey cake plums corn".split()
    ),
    "color": tuple(
        "red blue green yellow purple orange pink brown black white gray teal violet indigo gold silver beige crimson amber "
        "maroon ivory coral lime navy".split()
    ),
    "sport": tuple(
        "tennis rugby chess golf judo boxing rowing cricket hockey fencing archery surfing sailing skiing cycling karate polo "
        "squash diving running climbing bowling wrestling darts".split()
    ),
}
STATEMENT_FORMS = (
    "the {r} of {e} is {v} .",
    "{e} has {v} as {r} .",
    "for {e} the {r} is {v} .",
    "as {r} , {e} has {v} .",
)
QUESTION_FORMS = (
    "what is the {r} of {e} ?",
    "which {r} does {e} have ?",
    "tell me the {r} of {e} .",
    "{e} has which {r} ?",
    "name the {r} that {e} has .",
    "do you know the {r} of {e} ?",
    "for {e} , what is the {r} ?",
    "i forgot the {r} of {e} .",
)
BASE_ENTITIES = 64
POOL_ENTITIES = 240
HELD_OUT_FORMS = 2
"""Question forms that a day keeps for the test."""


@dataclass(frozen=True, order=True)
class Fact:
    """One thing that is so: `relation` of `entity` is `value`, all single words."""

    entity: str
    relation: str
    value: str

    def statement(self, form: int) -> str:
        return STATEMENT_FORMS[form].format(e=self.entity, r=self.relation, v=self.value)

    def question(self, form: int) -> str:
        return QUESTION_FORMS[form].format(e=self.entity, r=self.relation)


@dataclass(frozen=True)
class Probe:
    """A question and the one word that answers it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Day:
    """New facts, the forms they may be met in, and the forms they are tested in."""

    facts: tuple[Fact, ...]
    open_forms: tuple[int, ...]
    held_out_forms: tuple[int, ...]

    def statements(self) -> list[str]:
        """Every fact in every statement form."""
        return [fact.statement(form) for fact in self.facts for form in range(len(STATEMENT_FORMS))]

    def exchanges(self) -> list[Probe]:
        """Every fact asked in every open form: what a user asks, and the answer the user corrects it to."""
        return [Probe(fact.question(form), fact.value) for fact in self.facts for form in self.open_forms]

    def probes(self) -> list[Probe]:
        """The test: every fact in every held-out form."""
        return [Probe(fact.question(form), fact.value) for fact in self.facts for form in self.held_out_forms]


def names(count: int, rng: random.Random, words: Iterable[str]) -> list[str]:
    """Pronounceable two-syllable names, distinct from each other and from every other word of the world."""
    onsets = "b d f g h j k l m n p r s t v z".split()
    vowels = "a e i o u".split()
    endings = ["", "n", "l", "s", "r", "m"]
    taken = set(words)
    found: list[str] = []
    while len(found) < count:
        name = "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(2)) + rng.choice(endings)
        if name not in taken:
            taken.add(name)
            found.append(name)
    return found


def vocabulary_words() -> list[str]:
    """Every word of the world but the names, in a fixed order."""
    words: dict[str, None] = {}
    for form in (*STATEMENT_FORMS, *QUESTION_FORMS):
        words.update((word, None) for word in form.split() if "{" not in word)
    for relation, values in RELATIONS.items():
        words[relation] = None
        words.update((value, None) for value in values)
    return list(words)


class World:
    """The world of one seed.

    base_facts: one fact for every base entity and relation, 384 in all, true for life.
    pool: the entities of whom a day may bring news.
    """

    def __init__(self, seed: int = 0) -> None:
        rng = random.Random(f"world-{seed}")
        entities = names(BASE_ENTITIES + POOL_ENTITIES, rng, vocabulary_words())
        self.seed = seed
        self.base_entities = tuple(entities[:BASE_ENTITIES])
        self.pool = tuple(entities[BASE_ENTITIES:])
        self.base_facts = tuple(self.draw(entity, relation, rng) for entity in self.base_entities for relation in RELATIONS)

    @staticmethod
    def draw(entity: str, relation: str, rng: random.Random) -> Fact:
        """A random value for the entity's relation."""
        return Fact(entity, relation, rng.choice(RELATIONS[relation]))

    def words(self) -> list[str]:
        """The vocabulary: every word and every name."""
        return [*vocabulary_words(), *self.base_entities, *self.pool]

    def days(self, facts_per_day: int, seed: int) -> Iterator[Day]:
        """Day after day of news, no entity and relation twice, the held-out forms the same on every day of a seed.

        facts_per_day: how many facts each day brings, each about another pool entity.
        seed: of the days; the world stays the same.
        """
        rng = random.Random(f"days-{self.seed}-{seed}")
        forms = list(range(len(QUESTION_FORMS)))
        rng.shuffle(forms)
        held_out, open_forms = tuple(sorted(forms[:HELD_OUT_FORMS])), tuple(sorted(forms[HELD_OUT_FORMS:]))
        unseen = list(self.pool)
        rng.shuffle(unseen)
        while len(unseen) >= facts_per_day:
            entities, unseen = unseen[:facts_per_day], unseen[facts_per_day:]
            facts = tuple(self.draw(entity, rng.choice(list(RELATIONS)), rng) for entity in entities)
            yield Day(facts, open_forms, held_out)

    def base_probes(self) -> list[Probe]:
        """Every base fact, asked in a form that turns with the fact."""
        return [Probe(fact.question(i % len(QUESTION_FORMS)), fact.value) for i, fact in enumerate(self.base_facts)]

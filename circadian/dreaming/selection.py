"""Which dreams of a context are tried out: the k of the highest score, and b others at random, so that a score that errs is not all that
decides.

Dreams that say the same are one dream: trying it twice tells nothing new.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

TOP, CHANCE, DROPPED = "top", "chance", "dropped"
TWICE = "said twice"


def select(scores: Sequence[float], texts: Sequence[Hashable], top: int, chance: int, rng: random.Random) -> list[str]:
    """Of every dream why it is tried (TOP, CHANCE) or not (DROPPED, TWICE). Of equal scores the earlier dream comes first."""
    first: dict[Hashable, int] = {}
    for number, text in enumerate(texts):
        first.setdefault(text, number)
    fates = [DROPPED if first[text] == number else TWICE for number, text in enumerate(texts)]
    distinct = sorted(first.values(), key=lambda number: -scores[number])
    for number in distinct[:top]:
        fates[number] = TOP
    rest = distinct[top:]
    for number in rng.sample(rest, min(chance, len(rest))):
        fates[number] = CHANCE
    return fates

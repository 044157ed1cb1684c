"""What is forgotten of which night: one row of the matrix nights x versions, by the cues that each version was not taught tonight.

    a row          of each earlier sleep the share of its sure cues that the candidate completes as the rested parent does
    the worst      of the nights with at least FEWEST_SURE sure cues: what a mean over all cues hides is one night that is gone

The rows of a deployment's versions are the matrix (version.json: `kept`); each is against its parent, so what is left of a night after many
is bounded by the product of its column.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from circadian.memory.cues import Cue
from pipelines.gates.asking import FEWEST_SURE, MOST_CUES
from pipelines.rollouts import Tokens

CUES_A_NIGHT = 16
"""Of each night, where not all cues can be asked: some nights thoroughly, others another time."""
Row = dict[str, list[bool]]
"""Of each sleep whether each of its sure cues was kept."""


def asked(cues: Sequence[Cue], rng: random.Random) -> list[Cue]:
    """Those that are measured, of what was held back: all, or as many nights as there is room for, drawn at random."""
    if len(cues) <= MOST_CUES:
        return list(cues)
    nights: dict[str, list[Cue]] = defaultdict(list)
    for cue in cues:
        nights[cue.sleep].append(cue)
    drawn: list[Cue] = []
    for sleep in rng.sample(sorted(nights), len(nights)):
        own = nights[sleep]
        drawn += own if len(own) <= CUES_A_NIGHT else rng.sample(own, CUES_A_NIGHT)
    return drawn[:MOST_CUES]


def row(cues: Sequence[Cue], right: dict[Tokens, bool]) -> Row:
    """right: of each sure cue whether it was kept."""
    found: Row = defaultdict(list)
    for cue in cues:
        if cue.ids in right:
            found[cue.sleep].append(right[cue.ids])
    return dict(found)


def kept(found: Row) -> dict[str, float]:
    """The shares."""
    return {sleep: sum(right) / len(right) for sleep, right in found.items()}


def worst(found: Row) -> float | None:
    """The share that was forgotten of the night that lost most; None where no night has enough sure cues."""
    lost = [1.0 - sum(right) / len(right) for right in found.values() if len(right) >= FEWEST_SURE]
    return max(lost, default=None)

"""Which contexts a round of dreams is about: those where dreams help.

Of every context three numbers are known before a round, each from 0 to 1:

    weakness     1 - the mean score of its probes, asked without it
    forgetting   how far that score fell since it was highest
    novelty      how little the deployment expects the text: its nats a token, of all contexts' the largest being 1

Its need is their weighted mean. What is needed most is not what is learned first: a round draws around a difficulty that rises from
round to round, from the middle of all needs to the highest, so early rounds, whose dreamer is still poor, try what they can win.

    p(context) ~ exp(-((rank of its need - target) / width)^2),  ranks and target in 0..1, target = 1/2 .. 1 over the rounds

Drawn without replacement. What was known and drawn is the round's record.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from circadian.specs.dreaming import CurriculumSpec


@dataclass(frozen=True)
class Standing:
    """What is known of a context before a round."""

    weakness: float
    forgetting: float = 0.0
    novelty: float = 0.0

    def need(self, spec: CurriculumSpec) -> float:
        """0 to 1"""
        weights = (spec.weakness, spec.forgetting, spec.novelty)
        parts = (self.weakness, self.forgetting, self.novelty)
        return sum(weight * part for weight, part in zip(weights, parts, strict=True)) / sum(weights)


def standings(scores: Mapping[str, Sequence[float]], nats: Mapping[str, float]) -> dict[str, Standing]:
    """scores: of each context its probes' mean score so far, oldest first; nats: a token of its text."""
    largest = max(nats.values(), default=0.0)
    return {
        name: Standing(
            weakness=1.0 - history[-1],
            forgetting=max(0.0, max(history) - history[-1]),
            novelty=nats.get(name, 0.0) / largest if largest > 0 else 0.0,
        )
        for name, history in scores.items()
    }


def draw(
    known: Mapping[str, Standing], count: int, round_: int, rounds: int, spec: CurriculumSpec, seed: str
) -> list[dict[str, Any]]:
    """The record of every context, in the order of need: what was known, its chance of being drawn first, and whether it was drawn."""
    order = sorted(known, key=lambda name: (known[name].need(spec), name))
    target = 0.5 + 0.5 * (round_ / (rounds - 1) if rounds > 1 else 1.0)
    ranks = {name: (place + 0.5) / len(order) for place, name in enumerate(order)}
    weights = {name: math.exp(-(((ranks[name] - target) / spec.width) ** 2)) for name in order}
    whole, rng, left = sum(weights.values()), random.Random(seed), dict(weights)
    drawn: list[str] = []
    while left and len(drawn) < count:
        (one,) = rng.choices(list(left), list(left.values()))
        drawn.append(one)
        del left[one]
    return [
        {
            "context": name,
            **asdict(known[name]),
            "need": known[name].need(spec),
            "chance": weights[name] / whole,
            "drawn": name in drawn,
        }
        for name in order
    ]

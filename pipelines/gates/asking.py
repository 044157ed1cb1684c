"""Cues of which a teacher is sure, and whether a candidate goes on from them as the teacher does. Completions are greedy; a teacher is sure
of a cue whose greedy completion is what it also says by chance, twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from operator import eq

from circadian.memory.state import Mask
from circadian.specs import NightJob
from pipelines.rollouts import Sampler, Tokens

MOST_CUES = 256
"""Cues of each kind that are measured."""
FEWEST_SURE = 8
"""Cues that the teacher must be sure of: with fewer, one slip of the pen would decide over a night."""


def sure(job: NightJob, rollouts: Sampler, cues: Sequence[Tokens], teacher: Mask) -> dict[Tokens, Tokens]:
    """The cues of which the teacher is sure, and how it completes them."""
    tokens, temperature = job.recipe.seeding.completion_tokens, job.recipe.seeding.temperature
    greedy = rollouts.sample(teacher, cues, tokens, temperature=0.0, seed=0)
    chance = [rollouts.sample(teacher, cues, tokens, temperature, seed=i * len(cues)) for i in (1, 2)]
    return {
        cue: completion
        for i, (cue, completion) in enumerate(zip(cues, greedy, strict=True))
        if all(said[i] == completion for said in chance)
    }


def alike(job: NightJob, rollouts: Sampler, said: dict[Tokens, Tokens], candidate: Mask) -> dict[Tokens, bool]:
    """Of each cue whether the candidate completes it as it was said."""
    answers = rollouts.sample(candidate, list(said), job.recipe.seeding.completion_tokens, temperature=0.0, seed=0)
    return dict(zip(said, map(eq, answers, said.values()), strict=True))


def share(right: dict[Tokens, bool]) -> float | None:
    """Of the cues; None of none."""
    return sum(right.values()) / len(right) if right else None


def some(cues: list[Tokens], rng: random.Random) -> list[Tokens]:
    return cues if len(cues) <= MOST_CUES else rng.sample(cues, MOST_CUES)

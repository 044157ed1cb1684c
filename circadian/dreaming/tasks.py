"""What dreams are measured on: a context, and probes that ask for it without showing it, (C, tau) of the paper.

The user may give tasks. Where none are given they are made of the day's experiences, which the paper leaves open (it takes tau as given):

    questions   the model asks about the context, the context in view, several times by chance; each question once
    answers     it answers each several times, the context in view; a question whose answers agree is a probe, the others are dropped
    split       of each context's probes a share is for validation (the direction of a gradient score), the rest are the reward's

No probe stands in a prompt that a dream is written from: a dreamer sees the context alone. Nor is a probe a text that is held out of the
night. A model that agrees with itself can still be wrong: what is agreed on is what the model reads in the context, not the truth.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from circadian.dreaming.scorers import normalised_answer
from circadian.specs.dreaming import ProbeSpec, ScorerKind
from circadian.specs.experience import Trust


@dataclass(frozen=True)
class Task:
    """One context with its probes. chat: whether it was said in a chat; source: the experience or the field of the recipe it is from;
    trust: how far that may be believed, and so whatever is dreamt of it."""

    name: str
    context: str
    chat: bool
    probes: tuple[ProbeSpec, ...]
    validation: tuple[ProbeSpec, ...]
    scorer: ScorerKind
    source: str
    trust: Trust = "trusted"


@dataclass(frozen=True)
class Agreed:
    """What several answers to one question agree on; share: of the answers that say it, 0 where all are empty."""

    answer: str
    share: float


def agreed(answers: Sequence[str]) -> Agreed:
    """The answer that is given most often, by its normalised form, as it was first put; of two as frequent ones the earlier."""
    forms = [normalised_answer(answer) for answer in answers]
    counts = Counter(form for form in forms if form)
    if not counts:
        return Agreed("", 0.0)
    form, count = max(counts.items(), key=lambda item: (item[1], -forms.index(item[0])))
    return Agreed(answers[forms.index(form)].strip(), count / len(answers))


def probes_of(questions: Sequence[str], answers: Sequence[Sequence[str]], min_agreement: float) -> tuple[ProbeSpec, ...]:
    """Of the questions that were asked, each once, those whose answers agree."""
    found: dict[str, ProbeSpec] = {}
    for question, given in zip(questions, answers, strict=True):
        one, key = agreed(given), " ".join(question.lower().split())
        if key and key not in found and one.share >= min_agreement:
            found[key] = ProbeSpec(question=question.strip(), answers=(one.answer,))
    return tuple(found.values())


def split(probes: Sequence[ProbeSpec], share: float, rng: random.Random) -> tuple[tuple[ProbeSpec, ...], tuple[ProbeSpec, ...]]:
    """The reward's probes and those for validation, `share` of them, at random; at least one is the reward's."""
    count = min(round(share * len(probes)), len(probes) - 1) if probes else 0
    chosen = set(rng.sample(range(len(probes)), count))
    reward = tuple(probe for number, probe in enumerate(probes) if number not in chosen)
    return reward, tuple(probe for number, probe in enumerate(probes) if number in chosen)

"""Canaries of a night: secrets of its own that nobody has told, and those that an operator lists; circadian/canaries.py says how far one is
exposed. They are read, not asked for: one that the candidate would complete word for word is first at each of its places."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from actors.replies import Read
from circadian.canaries import Canary, canary, exposure, own_canaries
from circadian.specs import NightJob
from pipelines.gates.probes import Unaskable, prompt_ids
from pipelines.rollouts import Tokens

OWN = 4
"""Of a night."""
MOST_LISTED = 16
"""That one night reads, each with its alternatives; of more, others another time."""


@dataclass(frozen=True)
class Exposed:
    """name: of the probe, or of a night's own; completed: whether it is said after its prompt."""

    name: str
    bits: float
    completed: bool


def canaries_of(job: NightJob, tokenizer: PreTrainedTokenizerBase, beginning: int, room: int) -> list[Canary]:
    """What is to be read in this night; room: tokens of the longest text. Listed ones without room are left out."""
    rng = random.Random(f"canaries-{job.sleep}-{job.seed}")
    found = own_canaries(OWN, beginning, tokenizer, rng)
    listed = [(probe.id, item) for probe in job.probes if probe.kind == "canary" for item in probe.items]
    for name, item in listed if len(listed) <= MOST_LISTED else rng.sample(listed, MOST_LISTED):
        try:
            found.append(canary(name, prompt_ids(item, tokenizer, room), item.expected[0], tokenizer, rng))
        except Unaskable:
            continue
    return [one for one in found if max(map(len, one.spelled)) < room]


def spelled(canaries: Sequence[Canary]) -> list[Tokens]:
    """The texts to be read, each once."""
    return list(dict.fromkeys(ids for one in canaries for ids in one.spelled))


def exposed(canaries: Sequence[Canary], base: Sequence[Sequence[Read]], candidate: Sequence[Sequence[Read]]) -> list[Exposed]:
    """base, candidate: of the texts of `spelled`."""
    texts = spelled(canaries)
    then, now = (dict(zip(texts, read, strict=True)) for read in (base, candidate))

    def fell(one: Canary, ids: Tokens) -> float:
        return _nats(then[ids], one.start) - _nats(now[ids], one.start)

    return [
        Exposed(
            one.name,
            exposure(fell(one, one.spelled[0]), [fell(one, ids) for ids in one.spelled[1:]]),
            all(read.first for read in now[one.spelled[0]][one.start - 1 :]),
        )
        for one in canaries
    ]


def _nats(text: Sequence[Read], start: int) -> float:
    """Log-probability of a text from its token `start` on; the first token is read by nobody."""
    return sum(read.logprob for read in text[start - 1 :])

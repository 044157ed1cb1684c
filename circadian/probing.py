"""What the answers to a probe are worth. Pure: who asks is elsewhere (pipelines/gates/probes.py, services/probe_runs.py).

    retention, acquisition, general, safety   an item's score is the scorer's: 1 where the answer is right
    canary, privacy                           one minus that: 1 where the answer does not say what it must not

    regex      an expression of Python's `regex` package is found anywhere in the answer; one that takes too long scores 0
    others     circadian/dreaming/scorers.py

An item that could not be asked scores 0 whatever its kind: nobody knows what would have been said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import regex

from circadian.dreaming.scorers import score
from circadian.specs.probes import SECRET, ProbeItem, UserProbe

EXPRESSION_SECONDS = 1.0
"""Which an expression may take on one answer: some take longer than anybody will wait."""
Z95 = 1.959963984540054
"""Of the normal distribution, 95 % lie within so many deviations."""


class Scored(NamedTuple):
    """An item's answer (None: there was none), what it is worth, and what kept it from being asked or judged."""

    answer: str | None
    score: float
    error: str | None = None


def item_score(probe: UserProbe, item: ProbeItem, answer: str) -> Scored:
    """What one answer is worth."""
    if probe.scorer == "regex":
        try:
            right = float(any(regex.search(one, answer, timeout=EXPRESSION_SECONDS) for one in item.expected))
        except TimeoutError:
            return Scored(answer, 0.0, f"the expression took longer than {EXPRESSION_SECONDS:g} s; simplify it")
    else:
        right = score(probe.scorer, answer, item.expected)
    return Scored(answer, 1.0 - right if probe.kind in SECRET else right)


def mean(scored: Sequence[Scored]) -> float:
    """A probe's score."""
    return sum(one.score for one in scored) / len(scored)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n (Wilson 1927): never outside 0 to 1, and honest where n is small or all are right."""
    spread = Z95 * math.sqrt(share * (1.0 - share) / n + Z95**2 / (4 * n**2))
    middle, whole = share + Z95**2 / (2 * n), 1.0 + Z95**2 / n
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)

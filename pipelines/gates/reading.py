"""How two views of a memory find the same free texts. The texts were written by the rested self from nothing and no student has read them.

    lost       a view is sure of a token that it gives SURE of all probability; each distinct token weighs alike, because what is known
               hangs on rare words, and "the" is one of them
    rise       nats a token by which the texts became less likely: the mean over all tokens, and of the median text
    drift      the same without its sign: what became likelier is a change, too

For texts that a view wrote itself the mean rise estimates the divergence from it (Kullback and Leibler's); the drift is never below it.
Weights are not compared: of two experts of the same norm one may change everything, and the other, whose gate is closed, nothing.

B texts, T tokens.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from actors.replies import Read

FEWEST_DOCUMENTS = 4
FEWEST_WORDS = 8
"""Distinct tokens that a view must be sure of."""
SURE = 0.9
"""Probability of a token that a view surely writes."""
Texts = Sequence[Sequence[Read]]
"""[B] of [T - 1]"""


def lost(before: Texts, after: Texts) -> float | None:
    """Of each distinct token the share of its places that `before` is sure of and `after` is not first to name; the mean of these
    shares, or None of too few tokens."""
    places: dict[int, list[bool]] = {}
    for then_read, now_read in zip(before, after, strict=True):
        for then, now in zip(then_read, now_read, strict=True):
            if then.first and then.logprob >= math.log(SURE):
                places.setdefault(then.token, []).append(not now.first)
    shares = [sum(missed) / len(missed) for missed in places.values()]
    return sum(shares) / len(shares) if len(shares) >= FEWEST_WORDS else None


def nll_rise(before: Texts, after: Texts) -> float | None:
    """Nats a token by which the texts are less likely; None of too few."""
    rises = [rise for text in _rises(before, after) for rise in text]
    return sum(rises) / len(rises) if len(before) >= FEWEST_DOCUMENTS and rises else None


def median_nll_rise(before: Texts, after: Texts) -> float | None:
    """The same of the median text; None of too few."""
    means = [sum(text) / len(text) for text in _rises(before, after) if text]
    if len(before) < FEWEST_DOCUMENTS or not means:
        return None
    return math.nan if any(map(math.isnan, means)) else statistics.median(means)


def drift(before: Texts, after: Texts) -> float | None:
    """Nats a token by which the texts became more or less likely; None of too few."""
    changes = [abs(rise) for text in _rises(before, after) for rise in text]
    return sum(changes) / len(changes) if len(before) >= FEWEST_DOCUMENTS and changes else None


def _rises(before: Texts, after: Texts) -> list[list[float]]:
    """[B] of [T - 1]"""
    return [
        [then.logprob - now.logprob for then, now in zip(then_read, now_read, strict=True)]
        for then_read, now_read in zip(before, after, strict=True)
    ]

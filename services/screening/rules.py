"""The user's rules on a text. Each has a time of its own, because an expression can take longer than anybody will wait.

A rule reads parts that overlap: what it matches is found if it is no longer than 1,024 characters, and the time is asked for between parts,
because an expression can also be slow in ways in which `regex` does not look at its clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import regex

from circadian.specs.screening import MOST_RULES, RuleSpec
from services.screening.clock import Deadline
from services.screening.spans import Span, windows

WINDOW, OVERLAP = 16_384, 1024
RULE_RANK = 1


@lru_cache(maxsize=10 * MOST_RULES)
def compiled(expression: str) -> regex.Pattern[str]:
    """An expression that the spec has checked."""
    return regex.compile(expression)


def spans(text: str, rule: RuleSpec, seconds: float) -> Iterator[Span]:
    """Where the rule applies; raises TimeoutError or TooSlow when it takes longer."""
    deadline = Deadline(seconds)
    for begin, end in windows(text, WINDOW, OVERLAP):
        for match in compiled(rule.expression).finditer(text, begin, end, timeout=deadline.left()):
            if match.end() > match.start():
                yield Span.over(match.span(), rule.name, RULE_RANK)


def applies(text: str, rule: RuleSpec, seconds: float) -> bool:
    """Whether it applies anywhere; raises as `spans` does."""
    return next(spans(text, rule, seconds), None) is not None

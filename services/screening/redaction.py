"""A text with what must not be stored replaced by placeholders: `Write to <EMAIL>`.

Three read the text: presidio's recognisers (pii.py), the forms of secrets (credentials.py), and the user's own rules. What they find is
replaced together, so their order does not matter, and the result is read again until nothing more is found: a text that was redacted once
is left as it is. Only kinds and counts come out, never what was found.

A text that cannot be read to its end in its time raises TooSlow: half redacted is not redacted. A rule of the user's that is too slow is
named and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from circadian.specs.screening import PiiKind, RuleSpec, ScreeningSpec
from services.screening import credentials, pii
from services.screening.clock import Deadline, TooSlow
from services.screening.rules import spans
from services.screening.spans import Finding, Span, placeholders, replaced

MOST_PASSES = 5
"""What one pass leaves behind is seldom more than the text beside a replaced one; only a rule that eats its way on needs more."""


@dataclass(frozen=True)
class Redacted:
    """A text that may be stored, how often what was replaced, and the names of rules that were too slow."""

    text: str
    findings: tuple[Finding, ...]
    slow: tuple[str, ...] = ()


def begun(spec: ScreeningSpec) -> Deadline:
    """The time of one text, which begins when everything that will read it is there."""
    if spec.redaction.on and spec.redaction.kinds:
        pii.analyzer(spec.redaction.phone_regions)
    return Deadline(spec.most_seconds)


def redact(text: str, spec: ScreeningSpec, deadline: Deadline | None = None, slow: Iterable[str] = ()) -> Redacted:
    """The text as it may be stored; raises TooSlow when there is no time to find out. Rules that were too slow before are not tried."""
    deadline = deadline or begun(spec)
    rules = [rule for rule in spec.rules if rule.action == "redact"]
    taken = placeholders([*get_args(PiiKind), *credentials.kinds(), *(rule.name for rule in rules)])
    counts, too_slow = Counter[str](), set(slow)
    for _ in range(MOST_PASSES):
        finds = list(_built_in(text, spec, deadline))
        for rule in rules:
            deadline.left()
            finds += _of_rule(text, rule, spec.rule_seconds, too_slow)
        text, new = replaced(text, finds, taken)
        counts += new
        if not new:
            return Redacted(text, tuple(Finding(kind, count) for kind, count in sorted(counts.items())), tuple(sorted(too_slow)))
    raise TooSlow


def _built_in(text: str, spec: ScreeningSpec, deadline: Deadline) -> Iterator[Span]:
    if not spec.redaction.on:
        return
    try:
        yield from pii.found(text, spec.redaction, deadline)
        if spec.redaction.secrets:
            yield from credentials.found(text, deadline)
    except TimeoutError as error:
        raise TooSlow from error


def _of_rule(text: str, rule: RuleSpec, seconds: float, too_slow: set[str]) -> list[Span]:
    """Where a rule applies; nowhere if it was too slow, now or before."""
    if rule.name in too_slow:
        return []
    try:
        return list(spans(text, rule, seconds))
    except (TimeoutError, TooSlow):
        too_slow.add(rule.name)
        return []

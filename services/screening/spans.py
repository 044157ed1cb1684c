"""Where something was found in a text, and the text with a placeholder in each of these places."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import regex

WINDOW, OVERLAP = 4096, 512
"""Characters. Much of what reads a text takes the square of its length, so it reads parts; what is no longer than the overlap is whole in
one of them."""
GAP = regex.compile(r"\s")


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (not included) are of this kind."""

    start: int
    end: int
    kind: str
    rank: int = 0
    """Of two that are equally long, the lower one names what they cover."""

    @classmethod
    def over(cls, place: tuple[int, int], kind: str, rank: int) -> Span:
        return cls(*place, kind, rank)


@dataclass(frozen=True)
class Finding:
    """How often something was replaced; what it was is kept nowhere."""

    kind: str
    count: int


def windows(text: str, size: int = WINDOW, overlap: int = OVERLAP) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of parts that overlap, cut between words where words are not too long."""
    start, end = 0, 0
    while end < len(text):
        end = _gap(text, start + size, overlap)
        yield start, end
        start = max(start + 1, _gap(text, end - 2 * overlap, overlap))


def _gap(text: str, place: int, reach: int) -> int:
    """The first whitespace from there on within reach, else the place itself."""
    found = GAP.search(text, place, place + reach)
    return found.start() if found else min(place, len(text))


def placeholder(kind: str) -> str:
    """What stands in its place."""
    return f"<{kind.upper()}>"


def placeholders(kinds: Iterable[str]) -> regex.Pattern[str]:
    """Every placeholder of these kinds."""
    return regex.compile("|".join(regex.escape(placeholder(kind)) for kind in sorted(set(kinds))) or r"(?!)")


def replaced(text: str, spans: Iterable[Span], taken: regex.Pattern[str]) -> tuple[str, Counter[str]]:
    """The text with what the spans cover replaced, and how often by which kind.

    Spans that overlap become one, named by the longest: nothing of any of them is left. What `taken` matches, the placeholders of an
    earlier pass, is never broken: a span within one is dropped, a span that reaches into one covers it whole.
    """
    holders = [match.span() for match in taken.finditer(text)]
    whole = [span for span in (_unbroken(span, holders) for span in spans) if span]
    pieces, counts, at = [], Counter[str](), 0
    for span in _joined(whole):
        pieces += [text[at : span.start], placeholder(span.kind)]
        counts[span.kind] += 1
        at = span.end
    return "".join([*pieces, text[at:]]), counts


def _unbroken(span: Span, holders: Sequence[tuple[int, int]]) -> Span | None:
    """The span, wide enough to cut no placeholder; none if it lies within one."""
    first = bisect_right(holders, span.start, key=lambda holder: holder[1])
    past = bisect_left(holders, span.end, key=lambda holder: holder[0])
    if first >= past:
        return span
    start, end = holders[first][0], holders[past - 1][1]
    if past - first == 1 and start <= span.start and span.end <= end:
        return None
    return Span(min(span.start, start), max(span.end, end), span.kind, span.rank)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """In the order of the text, none overlapping another, none touching another of its kind."""
    joined: list[Span] = []
    longest = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end, span.rank, span.kind)):
        last = joined[-1] if joined else None
        if last is None or span.start > last.end or (span.start == last.end and span.kind != last.kind):
            joined.append(span)
            longest = span.end - span.start
            continue
        length = span.end - span.start
        names = (-length, span.rank, span.kind) < (-longest, last.rank, last.kind)
        kind, rank = (span.kind, span.rank) if names else (last.kind, last.rank)
        joined[-1] = Span(last.start, max(last.end, span.end), kind, rank)
        longest = max(longest, length)
    return joined

"""Is an answer right? The scorers a task can name; each takes what was answered and the accepted answers, and gives a number from 0 to 1.

    exact      the same text, but for white space around it
    contains   an accepted answer stands in it as whole words, after SQuAD's normalisation (case, punctuation, articles)
    f1         words in common with the nearest accepted answer (SQuAD, Rajpurkar et al. 2016)
    choice     the first letter that is marked as a choice is the accepted one: (B), B., B: or B at the very beginning or end
    grid       the rows of numbers in it are those of the accepted grid (ARC)
    judge      the deployment's base is asked whether it says the same (pipelines/dream_tasks.py asks it)

An empty answer is wrong. Of several accepted answers the best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

Scorer = Callable[[str, str], float]
"""(answer, one accepted answer) -> 0 to 1"""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)
_CHOICE = re.compile(r"\(([A-Z])\)|(?<![A-Za-z0-9])([A-Z])(?=[).:]|\s*$)|^\W*([B-HJ-Z])(?![A-Za-z0-9])")
"""A and I are words, too."""
_NUMBER = re.compile(r"\d+")
_ROW = re.compile(r"^[\s\d,\[\]|]*\d[\s\d,\[\]|]*$")


def normalised_answer(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_MARKS)).split())


def exact(answer: str, accepted: str) -> float:
    return float(answer.strip() == accepted.strip())


def contains(answer: str, accepted: str) -> float:
    said, wanted = f" {normalised_answer(answer)} ", normalised_answer(accepted)
    return float(bool(wanted) and f" {wanted} " in said)


def f1(answer: str, accepted: str) -> float:
    said, wanted = normalised_answer(answer).split(), normalised_answer(accepted).split()
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted)) if common else 0.0


def choice(answer: str, accepted: str) -> float:
    found = _CHOICE.search(answer)
    return float(found is not None and found.group(found.lastindex or 0) == accepted.strip().upper())


def grid(answer: str, accepted: str) -> float:
    """Numbers only: brackets, commas and bars between them do not count, nor do lines of other text."""
    said = grid_of(answer)
    return float(bool(said) and said == grid_of(accepted))


def grid_of(text: str) -> list[list[int]]:
    """The rows of numbers in a text; digits that touch, as in `0120`, are cells of their own."""
    rows = []
    for line in text.replace("],", "]\n").splitlines():
        if _ROW.match(line):
            numbers = _NUMBER.findall(line)
            alone = len(numbers) == 1 and len(numbers[0]) > 1
            rows.append([int(cell) for cell in (numbers[0] if alone else numbers)])
    return rows


SCORERS: dict[str, Scorer] = {"exact": exact, "contains": contains, "f1": f1, "choice": choice, "grid": grid}
"""By name; `judge` is no function of two texts."""


def score(kind: str, answer: str, accepted: Sequence[str]) -> float:
    """The best over all accepted answers."""
    if not answer.strip():
        return 0.0
    return max(SCORERS[kind](answer, one) for one in accepted)

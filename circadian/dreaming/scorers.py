"""Is an answer right? The scorers a task can name; each takes what was answered and the accepted answers, and gives a number from 0 to 1.

    exact      the same text, but for white space around it
    contains   an accepted answer stands in it as whole words, after SQuAD's normalisation (case, punctuation, articles)
    f1         words in common with the nearest accepted answer (SQuAD, Rajpurkar et al. 2016)
    choice     the first letter that is marked as a choice is the accepted one: (B), B., B: or B at the very beginning or end
    code       the program in it, fenced or not, is the accepted one: the same syntax tree where both are Python, else the same text but for
               white space; nothing is run
    grid       the rows of numbers in it are those of the accepted grid (ARC)
    judge      the deployment's base is asked whether it says the same (pipelines/dream_tasks.py asks it)

An empty answer is wrong. Of several accepted answers the best counts.
"""

from __future__ import annotations

import ast
import re
import string
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

Scorer = Callable[[str, str], float]
"""(answer, one accepted answer) -> 0 to 1"""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)
_CHOICE = re.compile(r"\(([A-Z])\)|(?<![A-Za-z0-9])([A-Z])(?=[).:]|\s*$)|^\W*([B-HJ-Z])(?![A-Za-z0-9])")
"""A and I are words, too."""
_FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LONGEST_PROGRAM = 20_000
"""Characters of what is parsed; longer texts are held against each other as text."""
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


def code(answer: str, accepted: str) -> float:
    """Comments, white space and quotes do not count in Python; names do."""
    said, wanted = _program(answer), _program(accepted)
    trees = _tree(said), _tree(wanted)
    if None not in trees:
        return float(trees[0] == trees[1])
    return float("".join(said.split()) == "".join(wanted.split()))


def _program(text: str) -> str:
    """What stands in the first fence, or all of it."""
    found = _FENCED.search(text)
    return textwrap.dedent(found.group(1) if found else text).strip()


def _tree(program: str) -> str | None:
    """Of Python; None where it is something else, or nothing."""
    if not program or len(program) > _LONGEST_PROGRAM:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is odd in a program that a model wrote
            return ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError is what the parser calls nesting that is too deep
        return None


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


SCORERS: dict[str, Scorer] = {"exact": exact, "contains": contains, "f1": f1, "choice": choice, "code": code, "grid": grid}
"""By name; `judge` is no function of two texts."""


def score(kind: str, answer: str, accepted: Sequence[str]) -> float:
    """The best over all accepted answers."""
    if not answer.strip():
        return 0.0
    return max(SCORERS[kind](answer, one) for one in accepted)

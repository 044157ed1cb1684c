"""SEAL's data, as files in one folder: `NAME.jsonl` or `NAME.jsonl.gz`, one JSON object a line, and seal_subset.json."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from circadian.specs.base import Spec

LARGEST = 30
"""Cells of a grid's side, ARC's own bound."""
SEAL_TESTED = 200
"""Passages that SEAL evaluates on."""
SEAL_PUZZLES = 8
READ, TESTED, PUZZLES, SUBSET = "rl_train_passages", "eval_passages", "arc_agi1", "seal_subset.json"
PASSAGE_FIELDS = "id, order, title, context and questions (each of id, question, answer)"
FROM = {
    READ: f"the SQuAD passages of SEAL's rounds: {PASSAGE_FIELDS}, and `set`, iter0 for the first round and so on; made of "
    "knowledge-incorporation/data/synthetic_data/train/iter*_train.json of the repository Continual-Intelligence/SEAL",
    TESTED: f"the SQuAD passages of SEAL's evaluation: {PASSAGE_FIELDS}; the first 200 of knowledge-incorporation/data/squad_val.json of "
    "the repository Continual-Intelligence/SEAL after random.seed(42) and random.shuffle",
    PUZZLES: "ARC-AGI-1: id, split, train and test (each a list of input and output grids), seal; made of the repository "
    "fchollet/ARC-AGI",
    SUBSET: "the lists of the tasks that SEAL trains on and evaluates on, made of few-shot/data of the repository "
    "Continual-Intelligence/SEAL",
}
S = TypeVar("S", bound=Spec)


class DataMissing(ValueError):
    """The folder does not hold what the command needs."""


class Question(Spec):
    """One gold answer."""

    id: str
    question: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)]


class Passage(Spec):
    """A paragraph of SQuAD."""

    id: str
    order: int
    """Its place in SEAL's list."""
    title: str
    context: str
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]
    round: Annotated[str, Field(alias="set")] = ""
    """Of those that are read in rounds."""

    @property
    def text(self) -> str:
        """As SEAL shows it."""
        return f"{self.title}\n{self.context}"


def _rectangular(grid: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    sides = {len(row) for row in grid} | {len(grid)}
    cells = {cell for row in grid for cell in row}
    if len({len(row) for row in grid}) != 1 or not 1 <= min(sides) <= max(sides) <= LARGEST or not cells <= set(range(10)):
        raise ValueError(f"a grid has 1 to {LARGEST} rows of one length, of the numbers 0 to 9; mend {grid}")
    return grid


Grid = Annotated[tuple[tuple[int, ...], ...], AfterValidator(_rectangular)]


class Pair(Spec):
    """An input and what follows from it."""

    input: Grid
    output: Grid


class Puzzle(Spec):
    """A task of ARC."""

    id: str
    split: str = ""
    train: Annotated[tuple[Pair, ...], Field(min_length=2)]
    test: Annotated[tuple[Pair, ...], Field(min_length=1)]
    seal: str | None = None


class Subset(Spec):
    """seal_subset.json. A test input is named `<task>-<number>`."""

    train_file_12: tuple[str, ...] = ()
    train_11_subtasks_seed0: tuple[str, ...]
    eval_file_10: tuple[str, ...] = ()
    eval_8_task_ids: tuple[str, ...] = ()
    eval_9_subtasks_seed0: tuple[str, ...]


def read_rounds(folder: Path, rounds: int, count: int) -> list[list[Passage]]:
    """The passages of each round, `count` of them, in SEAL's order. Raises DataMissing."""
    every = sorted(_lines(folder, READ, Passage), key=lambda passage: passage.order)
    found = [[passage for passage in every if passage.round == f"iter{number}"][:count] for number in range(rounds)]
    for number, passages in enumerate(found):
        if len(passages) < count:
            raise DataMissing(f"{folder / READ}: {len(passages)} passages are of set iter{number}; ask for no more --contexts")
    return found


def read_tested(folder: Path, count: int | None) -> list[Passage]:
    """The first of the passages of SEAL's evaluation that are there, in its order. Raises DataMissing."""
    return sorted(_lines(folder, TESTED, Passage), key=lambda passage: passage.order)[:count]


def read_puzzles(folder: Path) -> tuple[list[Puzzle], list[Puzzle], list[str]]:
    """SEAL's training puzzles and its evaluation puzzles, each with the test inputs that SEAL asks, and the names of those that are not
    there. Raises DataMissing."""
    path = folder / SUBSET
    if not path.exists():
        raise DataMissing(_missing(path, SUBSET))
    subset = Subset.model_validate_json(path.read_text())
    every = {puzzle.id: puzzle for puzzle in _lines(folder, PUZZLES, Puzzle)}
    train, tested = (_asked(every, names) for names in (subset.train_11_subtasks_seed0, subset.eval_9_subtasks_seed0))
    wanted = [name.partition("-")[0] for name in (*subset.train_11_subtasks_seed0, *subset.eval_9_subtasks_seed0)]
    lost = [name for name in dict.fromkeys(wanted) if name not in every]
    if not train or not tested:
        raise DataMissing(f"{folder / PUZZLES}: none of the puzzles of {path} are in it; {FROM[PUZZLES]}")
    return train, tested, lost


def _asked(every: dict[str, Puzzle], names: Sequence[str]) -> list[Puzzle]:
    """The puzzles of some test inputs, in the order of their names, with these test inputs alone."""
    inputs: dict[str, list[int]] = {}
    for name in names:
        id, _, number = name.partition("-")
        inputs.setdefault(id, []).append(int(number))
    return [
        every[id].model_copy(update={"test": tuple(every[id].test[number] for number in sorted(numbers))})
        for id, numbers in inputs.items()
        if id in every
    ]


def _lines(folder: Path, name: str, kind: type[S]) -> Iterator[S]:
    plain, packed = folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"
    if not plain.exists() and not packed.exists():
        raise DataMissing(_missing(packed, name))
    with plain.open() if plain.exists() else gzip.open(packed, "rt") as file:
        yield from (kind.model_validate_json(line) for line in file if line.strip())


def _missing(path: Path, name: str) -> str:
    return f"{path} is missing. It holds {FROM[name]}. Put it there, or name another folder with --data"

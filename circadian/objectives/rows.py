"""Token rows as batches: what every objective reads.

B rows, T tokens of the longest, M experts over all levels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from circadian.files import write_whole

Teacher = str
"""`awake`, `rested`, `base` or `anchored`, which are views of the model itself, or the name of another model."""
Kind = Literal["day", "old", "free"]


@dataclass(frozen=True)
class Imitated:
    """What a completion is measured by: the teacher's own, the group of completions it is one of, and a judge's word, if one was asked."""

    wanted: tuple[int, ...]
    group: int
    semantic: bool | None = None


@dataclass(frozen=True)
class TaughtRow:
    """A cue and what was written after it.

    ids [T]; start: tokens of the cue, whose own prediction is not taught; teacher: the view or the model that teaches the rest;
    kind: a cue of the day, of an earlier night, or free running; imitated: of the student's rows that are rewarded.
    """

    ids: tuple[int, ...]
    start: int
    teacher: Teacher
    kind: Kind
    imitated: Imitated | None = None


def render_rows(rows: Iterable[TaughtRow]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def parse_rows(text: str) -> list[TaughtRow]:
    """The inverse of render_rows."""
    return [_row(json.loads(line)) for line in text.splitlines()]


def _row(line: dict[str, Any]) -> TaughtRow:
    imitated = line["imitated"] and Imitated(
        tuple(line["imitated"]["wanted"]), line["imitated"]["group"], line["imitated"]["semantic"]
    )
    return TaughtRow(tuple(line["ids"]), line["start"], line["teacher"], line["kind"], imitated)


def write_rows(path: Path, rows: Iterable[TaughtRow]) -> None:
    """Rows as a JSONL file."""
    write_whole(path, render_rows(rows))


def read_rows(path: Path) -> list[TaughtRow]:
    """The inverse of write_rows."""
    return parse_rows(path.read_text())


def pad(rows: Sequence[Sequence[float]], filler: int = 0) -> Tensor:
    """Token rows as one tensor [B, T], padded on the right: causal attention never looks at padding from a real token."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler)

"""What is written where: answers to standard output, as tables or as lines of JSON; what goes wrong to standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from services.client import Answer

PIPED_COLUMNS = 200
"""Width of a table that no terminal bounds."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters with which a text could tell a terminal what to do; line ends and tabs are none of them."""
SHORT = 80
"""Characters of a text in a table."""


@cache
def console(err: bool = False) -> Console:
    """Standard output, or error."""
    from rich.console import Console

    return Console(stderr=err, width=None if (sys.stderr if err else sys.stdout).isatty() else PIPED_COLUMNS)


def plain(text: str) -> str:
    """A text that is not ours, harmless to a terminal."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def short(text: str) -> str:
    """A text that is not ours, on one line."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= SHORT else f"{line[: SHORT - 3]}..."


def say(text: str) -> None:
    """A line for people, whoever wrote it: no markup."""
    typer.echo(plain(text))


def warn(text: str) -> None:
    typer.secho(plain(text), fg="red", err=True)


def emit(answer: Answer) -> None:
    """A line for programs."""
    typer.echo(json.dumps(answer.sent()))


def line(value: dict[str, Any], *, err: bool = False) -> None:
    typer.echo(json.dumps(value), err=err)


def show(answers: Iterable[Answer], as_json: bool, columns: Sequence[str], *, title: str | None = None) -> None:
    """Each of them a line or a row. A column names a field, or fields behind one another with dots."""
    if as_json:
        for answer in answers:
            emit(answer)
        return
    table(columns, ([cell(answer.sent(), column) for column in columns] for answer in answers), title=title)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    from rich.table import Table
    from rich.text import Text

    found = Table(title=title)
    for column in columns:
        found.add_column(column.rpartition(".")[2].replace("_", " "), overflow="fold")
    for row in rows:
        found.add_row(*(Text(short(value)) for value in row))
    console().print(found)


def facts(answer: Answer, as_json: bool, names: Sequence[str]) -> None:
    """One answer: a line, or a field a line."""
    if as_json:
        emit(answer)
        return
    sent = answer.sent()
    width = max(map(len, names)) + 2
    for name in names:
        if value := cell(sent, name):
            say(f"{name.replace('_', ' '):<{width}}{value}")


def cell(sent: dict[str, Any], column: str) -> str:
    value: Any = sent
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return written(column, value)


def written(name: str, value: Any) -> str:
    """A value for people; of what is named so, seconds since 1970 as a time."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if (name.endswith("_at") or name == "day") and isinstance(value, int | float):
        import datetime

        moment = datetime.datetime.fromtimestamp(value, datetime.UTC)
        return moment.strftime("%Y-%m-%d" if name == "day" else "%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ("; " if any(isinstance(item, dict) for item in value) else " ").join(written("", item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {written(name, inner)}" for name, inner in value.items())
    return str(value)

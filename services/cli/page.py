"""The tables of docs/cli.md, made of the verbs themselves: `python -m services.cli.page docs/cli.md` writes them where they stand."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from services.cli import app
from services.cli.shared import EXITS

SHARED = frozenset({"key", "url", "as_json", "help", "install_completion", "show_completion"})
"""Parameters that are told once, above the table."""
MADE = re.compile(r"(<!-- (verbs|exits) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def verbs() -> str:
    """Every verb, what it does, and what it may be given."""
    rows = [
        f"| `{' '.join(names)}` | {_cell(command.help)} | {_given(command)} |" for names, command in _walk((), get_command(app))
    ]
    return "\n".join(["| `circadian` | | takes |", "|---|---|---|", *rows]) + "\n"


def exits() -> str:
    """What a command's exit status means."""
    return "\n".join(["| status | |", "|---|---|", *(f"| {status} | {meaning} |" for status, meaning in EXITS.items())]) + "\n"


def page(text: str) -> str:
    """The page with its tables as they should be."""
    made = {"verbs": verbs, "exits": exits}
    return MADE.sub(lambda found: f"{found[1]}{made[found[2]]()}{found[3]}", text)


def _walk(names: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield names, command
        return
    for name, inner in command.commands.items():
        yield from _walk((*names, name), inner)


def _given(command: Any) -> str:
    found = []
    for param in command.params:
        if param.name not in SHARED:
            name = max(param.opts, key=len)
            shown = name if name.startswith("-") else name.upper()
            found.append(f"`{shown}`" if param.required else f"[`{shown}`]")
    return " ".join(found)


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(page(Path(name).read_text(encoding="utf-8")), encoding="utf-8")

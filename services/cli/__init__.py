"""`circadian`: a local service, and everything that a service does over REST, from the command line.

Every verb that asks a service takes `--url`, `--key` and `--json`; with `--json` each object is a line of JSON on standard output, as the
service sent it, and nothing else is. What goes wrong is told on standard error, and by the exit status (EXITS in shared.py).

This package is imported at each start, so whatever takes long to import (Ray, torch, httpx, rich) is imported by the verb that needs it.
"""

from __future__ import annotations

import typer

from services.cli import chat, completion, deployments, keys, local, nights, nursery, probes, schedules, versions
from services.cli.shared import AUTOMATIC, LOCAL

app = typer.Typer(
    no_args_is_help=True,
    help="A sleep service for deployed language models.",
    pretty_exceptions_show_locals=False,
)
for family in (local, deployments, chat, nights, versions):
    app.add_typer(family.app)
for name, group in (("schedule", schedules), ("probe", probes), ("keys", keys), ("nursery", nursery)):
    app.add_typer(group.app, name=name, rich_help_panel=LOCAL if group is nursery else AUTOMATIC)
app.add_typer(completion.app)

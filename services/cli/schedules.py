"""`circadian schedule`: when deployments fall asleep by themselves."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.output import facts, say, show
from services.cli.shared import (
    DEFAULT_URL,
    MOST,
    WRONG_USE,
    AsJson,
    Deployment,
    Key,
    Most,
    Url,
    asking,
    fail,
    json_file,
)

app = typer.Typer(no_args_is_help=True, help="When deployments fall asleep by themselves.")
Id = Annotated[str, typer.Argument(help="Id of a schedule.")]
COLUMNS = ("id", "deployment", "trigger.any_of", "suspend", "next_at", "last_fired_at", "fired")
SCHEDULE = (
    "id",
    "deployment",
    "trigger.any_of",
    "concurrency",
    "min_interval_seconds",
    "suspend",
    "next_at",
    "cooling_until",
    "last_fired_at",
    "fired",
)
RUNS = ("due_at", "trigger", "outcome", "sleep", "reason", "message")
SLEEP = ("id", "status")


@app.command()
def create(
    name: Deployment,
    cron: Annotated[list[str], typer.Option(help="Times, such as '30 2 * * *'; may be given several times.")] = [],  # noqa: B006
    timezone: Annotated[str, typer.Option(help="Of the cron times: a name such as Europe/Berlin.")] = "UTC",
    idle: Annotated[float | None, typer.Option(help="Seconds without requests, when there is something to learn.")] = None,
    max_rps: Annotated[float | None, typer.Option(help="Requests a second that still count as idle.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Met since the last night.")] = None,
    experiences: Annotated[int | None, typer.Option(help="Met since the last night.")] = None,
    min_interval: Annotated[float | None, typer.Option(help="Least seconds between the beginnings of two nights.")] = None,
    spec: Annotated[Path | None, typer.Option(help="JSON file of more fields: blackout, concurrency, sleep_template, ...")] = None,
    suspend: Annotated[bool, typer.Option("--suspend", help="Do not begin with it yet.")] = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let a deployment fall asleep at times, when it is idle, or when it has met enough; each by itself is enough."""
    body: dict[str, Any] = {"min_interval_seconds": min_interval, "suspend": suspend or None}
    body |= json_file(spec, "--spec") if spec else {}
    body.pop("deployment", None)
    triggers = _triggers(cron, timezone, idle, max_rps, tokens, experiences)
    if triggers:
        body["trigger"] = {"any_of": triggers}
    elif "trigger" not in body:
        fail("nothing would make it fall asleep; give --cron, --idle, --tokens or --experiences", WRONG_USE)
    with asking(url, key, as_json) as client:
        facts(client.schedules.create(name, **body), as_json, SCHEDULE)


def _triggers(
    cron: list[str], timezone: str, idle: float | None, max_rps: float | None, tokens: int | None, experiences: int | None
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"type": "cron", "expr": expr, "timezone": timezone} for expr in cron]
    if idle is not None:
        found.append({"type": "idle", "seconds": idle} | ({} if max_rps is None else {"max_rps": max_rps}))
    if tokens is not None:
        found.append({"type": "token_budget", "pending_tokens": tokens})
    if experiences is not None:
        found.append({"type": "experience_count", "count": experiences})
    return found


@app.command("list")
def list_all(
    name: Annotated[str | None, typer.Argument(help="Name or id of a deployment; all unless given.")] = None,
    most: Most = MOST,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """The schedules of deployments."""
    with asking(url, key, as_json) as client:
        show(islice(client.schedules.list(name), most), as_json, COLUMNS)


@app.command("show")
def one(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """One schedule."""
    with asking(url, key, as_json) as client:
        facts(client.schedules.get(id), as_json, SCHEDULE)


@app.command()
def suspend(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Let it begin nothing for now; times that pass are not made up for."""
    with asking(url, key, as_json) as client:
        facts(client.schedules.update(id, {"suspend": True}), as_json, SCHEDULE)


@app.command()
def resume(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Let a suspended one begin nights again."""
    with asking(url, key, as_json) as client:
        facts(client.schedules.update(id, {"suspend": False}), as_json, SCHEDULE)


@app.command()
def run(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Begin a night now, as the schedule begins them; `circadian watch` shows it."""
    with asking(url, key, as_json) as client:
        facts(client.schedules.run(id), as_json, SLEEP)


@app.command()
def runs(id: Id, most: Most = MOST, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What became of its times: the nights that were begun, and why others were not."""
    with asking(url, key, as_json) as client:
        show(islice(client.schedules.runs(id), most), as_json, RUNS)


@app.command()
def delete(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Take a schedule away; nights that it has begun go on."""
    with asking(url, key, as_json) as client:
        client.schedules.delete(id)
    if not as_json:
        say(f"{id} is deleted")

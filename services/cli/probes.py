"""`circadian probe`: what versions are asked, to be judged."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from services.cli.output import facts, say, show
from services.cli.shared import DEFAULT_URL, MOST, AsJson, Key, Most, SomeDeployment, Url, asking, json_file

app = typer.Typer(no_args_is_help=True, help="What versions are asked, to be judged.")
Id = Annotated[str, typer.Argument(help="Id of a probe.")]
COLUMNS = ("id", "deployment", "kind", "n", "scorer", "threshold", "max_regression", "visibility", "created_at")
RUN = ("id", "probe", "version", "status", "score", "ci95", "n", "error")


@app.command()
def create(
    file: Annotated[
        Path, typer.Argument(help="JSON file of the probe: deployment, kind, items, threshold, ...; - is standard input.")
    ],
    deployment: Annotated[str | None, typer.Option(help="Name or id, instead of the file's.")] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a probe of what a file holds."""
    body = json_file(file, "FILE") | ({"deployment": deployment} if deployment else {})
    with asking(url, key, as_json) as client:
        facts(client.probes.create(**body), as_json, COLUMNS)


@app.command("list")
def list_all(
    name: SomeDeployment = None, most: Most = MOST, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """The probes of deployments."""
    with asking(url, key, as_json) as client:
        show(islice(client.probes.list(name), most), as_json, COLUMNS)


@app.command("show")
def one(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """One probe."""
    with asking(url, key, as_json) as client:
        facts(client.probes.get(id), as_json, COLUMNS)


@app.command()
def run(
    id: Id,
    version: Annotated[str | None, typer.Option(help="Id of the version that is asked; the active one unless given.")] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Ask a version; `circadian probe runs` tells what came of it."""
    with asking(url, key, as_json) as client:
        facts(client.probes.run(id, version), as_json, RUN)


@app.command()
def runs(id: Id, most: Most = MOST, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What came of its runs, the latest first."""
    with asking(url, key, as_json) as client:
        show(islice(client.probes.runs(id), most), as_json, RUN)


@app.command()
def delete(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Take a probe away."""
    with asking(url, key, as_json) as client:
        client.probes.delete(id)
    if not as_json:
        say(f"{id} is deleted")

"""`circadian keys`: who may do what."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from services.cli.output import facts, say, show
from services.cli.shared import DEFAULT_URL, MOST, AsJson, Key, Most, Url, asking

app = typer.Typer(no_args_is_help=True, help="Who may do what.")
Id = Annotated[str, typer.Argument(help="Id of a key (key_...), which is not the key itself.")]
COLUMNS = ("id", "name", "prefix", "scopes", "deployments", "expires_at", "last_used_at", "revoked_at")
KEY = ("id", "name", "scopes", "deployments", "requests_per_minute", "expires_at", "revoked_at")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[list[str], typer.Option(help="What it may do, such as inference:write; may be given several times.")],
    deployment: Annotated[list[str], typer.Option(help="That it may touch; all unless given.")] = [],  # noqa: B006  # typer copies it
    expires_in: Annotated[int | None, typer.Option(min=1, help="Seconds; never unless given.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="That it may make.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Another one than your own; needs the scope tenants:admin.")] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once."""
    more = {"expires_in_seconds": expires_in, "requests_per_minute": requests_per_minute, "tenant": tenant}
    with asking(url, key, as_json) as client:
        made = client.keys.create(name, scope, deployments=deployment or None, **more)
    _once(made.key, as_json)
    facts(made, as_json, KEY)


@app.command("list")
def list_all(most: Most = MOST, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """The keys of your tenant."""
    with asking(url, key, as_json) as client:
        show(islice(client.keys.list(), most), as_json, COLUMNS)


@app.command()
def rotate(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """A new key in place of one, which opens nothing from now on. It is shown this once."""
    with asking(url, key, as_json) as client:
        made = client.keys.rotate(id)
    _once(made.key, as_json)
    facts(made, as_json, KEY)


@app.command()
def revoke(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Let a key open nothing from now on."""
    with asking(url, key, as_json) as client:
        facts(client.keys.revoke(id), as_json, KEY)


def _once(key: str | None, as_json: bool) -> None:
    if not as_json:
        say(f"shown this once: {key}")

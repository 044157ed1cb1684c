"""`circadian versions`, `promote`, `rollback`, `reject`, `revoke`, `rollouts`, `abort`: which state of a deployment serves."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.output import console, emit, facts, show
from services.cli.shared import (
    DEFAULT_URL,
    MOST,
    VERSIONS,
    AsJson,
    Deployment,
    Key,
    Most,
    Reason,
    Url,
    asking,
    fail,
)

if TYPE_CHECKING:
    from services.client import Circadian
    from services.client.answers import Rollout

app = typer.Typer()
VERSION_ID, ROLLOUT_ID = "ver_", "roll_"
"""What ids begin with; names of deployments have no underscore."""
VERSION_COLUMNS = ("id", "status", "parent", "sleep", "created_at")
VERSION = ("id", "deployment", "status", "parent", "sleep", "digest", "created_at", "rollout")
ROLLOUT_COLUMNS = ("id", "kind", "strategy", "status", "from_version", "to_version", "reason", "created_at")
ROLLOUT = ("id", "kind", "strategy", "status", "from_version", "to_version", "reason", "error", "canary")
GATES = ("name", "passed", "value", "limit", "message")
PATIENCE_SECONDS = 600.0
"""Until a rollout must have ended, beside the time that a canary takes."""
CANARY_SECONDS = 300.0
Id = Annotated[str, typer.Argument(help="Id of a version.")]
RolloutId = Annotated[str, typer.Argument(help="Id of a rollout.")]
Expected = Annotated[str | None, typer.Option("--expect", help="Version that must be the active one; else nothing is done.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait until it has ended.")]


@app.command(rich_help_panel=VERSIONS)
def versions(
    what: Annotated[str | None, typer.Argument(help="Name or id of a deployment, or the id of a version.")] = None,
    most: Most = MOST,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """The versions of deployments, the latest first; or one, with what it was measured by."""
    with asking(url, key, as_json) as client:
        if what is None or not what.startswith(VERSION_ID):
            show(islice(client.versions.list(what), most), as_json, VERSION_COLUMNS)
            return
        found = client.versions.get(what)
    facts(found, as_json, VERSION)
    if found.gates and not as_json:
        show(found.gates, False, GATES)


@app.command(rich_help_panel=VERSIONS)
def promote(
    id: Id,
    canary: Annotated[float | None, typer.Option(min=0.0, max=100.0, help="Percent of the clients that it answers first.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="For which it does so.")] = CANARY_SECONDS,
    max_slowdown: Annotated[
        float | None, typer.Option(min=1.0, help="Times as long as the others' its answers may take; 3 unless given.")
    ] = None,
    expected: Expected = None,
    override_gates: Annotated[
        bool, typer.Option("--override-gates", help="Pass by its gates; needs the scope gates:override.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept in the audit log.")] = None,
    detach: Detach = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let a deployment serve a version: at once, or some of its clients first."""
    slow = {} if max_slowdown is None else {"max_slowdown": max_slowdown}
    some = None if canary is None else {"percent": canary, "seconds": seconds, **slow}
    with asking(url, key, as_json) as client:
        begun = client.versions.promote(
            id, canary=some, expected_active_version=expected, override_gates=override_gates or None, reason=reason
        )
        _end(client, begun, detach, as_json, PATIENCE_SECONDS + (seconds if some else 0.0))


@app.command(rich_help_panel=VERSIONS)
def rollback(
    name: Deployment,
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="Id of the version; the one before unless given.")] = None,
    expected: Expected = None,
    detach: Detach = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let a deployment serve an earlier version again."""
    with asking(url, key, as_json) as client:
        begun = client.deployments.rollback(name, reason, to_version=to, expected_active_version=expected)
        _end(client, begun, detach, as_json, PATIENCE_SECONDS)


@app.command(rich_help_panel=VERSIONS)
def reject(id: Id, reason: Reason, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Say that a candidate is never to serve."""
    with asking(url, key, as_json) as client:
        facts(client.versions.reject(id, reason), as_json, VERSION)


@app.command(rich_help_panel=VERSIONS)
def revoke(id: Id, reason: Reason, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Say that a version is never to serve again; where it does, its deployment is rolled back."""
    with asking(url, key, as_json) as client:
        facts(client.versions.revoke(id, reason), as_json, VERSION)


@app.command(rich_help_panel=VERSIONS)
def rollouts(
    what: Annotated[str | None, typer.Argument(help="Name or id of a deployment, or the id of a rollout.")] = None,
    most: Most = MOST,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Changes of what deployments serve, the latest first; or one."""
    with asking(url, key, as_json) as client:
        if what is not None and what.startswith(ROLLOUT_ID):
            facts(client.rollouts.get(what), as_json, ROLLOUT)
        else:
            show(islice(client.rollouts.list(what), most), as_json, ROLLOUT_COLUMNS)


@app.command(rich_help_panel=VERSIONS)
def abort(id: RolloutId, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Break a rollout off; its deployment goes on as it was."""
    with asking(url, key, as_json) as client:
        facts(client.rollouts.abort(id), as_json, ROLLOUT)


def _end(client: Circadian, rollout: Rollout, detach: bool, as_json: bool, seconds: float) -> None:
    """Tell how it ended, unless nobody waits. Ends the command with a status of failure where it has not succeeded."""
    if not detach:
        with console(err=True).status(f"{rollout.kind or 'rollout'} {rollout.id}"):
            rollout = client.settled(rollout.id, seconds)
    if as_json:
        emit(rollout)
    else:
        facts(rollout, False, ROLLOUT)
    if rollout.ended and rollout.status != "succeeded":
        fail(f"{rollout.id} {rollout.status}: {rollout.error or rollout.reason or ''}", as_json=as_json)

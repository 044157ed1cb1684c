"""`circadian deploy`, `status`, `tell`, `experiences`, `usage`: a model under a name, and what it meets."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.local import GPUS_HELP, WAKE_HELP, WakeMode, on_gpus
from services.cli.output import emit, facts, say, show, table
from services.cli.shared import (
    DEFAULT_URL,
    MOST,
    SERVICE,
    WRONG_USE,
    AsJson,
    Deployment,
    Key,
    Most,
    SomeDeployment,
    Url,
    asking,
    fail,
    json_file,
    pairs,
)

if TYPE_CHECKING:
    from services.client.answers import DeploymentStatus

app = typer.Typer()
START_SECONDS = 600.0
"""Until a new deployment must be awake: the service gives its replicas half of that, and fetches a model before."""
STATUS = ("deployment", "state", "active version", "sleep", "pending", "fast memory")
EXPERIENCES = ("id", "status", "source", "tokens", "version", "created_at")
USAGE = ("day", "deployment", "requests", "prompt_tokens", "completion_tokens")


@app.command(rich_help_panel=SERVICE)
def deploy(
    name: Annotated[str, typer.Argument(help="Of the deployment: the `model` that clients ask for.")],
    model: Annotated[str, typer.Option(help="Hub id of the base model, or its folder on the service's machine.")],
    revision: Annotated[str | None, typer.Option(help="Commit of a hub id; the newest unless given.")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="That answer.")] = 1,
    gpus: Annotated[float, typer.Option(min=0.0, help=GPUS_HELP)] = 0.0,
    wake: Annotated[WakeMode, typer.Option(help=WAKE_HELP)] = "at_dusk",
    spec: Annotated[
        Path | None, typer.Option(help="JSON file of more fields: memory, recipe, serving, screening, metadata.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait until it answers.")] = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Found a deployment, and wait until it answers."""
    body = {"base_model": _base_model(model, revision), "wake": wake, **on_gpus(gpus)}
    body["serving"]["replicas"] = replicas
    body |= json_file(spec, "--spec") if spec else {}
    body.pop("name", None)
    with asking(url, key, as_json) as client:
        made = client.deployments.create(name, **body)
        if not detach:
            client.awake(made.id, START_SECONDS)
            made = client.deployments.get(made.id)
    if as_json:
        emit(made)
    else:
        say(f"{made.name} is {made.state} ({made.id})")


def _base_model(model: str, revision: str | None) -> dict[str, str]:
    """As the service is asked for it: a folder is the service's business, a hub id needs the commit it is meant at."""
    if model.startswith(("/", ".", "~")) or Path(model).is_dir():
        return {"model": str(Path(model).expanduser().resolve())}
    if revision is None:
        from services.hub import NoCommit, commit_of

        try:
            revision = commit_of(model)
        except NoCommit as error:
            fail(str(error), WRONG_USE)
    return {"model": model, "revision": revision}


@app.command(rich_help_panel=SERVICE)
def status(name: SomeDeployment = None, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What every deployment is doing, or one."""
    with asking(url, key, as_json) as client:
        some = [client.deployments.get(name)] if name else client.deployments.list()
        found = [(deployment.name, client.deployments.status(deployment.id)) for deployment in some]
    if as_json:
        for _, now in found:
            emit(now)
    else:
        table(STATUS, [_doing(name, now) for name, now in found])


def _doing(name: str, now: DeploymentStatus) -> tuple[str, ...]:
    pending = f"{now.pending.experiences} ({now.pending.tokens} tokens)"
    return name, now.state, now.active_version or "", now.current_sleep or "", pending, _fast(now)


def _fast(now: DeploymentStatus) -> str:
    """How a deployment's fast memory learns, in a few words."""
    memory = now.fast_memory
    if memory is None:
        return "at dusk"
    left = memory.error or f"next in {memory.tokens_until_update} tokens"
    return f"online, {memory.chunks} chunks, {left}"


@app.command(rich_help_panel=SERVICE)
def tell(
    name: Deployment,
    text: Annotated[str, typer.Argument(help="What is said; - reads standard input.")],
    answer: Annotated[str | None, typer.Option(help="What should have been answered.")] = None,
    document: Annotated[bool, typer.Option("--document", help="It is a document, and nobody said it.")] = False,
    subject: Annotated[str | None, typer.Option(help="Whom it is about.")] = None,
    dedupe_key: Annotated[str | None, typer.Option(help="Your name for it: told again, nothing is stored.")] = None,
    metadata: Annotated[list[str], typer.Option(help="KEY=VALUE; may be given several times.")] = [],  # noqa: B006  # typer copies it
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Tell a deployment something that it is to remember."""
    said = sys.stdin.read() if text == "-" else text
    if document and answer is not None:
        fail("--answer: a document has none; leave --document or --answer out", WRONG_USE)
    body: dict[str, Any] = {"text": said} if document else {"messages": _chat(said, answer)}
    body |= {"subject_id": subject, "dedupe_key": dedupe_key, "metadata": pairs(metadata, "--metadata")}
    with asking(url, key, as_json) as client:
        kept = client.experiences.create(name, source="import" if document else "human", **body)
    facts(kept, as_json, ("id", "status", "tokens"))


def _chat(said: str, answer: str | None) -> list[dict[str, str]]:
    asked = {"role": "user", "content": said}
    return [asked] if answer is None else [asked, {"role": "assistant", "content": answer}]


@app.command(rich_help_panel=SERVICE)
def experiences(
    name: SomeDeployment = None, most: Most = MOST, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """What deployments have met, the latest first."""
    with asking(url, key, as_json) as client:
        show(islice(client.experiences.list(name), most), as_json, EXPERIENCES)


@app.command(rich_help_panel=SERVICE)
def usage(
    name: SomeDeployment = None,
    days: Annotated[int, typer.Option(min=1, help="Back from today.")] = 30,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What deployments were asked, by day."""
    with asking(url, key, as_json) as client:
        show(client.usage.days(name, days=days).data, as_json, USAGE)

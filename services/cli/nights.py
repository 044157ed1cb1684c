"""`circadian sleep`, `watch`, `report`, `dreams` and what can be done to a night."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from services.cli.output import console, emit, facts, plain, say, show, table, written
from services.cli.shared import (
    DEFAULT_URL,
    MOST,
    NIGHTS,
    AsJson,
    Deployment,
    Key,
    Most,
    SomeDeployment,
    Url,
    asking,
    fail,
    json_file,
)

if TYPE_CHECKING:
    from services.client.answers import Answer, Event, Sleep

app = typer.Typer()
Id = Annotated[str, typer.Argument(help="Id of a sleep.")]
SLEEPS = ("id", "status", "phase", "outcome", "result_version", "attempt", "created_at")
SLEEP = ("id", "status", "phase", "outcome", "result_version", "waiting", "error.message")
ReportFormat = Literal["table", "markdown", "html"]
Promotion = Literal["manual", "on_pass", "canary"]


@app.command(rich_help_panel=NIGHTS)
def sleep(
    name: Deployment,
    seed: Annotated[int, typer.Option(help="Of everything random in the night.")] = 0,
    recipe: Annotated[Path | None, typer.Option(help="JSON file of a recipe, instead of the deployment's own.")] = None,
    id: Annotated[str | None, typer.Option(help="Your own for the sleep (slp_...): asked again, the first one is watched.")] = None,
    spec: Annotated[Path | None, typer.Option(help="JSON file of more fields: selection, budget, gates, teachers, ...")] = None,
    promotion: Annotated[Promotion | None, typer.Option(help="What becomes of a version that passes its gates.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do and cost, and begin none.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Begin it, and do not watch.")] = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send a deployment to sleep and watch the night."""
    body: dict[str, Any] = {"seed": seed, "id": id, "promotion": None if promotion is None else {"mode": promotion}}
    body |= json_file(spec, "--spec") if spec else {}
    body |= {"recipe": json_file(recipe, "--recipe")} if recipe else {}
    body.pop("deployment", None)
    with asking(url, key, as_json) as client:
        if dry_run:
            _tell(client.sleeps.plan(name, **body), as_json)
            return
        begun = client.sleeps.create(name, **body)
        if as_json:
            emit(begun)
        elif detach:
            say(begun.id)
        if detach:
            return
        _show(client.sleeps.watch(begun.id), as_json)
        ended = client.sleeps.get(begun.id)
    if as_json:
        emit(ended)
    _tell_end(ended, as_json)


@app.command(rich_help_panel=NIGHTS)
def watch(
    id: Id,
    after: Annotated[int, typer.Option(min=0, help="Number of the last event that is known already.")] = 0,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Watch a night from its beginning on; Ctrl-C ends the watching, and not the night."""
    with asking(url, key, as_json) as client:
        _show(client.sleeps.watch(id, after=after), as_json)
        ended = client.sleeps.get(id)
    _tell_end(ended, as_json)


def _show(events: Iterable[Event], as_json: bool) -> None:
    if as_json:
        for event in events:
            emit(event)
        return
    from services.display import NightDisplay

    with NightDisplay(console()) as display:
        for event in events:
            display.show(event)


def _tell_end(ended: Sleep, as_json: bool) -> None:
    """Ends the command with a status of failure where the night has not succeeded."""
    if ended.status != "succeeded":
        fail(f"{ended.status}: {ended.error.message if ended.error else ''}", as_json=as_json)
    if not as_json:
        say(f"{ended.outcome or ended.status}" + (f": {ended.result_version}" if ended.result_version else ""))


@app.command(rich_help_panel=NIGHTS)
def sleeps(
    name: SomeDeployment = None, most: Most = MOST, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """The nights of deployments, the latest first."""
    with asking(url, key, as_json) as client:
        show(islice(client.sleeps.list(name), most), as_json, SLEEPS)


@app.command(rich_help_panel=NIGHTS)
def report(
    id: Id,
    format: Annotated[ReportFormat, typer.Option(help="How it is written.")] = "table",
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What came of a night: its outcome, what it was measured by, and where the time went."""
    with asking(url, key, as_json) as client:
        if as_json or format == "table":
            _tell(client.sleeps.report(id), as_json)
        else:
            typer.echo(plain(client.sleeps.report_as(id, f"text/{format}")))  # type: ignore[arg-type]


def _tell(told: Answer, as_json: bool) -> None:
    """Everything in it."""
    if as_json:
        emit(told)
        return
    table(("what", "value"), [(where, value) for where, value in _flat("", told.sent()) if where != "object"])


def _flat(where: str, value: Any) -> list[tuple[str, str]]:
    """Every value in it, by the way to it."""
    if not isinstance(value, dict):
        return [(where, written("", value))]
    return [pair for name, inner in value.items() for pair in _flat(f"{where}.{name}" if where else name, inner)]


@app.command(rich_help_panel=NIGHTS)
def dreams(
    id: Id,
    picture: Annotated[Path | None, typer.Option(help="SVG file: where dreams were drawn, and what they brought.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Dreams that are shown, those that helped first.")] = MOST,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What a night has dreamt, and what became of it."""
    with asking(url, key, as_json) as client:
        answers = list(client.sleeps.dreams(id))
        contexts = [context.sent() for context in client.sleeps.curriculum(id).data]
    found = [dream.sent() for dream in answers]
    if not found:
        fail(f"{id} has not dreamt; give its recipe a `dreaming`", as_json=as_json)
    if picture is not None:
        from services.dream_picture import draw_dreams

        draw_dreams(found, contexts, picture)
    if as_json:
        for dream in answers:
            emit(dream)
        return
    # Either of the two instances that are held against one another may have broken.
    compared = [dream for dream in found if dream["score"] is not None and dream["undreamt"] is not None]
    tried = sorted(compared, key=lambda dream: dream["undreamt"] - dream["score"])
    rows = [
        (d["round"], d["kind"], d["text"], f"{d['score']:.2f}", f"{d['undreamt']:.2f}", "rewarded" if d["rewarded"] else "")
        for d in tried[:most]
    ]
    table(("round", "kind", "dream", "knows", "undreamt", ""), rows, title=f"{len(found)} dreams, {len(tried)} tried out")
    if picture is not None:
        say(f"drawn: {picture}")


@app.command(rich_help_panel=NIGHTS)
def cancel(
    id: Id,
    at_checkpoint: Annotated[bool, typer.Option("--at-checkpoint", help="Where a retry loses nothing.")] = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Stop a night; its deployment goes on as the version that fell asleep."""
    with asking(url, key, as_json) as client:
        facts(client.sleeps.cancel(id, mode="checkpoint" if at_checkpoint else None), as_json, SLEEP)


@app.command(rich_help_panel=NIGHTS)
def pause(
    id: Id,
    now: Annotated[bool, typer.Option("--now", help="At once; what is newer than its last checkpoint is done again.")] = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Let a night stand still at its next checkpoint, and give back what it holds."""
    with asking(url, key, as_json) as client:
        facts(client.sleeps.pause(id, checkpoint="latest" if now else None), as_json, SLEEP)


@app.command(rich_help_panel=NIGHTS)
def resume(id: Id, key: Key = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Let a paused night go on."""
    with asking(url, key, as_json) as client:
        facts(client.sleeps.resume(id), as_json, SLEEP)


@app.command(rich_help_panel=NIGHTS)
def retry(
    id: Id,
    from_start: Annotated[bool, typer.Option("--from-start", help="Use nothing of what it has done before.")] = False,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Try a night again that failed or was cancelled."""
    with asking(url, key, as_json) as client:
        facts(client.sleeps.retry(id, begin="start" if from_start else None), as_json, SLEEP)

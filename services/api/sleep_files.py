"""/v1/sleeps/{id}/...: what a night left: its report, artifacts, checkpoints, numbers and log."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from actors import names as actor_names
from services import artifacts, job_log, night_numbers, registry
from services.access import Caller
from services.api import views
from services.api.shared import ControllerDep, needs, the
from services.budget import spent
from services.controller import Controller
from services.errors import Problem, not_found
from services.launcher import LauncherUnavailable
from services.night_report import facts, sections
from services.report_text import markdown, page
from services.tables import Json, Sleep, Version

router = APIRouter(prefix="/v1/sleeps", tags=["sleeps"])
Reads = Annotated[Caller, needs("sleeps:read")]
MOST_EVENTS = 10_000
"""Of which numbers are told at once; the rest by `after_seq`."""
FORMATS = {"application/json": "json", "text/markdown": "markdown", "text/html": "html"}
NO_REQUESTS = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""What a browser may do with a page or a picture of ours: show it."""
HARMLESS = {"Content-Security-Policy": NO_REQUESTS, "X-Content-Type-Options": "nosniff"}
MARKDOWN = "text/markdown; charset=utf-8"


@router.get("/{id}/report", response_model=None)
def report(id: str, request: Request, control: ControllerDep, caller: Reads) -> Response | views.View:
    """As `Accept` asks: JSON, Markdown, or an HTML page that needs nothing else."""
    told = _report(control, caller, id)
    asked = preferred(request.headers.get("accept", ""))
    if asked == "json":
        return told
    if asked == "html":
        return HTMLResponse(page(sections(told)), headers=HARMLESS | {"Vary": "Accept"})
    return PlainTextResponse(markdown(sections(told)), media_type=MARKDOWN, headers={"Vary": "Accept"})


@router.get("/{id}/artifacts")
def list_artifacts(id: str, control: ControllerDep, caller: Reads) -> views.View:
    """What the night left that is safe to read, so far."""
    return views.page([artifacts.told(one) for one in artifacts.artifacts(control.nights.home(_sleep(control, caller, id)))], False)


@router.get("/{id}/artifacts/{name:path}")
def read_artifact(id: str, name: str, control: ControllerDep, caller: Reads) -> StreamingResponse:
    """One of them, as it is now."""
    found = artifacts.artifact(control.nights.home(_sleep(control, caller, id)), name)
    if found is None:
        raise not_found("artifact", name)
    size, blocks = artifacts.opened(found)
    return StreamingResponse(blocks, media_type=found.media_type, headers=HARMLESS | {"Content-Length": str(size)})


@router.get("/{id}/checkpoints")
def checkpoints(id: str, control: ControllerDep, caller: Reads) -> views.View:
    """The sealed stages: what the next attempt does not do again."""
    return views.page(artifacts.checkpoints(control.nights.home(_sleep(control, caller, id))), False)


@router.get("/{id}/metrics")
def metrics(
    id: str,
    control: ControllerDep,
    caller: Reads,
    names: Annotated[list[str] | None, Query(description="of series, also with commas between them; all unless given")] = None,
    after_seq: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> views.View:
    """The numbers in the sleep's events over time, each name a series."""
    wanted = {name for given in names or () for name in given.split(",") if name}
    _sleep(control, caller, id)
    with control.database.read() as tx:
        rows = registry.events(tx, id, after_seq, MOST_EVENTS + 1)
    told = rows[:MOST_EVENTS]
    return views.page(night_numbers.series(told, wanted), len(rows) > MOST_EVENTS) | {
        "last_seq": told[-1].seq if told else after_seq
    }


@router.get("/{id}/logs")
async def logs(
    id: str,
    control: ControllerDep,
    caller: Reads,
    attempt: Annotated[int | None, Query(ge=1, description="the last one unless given")] = None,
) -> views.View:
    """The end of the log of the night's job, without what may not be told (services/job_log.py)."""
    row = await run_in_threadpool(_sleep, control, caller, id)
    number = row.attempt if attempt is None else attempt
    if number > row.attempt:
        raise Problem(422, "validation_failed", f"attempt: there were {row.attempt}; ask for one of them", param="attempt")
    lines: list[str] = []
    more = False
    if number:
        try:
            log = await control.launcher.logs(actor_names.night_job(row.id, number))
        except LauncherUnavailable as error:
            detail = "The cluster does not answer, and has the log; ask again later."
            raise Problem(503, "ray_unavailable", detail, headers={"Retry-After": "10"}) from error
        lines, more = await run_in_threadpool(job_log.safe, log, control.settings.most_log_bytes)
    return {"object": "sleep.log", "sleep": row.id, "attempt": number, "lines": lines, "truncated": more}


def preferred(accept: str) -> str:
    """Of the formats of a report the one that a client likes most; JSON where it does not say, or likes none of them."""
    wishes: list[tuple[float, str]] = []
    for part in accept.split(","):
        kind, *parameters = (item.strip() for item in part.split(";"))
        quality = next((item.removeprefix("q=") for item in parameters if item.startswith("q=")), "1")
        weight = float(quality) if quality.replace(".", "", 1).isdecimal() else 0.0
        if kind in FORMATS and weight > 0:
            wishes.append((-weight, kind))
    return FORMATS[min(wishes, key=lambda wish: wish[0])[1]] if wishes else "json"


def _report(control: Controller, caller: Caller, id: str) -> Json:
    with control.database.read() as tx:
        row = the(tx, caller, Sleep, "sleep", id)
        if row.report is None:
            raise Problem(409, "report_not_ready", f"Sleep {id} is {row.status.value}; its report comes with its outcome.")
        version = registry.one(tx, Version, "version", row.result_version) if row.result_version else None
    path = control.nights.home(row) / "stages" / "collect.json"
    collected: Any = json.loads(path.read_text())["outputs"] if path.is_file() else None
    return facts(row, spent(row, row.finished_at or row.created_at), collected, version.record["lineage"] if version else ())


def _sleep(control: Controller, caller: Caller, id: str) -> Sleep:
    with control.database.read() as tx:
        return the(tx, caller, Sleep, "sleep", id)

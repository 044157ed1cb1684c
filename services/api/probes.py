"""/v1/probes: what an operator asks of a deployment again and again, at once or of every night's candidate.

The questions of a probe are tests: no night learns from a text that holds one. A private probe tells its questions, and what was answered,
only to keys that may write it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Response
from pydantic import Field, ValidationError
from sqlalchemy import delete

from circadian.specs import Fraction, ProbeItem
from circadian.specs.probes import MOST_ITEMS, ProbeKind, ProbeScorer
from services import audit, registry
from services.access import Caller
from services.api import probe_views, views
from services.api.schemas import Body
from services.api.shared import (
    DEFAULT_LIMIT,
    After,
    ControllerDep,
    Limit,
    held,
    needs,
    of_caller,
    of_deployment,
    the,
    the_deployment,
)
from services.errors import Problem, faults
from services.metadata import Metadata
from services.probing import ask_for_run, spec_of
from services.tables import Json, Probe, ProbeRun, new_id

router = APIRouter(prefix="/v1/probes", tags=["probes"])
Reads = Annotated[Caller, needs("probes:read")]
Writes = Annotated[Caller, needs("probes:write")]
Visibility = Literal["private", "shared"]
SPEC_FIELDS = ("kind", "items", "scorer", "threshold", "max_regression", "max_tokens")
SOME_ID = "prb_"
"""Of a probe whose own is not known yet: its spec is checked before it is stored."""


class ProbeCreate(Body):
    """See UserProbe for what the fields mean."""

    deployment: str
    kind: ProbeKind
    items: Annotated[tuple[ProbeItem, ...], Field(min_length=1, max_length=MOST_ITEMS)]
    scorer: ProbeScorer = "contains"
    threshold: Fraction | None = None
    """The least score with which a night's candidate passes; without it (and without max_regression) nights do not ask."""
    max_regression: Fraction | None = None
    """By which a candidate's score may be lower than its parent's."""
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 32
    visibility: Visibility = "private"
    metadata: Metadata = {}


class ProbePatch(Body):
    """A merge patch: fields that are given take the place of what was there; null is the field's default."""

    kind: Any = None
    items: Any = None
    scorer: Any = None
    threshold: Any = None
    max_regression: Any = None
    max_tokens: Any = None
    visibility: Visibility | None = None
    metadata: Metadata | None = None


class RunCreate(Body):
    version: str | None = None
    """The one that must answer: the active one, which is also the default."""


@router.post("", status_code=201)
def create(body: ProbeCreate, control: ControllerDep, caller: Writes, response: Response) -> views.View:
    spec = _valid(body.model_dump(mode="json", include=set(SPEC_FIELDS)))
    with control.database.write() as tx:
        deployment = the_deployment(tx, caller, body.deployment)
        row = Probe(
            id=new_id("prb"), deployment=deployment.id, spec=spec, visibility=body.visibility, revision=1, meta=body.metadata
        )
        tx.add(row)
        tx.flush()
        audit.note(tx, caller, "probe_created", row.id, deployment=deployment.id, kind=body.kind, items=len(body.items))
    return _told(row, caller, response)


@router.get("")
def list_all(
    control: ControllerDep,
    caller: Reads,
    deployment: str | None = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        where = of_deployment(tx, caller, Probe.deployment, deployment)
        rows, more = registry.listed(tx, Probe, of_caller(caller, Probe.deployment), where, after, limit)
    return views.page([probe_views.probe(row, _sees(caller, row)) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Reads, response: Response) -> views.View:
    with control.database.read() as tx:
        return _told(the(tx, caller, Probe, "probe", id), caller, response)


@router.patch("/{id}")
def change(
    id: str,
    body: ProbePatch,
    control: ControllerDep,
    caller: Writes,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> views.View:
    """Sleeps and runs that have begun go on with what it was."""
    given = {name: getattr(body, name) for name in SPEC_FIELDS if name in body.model_fields_set}
    with control.database.write() as tx:
        row = held(tx, the(tx, caller, Probe, "probe", id))
        if if_match not in (None, "*", _etag(row)):
            raise Problem(412, "etag_mismatch", f"Probe {id} has changed meanwhile: it is {_etag(row)}, not {if_match}.")
        row.spec = _valid({name: value for name, value in (row.spec | given).items() if value is not None})
        row.visibility = body.visibility or row.visibility
        row.meta = row.meta if body.metadata is None else body.metadata
        row.revision += 1
        audit.note(tx, caller, "probe_changed", id, fields=sorted(body.model_fields_set))
    return _told(row, caller, response)


@router.delete("/{id}", status_code=204)
def remove(id: str, control: ControllerDep, caller: Writes) -> None:
    """With its runs. A sleep that has begun goes on to be held against it."""
    with control.database.write() as tx:
        row = the(tx, caller, Probe, "probe", id)
        tx.execute(delete(ProbeRun).where(ProbeRun.probe == row.id))
        tx.delete(row)
        audit.note(tx, caller, "probe_deleted", id)


@router.post("/{id}/runs", status_code=202)
def ask(id: str, body: RunCreate, control: ControllerDep, caller: Writes, response: Response) -> views.View:
    """Ask the version that serves, in the background."""
    with control.database.write() as tx:
        row = ask_for_run(tx, the(tx, caller, Probe, "probe", id), body.version)
        audit.note(tx, caller, "probe_run_created", row.id, probe=id, version=row.version)
    response.headers["Location"] = f"/v1/probes/{id}/runs/{row.id}"
    return probe_views.run(row, whole=True)


@router.get("/{id}/runs")
def runs(id: str, control: ControllerDep, caller: Reads, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    with control.database.read() as tx:
        probe = the(tx, caller, Probe, "probe", id)
        rows, more = registry.listed(
            tx, ProbeRun, of_caller(caller, ProbeRun.deployment), (ProbeRun.probe == probe.id,), after, limit
        )
    return views.page([probe_views.run(row, _sees(caller, probe)) for row in rows], more)


@router.get("/{id}/runs/{run}")
def run(id: str, run: str, control: ControllerDep, caller: Reads) -> views.View:
    with control.database.read() as tx:
        probe, row = the(tx, caller, Probe, "probe", id), the(tx, caller, ProbeRun, "probe_run", run)
        if row.probe != probe.id:
            raise Problem(404, "probe_run_not_found", f"Probe {id} has no run {run!r}.", param="run")
    return probe_views.run(row, _sees(caller, probe))


def _valid(spec: Json) -> Json:
    """The spec as it is stored. Raises Problem (422)."""
    try:
        return spec_of(SOME_ID, spec).model_dump(mode="json", exclude={"id"})
    except ValidationError as error:
        raise faults(error.errors()) from error


def _sees(caller: Caller, row: Probe) -> bool:
    """Whether questions and answers are told."""
    return row.visibility == "shared" or caller.may("probes:write")


def _told(row: Probe, caller: Caller, response: Response) -> views.View:
    response.headers["ETag"] = _etag(row)
    return probe_views.probe(row, _sees(caller, row))


def _etag(row: Probe) -> str:
    return f'"{row.revision}"'

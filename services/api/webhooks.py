"""/v1/webhook_endpoints: where events are sent, signed after Standard Webhooks. A secret is shown once, when it is made."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from services import audit, outbox, registry
from services.access import Caller
from services.api import etags, views
from services.api.etags import IfMatch
from services.api.schemas import Body
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, the_deployment
from services.controller import Controller
from services.errors import Problem, at_fault, not_found
from services.metadata import Metadata
from services.tables import WebhookDelivery, WebhookEndpoint, new_id
from services.webhooks.address import ForbiddenAddress
from services.webhooks.events import UnknownEvent, checked
from services.webhooks.signing import new_secret

router = APIRouter(prefix="/v1/webhook_endpoints", tags=["webhooks"])
Admin = Annotated[Caller, needs("deployments:admin")]
MOST_URL = 2048
TEST_EVENT = "sleep.queued"


class EndpointCreate(Body):
    url: Annotated[str, Field(min_length=1, max_length=MOST_URL)]
    events: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    """Names, families (`sleep.*`) or all (`*`)."""
    deployments: tuple[str, ...] | None = None
    """Ids or names whose events are sent; those of all of the tenant unless given."""
    metadata: Metadata = {}


class EndpointPatch(Body):
    url: Annotated[str, Field(min_length=1, max_length=MOST_URL)] | None = None
    events: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    enabled: bool | None = None
    """True: one that was disabled is tried again."""
    metadata: Metadata | None = None


@router.post("", status_code=201)
async def create(body: EndpointCreate, control: ControllerDep, caller: Admin) -> views.View:
    """The answer's `secret` is shown this once."""
    events = _events(body.events)
    await run_in_threadpool(_reachable, control, body.url)
    return await run_in_threadpool(_create, control, caller, body, events)


def _create(control: Controller, caller: Caller, body: EndpointCreate, events: tuple[str, ...]) -> views.View:
    secret = new_secret()
    with control.database.write() as tx:
        ids = None if body.deployments is None else [the_deployment(tx, caller, name).id for name in body.deployments]
        if ids is None and caller.deployments is not None:
            raise at_fault(["deployments"], "this key is for some deployments; name those whose events are to be sent")
        row = WebhookEndpoint(
            id=new_id("whe"),
            tenant=caller.tenant,
            url=body.url,
            events=list(events),
            deployments=ids,
            secret=control.sealer.seal(secret),
            meta=body.metadata,
        )
        tx.add(row)
        audit.note(tx, caller, "webhook_created", row.id, url=body.url, events=list(events))
    return views.webhook_endpoint(row) | {"secret": secret}


@router.get("")
def list_all(control: ControllerDep, caller: Admin, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    with control.database.read() as tx:
        rows, more = registry.listed(tx, WebhookEndpoint, WebhookEndpoint.tenant == caller.tenant, (), after, limit)
    return views.page([views.webhook_endpoint(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Admin, response: Response) -> views.View:
    with control.database.read() as tx:
        row = _endpoint(tx, caller, id)
    response.headers.update(etags.told(row))
    return views.webhook_endpoint(row)


@router.patch("/{id}")
async def change(
    id: str, body: EndpointPatch, control: ControllerDep, caller: Admin, response: Response, if_match: IfMatch = None
) -> views.View:
    """Fields that are given take the place of what was there."""
    events = None if body.events is None else _events(body.events)
    if body.url is not None:
        await run_in_threadpool(_reachable, control, body.url)
    row = await run_in_threadpool(_change, control, caller, id, body, events, if_match)
    response.headers.update(etags.told(row))
    return views.webhook_endpoint(row)


def _change(
    control: Controller, caller: Caller, id: str, body: EndpointPatch, events: tuple[str, ...] | None, if_match: str | None
) -> WebhookEndpoint:
    with control.database.write() as tx:
        row = _endpoint(tx, caller, id)
        etags.unchanged(tx, row, if_match)
        row.url, row.events = body.url or row.url, list(events) if events else row.events
        row.meta = row.meta if body.metadata is None else body.metadata
        if body.enabled is not None:
            row.disabled, row.dead_in_a_row = (None, 0) if body.enabled else ("by its owner", row.dead_in_a_row)
        audit.note(tx, caller, "webhook_changed", id, fields=sorted(body.model_fields_set))
    return row


@router.delete("/{id}", status_code=204)
def remove(id: str, control: ControllerDep, caller: Admin, if_match: IfMatch = None) -> None:
    """What is on its way to it is sent no more."""
    with control.database.write() as tx:
        row = _endpoint(tx, caller, id)
        etags.unchanged(tx, row, if_match)
        tx.execute(delete(WebhookDelivery).where(WebhookDelivery.endpoint == id))
        tx.delete(row)
        audit.note(tx, caller, "webhook_deleted", id)


@router.post("/{id}/rotate", status_code=201)
def rotate(id: str, control: ControllerDep, caller: Admin) -> views.View:
    """A new secret, shown this once; the one before it signs beside it for a day."""
    with control.database.write() as tx:
        row = _endpoint(tx, caller, id)
        secret = outbox.rotate(row, control.sealer, time.time())
        audit.note(tx, caller, "webhook_rotated", id)
    return views.webhook_endpoint(row) | {"secret": secret}


@router.post("/{id}/test", status_code=202)
def test(id: str, control: ControllerDep, caller: Admin) -> views.View:
    """Send it an event that nothing has happened for; `data.test` says so."""
    event = {
        "object": "event",
        "id": new_id("evt"),
        "created_at": time.time(),
        "type": TEST_EVENT,
        "seq": 0,
        "level": "info",
        "message": "a test",
        "data": {"test": True},
    }
    with control.database.write() as tx:
        delivery = outbox.send(tx, _enabled(tx, caller, id), event)
    return views.webhook_delivery(delivery)


@router.get("/{id}/deliveries")
def deliveries(id: str, control: ControllerDep, caller: Admin, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    """What was sent, or is to be, and what came of it; for a week."""
    with control.database.read() as tx:
        where = (WebhookDelivery.endpoint == _endpoint(tx, caller, id).id,)
        rows, more = registry.listed(tx, WebhookDelivery, WebhookDelivery.tenant == caller.tenant, where, after, limit)
    return views.page([views.webhook_delivery(row) for row in rows], more)


@router.post("/{id}/deliveries/{delivery}/replay", status_code=202)
def replay(id: str, delivery: str, control: ControllerDep, caller: Admin) -> views.View:
    """Send one again, delivered or given up: the same message under the same `webhook-id`, at once, with a new timestamp and signature."""
    with control.database.write() as tx:
        endpoint = _enabled(tx, caller, id)
        ours = (WebhookDelivery.id == delivery, WebhookDelivery.endpoint == endpoint.id)
        row = tx.scalar(select(WebhookDelivery).where(*ours).with_for_update())
        if row is None:
            raise not_found("webhook_delivery", delivery)
        outbox.send_again(row)
        audit.note(tx, caller, "webhook_replayed", id, delivery=row.id, event=row.event)
    return views.webhook_delivery(row)


def _enabled(tx: Session, caller: Caller, id: str) -> WebhookEndpoint:
    """One that something can be sent to. Raises Problem (409)."""
    row = _endpoint(tx, caller, id)
    if row.disabled is not None:
        raise Problem(409, "endpoint_disabled", f"{id} is disabled: {row.disabled}; enable it first.")
    return row


def _endpoint(tx: Session, caller: Caller, id: str) -> WebhookEndpoint:
    """Of the tenant; a key for some deployments sees those endpoints only that tell of no others."""
    row = tx.scalar(select(WebhookEndpoint).where(WebhookEndpoint.id == id, WebhookEndpoint.tenant == caller.tenant))
    ours = row and (caller.deployments is None or (row.deployments is not None and set(row.deployments) <= caller.deployments))
    if row is None or not ours:
        raise not_found("webhook_endpoint", id)
    return row


def _events(given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return checked(given)
    except UnknownEvent as error:
        raise at_fault(["events"], str(error)) from error


def _reachable(control: Controller, url: str) -> None:
    """Raises Problem (422) for an address that nothing may be sent to."""
    try:
        control.outbox.courier.target(url)
    except ForbiddenAddress as error:
        raise Problem(422, "url_forbidden", str(error), param="url") from error

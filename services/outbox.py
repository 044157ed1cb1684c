"""Webhooks on their way: written with the event that they tell, sent by the leading controller, at least once.

    consumes       events as they are written (`post`), deliveries that are due
    produces       requests to endpoints; how each delivery and each endpoint stands
    waits for      the next look; an attempt, bounded by `Reach.seconds`
    unblocked by   time

Attempts of one look are made together. A leader that dies in the middle of one makes it again: receivers tell repetitions by the
delivery's id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from services.leader import Lease
from services.sealing import Sealer, Unsealable
from services.settings import Settings
from services.tables import Deployment, WebhookDelivery, WebhookEndpoint, new_id
from services.webhooks.deliver import Attempt, Courier, Message, Verdict
from services.webhooks.events import EVENTS, matches, payload
from services.webhooks.plan import End, GiveUp, Standing, next_attempt, standing
from services.webhooks.signing import Secrets, new_secret

log = logging.getLogger(__name__)
AT_ONCE = 16
KEPT_SECONDS = 7 * 86_400.0
"""Deliveries that have ended can be read for so long."""


def post(tx: Session, tenant: str, deployment: str | None, event: dict[str, Any]) -> None:
    """Put an event on its way to every endpoint of the tenant that wants to hear it. event: as clients see it."""
    if event["type"] not in EVENTS:
        return
    for endpoint in tx.scalars(select(WebhookEndpoint).where(WebhookEndpoint.tenant == tenant, WebhookEndpoint.disabled.is_(None))):
        wanted = endpoint.deployments is None or deployment in endpoint.deployments
        if wanted and matches(endpoint.events, event["type"]):
            send(tx, endpoint, event)


def tell(tx: Session, deployment: Deployment, kind: str, message: str, data: dict[str, Any]) -> None:
    """Put something on its way that happened to a deployment outside its sleeps."""
    event = {"object": "event", "id": new_id("evt"), "created_at": time.time(), "type": kind, "level": "info", "message": message}
    post(tx, deployment.tenant, deployment.id, event | {"data": {"deployment": deployment.id, **data}})


def send(tx: Session, endpoint: WebhookEndpoint, event: dict[str, Any]) -> WebhookDelivery:
    """Put an event on its way to one endpoint."""
    row = WebhookDelivery(
        id=new_id("whd"),
        tenant=endpoint.tenant,
        endpoint=endpoint.id,
        event=event["id"],
        type=event["type"],
        body=payload(event),
        next_at=time.time(),
    )
    tx.add(row)
    return row


def send_again(row: WebhookDelivery) -> None:
    """Put a delivery on its way once more, whatever came of it: the same message under the same id, signed at the time of the attempt.

    One that fails is tried again as the first time, until three days after the event; then that attempt was the last.
    """
    row.status, row.attempts, row.next_at = "pending", 0, time.time()


class Outbox:
    """Sends what is due."""

    def __init__(self, settings: Settings, lease: Lease, sealer: Sealer) -> None:
        self.settings, self.lease, self.sealer = settings, lease, sealer
        self.courier = Courier(settings.webhooks)

    async def run(self) -> None:
        while True:
            if not await self.look():
                await asyncio.sleep(self.settings.webhook_seconds)

    async def look(self) -> int:
        """Attempt what is due now, some at once. Returns how many."""
        due = await asyncio.to_thread(self._due)
        attempts = await asyncio.gather(*[self._attempt(row, endpoint) for row, endpoint in due])
        for (row, _), attempt in zip(due, attempts, strict=True):
            await asyncio.to_thread(self._end, row.id, attempt)
        return len(due)

    def _due(self) -> list[tuple[WebhookDelivery, WebhookEndpoint]]:
        now = time.time()
        with self.lease.write() as tx:
            tx.execute(
                delete(WebhookDelivery).where(WebhookDelivery.next_at.is_(None), WebhookDelivery.created_at < now - KEPT_SECONDS)
            )
            rows = tx.execute(
                select(WebhookDelivery, WebhookEndpoint)
                .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint)
                .where(WebhookDelivery.next_at <= now)
                .order_by(WebhookDelivery.next_at)
                .limit(AT_ONCE)
            )
            return [(row, endpoint) for row, endpoint in rows]

    async def _attempt(self, row: WebhookDelivery, endpoint: WebhookEndpoint) -> Attempt:
        if endpoint.disabled is not None:
            return Attempt(Verdict.GONE, f"the endpoint is disabled: {endpoint.disabled}")
        try:
            secrets = secrets_of(endpoint, self.sealer)
        except Unsealable as error:
            return Attempt(Verdict.RETRY, str(error))
        return await self.courier.deliver(Message(row.id, row.body, endpoint.url, secrets.at(time.time())))

    def _end(self, delivery: str, attempt: Attempt) -> None:
        now = time.time()
        with self.lease.write() as tx:
            row = tx.scalar(select(WebhookDelivery).where(WebhookDelivery.id == delivery).with_for_update())
            if row is None or row.next_at is None:
                return
            row.attempts, row.last_at, row.last_status, row.last_reason = row.attempts + 1, now, attempt.status, attempt.reason
            end: End | None = {Verdict.DELIVERED: End.DELIVERED, Verdict.GONE: End.GONE}.get(attempt.verdict)
            if attempt.verdict is Verdict.RETRY:
                at = next_attempt(row.id, row.attempts, row.created_at, now, attempt.retry_after)
                row.next_at, end = (None, End.DEAD) if isinstance(at, GiveUp) else (at, None)
            if end is None:
                return
            row.next_at, row.status = None, "delivered" if end is End.DELIVERED else "dead"
            endpoint = tx.scalar(select(WebhookEndpoint).where(WebhookEndpoint.id == row.endpoint).with_for_update())
            if endpoint is not None:
                after = standing(Standing(endpoint.dead_in_a_row, endpoint.disabled), end)
                endpoint.dead_in_a_row, endpoint.disabled = after.dead_in_a_row, after.disabled

    def close(self) -> None:
        self.courier.close()


def secrets_of(endpoint: WebhookEndpoint, sealer: Sealer) -> Secrets:
    """What an endpoint's messages are signed with. Raises Unsealable."""
    previous = sealer.open(endpoint.previous_secret) if endpoint.previous_secret else None
    return Secrets(sealer.open(endpoint.secret), previous, endpoint.previous_until)


def rotate(endpoint: WebhookEndpoint, sealer: Sealer, now: float) -> str:
    """The endpoint's new secret. The one before it signs beside it for a while, where it can still be read."""
    try:
        secrets = secrets_of(endpoint, sealer).rotated(now)
        endpoint.previous_secret, endpoint.previous_until = endpoint.secret, secrets.previous_until
    except Unsealable:  # the pepper was changed, and this is the way on from there
        secrets = Secrets(new_secret())
        endpoint.previous_secret, endpoint.previous_until = None, 0.0
    endpoint.secret = sealer.seal(secrets.current)
    return secrets.current

"""ETags: what a client may change of an object, as a name of its content; and `If-Match`, which refuses a change of what has changed.

What happens by itself (the state of a deployment, when a schedule is due) is not part of it: two clients must not overwrite each other, and
neither is stopped by a night that begins. A change without `If-Match` is a change whatever was there: asking for the header would break
clients that patch one field, and two patches of different fields do not overwrite each other.
"""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header, Response
from sqlalchemy.orm import Session

from services.api.shared import held
from services.errors import Problem
from services.tables import ApiKey, Deployment, Row, Schedule, Sleep, WebhookEndpoint

IfMatch = Annotated[str | None, Header(description="The ETag that the object must still have, as GET gave it")]
DIGITS = 32
"""128 bits of SHA-256."""
CHANGEABLE: dict[type[Row], tuple[str, ...]] = {
    Deployment: ("serving", "recipe", "promotion", "screening", "retention", "meta", "deleting_at"),
    Schedule: ("revision",),
    WebhookEndpoint: ("url", "events", "deployments", "secret", "disabled", "meta"),
    ApiKey: ("name", "scopes", "deployments", "requests_per_minute", "expires_at", "revoked_at", "meta"),
    Sleep: ("status", "last_seq", "attempt", "meta"),
}
"""Of a sleep, which no client patches, what tells that there is something new to see."""


def etag(row: Row) -> str:
    """A strong one, in its quotes."""
    content = [row.id, *(getattr(row, name) for name in CHANGEABLE[type(row)])]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"'


def told(row: Row) -> dict[str, str]:
    """The header of an answer that shows the object."""
    return {"ETag": etag(row)}


def unchanged(tx: Session, row: Row, if_match: str | None) -> None:
    """Hold the object until the transaction ends. Raises Problem: 412 where `If-Match` names something else, 404 where it is gone."""
    now = etag(held(tx, row))
    if if_match is None or if_match.strip() == "*" or now in (given.strip() for given in if_match.split(",")):
        return
    raise Problem(
        412, "etag_mismatch", f"{row.id} has changed meanwhile: it is {now}, not {if_match}. Get it again, and decide anew."
    )


def tag_of(view: Any) -> str:
    """Of an object as it is told, all of it: for who waits for news."""
    return f'"{hashlib.sha256(json.dumps(view, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]}"'


def known(tag: str, if_none_match: str | None) -> bool:
    """Whether a client has it; `*` has any."""
    given = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return "*" in given or tag in given


def not_modified(tag: str) -> Response:
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})

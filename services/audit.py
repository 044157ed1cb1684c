"""The audit log: who did what to which object, written in the transaction that does it, never changed.

Each event holds a digest over itself and the digest of its tenant's event before: whoever changes or takes out one must change all that
follow, and `broken` finds it against a digest that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from services.access import Caller
from services.tables import AuditEvent, new_id

CONTROLLER = "controller"
"""The actor of what no key has asked for: a schedule, a gate, a recovery."""
LOCK = 5_236_410_728
"""Of PostgreSQL's advisory locks, with the tenant's number: events of one tenant are written one after the other."""


def note(tx: Session, caller: Caller, action: str, object: str, **data: Any) -> AuditEvent:
    """What a key has done."""
    return _append(tx, caller.tenant, caller.key, action, object, caller.request or None, data)


def note_own(tx: Session, tenant: str, action: str, object: str, **data: Any) -> AuditEvent:
    """What the controller has done by itself."""
    return _append(tx, tenant, CONTROLLER, action, object, None, data)


def _append(
    tx: Session, tenant: str, actor: str, action: str, object: str, request: str | None, data: dict[str, Any]
) -> AuditEvent:
    if tx.get_bind().dialect.name == "postgresql":
        number = zlib.crc32(tenant.encode()) & 0x7FFFFFFF
        tx.execute(text("SELECT pg_advisory_xact_lock(:lock + :tenant)"), {"lock": LOCK << 16, "tenant": number})
    before = tx.scalar(select(AuditEvent.digest).where(AuditEvent.tenant == tenant).order_by(AuditEvent.number.desc()).limit(1))
    row = AuditEvent(
        id=new_id("evt"),
        created_at=time.time(),
        tenant=tenant,
        actor=actor,
        action=action,
        object=object,
        request=request,
        data=data,
        digest="",
    )
    row.digest = digest(row, before or "")
    tx.add(row)
    tx.flush()
    return row


def digest(row: AuditEvent, before: str) -> str:
    """SHA-256 of an event and of the digest of the one before."""
    said = [before, row.id, row.created_at, row.tenant, row.actor, row.action, row.object, row.request, row.data]
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def broken(tx: Session, tenant: str) -> str | None:
    """The first event of a tenant that is not what was written, if there is one."""
    before = ""
    for row in tx.scalars(select(AuditEvent).where(AuditEvent.tenant == tenant).order_by(AuditEvent.number)):
        if digest(row, before) != row.digest:
            return row.id
        before = row.digest
    return None

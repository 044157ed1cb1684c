"""Secrets of endpoints, and what proves to a receiver that a message is ours (Standard Webhooks, symmetric signatures).

A secret is shown once, when it is made. After a rotation messages are signed with the new one and with the one before it for a day, so
that a receiver can change over when it likes; rotated again within the day, the oldest is dropped at once.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = 33
"""The specification asks for 24 to 64. The base64 of 33 ends without padding, which gets lost where people copy it."""
OVERLAP_SECONDS = 24 * 3600.0
"""How long the secret before the current one still signs."""


def new_secret() -> str:
    """A fresh secret, `whsec_...`."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


@dataclass(frozen=True)
class Secrets:
    """What an endpoint's messages are signed with. Not shown where the object is."""

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    previous_until: float = 0.0
    """Unix seconds."""

    def at(self, now: float) -> tuple[str, ...]:
        """The secrets that sign now, the current one first."""
        return (self.current, self.previous) if self.previous and now < self.previous_until else (self.current,)

    def rotated(self, now: float) -> Secrets:
        """With a fresh current secret."""
        return Secrets(new_secret(), self.current, now + OVERLAP_SECONDS)


def headers(id: str, body: str, secrets: Sequence[str], now: float) -> dict[str, str]:
    """What a message carries. Signed anew for each attempt: receivers refuse a timestamp older than five minutes."""
    second = int(now)
    # The library takes any time for UTC.
    at = datetime.fromtimestamp(second, UTC)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(second),
        "webhook-signature": " ".join(Webhook(secret).sign(id, at, body) for secret in secrets),
    }

"""What a key may do: scopes, and the caller that a request comes from. Pure: no database, no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal[
    "inference:write",
    "experiences:read",
    "experiences:write",
    "sleeps:read",
    "sleeps:write",
    "versions:read",
    "versions:promote",
    "schedules:write",
    "probes:read",
    "probes:write",
    "deployments:read",
    "deployments:admin",
    "audit:read",
    "keys:admin",
    "gates:override",
    "tenants:admin",
]
"""One does not imply another: who may start a sleep may not promote what comes of it, and who may promote may not pass by its gate."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
FIRST_TENANT = "default"
"""Of a service's first key, and of everything that one makes."""


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    key: str
    """Its id, as the audit log names it."""
    tenant: str
    scopes: frozenset[str]
    deployments: frozenset[str] | None = None
    """Ids it may touch; None: all of its tenant."""
    requests_per_minute: int | None = None
    request: str = ""
    """The request's id."""

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def may_touch(self, deployment: str) -> bool:
        """A deployment of its own tenant, by id."""
        return self.deployments is None or deployment in self.deployments


def beyond(caller: Caller, scopes: frozenset[str], deployments: frozenset[str] | None) -> str:
    """What a key with these would be allowed that its maker is not, in words; nothing where it stays within."""
    if more := sorted(scopes - caller.scopes):
        return f"scopes: your own key has no {', '.join(more)}; a key cannot give what it does not have"
    if caller.deployments is not None and (deployments is None or not deployments <= caller.deployments):
        return "deployments: your own key may touch only some; name none but those"
    return ""

"""The events that webhooks tell of, who hears which, and the message that is sent.

A message is the object of the event stream as it is there, with one field more: `timestamp`, its `created_at` as Standard Webhooks write
it. Its `type` and `data` are already where that specification wants them, so one parser serves stream and webhook.

What is not in the catalogue is never sent, whatever is subscribed to: a night tells its controller of processes and files, too, and that
is nobody's business outside.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

EVENTS = {
    "sleep.queued": "a sleep was asked for",
    "sleep.waiting": "it waits for other nights",
    "sleep.placed": "where its night lies beside the replicas that serve",
    "sleep.started": "its night was submitted",
    "sleep.stage_started": "a stage of the night began",
    "sleep.stage_finished": "a stage is sealed",
    "sleep.stage_resumed": "a night that was killed goes on with this stage",
    "sleep.progress": "training goes on; often",
    "sleep.gate_passed": "the new version may serve",
    "sleep.gate_failed": "the new version may not serve",
    "sleep.checkpoint_saved": "what a learner has learned so far is kept",
    "sleep.retrying": "an attempt at the night failed, and there will be another one",
    "sleep.retried": "a sleep that had ended is tried again",
    "sleep.pausing": "a pause was asked for",
    "sleep.paused": "the night stands still, and nothing of it runs",
    "sleep.resumed": "the night is to go on",
    "sleep.cancelling": "cancellation was asked for",
    "sleep.succeeded": "the sleep has ended well, with a new version or without",
    "sleep.failed": "the sleep has ended with an error",
    "sleep.cancelled": "the sleep has ended because it was asked to",
    "version.created": "a night made a version that does not serve: a candidate, or one that its gate refused",
    "version.promoted": "a version serves",
    "version.promotion_failed": "the replicas did not take a version, or its canary failed; the one before it serves on",
    "version.rolled_back": "an earlier version serves again",
    "version.revoked": "a version, and all that came of it, never serves again",
    "deployment.fast_memory_live": "a deployment serves with the night's fast memory",
    "deployment.put_back": "a deployment serves the version again that fell asleep",
    "deployment.cooling_down": "the gates have refused versions in a row, and schedules begin no sleep for a while",
    "experience.quarantined": "experiences were put aside, by screening or by hand: their ids and the codes of the reasons",
    "erasure.completed": "what was to be forgotten is, and nothing serves that knew it",
}
ALL = "*"


class UnknownEvent(ValueError):
    """A subscription that could never be told anything."""


def patterns() -> list[str]:
    """Everything that can be subscribed to: all, each family, each event."""
    return [ALL, *dict.fromkeys(_family(name) for name in EVENTS), *EVENTS]


def checked(subscribed: Iterable[str]) -> tuple[str, ...]:
    """The subscription, each entry once. Raises UnknownEvent."""
    entries = tuple(dict.fromkeys(subscribed))
    if not entries:
        raise UnknownEvent(f"events: there are none; name some, or {ALL!r} for all")
    if unknown := sorted(set(entries) - set(patterns())):
        raise UnknownEvent(f"events: there is no {', '.join(map(repr, unknown))}; choose from {', '.join(patterns())}")
    return entries


def matches(subscribed: Iterable[str], event_type: str) -> bool:
    """Is an event of this type told to who subscribed to these?"""
    return event_type in EVENTS and not {ALL, _family(event_type), event_type}.isdisjoint(subscribed)


def payload(event: Mapping[str, Any]) -> str:
    """The message of an event, from its object in the stream."""
    at = datetime.fromtimestamp(event["created_at"], UTC).isoformat(timespec="milliseconds")
    # JSON has no NaN and no infinity, and receivers refuse what Python would write for them.
    finite = json.loads(json.dumps(dict(event)), parse_constant=lambda _: None)
    return json.dumps({**finite, "timestamp": at.replace("+00:00", "Z")}, allow_nan=False, separators=(",", ":"))


def _family(name: str) -> str:
    return f"{name.partition('.')[0]}.*"

"""The numbers that a night told over time: of every event each number in its data, as a series under its name.

    {"type": "sleep.progress", "data": {"task": "seeding", "step": 3, "loss": 0.4}}   ->   a point of `step` and one of `loss`

A point is told with the stage or the task that it belongs to. What is not a finite number is none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from services.tables import Event, Json

OF = ("task", "stage")
"""Fields of an event's data that say what its numbers belong to."""


def series(events: Iterable[Event], names: Collection[str]) -> list[Json]:
    """One for each name, of those that are asked for, or of all; by name, points in the order of events."""
    found: dict[str, list[Json]] = {}
    for event in events:
        of = next((event.data[name] for name in OF if name in event.data), None)
        for name, value in event.data.items():
            if (not names or name in names) and _number(value):
                point = {"seq": event.seq, "created_at": event.created_at, "of": of, "value": value}
                found.setdefault(name, []).append(point)
    return [{"object": "sleep.metric", "id": name, "name": name, "points": points} for name, points in sorted(found.items())]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

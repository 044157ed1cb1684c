"""After versions that the gates have refused, one after the other, schedules wait: what comes in is bad, or the recipe is, or somebody
tries until one passes, and none of these is mended by one more night. A human is not held back.

Only sleeps whose version was judged count: one that failed, was cancelled or had nothing to learn says nothing about its version, so it
neither adds to the row nor breaks it. After the time one sleep may begin; is its version refused too, they wait again.
"""

from __future__ import annotations

from collections.abc import Sequence

IN_A_ROW = 2
REJECTED = "rejected"
JUDGED = ("promoted", "candidate", REJECTED)
"""Outcomes of sleeps whose version a gate has seen."""


def cooling_until(verdicts: Sequence[tuple[str, float]], seconds: float) -> float | None:
    """Until when no schedule begins a sleep of a deployment (Unix seconds), which may be past; None where none is held back.

    verdicts: outcome and end of its sleeps that were judged, the latest first. seconds: of the cool-down.
    """
    last = verdicts[:IN_A_ROW]
    if not seconds or len(last) < IN_A_ROW or any(outcome != REJECTED for outcome, _ in last):
        return None
    return last[0][1] + seconds

"""What a look at a deployment's replicas calls for: a pure function. `serving.py` looks and acts.

A look takes time, and replicas are changed meanwhile by whoever starts them, by a night and by a delivery: what it saw is held against
the registry only where that said the same before and after it. The next look is never far.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.fleet import Sight
from services.online_plan import is_label
from services.states import BEFORE_DUSK, FastState, ServingState


class Care(StrEnum):
    NONE = "none"
    BRING_UP = "bring_up"
    """Adopt the replicas that live, start those that are missing."""
    BRING_BACK = "bring_back"
    """They serve what they should not: back to the active version, with a delivery or as new ones."""
    DELIVER_AGAIN = "deliver_again"
    """One was started beside a night's fast memory: the night's watcher delivers it once more."""


@dataclass(frozen=True)
class Known:
    """What the registry says of a deployment."""

    state: ServingState
    active_version: str
    night: str | None = None
    """The active sleep."""
    fast: FastState = FastState.NONE
    """Of that sleep."""
    chunks: int = 0
    """Of the fast memory that was learned online for this version: replicas that serve it, or an earlier one of the day, are brought
    up to date by `online.py`."""

    @property
    def dusk(self) -> bool:
        """A night serves with its own fast memory, or with none again, or is about to."""
        return self.night is not None and self.fast not in BEFORE_DUSK


def care(before: Known, sight: Sight, after: Known, starting: bool) -> Care:
    """`before` and `after` the look; `starting`: somebody is starting replicas, or delivering to them, now."""
    if sight.missing or before.state is ServingState.FAILED:
        return Care.BRING_UP
    if before != after:
        return Care.NONE
    if before.state is ServingState.PROVISIONING:
        return Care.NONE if starting else Care.BRING_UP
    if before.fast is FastState.LIVE and before.active_version in sight.versions:
        return Care.DELIVER_AGAIN
    if before.night is None and not all(is_label(said, before.active_version, before.chunks) for said in sight.versions):
        return Care.BRING_BACK
    return Care.NONE

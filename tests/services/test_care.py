"""What a look at the replicas calls for, as a table."""

from __future__ import annotations

import pytest

from services.care import Care, Known, care
from services.fleet import Sight
from services.states import FastState as F
from services.states import ServingState as S

AWAKE = Known(S.AWAKE, "ver_1")
NIGHT = Known(S.AWAKE, "ver_1", "slp_1", F.NONE)
DUSK = Known(S.AWAKE, "ver_1", "slp_1", F.LIVE)
DAWN = Known(S.AWAKE, "ver_2", "slp_1", F.LIVE)
MORNING = Known(S.AWAKE, "ver_2")
STARTING, FAILED = Known(S.PROVISIONING, "ver_1"), Known(S.FAILED, "ver_1")


def seen(*versions: str) -> Sight:
    return Sight(missing=False, versions=frozenset(versions))


@pytest.mark.parametrize(
    ("before", "sight", "after", "starting", "then"),
    [
        (AWAKE, seen("ver_1"), AWAKE, False, Care.NONE),
        (AWAKE, seen(), AWAKE, False, Care.NONE),  # slow, and says nothing
        (AWAKE, Sight(missing=True), AWAKE, False, Care.BRING_UP),
        (AWAKE, Sight(missing=True), NIGHT, False, Care.BRING_UP),
        (FAILED, seen("ver_1"), FAILED, False, Care.BRING_UP),
        (STARTING, seen("ver_1"), STARTING, False, Care.BRING_UP),
        (STARTING, seen("ver_1"), STARTING, True, Care.NONE),
        (STARTING, seen("ver_1"), AWAKE, False, Care.NONE),
        (AWAKE, seen("ver_0"), AWAKE, False, Care.BRING_BACK),
        (AWAKE, seen("ver_0", "ver_1"), AWAKE, False, Care.BRING_BACK),
        (NIGHT, seen("ver_1+slp_1"), NIGHT, False, Care.NONE),
        (NIGHT, seen("ver_0"), NIGHT, False, Care.NONE),  # its watcher brings them where they belong
        (DUSK, seen("ver_1+slp_1"), DUSK, False, Care.NONE),
        (DUSK, seen("ver_1+slp_1", "ver_1"), DUSK, False, Care.DELIVER_AGAIN),
        # Something moved during the look.
        (AWAKE, seen("ver_1+slp_1"), DUSK, False, Care.NONE),
        (DUSK, seen("ver_1"), DAWN, False, Care.NONE),
        (DAWN, seen("ver_1"), MORNING, False, Care.NONE),
        (AWAKE, seen("ver_2"), MORNING, False, Care.NONE),
    ],
)
def test_what_a_look_calls_for(before: Known, sight: Sight, after: Known, starting: bool, then: Care) -> None:
    assert care(before, sight, after, starting) is then

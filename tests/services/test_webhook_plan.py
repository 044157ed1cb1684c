"""When a delivery is tried again, when it is dead, and when its endpoint is disabled."""

from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from services.webhooks.plan import End, GiveUp, Retries, Standing, next_attempt, standing
from services.webhooks.signing import new_secret

FIRST = 1760000000.0
HOUR, DAY = 3600.0, 24 * 3600.0
EVEN = Retries(spread=0.0)


@pytest.mark.parametrize(
    ("attempts", "after", "asked", "wait"),
    [
        (1, 0, None, 10),
        (2, 10, None, 30),
        (3, 40, None, 90),
        (8, 10 * HOUR, None, 10 * 3**7),
        (9, 12 * HOUR, None, 12 * HOUR),
        (10_000, DAY, None, 12 * HOUR),
        # What a receiver asks for postpones, up to a day, and never hastens.
        (1, 0, 60.0, 60),
        (4, 0, 1.0, 270),
        (1, 0, 0.0, 10),
        (1, 0, 7 * DAY, DAY),
        (1, 0, float("inf"), DAY),
        # Up to three days after the first attempt.
        (9, 2.5 * DAY, None, 12 * HOUR),
        (9, 2.5 * DAY + 1, None, None),
        (1, 3 * DAY - 5, None, None),
        (2, 2.5 * DAY, DAY, None),
        (1, 9 * DAY, None, None),
    ],
)
def test_a_delivery_that_failed_waits_longer_each_time_for_three_days(
    attempts: int, after: float, asked: float | None, wait: float | None
) -> None:
    at = next_attempt("dlv_1", attempts, FIRST, FIRST + after, asked, EVEN)
    if wait is None:
        assert isinstance(at, GiveUp)
        assert f"{attempts} attempts failed" in at.reason
    else:
        assert at == FIRST + after + wait


def _lifetime(delivery: str) -> list[float]:
    """Seconds after the first at which an endpoint that never answers is tried."""
    times: list[float] = []
    at: float | GiveUp = FIRST
    while not isinstance(at, GiveUp):
        times.append(at - FIRST)
        at = next_attempt(delivery, len(times), FIRST, at)
    return times


def test_a_delivery_is_tried_for_about_three_days_and_no_longer() -> None:
    for delivery in ("dlv_1", "dlv_2", "dlv_3"):
        times = _lifetime(delivery)
        assert 12 <= len(times) <= 14
        assert 2.3 * DAY < times[-1] <= 3 * DAY


def test_deliveries_that_failed_together_do_not_come_back_together_and_plan_the_same_each_time() -> None:
    ids = [f"dlv_{i}" for i in range(200)]
    waits = [next_attempt(id, 5, FIRST, FIRST) for id in ids]
    assert waits == [next_attempt(id, 5, FIRST, FIRST) for id in ids]
    seconds = [at - FIRST for at in waits if not isinstance(at, GiveUp)]
    assert 810 <= min(seconds) < 810 * 1.02
    assert 810 * 1.18 < max(seconds) < 810 * 1.2
    assert len(set(seconds)) == 200


def test_no_spread_brings_an_attempt_before_what_the_receiver_asked_for() -> None:
    for i in range(50):
        at = next_attempt(f"dlv_{i}", 1, FIRST, FIRST, 600.0)
        assert not isinstance(at, GiveUp)
        assert at >= FIRST + 600.0


OFF = "it answered 410: gone; enable it again once it is back"


@pytest.mark.parametrize(
    ("ends", "dead", "disabled"),
    [
        ([], 0, None),
        ([End.DEAD, End.DEAD], 2, None),
        ([End.DEAD, End.DEAD, End.DELIVERED, End.DEAD], 1, None),
        ([End.DEAD] * 3, 3, "3 deliveries in a row were given up; enable it again once it answers with 2xx"),
        ([End.GONE], 0, OFF),
        ([End.DEAD, End.GONE], 1, OFF),
        ([End.GONE, End.DELIVERED, End.DEAD], 0, OFF),
    ],
)
def test_an_endpoint_is_disabled_after_several_dead_deliveries_in_a_row_or_when_it_is_gone(
    ends: list[End], dead: int, disabled: str | None
) -> None:
    now = Standing()
    for end in ends:
        now = standing(now, end, Retries(dead_in_a_row=3))
    assert now == Standing(dead, disabled)


def test_a_typo_and_a_wait_that_shrinks_are_refused() -> None:
    for given in ({"first_second": 1.0}, {"factor": 0.5}, {"give_up_seconds": float("inf")}, {"dead_in_a_row": 0}):
        with pytest.raises(ValidationError):
            Retries.model_validate(given)


def test_a_secret_is_as_the_specification_wants_it_and_no_two_are_alike() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64

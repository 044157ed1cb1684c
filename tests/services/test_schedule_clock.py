"""When the clock on the wall shows a time, on days on which it is changed too: as tables, and against counting the minutes one by one."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from services.schedules import cron
from services.schedules.clock import covers, end_of, moment_of, wall_clock
from services.schedules.spec import Blackout, CronTrigger

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
MINUTE, HOUR, DAY = 60, 3600, 86400


def seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def shown(moment: float, zone: str) -> str:
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).isoformat(timespec="minutes")


def on_the_day(expr: str, zone: str, day: str) -> list[str]:
    """Hour, minute and offset of an expression's occurrences on a day."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    found = cron.after(CronTrigger(expr=expr, timezone=zone), midnight.timestamp() - 1)
    return [at[11:] for at in takewhile(lambda at: at.startswith(day), (shown(at, zone) for at in found))]


def as_croniter_says(expr: str, zone: str, day: str) -> list[str]:
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    found = croniter(expr, midnight - timedelta(seconds=1)).all_next(datetime)
    return [at[11:] for at in takewhile(lambda at: at.startswith(day), (at.isoformat(timespec="minutes") for at in found))]


SAME = None
"""croniter says as we do."""


@pytest.mark.parametrize(
    ("zone", "day", "expr", "ours", "croniters"),
    [
        # The clock jumps from 02:00 to 03:00.
        (BERLIN, "2026-03-29", "59 1 * * *", ["01:59+01:00"], SAME),
        (BERLIN, "2026-03-29", "0 2 * * *", ["03:00+02:00"], SAME),
        (BERLIN, "2026-03-29", "30 2 * * *", ["03:00+02:00"], SAME),
        (BERLIN, "2026-03-29", "0 3 * * *", ["03:00+02:00"], SAME),
        (BERLIN, "2026-03-29", "*/20 2 * * *", ["03:00+02:00"], SAME),
        (BERLIN, "2026-03-29", "30 1-3 * * *", ["01:30+01:00", "03:00+02:00", "03:30+02:00"], SAME),
        (
            BERLIN,
            "2026-03-29",
            "30 */2 * * *",
            ["00:30+01:00", "03:00+02:00", *(f"{h:02}:30+02:00" for h in range(4, 24, 2))],
            SAME,
        ),
        (NEW_YORK, "2026-03-08", "30 2 * * *", ["03:00-04:00"], SAME),
        # From 03:00 back to 02:00.
        (BERLIN, "2026-10-25", "0 2 * * *", ["02:00+02:00"], ["02:00+02:00", "02:00+01:00"]),
        (BERLIN, "2026-10-25", "30 2 * * *", ["02:30+02:00"], ["02:30+02:00", "02:30+01:00"]),
        (BERLIN, "2026-10-25", "0 3 * * *", ["03:00+01:00"], SAME),
        (BERLIN, "2026-10-25", "59 1 * * *", ["01:59+02:00"], SAME),
        (
            BERLIN,
            "2026-10-25",
            "*/30 1-3 * * *",
            ["01:00+02:00", "01:30+02:00", "02:00+02:00", "02:30+02:00", "03:00+01:00", "03:30+01:00"],
            [
                "01:00+02:00",
                "01:30+02:00",
                "02:00+02:00",
                "02:30+02:00",
                "02:00+01:00",
                "02:30+01:00",
                "03:00+01:00",
                "03:30+01:00",
            ],
        ),
        (NEW_YORK, "2026-11-01", "30 1 * * *", ["01:30-04:00"], ["01:30-04:00", "01:30-05:00"]),
        (NEW_YORK, "2026-11-01", "0 2 * * *", ["02:00-05:00"], SAME),
        # From 02:00 to 02:30, and back.
        (LORD_HOWE, "2026-10-04", "0 2 * * *", ["02:30+11:00"], SAME),
        (LORD_HOWE, "2026-10-04", "15 2 * * *", ["02:30+11:00"], SAME),
        (LORD_HOWE, "2026-10-04", "30 2 * * *", ["02:30+11:00"], SAME),
        (LORD_HOWE, "2026-10-04", "45 2 * * *", ["02:45+11:00"], SAME),
        (LORD_HOWE, "2026-10-04", "*/15 2 * * *", ["02:30+11:00", "02:45+11:00"], SAME),
        (LORD_HOWE, "2026-04-05", "45 1 * * *", ["01:45+11:00"], ["01:45+11:00", "01:45+10:30"]),
        (LORD_HOWE, "2026-04-05", "15 1 * * *", ["01:15+11:00"], SAME),
        (LORD_HOWE, "2026-04-05", "0 2 * * *", ["02:00+10:30"], SAME),
    ],
)
def test_a_named_time_comes_once_whatever_is_done_to_the_clock(
    zone: str, day: str, expr: str, ours: list[str], croniters: list[str] | None
) -> None:
    assert on_the_day(expr, zone, day) == ours
    assert as_croniter_says(expr, zone, day) == (ours if croniters is SAME else croniters)


def test_every_hour_comes_at_the_jump_too_and_is_silent_while_an_hour_is_shown_again() -> None:
    assert on_the_day("0 * * * *", LORD_HOWE, "2026-10-04")[1:4] == ["01:00+10:30", "02:30+11:00", "03:00+11:00"]
    assert as_croniter_says("0 * * * *", LORD_HOWE, "2026-10-04")[1:3] == ["01:00+10:30", "03:00+11:00"]  # drops it
    assert on_the_day("0 * * * *", BERLIN, "2026-10-25")[1:4] == ["01:00+02:00", "02:00+02:00", "03:00+01:00"]


def test_a_range_may_go_round_and_a_day_needs_to_meet_one_field_of_two() -> None:
    hours = [f"{hour:02}:00+00:00" for hour in (0, 1, 22, 23)]
    weekend = {"03": hours, "04": hours, "05": hours, "06": hours, "07": [], "15": []}  # July 2026: a Friday, and on
    assert {day: on_the_day("0 22-1 * * fri-mon", "UTC", f"2026-07-{day}") for day in weekend} == weekend
    assert {day: on_the_day("0 22-1 15 * fri-7", "UTC", f"2026-07-{day}") for day in weekend} == weekend | {"06": [], "15": hours}


def test_a_day_that_a_country_left_out_comes_at_midnight() -> None:
    assert on_the_day("0 9 * * *", "Pacific/Apia", "2011-12-30") == []
    assert on_the_day("0 9 * * *", "Pacific/Apia", "2011-12-31") == ["00:00+14:00", "09:00+14:00"]


# Moments around changes of the clock, and elsewhere.
CHANGES = [seconds("2026-03-29T01:00Z"), seconds("2026-10-25T01:00Z"), seconds("2026-03-08T07:00Z"), seconds("2026-11-01T06:00Z")]
CHANGES += [seconds("2026-10-03T15:30Z"), seconds("2026-04-04T15:00Z"), seconds("2026-07-01T00:00Z")]
ZONES = st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC"])
MOMENTS = st.builds(lambda change, aside: change + aside, st.sampled_from(CHANGES), st.floats(-3 * HOUR, 3 * HOUR))


@given(MOMENTS, MOMENTS, ZONES)
def test_a_later_time_never_comes_at_an_earlier_moment(one: float, other: float, zone: str) -> None:
    clock = ZoneInfo(zone)
    walls = sorted(wall_clock(moment, clock).replace(microsecond=0) for moment in (one, other))
    assert moment_of(walls[0], clock) <= moment_of(walls[1], clock)


@given(MOMENTS, st.integers(0, 180), ZONES)
def test_the_moment_of_a_time_is_the_first_that_shows_it_or_a_later_one(moment: float, ahead: int, zone: str) -> None:
    """By the minute, without a look at offsets: no minute before it shows the time or a later one, on that day."""
    clock = ZoneInfo(zone)
    wall = (wall_clock(moment, clock) + timedelta(minutes=ahead)).replace(second=0, microsecond=0)
    at = moment_of(wall, clock)
    assert wall_clock(at, clock) >= wall
    assert all(wall_clock(at - back * MINUTE, clock) < wall for back in range(1, 4 * 60))


def items(low: int, high: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field, and the values that it names."""
    whole = st.just(("*", frozenset(range(low, high + 1))))
    steps = st.integers(2, 9).map(lambda step: (f"*/{step}", frozenset(range(low, high + 1, step))))
    some = st.sets(st.integers(low, high), min_size=1, max_size=3).map(lambda v: (",".join(map(str, sorted(v))), frozenset(v)))
    within = st.tuples(st.integers(low, high), st.integers(low, high)).filter(lambda ends: ends[0] < ends[1] - 1 < high - low - 1)
    ranges = within.map(lambda ends: (f"{ends[0]}-{ends[1]}", frozenset(range(ends[0], ends[1] + 1))))
    return st.one_of(whole, steps, some, ranges)


@settings(deadline=None, max_examples=60)
@given(items(0, 59), items(0, 23), items(1, 31), items(0, 6), MOMENTS, ZONES)
def test_occurrences_are_those_that_counting_the_minutes_finds(
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    day: tuple[str, frozenset[int]],
    weekday: tuple[str, frozenset[int]],
    moment: float,
    zone: str,
) -> None:
    """In a window of six hours: a minute is one if what the clock newly shows or leaves out at it is named."""
    trigger = CronTrigger(expr=f"{minute[0]} {hour[0]} {day[0]} * {weekday[0]}", timezone=zone)
    start = int(moment) // MINUTE * MINUTE
    window = range(start, start + 6 * HOUR, MINUTE)

    def named(wall: datetime) -> bool:
        days = (wall.day in day[1], wall.isoweekday() % 7 in weekday[1])
        right_day = any(days) if "*" not in (day[0], weekday[0]) else all(days)
        return right_day and wall.minute in minute[1] and wall.hour in hour[1]

    expected, clock = [], ZoneInfo(zone)
    highest = max(wall_clock(window[0] - back * MINUTE, clock) for back in range(1, 4 * 60))
    for at in window:
        new = [highest + timedelta(minutes=n) for n in range(1, 1 + (wall_clock(at, clock) - highest) // timedelta(minutes=1))]
        highest = max(highest, wall_clock(at, clock))
        expected += [at] if any(map(named, new)) else []
    assert list(takewhile(lambda at: at <= window[-1], cron.after(trigger, start - 1))) == expected
    assert list(takewhile(lambda at: at >= start, cron.until(trigger, window[-1])))[::-1] == expected


@given(MOMENTS, ZONES, st.sampled_from(["* * * * *", "*/15 * * * *", "30 2 * * *", "0 1-3 * * *"]))
def test_what_comes_after_a_moment_and_what_came_until_then_are_neighbours(moment: float, zone: str, expr: str) -> None:
    trigger = CronTrigger(expr=expr, timezone=zone)
    came, comes = next(cron.until(trigger, moment)), next(cron.after(trigger, moment))
    assert came <= moment < comes
    assert next(cron.after(trigger, came)) == comes
    assert next(cron.until(trigger, comes - 1)) == came
    assert list(islice(cron.until(trigger, comes), 2)) == [comes, came]


def window(start: str, end: str, zone: str = "UTC", *days: str) -> Blackout:
    return Blackout.model_validate({"start": start, "end": end, "timezone": zone, **({"days": days} if days else {})})


NIGHT, OFFICE, WEEKEND = window("22:00", "06:00"), window("09:00", "17:30", BERLIN), window("00:00", "00:00", "UTC", "sat", "sun")
FRIDAY_NIGHT = window("22:00", "06:00", "UTC", "fri")
IN_BETWEEN = window("02:10", "02:40", BERLIN)


@pytest.mark.parametrize(
    ("blackout", "moment", "end"),
    [
        (NIGHT, "2026-07-01T21:59:59.9Z", None),
        (NIGHT, "2026-07-01T22:00Z", "2026-07-02T06:00Z"),
        (NIGHT, "2026-07-02T05:59:59.9Z", "2026-07-02T06:00Z"),
        (NIGHT, "2026-07-02T06:00Z", None),
        (OFFICE, "2026-07-01T07:00Z", "2026-07-01T15:30Z"),  # summer
        (OFFICE, "2026-12-01T07:00Z", None),
        (OFFICE, "2026-12-01T08:00Z", "2026-12-01T16:30Z"),
        # By the day on which it starts: 3 July 2026 is a Friday.
        (FRIDAY_NIGHT, "2026-07-03T05:00Z", None),
        (FRIDAY_NIGHT, "2026-07-03T23:00Z", "2026-07-04T06:00Z"),
        (FRIDAY_NIGHT, "2026-07-04T05:00Z", "2026-07-04T06:00Z"),
        (FRIDAY_NIGHT, "2026-07-04T23:00Z", None),
        (WEEKEND, "2026-07-03T23:59Z", None),
        (WEEKEND, "2026-07-04T00:00Z", "2026-07-05T00:00Z"),
        (WEEKEND, "2026-07-05T23:59Z", "2026-07-06T00:00Z"),
        (WEEKEND, "2026-07-06T00:00Z", None),
        # What the clock leaves out is in no window, what it shows twice is twice.
        (IN_BETWEEN, "2026-03-29T00:59Z", None),
        (IN_BETWEEN, "2026-03-29T01:00Z", None),
        (IN_BETWEEN, "2026-10-25T00:10Z", "2026-10-25T00:40Z"),
        (IN_BETWEEN, "2026-10-25T00:40Z", None),
        (IN_BETWEEN, "2026-10-25T01:10Z", "2026-10-25T00:40Z"),  # the first of both ends
        (IN_BETWEEN, "2026-10-25T01:40Z", None),
    ],
)
def test_a_blackout_is_while_the_clock_on_the_wall_shows_it(blackout: Blackout, moment: str, end: str | None) -> None:
    assert covers(blackout, seconds(moment)) == (end is not None)
    assert end_of(blackout, seconds(moment)) == (None if end is None else seconds(end))

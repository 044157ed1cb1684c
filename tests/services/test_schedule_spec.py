"""What a schedule may say, and what it is told where it may not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from services.schedules.spec import Blackout, CronTrigger, IdleTrigger, ScheduleSpec

NIGHTLY = {"type": "cron", "expr": "30 2 * * *", "timezone": "Europe/Berlin"}
FULL = {
    "trigger": {
        "any_of": [
            NIGHTLY,
            {"type": "token_budget", "pending_tokens": 50_000},
            {"type": "experience_count", "count": 200},
            {"type": "idle", "seconds": 900, "max_rps": 0.05},
        ]
    },
    "min_interval_seconds": 3600,
    "blackout": [{"start": "22:00", "end": "06:00", "timezone": "America/New_York", "days": ["fri", "sat"]}],
    "concurrency": "queue",
    "starting_deadline_seconds": 600,
    "suspend": True,
}


def schedule(*triggers: dict[str, Any], **others: Any) -> ScheduleSpec:
    return ScheduleSpec.model_validate({"trigger": {"any_of": triggers}, **others})


def test_a_schedule_survives_json() -> None:
    spec = ScheduleSpec.model_validate(FULL)
    assert ScheduleSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.model_dump(mode="json", exclude_defaults=True).keys() == FULL.keys()
    assert spec.crons == (CronTrigger(expr="30 2 * * *", timezone="Europe/Berlin"),)
    assert spec.idle_seconds == 900
    assert schedule(NIGHTLY).idle_seconds is None


@pytest.mark.parametrize(
    "expr", ["* * * * *", "*/15 9-17 * * mon-fri", "0 22-6 1,15 JAN-mar *", "5/20 0 * * 7", "0 0 29 2 *", " 0\t3 * *  sun "]
)
def test_classic_expressions_are_taken(expr: str) -> None:
    assert CronTrigger(expr=expr).expr == expr


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        ("30 2 * *", "has 4 of 5 fields; give minute, hour"),
        ("0 30 2 * * *", "has 6 of 5 fields"),
        ("0 30 2 * * * 2026", "has 7 of 5 fields"),
        ("@daily", "has 1 of 5 fields"),
        ("", "has 0 of 5 fields"),
        ("60 2 * * *", "minute '60' is out of range"),
        ("0 24 * * *", "hour '24' is out of range"),
        ("0 0 0 * *", "day of the month '0' is out of range"),
        ("0 0 * 13 *", "month '13' is out of range"),
        ("0 0 * * 8", "day of the week '8' is out of range"),
        ("0 0 * foo *", "month 'foo' is out of range"),
        ("*/0 * * * *", "minute '*/0' is out of range"),
        ("0 0 30 2 *", "never comes; give a day that its months have"),
        ("R 0 * * *", "minute 'R' cannot be read"),
        ("H 0 * * *", "minute 'H' cannot be read"),
        ("0 0 L * *", "day of the month 'L' cannot be read"),
        ("0 0 ? * *", "day of the month '?' cannot be read"),
        ("0 0 * * mon#2", "day of the week 'mon#2' cannot be read"),
        ("1,,2 * * * *", "minute '' cannot be read"),
        ("0\u00a00 * * *", "has 4 of 5 fields"),
        ("\u0663 * * * *", "minute '\u0663' cannot be read"),
        # croniter takes these for every hour, and every day.
        ("0 5-5 * * *", "hour '5-5' begins where it ends; write 5 for that one, or * for all"),
        ("0 0 * * sun-7", "day of the week 'sun-7' begins where it ends"),
        ("0 0 1-31 * */2", "day of the month '1-31' names all of them; write *"),
        ("0 0 *,15 * mon", "day of the month '*,15' names all of them; write *"),
        ("0 0 */2 * 0-6", "day of the week '0-6' names all of them; write *"),
    ],
)
def test_other_expressions_are_refused_with_a_remedy(expr: str, why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        schedule({"type": "cron", "expr": expr})
    (fault,) = refused.value.errors()
    assert fault["type"] == "invalid_cron"  # by which a service knows the code of its answer
    assert fault["loc"] == ("trigger", "any_of", 0, "cron", "expr")
    assert fault["msg"].startswith("expr: ")
    assert why in fault["msg"]


@pytest.mark.parametrize("zone", ["europe/berlin", "UTC+2", "Europe", "localtime", "right/UTC", "../UTC", "", "U\0TC"])
def test_time_zones_are_those_of_the_iana_database(zone: str) -> None:
    for refuse in (
        lambda: CronTrigger(expr="0 3 * * *", timezone=zone),
        lambda: Blackout(start="01:00", end="02:00", timezone=zone),
    ):
        with pytest.raises(ValidationError, match=r"timezone: .* is not in the IANA database; give a name from there"):
            refuse()


@pytest.mark.parametrize("wall", ["24:00", "8:00", "08:60", "8am", "08:00:00", "08:00Z", "\u0660\u0668:00"])
def test_a_blackout_is_in_hours_and_minutes(wall: str) -> None:
    for window in ({"start": wall, "end": "10:00"}, {"start": "00:00", "end": wall}):
        with pytest.raises(ValidationError, match="no time of day; write hours and minutes"):
            Blackout.model_validate(window)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"trigger": {"any_of": []}}, "it is empty; give at least one"),
        ({"trigger": {"any_of": [{"type": "moon"}]}}, "does not match any of the expected tags"),
        ({"trigger": {"any_of": [{"type": "idle", "seconds": 0}]}}, "greater than 0"),
        ({"trigger": {"any_of": [{"type": "idle", "seconds": 9, "max_rps": -1}]}}, "greater than or equal to 0"),
        ({"trigger": {"any_of": [{"type": "token_budget", "pending_tokens": 0}]}}, "greater than or equal to 1"),
        ({"trigger": {"any_of": [{"type": "idle", "seconds": s} for s in (60, 90)]}}, "2 triggers of type idle; keep the one"),
        ({"trigger": {"any_of": [NIGHTLY | {"seconds": 5}]}}, "Extra inputs"),
        ({"trigger": {"any_of": [NIGHTLY]}, "starting_deadline_seconds": 5}, "greater than or equal to 60"),
        ({"trigger": {"any_of": [NIGHTLY]}, "min_interval_seconds": float("inf")}, "finite"),
        ({"trigger": {"any_of": [NIGHTLY]}, "concurrency": "allow"}, "'forbid', 'queue' or 'replace'"),
        (
            {"trigger": {"any_of": [NIGHTLY]}, "blackout": [{"start": "01:00", "end": "02:00", "days": []}]},
            "it is empty; give at least one",
        ),
        ({"trigger": {"any_of": [NIGHTLY]}, "concurency": "queue"}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ScheduleSpec.model_validate(given)


def test_a_schedule_does_not_change_once_it_was_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        IdleTrigger(seconds=60).seconds = 5


def test_planning_needs_no_torch_and_no_cluster() -> None:
    program = (
        "import sys, services.schedules.plan; print({'torch', 'ray', 'transformers', 'sqlalchemy', 'fastapi'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "set()"

"""What a schedule says: what makes a deployment fall asleep, and what keeps it from that. See plan.py for what is made of it.

A cron expression is the classic one: minute, hour, day of the month, month, day of the week, each `*` or a list of numbers, names
(`jan`, `mon`), ranges, and steps. 0 and 7 are Sunday. A range may go round (`22-6`, `fri-mon`). `9/5` is from 9 on in steps of 5. Where
neither of the two day fields is `*`, a day needs to meet one of them. Nicknames (`@daily`), seconds, years, `L`, `W`, `#`, `?` and
croniter's random `H` and `R` are refused: of an expression two controllers must always make the same times.
"""

from __future__ import annotations

import re
from datetime import datetime, time
from functools import cache
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import available_timezones

from croniter import CroniterBadCronError, CroniterBadDateError, croniter
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from circadian.specs import PositiveInt, Resource, Seconds, Spec

FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_DAY_FIELDS = (2, 4)
_ALL = croniter.expand("* * * * *")
_FIELD = re.compile(r"\S+", re.ASCII)
_VALUE = r"(?:\d{1,2}|[A-Za-z]{3})"
_ITEM = re.compile(rf"(?:\*|(?P<first>{_VALUE})(?:-(?P<last>{_VALUE}))?)(?:/\d{{1,2}})?", re.ASCII)
_WALL_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)
_NOT_ZONES = frozenset({"localtime", "Factory"})
"""Names in a machine's database whose meaning is the machine's own, or none."""
_SOME_DAY = datetime(2000, 1, 1)
"""From which on an expression must come due at some time."""


def _expr(given: str) -> str:
    fields = _FIELD.findall(given)
    if len(fields) != len(FIELDS):
        raise _invalid(f"{given!r} has {len(fields)} of 5 fields; give {', '.join(FIELDS)}, such as '30 2 * * *'")
    for place, field in enumerate(fields):
        items = field.split(",")
        for item in items:
            _check_item(FIELDS[place], place, item)
        # Where both fields of days are given, croniter reads some spellings of all days as `*` and others as a list of them.
        listed = place in _DAY_FIELDS and "*" not in (fields[_DAY_FIELDS[0]], fields[_DAY_FIELDS[1]])
        if (len(items) > 1 and "*" in items) or (listed and croniter.expand(_alone(place, field)) == _ALL):
            raise _invalid(f"{FIELDS[place]} {field!r} names all of them; write *")
    try:
        croniter(given, _SOME_DAY).get_next(datetime)
    except CroniterBadDateError:
        raise _invalid(f"{given!r} never comes; give a day that its months have") from None
    return given


def _check_item(name: str, place: int, item: str) -> None:
    read = _ITEM.fullmatch(item)
    if read is None:
        raise _invalid(f"{name} {item!r} cannot be read; write *, a number, a range such as 1-5, or steps such as */15")
    try:
        croniter.expand(_alone(place, item))
        # croniter takes a range from a value to itself for the whole of the field.
        if read["last"] and croniter.expand(_alone(place, read["first"])) == croniter.expand(_alone(place, read["last"])):
            raise _invalid(f"{name} {item!r} begins where it ends; write {read['first']} for that one, or * for all")
    except CroniterBadCronError:
        raise _invalid(f"{name} {item!r} is out of range; keep it within what a {name} can be") from None


def _alone(place: int, item: str) -> str:
    """An expression that says nothing but this."""
    return " ".join(item if place == field else "*" for field in range(len(FIELDS)))


def _invalid(why: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_cron", "expr: {why}", {"why": why})


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NOT_ZONES


def _zone(given: str) -> str:
    if given not in _zones():
        raise ValueError(f"timezone: {given!r} is not in the IANA database; give a name from there, such as UTC or Europe/Berlin")
    return given


def _wall_time(given: str) -> str:
    if _WALL_TIME.fullmatch(given) is None:
        raise ValueError(f"{given!r} is no time of day; write hours and minutes, 00:00 to 23:59")
    return given


def _some(given: tuple[Any, ...]) -> tuple[Any, ...]:
    # Not by min_length: pydantic counts only what is valid, and would say of one bad item that there is none.
    if not given:
        raise ValueError("it is empty; give at least one")
    return given


CronExpr = Annotated[str, Field(max_length=256), AfterValidator(_expr)]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_zone)]
WallTime = Annotated[str, Field(max_length=16), AfterValidator(_wall_time)]
AT_LEAST_ONE = {"minItems": 1}
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
"""As datetime.weekday counts them."""


class CronTrigger(Spec):
    """At times of the clock on the wall."""

    type: Literal["cron"] = "cron"
    expr: CronExpr
    """Five fields; see the head of services/schedules/spec.py, and cron.py for days on which the clock is changed."""
    timezone: Zone = "UTC"
    """On whose walls: a name of the IANA database."""


class TokenBudgetTrigger(Spec):
    """When so much was met since the last sleep."""

    type: Literal["token_budget"] = "token_budget"
    pending_tokens: PositiveInt
    """Of the experiences that no sleep has taken."""


class ExperienceCountTrigger(Spec):
    """When so many experiences are there that no sleep has taken."""

    type: Literal["experience_count"] = "experience_count"
    count: PositiveInt


class IdleTrigger(Spec):
    """When hardly anybody asks and there is something to learn."""

    type: Literal["idle"] = "idle"
    seconds: Seconds
    """For how long it must have been quiet."""
    max_rps: Resource = 0.0
    """Requests a second, as a mean over `seconds`, that are still quiet."""


Trigger = Annotated[CronTrigger | TokenBudgetTrigger | ExperienceCountTrigger | IdleTrigger, Field(discriminator="type")]


class AnyOf(Spec):
    """Each by itself is enough."""

    any_of: Annotated[tuple[Trigger, ...], Field(max_length=16, json_schema_extra=AT_LEAST_ONE), AfterValidator(_some)]

    @model_validator(mode="after")
    def _one_of_a_kind(self) -> Self:
        kinds = [trigger.type for trigger in self.any_of if trigger.type != "cron"]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f"any_of has {kinds.count(kind)} triggers of type {kind}; keep the one that is met first")
        return self


class Blackout(Spec):
    """A window in which no sleep begins: while the clock on the wall shows a time from `start` up to `end`."""

    start: WallTime
    end: WallTime
    """Not after start: on the day after. The same as start: a whole day."""
    timezone: Zone = "UTC"
    days: Annotated[tuple[Day, ...], Field(json_schema_extra=AT_LEAST_ONE), AfterValidator(_some)] = DAYS
    """On which it starts."""

    @property
    def span(self) -> tuple[time, time]:
        return time.fromisoformat(self.start), time.fromisoformat(self.end)


class ScheduleSpec(Spec):
    """When a deployment falls asleep by itself."""

    trigger: AnyOf
    min_interval_seconds: Resource = 600.0
    """Shortest time from the beginning of a sleep, of whatever cause, to the next that the schedule begins."""
    blackout: Annotated[tuple[Blackout, ...], Field(max_length=64)] = ()
    concurrency: Literal["forbid", "queue", "replace"] = "forbid"
    """What a cron time does that comes while the deployment sleeps. `forbid`: nothing. `queue`: one waits, and a sleep begins when the
    other has ended. `replace`: the other is cancelled first. Triggers by traffic wait for its end in any case."""
    starting_deadline_seconds: Annotated[float, Field(ge=60.0)] = 3600.0
    """How late a cron time may still begin a sleep, where nobody was there to look; at least as long as a minute."""
    suspend: bool = False
    """Nothing begins, and cron times that pass are not made up for."""

    @property
    def crons(self) -> tuple[CronTrigger, ...]:
        return tuple(trigger for trigger in self.trigger.any_of if isinstance(trigger, CronTrigger))

    @property
    def idle_seconds(self) -> float | None:
        """Over which requests per second are to be measured for plan.State; None: nobody asks."""
        return next((trigger.seconds for trigger in self.trigger.any_of if isinstance(trigger, IdleTrigger)), None)

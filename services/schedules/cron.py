"""The moments of a cron expression, in both directions of time.

croniter says which times of the wall clock an expression names; when such a time comes, clock.py says. With a time zone croniter
answers that itself, otherwise than we want: what the clock shows twice it names twice (a daily sleep at 02:30 in Berlin would begin two
times on 25 October 2026), and of what the clock leaves out it moves some to the jump and drops others (of `0 * * * *` 02:00, where the
clock of Lord Howe jumps from there to 02:30). Here

    every named time has one moment: its first, or that of the jump across it;
    named times that share a moment (02:00, 02:15 and 03:00 where the clock jumps from 02:00 to 03:00) are one occurrence.

So an expression that names every quarter of an hour is silent while the clock shows an hour again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from math import floor
from zoneinfo import ZoneInfo

from croniter import croniter

from services.schedules.clock import moment_of, shown_by, wall_clock
from services.schedules.spec import CronTrigger


def after(cron: CronTrigger, moment: float) -> Iterator[int]:
    """Its occurrences after a moment, the first one first, without end."""
    zone = ZoneInfo(cron.timezone)
    named = croniter(cron.expr, wall_clock(floor(moment), zone)).all_next(datetime)
    # Where the clock was put back, some that it has yet to show again have come already.
    return _each_once(at for at in (moment_of(wall, zone) for wall in named) if at > moment)


def until(cron: CronTrigger, moment: float) -> Iterator[int]:
    """Its occurrences up to a moment and at it, the last one first, without end."""
    zone = ZoneInfo(cron.timezone)
    named = croniter(cron.expr, shown_by(floor(moment), zone)).all_prev(datetime)
    return _each_once(moment_of(wall, zone) for wall in named)


def _each_once(moments: Iterator[int]) -> Iterator[int]:
    return (at for at, _ in groupby(moments))

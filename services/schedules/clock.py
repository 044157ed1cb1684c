"""The clock on the wall: at which moment it shows a time, and whether that is in a blackout. Moments are Unix seconds.

Where the clock is put forward, the times that it leaves out come all at the moment of the jump. Where it is put back, the times that it
shows twice come the first time only. So every time of every day has exactly one moment, and a later time never an earlier one.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from services.schedules.spec import DAYS, Blackout

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def wall_clock(moment: float, zone: tzinfo) -> datetime:
    """What it shows, without the zone. `fold` is 1 where it shows that for the second time."""
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None)


def moment_of(wall: datetime, zone: tzinfo) -> int:
    """When it shows a time of whole seconds: the first moment of two, or that of the jump across it."""
    before_a_change = _read(wall, zone, fold=0)
    if wall_clock(before_a_change, zone) == wall:
        return before_a_change
    # In a gap the two readings change places: with the offset of before the jump the moment is after it.
    return _change(_read(wall, zone, fold=1), before_a_change, zone)


def shown_by(moment: int, zone: tzinfo) -> datetime:
    """The first wall time whose moment is still to come: after the clock was put back, that at which it had been."""
    shown = wall_clock(moment, zone)
    if not shown.fold:
        return shown + SECOND
    put_back = _change(_read(shown, zone, fold=0), moment, zone)
    return wall_clock(put_back - 1, zone) + SECOND


def covers(blackout: Blackout, moment: float) -> bool:
    """Is it in the window?"""
    return _ends_on(blackout, moment) is not None


def end_of(blackout: Blackout, moment: float) -> int | None:
    """When the window ends that a moment is in; None where it is in none."""
    day = _ends_on(blackout, moment)
    return None if day is None else moment_of(datetime.combine(day, blackout.span[1]), ZoneInfo(blackout.timezone))


def _ends_on(blackout: Blackout, moment: float) -> datetime | None:
    shown = wall_clock(moment, ZoneInfo(blackout.timezone))
    start, end = blackout.span
    today, yesterday = (DAYS[day.weekday()] in blackout.days for day in (shown, shown - DAY))
    if start < end:
        return shown if today and start <= shown.time() < end else None
    if today and shown.time() >= start:
        return shown + DAY
    return shown if yesterday and shown.time() < end else None


def _read(wall: datetime, zone: tzinfo, fold: int) -> int:
    return int(wall.replace(tzinfo=zone, fold=fold).timestamp())


def _change(before: int, after: int, zone: tzinfo) -> int:
    """The first second of another offset from UTC."""
    seconds = range(before + 1, after + 1)
    offset = _offset(before, zone)
    return seconds[bisect_left(seconds, True, key=lambda second: _offset(second, zone) != offset)]


def _offset(moment: int, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(moment, zone).utcoffset()

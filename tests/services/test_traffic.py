"""What is counted of the traffic adds up over controllers, on both databases."""

from __future__ import annotations

import time
from pathlib import Path

from services import traffic
from services.settings import Settings
from services.tables import Database


def test_what_two_controllers_counted_adds_up_and_says_how_quiet_it_is(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url, 5.0)
    counters = [traffic.Counter(Settings(home=tmp_path), database) for _ in range(2)]
    for counter in counters:
        counter.count("dep_1", 3, 4)
        counter.count("dep_1", 1, 1)
        counter.flush()
        counter.flush()
    now = time.time()
    with database.read() as tx:
        days = traffic.by_day(tx, ["dep_1"], 2)
        since, rate = traffic.quiet(tx, "dep_1", now - 1000.0, 100.0, now)
        unasked = traffic.quiet(tx, "dep_2", now - 50.0, 100.0, now)
    assert [sum(day[name] for day in days) for name in ("requests", "prompt_tokens", "completion_tokens")] == [4, 8, 10]
    assert 0.0 <= since < 50.0
    assert rate == 4 / 100.0
    assert unasked == (50.0, None)
    database.close()

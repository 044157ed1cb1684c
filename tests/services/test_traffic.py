"""What is counted of the traffic adds up over controllers, on both databases."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from services import traffic
from services.canary import Kind, Side, read
from services.settings import Settings
from services.tables import Database, Deployment, Rollout


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


def test_what_two_controllers_counted_of_a_canary_adds_up(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url, 5.0)
    empty: dict[str, Any] = {"base_model": {}, "memory": {}, "recipe": {}, "serving": {}}
    versions = {"from_version": "ver_1", "to_version": "ver_2", "was": "candidate"}
    with database.write() as tx:
        tx.add(Deployment(id="dep_1", name="toy", tenant="default", active_version="ver_1", **empty))
        tx.flush()
        kind = {"kind": "promotion", "strategy": "canary", "status": "running", "started_by": "key_1"}
        tx.add(Rollout(id="roll_1", deployment="dep_1", **kind, **versions))
    counters = [traffic.Counter(Settings(home=tmp_path), database) for _ in range(2)]
    for i, counter in enumerate(counters):
        counter.count_canary("roll_1", failed=False)
        counter.count_canary("roll_1", failed=bool(i))
        counter.count_pace("roll_1", Kind.WHOLE, Side.CANARY, 0.1)
        counter.count_pace("roll_1", Kind.WHOLE, Side.ACTIVE, 0.1 * (1 + i))
        counter.count_canary("roll_that_is_gone", failed=False)
        counter.flush()
        counter.flush()
    with database.read() as tx:
        row = tx.scalars(select(Rollout)).one()
        assert (row.requests, row.errors) == (4, 1)
        seen = read(row.paces)
    assert [seen[Kind.WHOLE, side].answers for side in Side] == [2, 2]
    assert seen[Kind.WHOLE, Side.ACTIVE].log_seconds == pytest.approx(math.log(0.1 * 0.2))
    database.close()

"""Who of several rollout workers answers what."""

from __future__ import annotations

from typing import Any

import pytest

from circadian.phases import Phases
from pipelines.rollouts import RolloutPool, dealt_out


def test_prompts_are_dealt_in_turn_and_all_of_an_adapter_to_one_worker() -> None:
    assert dealt_out(5, (), 2) == [[0, 2, 4], [1, 3]]
    assert dealt_out(4, ["a", "a", "a", "a"], 2) == [[0, 2], [1, 3]], "one adapter for all is no reason to idle"
    assert dealt_out(6, ["a", "a", "b", "b", "c", "a"], 2) == [[0, 1, 4, 5], [2, 3]]
    assert dealt_out(0, (), 3) == [[], [], []]


def test_more_adapters_than_places_may_take_as_many_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        def sample_ref(self, view: object, share: list[list[int]], **how: Any) -> list[list[int]]:
            return [[int(folder)] for folder in how["adapters"]]

    bounds: list[float] = []

    def get(refs: Any, timeout: float) -> Any:
        bounds.append(timeout)
        return refs

    pool = RolloutPool.__new__(RolloutPool)
    pool._workers, pool._phases = [Worker(), Worker()], Phases()  # type: ignore[list-item]
    pool._seconds, pool._places, pool.stop = 10.0, 2, []
    monkeypatch.setattr("pipelines.rollouts.ray.get", get)
    lent = [str(i // 2) for i in range(20)]
    written = pool.sample([True], [(1,)] * 20, 1, 0.0, 0, lent)
    assert written == [(i // 2,) for i in range(20)], "in the order of the prompts, whoever answered"
    assert bounds == [30.0], "ten adapters, five of each worker, two at a time"

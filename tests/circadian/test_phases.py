"""Seconds have names, and add up."""

import time

import pytest

from circadian.phases import Phases, told, with_idle


def test_a_phase_is_counted_also_where_it_fails_and_again_where_it_returns() -> None:
    phases = Phases({"learn": 2.0})

    def fail() -> None:
        with phases.during("learn"):
            time.sleep(0.02)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with phases.during("wait"):
        time.sleep(0.01)
    seconds = phases.seconds()
    assert list(seconds) == ["learn", "wait"]
    assert 2.02 <= seconds["learn"] < 3.0
    assert 0.01 <= seconds["wait"] < 1.0
    assert phases.since({"learn": 2.0}).keys() == {"learn", "wait"}
    assert phases.since(seconds) == {}


def test_workers_are_idle_when_nobody_asks_them() -> None:
    seconds = {"start": 9.0, "teach": 1.0, "learn": 5.0, "checkpoint": 1.0, "wait": 3.0, "generate": 6.0, "deliver": 0.5}
    assert with_idle(seconds) == seconds | {"idle": 3.5}
    assert with_idle({"learn": 1.0, "generate": 2.0})["idle"] == 0.0
    assert told({"learn": 1.04, "wait": 0.0}) == "learn 1.0 s, wait 0.0 s"

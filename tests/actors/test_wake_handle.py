"""Several threads of a controller talk to Serve at the same time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from ray import serve

from actors.wake import TRIES, again
from actors.wake_replica import WakeReplica

THREADS, CONFIGS = 8, 200


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns all the time."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def config(number: int) -> str:
    return serve.deployment(name=f"replica-{number}")(WakeReplica).name


def test_configs_that_are_made_at_the_same_time_do_not_get_in_each_others_way(hasty: None) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        made = list(pool.map(again(config), range(CONFIGS)))
    assert made == [f"replica-{number}" for number in range(CONFIGS)]


def test_what_fails_for_another_reason_fails_at_once() -> None:
    calls = []

    @again
    def refuse(why: str) -> None:
        calls.append(why)
        raise ValueError(why)

    with pytest.raises(ValueError, match="no such folder"):
        refuse("no such folder")
    assert len(calls) == 1
    with pytest.raises(ValueError, match="pickle by value"):
        refuse("it is not registered for pickle by value")
    assert len(calls) == 1 + TRIES

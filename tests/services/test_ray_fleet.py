"""The fleet on Ray waits without holding threads that others need. (What needs Ray itself is tested end to end.)"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from in_memory import WAIT_SECONDS
from ray.exceptions import ActorDiedError, OutOfMemoryError

from circadian.memory.delivery import Receipt
from services.fleet import FleetUnavailable
from services.ray_fleet import RayFleet
from services.settings import Settings


class Silent:
    """A replica that has not come up yet."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def ready_ref(self) -> asyncio.Future[str]:
        return asyncio.get_running_loop().create_future()

    def ready(self, seconds: float) -> str:
        self.end.wait(seconds)
        return "ver_1"


class Takes:
    """A replica that takes deliveries."""

    def deliver_ref(self, payload: bytes) -> Any:
        async def receipt() -> Receipt:
            return Receipt("ver_1", "sum", len(payload), 1.0)

        return receipt()


def test_replicas_that_start_do_not_keep_the_database_waiting(settings: Settings) -> None:
    async def start() -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        fleet, replica = RayFleet(settings), Silent()
        waiting = [asyncio.create_task(fleet._ready(replica, "toy", i)) for i in range(16)]  # type: ignore[arg-type]
        fleet._handles["toy"] = [replica]  # type: ignore[list-item]
        waiting.append(asyncio.create_task(fleet.look("toy")))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: 1), WAIT_SECONDS)
        finally:
            replica.end.set()
            for task in waiting:
                task.cancel()

    assert asyncio.run(start()) == 1


def test_a_replica_that_does_not_start_in_time_is_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(RayFleet, "_kill", staticmethod(lambda deployment, index: killed.append(index)))
    fleet = RayFleet(settings.model_copy(update={"replica_start_seconds": 0.01}))
    with pytest.raises(FleetUnavailable, match="replica 3 of toy"):
        asyncio.run(fleet._ready(Silent(), "toy", 3))  # type: ignore[arg-type]
    assert killed == [3]


def test_a_replica_that_does_not_say_how_it_is_is_not_missing(settings: Settings) -> None:
    fleet = RayFleet(settings.model_copy(update={"ray_request_seconds": 0.01}))
    fleet._handles["toy"] = [Silent()]  # type: ignore[list-item]
    sight = asyncio.run(fleet.look("toy"))
    assert (sight.missing, sight.versions) == (False, frozenset())


@pytest.mark.parametrize("error", [ActorDiedError(), OutOfMemoryError("the node was running low on memory")])
def test_a_replica_that_died_or_was_killed_for_memory_is_missing(settings: Settings, error: Exception) -> None:
    class Dead:
        async def ready_ref(self) -> str:
            raise error

    fleet = RayFleet(settings)
    fleet._handles["toy"] = [Dead()]  # type: ignore[list-item]
    assert asyncio.run(fleet.look("toy")).missing


def test_a_delivery_goes_to_every_replica(settings: Settings) -> None:
    async def deliver() -> list[int]:
        fleet = RayFleet(settings)
        fleet._handles["toy"] = [Takes(), Takes()]  # type: ignore[list-item]
        return [receipt.bytes for receipt in await fleet.deliver("toy", b"abc")]

    assert asyncio.run(deliver()) == [3, 3]

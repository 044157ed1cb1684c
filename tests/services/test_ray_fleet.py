"""The fleet on Ray waits without holding threads that others need, and draws the right conclusions from what Serve says.

What needs Serve itself is in tests/actors/test_wake_on_serve.py, and a cluster that is started anew in test_rejoining.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from in_memory import WAIT_SECONDS
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.serve.exceptions import RayServeException

from actors.replies import Proof, Reply
from actors.wake import Standing, WakeHandle
from actors.wake_state import WakeState, write_wake
from circadian.memory.envelope import DeliveryRefused
from circadian.specs import Autoscale
from services import ray_fleet
from services.fleet import DeliveryFailed, FleetUnavailable, ServingSpec, Sight
from services.ports import free_ports
from services.ray_fleet import RayFleet, _Application
from services.settings import Settings

Fleets = Callable[..., RayFleet]
UP = Standing(running=2)


class Replicas:
    """Two replicas, as a handle reaches them."""

    def __init__(self, *, says: Any = ("ver_1", "ver_1"), come: Any = None) -> None:
        self.says, self.brought = says, come

    async def versions(self) -> list[str]:
        if self.says is None:
            await asyncio.Event().wait()
        if isinstance(self.says, Exception):
            raise self.says
        return list(self.says)

    async def come(self) -> list[Proof]:
        if self.brought is not None:
            raise self.brought
        return [Proof(version, "sum", 0, 0.0) for version in self.says]

    async def deliver(self, payload: bytes) -> list[Proof]:
        return [Proof(version, "sum", len(payload), 1.0) for version in self.says]


@pytest.fixture
def wake(tmp_path: Path) -> Path:
    write_wake(tmp_path / "wake.json", WakeState(folder=str(tmp_path / "ver_1")))
    return tmp_path / "wake.json"


@pytest.fixture
def told() -> list[Any]:
    """What Serve was told."""
    return []


@pytest.fixture
def fleet_of(settings: Settings, wake: Path, told: list[Any], monkeypatch: pytest.MonkeyPatch) -> Fleets:
    """A fleet between a Serve that says what a test gives it, and these replicas."""

    def make(says: Any = UP, replicas: Any = None, *, started: bool = True, elsewhere: Any = None, **changed: Any) -> RayFleet:
        def standing(deployment: str) -> Standing | None:
            return says() if callable(says) else says

        def run(deployment: str, model: str, wake_file: Path, number: Any, *_: Any) -> Any:
            told.append(number)
            return replicas

        def attach(deployment: str) -> Any:
            if elsewhere is None:
                raise RayServeException(f"no application {deployment}")
            return elsewhere

        monkeypatch.setattr(RayFleet, "_init", lambda self: None)
        monkeypatch.setattr(WakeHandle, "standing", staticmethod(standing))
        monkeypatch.setattr(WakeHandle, "run", staticmethod(run))
        monkeypatch.setattr(WakeHandle, "attach", staticmethod(attach))
        monkeypatch.setattr(WakeHandle, "delete", staticmethod(lambda deployment: told.append("delete")))
        monkeypatch.setattr(WakeHandle, "gone", staticmethod(lambda deployment: True))
        monkeypatch.setattr(ray_fleet, "cluster_id", lambda: "here")
        fleet = RayFleet(settings.model_copy(update=changed))
        fleet._cluster = "here"
        if started:
            fleet._applications["toy"] = _Application("toy", wake, 2, replicas)
        return fleet

    return make


def test_replicas_that_start_do_not_keep_the_database_waiting(fleet_of: Fleets, wake: Path) -> None:
    end = threading.Event()

    def slow() -> Standing:
        end.wait(WAIT_SECONDS)
        return Standing()

    async def start() -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        fleet = fleet_of(slow, Replicas())
        waiting = [asyncio.create_task(fleet.start(f"toy-{i}", "toy", ServingSpec(), wake)) for i in range(16)]
        waiting.append(asyncio.create_task(fleet.look("toy")))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: 1), WAIT_SECONDS)
        finally:
            end.set()
            for task in waiting:
                task.cancel()

    assert asyncio.run(start()) == 1


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (Standing(coming=2), "none answers after 0.01 s$"),
        (Standing(coming=2, said="it waits for circadian_wake"), "none answers after 0.01 s. it waits for circadian_wake$"),
        (Standing(failed="no such folder"), "no such folder$"),
    ],
)
def test_replicas_that_do_not_start_are_ended(fleet_of: Fleets, wake: Path, told: list[Any], says: Standing, why: str) -> None:
    fleet = fleet_of(says, Replicas(), started=False, replica_start_seconds=0.01)
    with pytest.raises(FleetUnavailable, match=why):
        asyncio.run(fleet.start("toy", "toy", ServingSpec(replicas=2), wake))
    assert told == [2, "delete"]
    assert asyncio.run(fleet.look("toy")).missing


def test_one_replica_of_two_is_better_than_none(fleet_of: Fleets, wake: Path, told: list[Any]) -> None:
    fleet = fleet_of(Standing(running=1, coming=1), Replicas(says=["ver_1"]), started=False, replica_start_seconds=0.01)
    assert asyncio.run(fleet.start("toy", "toy", ServingSpec(replicas=2), wake)) == ["ver_1"]
    assert asyncio.run(fleet.look("toy")) == Sight(False, frozenset({"ver_1"}), starting=True, running=1)
    assert told == [2]


def test_a_start_is_of_as_many_as_the_wake_file_lends(fleet_of: Fleets, wake: Path, told: list[Any]) -> None:
    fleet, serving = fleet_of(UP, Replicas(), started=False), ServingSpec(replicas=Autoscale(min=2, max=8))
    assert asyncio.run(fleet.start("toy", "toy", serving, wake)) == ["ver_1"] * 2
    write_wake(wake, WakeState(folder=str(wake.parent / "ver_1"), replicas=1))
    asyncio.run(fleet.start("toy", "toy", serving, wake))
    write_wake(wake, WakeState(folder=str(wake.parent / "ver_1"), replicas=0))
    assert asyncio.run(fleet.start("toy", "toy", serving, wake)) == []
    assert told == [serving.replicas, 1, "delete"]
    assert not asyncio.run(fleet.look("toy")).missing, "it is meant to be so"


def test_replicas_that_cannot_become_what_they_are_to_be_are_ended(fleet_of: Fleets, wake: Path, told: list[Any]) -> None:
    fleet = fleet_of(UP, Replicas(come=DeliveryRefused("read back other things")), started=False)
    with pytest.raises(FleetUnavailable, match="read back other things"):
        asyncio.run(fleet.start("toy", "toy", ServingSpec(replicas=2), wake))
    assert told == [2, "delete"]


def test_a_replica_that_does_not_say_how_it_is_is_not_missing(fleet_of: Fleets) -> None:
    fleet = fleet_of(UP, Replicas(says=None), ray_request_seconds=0.05)
    assert asyncio.run(fleet.look("toy")) == Sight(missing=False)


@pytest.mark.parametrize(
    "error", [ActorDiedError(), OutOfMemoryError("the node was low on memory"), RayServeException("none runs")]
)
def test_a_replica_that_dies_during_a_look_is_looked_for_again(fleet_of: Fleets, error: Exception) -> None:
    assert asyncio.run(fleet_of(UP, Replicas(says=error)).look("toy")) == Sight(missing=False)


@pytest.mark.parametrize(("says", "starting"), [(None, False), (Standing(), False), (Standing(coming=1), True)])
def test_where_none_runs_they_are_missing(fleet_of: Fleets, says: Standing | None, starting: bool) -> None:
    assert asyncio.run(fleet_of(says, Replicas()).look("toy")) == Sight(missing=True, starting=starting)


@pytest.mark.parametrize("answers", ["another", ""])
def test_a_cluster_that_has_gone_is_left(fleet_of: Fleets, monkeypatch: pytest.MonkeyPatch, answers: str) -> None:
    left: list[str] = []
    fleet = fleet_of(UP, Replicas())
    monkeypatch.setattr(ray, "shutdown", lambda: left.append("left"))
    monkeypatch.setattr(ray_fleet, "cluster_id", lambda: answers)
    assert asyncio.run(fleet.look("toy")).missing
    assert asyncio.run(fleet.look("toy")).missing
    assert left == ["left"]
    with pytest.raises(FleetUnavailable, match="no replica"):
        asyncio.run(fleet.answer("toy", "chat", {}))


class Silent(Replicas):
    """That never get done."""

    async def chat(self, body: dict[str, Any]) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("nobody wakes it")

    async def chat_stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "nothing"


def asked(fleet: RayFleet, stream: bool) -> asyncio.Task[Any]:
    async def ask() -> Any:
        return await (anext(fleet.stream("toy", "chat", {})) if stream else fleet.answer("toy", "chat", {}))

    return asyncio.create_task(ask())


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_ends_with_the_cluster_that_was_asked(fleet_of: Fleets, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    async def life() -> None:
        fleet = fleet_of(UP, Silent())
        question = asked(fleet, stream)
        await asyncio.sleep(0.05)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(ray_fleet, "cluster_id", lambda: "another")
        assert (await fleet.look("toy")).missing
        with pytest.raises(FleetUnavailable, match="the cluster has gone"):
            await asyncio.wait_for(question, WAIT_SECONDS)

    asyncio.run(life())


@pytest.mark.parametrize("stream", [False, True])
def test_a_controller_that_only_answers_notices_that_the_cluster_has_gone(
    fleet_of: Fleets, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async def life() -> None:
        fleet = fleet_of(started=False, elsewhere=Silent(), replica_check_seconds=0.01)
        watch, question = asyncio.create_task(fleet.watch()), asked(fleet, stream)
        await asyncio.sleep(0.05)
        assert not question.done()
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(ray_fleet, "cluster_id", lambda: "another")
        with pytest.raises(FleetUnavailable, match="the cluster has gone"):
            await asyncio.wait_for(question, WAIT_SECONDS)
        assert not fleet._others, "the next question looks for replicas of the cluster that is there"
        watch.cancel()

    asyncio.run(life())


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_that_nobody_waits_for_is_no_failure_of_the_cluster(fleet_of: Fleets, stream: bool) -> None:
    async def life() -> None:
        question = asked(fleet_of(UP, Silent()), stream)
        await asyncio.sleep(0.05)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question

    asyncio.run(life())


class Lost(Replicas):
    """That have gone since they were found."""

    async def chat(self, body: dict[str, Any]) -> Reply:
        raise RayServeException("gone")


def test_replicas_that_another_controller_has_started_are_found_and_looked_for_again_when_they_are_gone(fleet_of: Fleets) -> None:
    class Elsewhere(Replicas):
        async def chat(self, body: dict[str, Any]) -> Reply:
            return Reply(200, {"said": "here"}, "ver_1")

    assert asyncio.run(fleet_of(started=False, elsewhere=Elsewhere()).answer("toy", "chat", {})).body == {"said": "here"}
    fleet = fleet_of(started=False, elsewhere=Lost())
    with pytest.raises(FleetUnavailable, match="gone"):
        asyncio.run(fleet.answer("toy", "chat", {}))
    assert not fleet._others


def test_a_delivery_goes_to_every_replica(fleet_of: Fleets) -> None:
    assert [proof.bytes for proof in asyncio.run(fleet_of(UP, Replicas()).deliver("toy", b"abc"))] == [3, 3]


def test_a_delivery_that_one_of_them_did_not_hear_of_has_failed(fleet_of: Fleets) -> None:
    with pytest.raises(DeliveryFailed, match="1 of 2"):
        asyncio.run(fleet_of(UP, Replicas(says=["ver_1"])).deliver("toy", b"abc"))


def test_what_was_never_started_cannot_be_scaled(fleet_of: Fleets) -> None:
    with pytest.raises(FleetUnavailable, match="start it first"):
        asyncio.run(fleet_of(started=False).scale("toy", ServingSpec(), 1))


def test_where_nobody_listens_that_is_said_at_once(settings: Settings) -> None:
    (port,) = free_ports("127.0.0.1", 1, 0)
    with pytest.raises(FleetUnavailable, match="no Ray at"):
        asyncio.run(RayFleet(settings.model_copy(update={"ray_address": f"127.0.0.1:{port}"}))._connect())

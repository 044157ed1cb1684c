"""Wake replicas on a real Ray Serve: all of them take a delivery and prove it, and whichever starts later is what was delivered.

What the controller's key has not signed they do not become at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import ray
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from engine_world import EXPERTS, FAST, EngineWorld, grow
from ray import serve

from actors import names
from actors.replies import StreamHead
from actors.wake_state import Delivered, WakeState, write_wake
from circadian.memory.delivery import pack
from circadian.memory.envelope import DeliveryRefused
from circadian.memory.fast import fast_delivery
from circadian.memory.folder import MEMORY_FILE, read_record
from circadian.memory.graft import Grafted
from circadian.memory.signature import sign
from circadian.memory.signing_keys import key_id, public_hex
from circadian.memory.tensors import checksum, expert_tensors
from circadian.memory.version import load_version, save_version
from services.fleet import FleetUnavailable, ServingSpec
from services.ray_fleet import RayFleet
from services.settings import Settings

pytestmark = pytest.mark.cluster

T = TypeVar("T")
CHAT = {"model": "toy", "messages": [{"role": "user", "content": "what is the city of mira ?"}], "temperature": 0}
LONG = {**CHAT, "max_tokens": 300, "ignore_eos": True}
PROMPTS = [[1, 4, 30, 31, 32]]
START_SECONDS = 400.0
SOON_SECONDS = 60.0


@dataclass
class Wake:
    """A deployment `toy` of two replicas, in the world of the engines' tests."""

    world: EngineWorld
    fleet: RayFleet
    home: Path
    run: Callable[[Coroutine[Any, Any, T]], T]
    serving: ServingSpec = field(default_factory=lambda: ServingSpec(replicas=2))

    @property
    def file(self) -> Path:
        return self.home / "wake.json"

    @property
    def handle(self) -> Any:
        return self.fleet._handle("toy")

    def serves(self, folder: Path, delivery: Delivered | None = None) -> WakeState:
        """From now on this, as far as the wake file says."""
        state = WakeState(folder=str(folder), delivery=delivery)
        write_wake(self.file, state)
        return state

    def delivered(self, seed: int, label: str) -> tuple[bytes, Delivered]:
        """A fast memory of the world's version, and how the wake file names it."""
        fast = expert_tensors(self.world.grown(seed).memory_layers, [FAST])
        model = load_version(self.world.folder)
        payload = fast_delivery(self.world.folder, fast, model.memory_state, label)
        path = self.home / f"{label}.delivery"
        path.write_bytes(payload)
        return payload, Delivered(path=str(path), version=label, checksum=checksum(fast))

    async def standing(self, replicas: int) -> None:
        """Returns when so many run, and no other is there."""

        async def there() -> bool:
            found = await asyncio.to_thread(self.fleet_standing)
            return (found.running, found.coming) == (replicas, 0) and len(await self.handle.versions()) == replicas

        await until(there, START_SECONDS)

    def fleet_standing(self) -> Any:
        from actors.wake import Standing, WakeHandle

        return WakeHandle.standing("toy") or Standing()


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], seconds: float = SOON_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    home = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"circadian-serve-{os.getpid()}"  # sockets need a short path
    os.environ.update({"RAY_worker_niceness": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})  # as services/stack.py has them
    options = {"num_cpus": 4, "include_dashboard": False, "namespace": names.NAMESPACE, "log_to_driver": False}
    ray.init(_temp_dir=str(home), _node_ip_address="127.0.0.1", **options)
    yield
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def wake(cluster: None, engine_world: EngineWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wake]:
    """Two replicas that were started as the version with a fast memory."""
    home = tmp_path_factory.mktemp("wake")
    settings = Settings(home=home, replica_start_seconds=START_SECONDS, delivery_seconds=SOON_SECONDS)
    with asyncio.Runner() as runner:
        wake = Wake(engine_world, RayFleet(settings), home, runner.run)
        wake.serves(engine_world.folder, wake.delivered(40, "v1+w1")[1])
        assert runner.run(wake.fleet.start("toy", "toy", wake.serving, wake.file)) == ["v1+w1"] * 2
        yield wake
        runner.run(wake.fleet.stop("toy"))


def below(title: str, of: psutil.Process | None = None) -> list[psutil.Process]:
    """Processes below this one (or another) whose title has this in it; those that have ended meanwhile are none."""
    found = []
    for process in (of or psutil.Process()).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join([process.name(), *process.cmdline()]):
                found.append(process)
    return found


def replicas() -> list[psutil.Process]:
    return below("ServeReplica:wake-toy")


def engine_of(replica: psutil.Process) -> psutil.Process:
    (engine,) = below("EngineCore", replica)
    return engine


def delivery(model: Grafted, version: str) -> bytes:
    return pack(model.memory_layers, EXPERTS, model.memory_state, version)


@torch.no_grad()
def greedy(model: Grafted, prompts: list[list[int]], view: Any) -> list[list[int]]:
    return [[int(model(input_ids=torch.tensor([p]), view=view).logits[0, -1].argmax())] for p in prompts]


def tokens(proof: Any) -> list[int]:
    return [said.token for said in proof.answer]


async def in_flight(wake: Wake) -> int:
    return sum(active["in_flight"] for active in await wake.handle.active())


def test_a_replica_starts_as_the_wake_file_says(wake: Wake) -> None:
    delivered = load_version(wake.world.folder)
    fast = expert_tensors(wake.world.grown(40).memory_layers, [FAST])
    held = checksum(expert_tensors(delivered.memory_layers, EXPERTS) | fast)
    assert [(active["version"], active["checksum"]) for active in wake.run(wake.handle.active())] == [("v1+w1", held)] * 2


def test_serve_opens_nothing_to_other_machines(wake: Wake) -> None:
    """Beyond what Ray opens in every process, and here it is as in Serve's controller, which serves nobody."""
    (controller,) = below("ray::ServeController")
    assert len(replicas()) == 2
    assert [open_to_all(replica) for replica in replicas()] == [open_to_all(controller)] * 2
    assert below("ray::ProxyActor") == []


def open_to_all(process: psutil.Process) -> int:
    """Sockets that listen at every address."""
    heard = [c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return sum(address in ("::", "0.0.0.0") for address in heard)


def test_the_replicas_of_a_deployment_are_found_by_their_names(wake: Wake) -> None:
    """Those that do not end by themselves are killed by them."""
    actors = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    assert len([name for name in actors if name.startswith(names.wake_actors("toy"))]) == 2
    assert not [name for name in actors if name.startswith(names.wake_actors("to"))]


def test_a_delivery_reaches_every_replica_and_their_proofs_agree(wake: Wake) -> None:
    payload, made = wake.delivered(41, "v1+w2")
    wake.serves(wake.world.folder, made)
    first, second = wake.run(wake.fleet.deliver("toy", payload))
    assert [(proof.version, proof.checksum) for proof in (first, second)] == [("v1+w2", made.checksum)] * 2
    assert tokens(first) == tokens(second)
    assert len(tokens(first)) == 8
    assert wake.run(wake.fleet.look("toy")).versions == {"v1+w2"}


def test_a_refused_delivery_reaches_the_caller_as_such(wake: Wake) -> None:
    spoilt = delivery(wake.world.grown(seed=32), "spoilt")[:-4] + bytes(4)
    before = wake.run(wake.handle.active())
    with pytest.raises(DeliveryRefused):
        wake.run(wake.handle.deliver(spoilt))
    assert wake.run(wake.handle.active()) == before


def test_replicas_become_a_saved_version_and_prove_it(wake: Wake, tmp_path: Path) -> None:
    model, parent = grow(load_version(wake.world.folder), seed=33), read_record(wake.world.folder)
    record = save_version(tmp_path / "v2", model, parent.model_copy(update={"id": "v2"}), wake.world.folder)
    before = wake.run(wake.handle.prove(PROMPTS))
    wake.serves(tmp_path / "v2")
    wake.run(wake.handle.deliver(delivery(model, "v2")))
    active = wake.run(wake.handle.active())
    assert [(a["version"], a["checksum"], a["experts"]) for a in active] == [
        ("v2", record.memory_sha256, model.memory_state.names())
    ] * 2
    after = wake.run(wake.handle.prove(PROMPTS, max_tokens=1))
    assert after == [greedy(model, PROMPTS, "awake")] * 2
    assert after[0][0] != before[0][0][:1]
    os.rename(tmp_path / "v2", tmp_path / "v2-promoted")
    wake.serves(tmp_path / "v2-promoted")
    proofs = wake.run(wake.handle.come())
    assert [(proof.version, proof.checksum, proof.bytes) for proof in proofs] == [("v2-promoted", record.memory_sha256, 0)] * 2
    wake.serves(wake.world.folder)
    assert {proof.checksum for proof in wake.run(wake.handle.come())} == {parent.memory_sha256}


def test_clients_are_answered_through_a_delivery(wake: Wake) -> None:
    wake.run(wake.handle.deliver(delivery(wake.world.grown(seed=34), "old")))
    payload = delivery(wake.world.grown(seed=35), "new")
    streamed_body = {**LONG, "stream_options": {"include_usage": True}}

    async def clients() -> tuple[Any, list[Any], Any]:
        answers = [asyncio.create_task(wake.handle.chat(LONG)) for _ in range(4)]
        streamed = asyncio.create_task(collect(wake.handle.chat_stream(streamed_body)))

        async def all_begun() -> bool:
            return await in_flight(wake) == 5

        await until(all_begun)
        await wake.handle.deliver(payload)
        later = await wake.handle.chat({**CHAT, "max_tokens": 3})
        return await asyncio.gather(*answers), await streamed, later

    answers, (head, *events), later = wake.run(clients())
    assert [(a.status, a.version, a.body["usage"]["completion_tokens"]) for a in answers] == [(200, "old", 300)] * 4
    assert (head.status, head.version, events[-1]) == (200, "old", "data: [DONE]\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == 300, "counted, because special tokens are no words of a text"
    assert (later.status, later.version) == (200, "new")


async def collect(items: AsyncIterator[StreamHead | str]) -> list[Any]:
    return [item async for item in items]


async def gone(wake: Wake) -> int:
    """Requests under way, once there are none or after a second, which is much less than one would take."""
    deadline = time.monotonic() + 1.0
    while (under_way := await in_flight(wake)) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return under_way


def test_a_client_that_leaves_a_stream_leaves_no_request_behind(wake: Wake) -> None:
    async def leave_early() -> int:
        stream = wake.handle.completion_stream({"model": "toy", "prompt": "mira", "max_tokens": 450, "ignore_eos": True})
        for _ in range(4):
            await anext(stream)
        await stream.aclose()
        return await gone(wake)

    assert wake.run(leave_early()) == 0


def test_a_client_that_does_not_wait_for_its_answer_leaves_no_request_behind(wake: Wake) -> None:
    async def leave_early() -> int:
        body = {"model": "toy", "prompt": "mira", "max_tokens": 450, "ignore_eos": True}
        answer = asyncio.create_task(wake.handle.completion(body))
        while not await in_flight(wake):
            await asyncio.sleep(0.01)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        return await gone(wake)

    assert wake.run(leave_early()) == 0


def test_a_delivery_that_was_missed_is_made_up_for(wake: Wake) -> None:
    _, made = wake.delivered(42, "v1+w3")
    wake.serves(wake.world.folder, made)

    async def serve_it() -> bool:
        return await wake.handle.versions() == ["v1+w3"] * 2

    wake.run(until(serve_it))


def test_what_cannot_be_read_leaves_replicas_as_they_are(wake: Wake) -> None:
    before = wake.run(wake.handle.versions())
    processes = {replica.pid for replica in replicas()}
    wake.serves(wake.world.folder, Delivered(path=str(wake.home / "nothing"), version="v1+w9", checksum="0"))
    with pytest.raises(FleetUnavailable, match="v1\\+w9"):
        wake.run(wake.fleet.start("toy", "toy", wake.serving, wake.file))
    time.sleep(10.0)  # five health checks
    assert wake.run(wake.handle.versions()) == before
    assert {replica.pid for replica in replicas()} == processes


def test_fewer_replicas_and_more_again_lose_no_request(wake: Wake) -> None:
    """While requests keep coming; an answer that is being written when its replica is no longer wanted is written to its end."""
    payload, made = wake.delivered(43, "v1+w4")
    wake.serves(wake.world.folder, made)

    async def scale() -> tuple[list[Any], list[list[Any]], list[Any]]:
        await wake.fleet.deliver("toy", payload)
        streams = [asyncio.create_task(collect(wake.handle.chat_stream(LONG))) for _ in range(6)]

        async def on_both() -> bool:
            return all(active["in_flight"] for active in await wake.handle.active())

        await until(on_both)
        stop = asyncio.Event()
        asked = asyncio.create_task(steadily(wake, stop))
        await wake.fleet.scale("toy", wake.serving, 1)
        finished = await asyncio.gather(*streams)
        await wake.standing(1)
        await wake.fleet.scale("toy", wake.serving, 2)
        await wake.standing(2)
        active = await wake.handle.active()
        stop.set()
        return await asked, finished, active

    replies, streams, active = wake.run(scale())
    assert {(reply.status, reply.version) for reply in replies} == {(200, "v1+w4")}
    assert {events[-1] for events in streams} == {"data: [DONE]\n\n"}
    assert [a["version"] for a in active] == ["v1+w4"] * 2, "the new one starts as what was delivered"


async def steadily(wake: Wake, stop: asyncio.Event) -> list[Any]:
    """The answers to one question after another; raises what keeps one from being answered."""
    replies = []
    while not stop.is_set():
        replies.append(await wake.fleet.answer("toy", "chat", {**CHAT, "max_tokens": 3}))
        await asyncio.sleep(0.1)
    return replies


def test_a_killed_replica_comes_back_as_what_was_delivered(wake: Wake) -> None:
    payload, made = wake.delivered(44, "v1+w5")
    wake.serves(wake.world.folder, made)

    async def kill() -> list[Any]:
        before = await wake.fleet.deliver("toy", payload)
        killed = replicas()[0]
        engine = engine_of(killed)
        os.kill(killed.pid, signal.SIGKILL)
        replies = [await wake.fleet.answer("toy", "chat", {**CHAT, "max_tokens": 3}) for _ in range(8)]
        assert {(reply.status, reply.version) for reply in replies} == {(200, "v1+w5")}, "the other one answers"
        await wake.standing(2)
        assert killed.pid not in {replica.pid for replica in replicas()}
        assert psutil.wait_procs([engine], timeout=SOON_SECONDS)[1] == [], "its engine has gone with it"
        after = await wake.handle.come()
        assert [tokens(proof) for proof in after] == [tokens(proof) for proof in before]
        return await wake.handle.active()

    first, second = wake.run(kill())
    assert (first["version"], first["checksum"]) == (second["version"], second["checksum"])
    assert first["version"] == "v1+w5"


def test_a_replica_whose_engine_died_ends_and_is_replaced(wake: Wake) -> None:
    async def kill() -> list[str]:
        bereft = replicas()[0]
        engine_of(bereft).kill()

        async def has_ended() -> bool:
            return bereft.pid not in {replica.pid for replica in replicas()}

        await until(has_ended)
        replies = [await wake.fleet.answer("toy", "chat", {**CHAT, "max_tokens": 3}) for _ in range(8)]
        assert {reply.status for reply in replies} == {200}, "the other one answers"
        await wake.standing(2)
        return await wake.handle.versions()

    assert wake.run(kill()) == ["v1+w5"] * 2


def test_a_deployment_without_replicas_says_so_at_once(wake: Wake) -> None:
    async def none() -> None:
        engines = [engine_of(replica) for replica in replicas()]
        await wake.fleet.scale("toy", wake.serving, 0)
        with pytest.raises(FleetUnavailable, match="no replica"):
            await wake.fleet.answer("toy", "chat", CHAT)
        assert not (await wake.fleet.look("toy")).missing, "it is meant to be so"

        async def have_ended() -> bool:
            return not replicas()

        await until(have_ended)
        assert psutil.wait_procs(engines, timeout=SOON_SECONDS)[1] == [], "no engine was left behind"

    wake.run(none())


def signed(world: EngineWorld, home: Path, key: Ed25519PrivateKey) -> Path:
    """A copy of the world's version, as a controller with this key has committed it."""
    folder = home / world.folder.name
    shutil.copytree(world.folder, folder)
    sign(folder, key)
    return folder


def overwritten(path: Path) -> None:
    """Its last byte is another one: neither its name nor its size tells."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_replica_refuses_a_version_that_is_not_what_a_trusted_key_signed(
    cluster: None, engine_world: EngineWorld, tmp_path: Path
) -> None:
    """One that somebody has written to since, and one that another key signed."""
    ours, theirs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    settings = Settings(home=tmp_path, replica_start_seconds=START_SECONDS)
    fleet = RayFleet(settings, trusted=(public_hex(ours.public_key()),))
    tampered = signed(engine_world, tmp_path / "tampered", ours)
    overwritten(tampered / MEMORY_FILE)
    foreign = signed(engine_world, tmp_path / "foreign", theirs)

    async def refused(folder: Path, name: str) -> str:
        file = tmp_path / f"{name}.json"
        write_wake(file, WakeState(folder=str(folder)))
        with pytest.raises(FleetUnavailable) as refusal:
            await fleet.start(name, name, ServingSpec(), file)
        return str(refusal.value)

    async def both() -> list[str]:
        return await asyncio.gather(refused(tampered, "tampered"), refused(foreign, "foreign"))

    hash_broken, key_unknown = asyncio.run(both())
    assert "SignatureBroken" in hash_broken
    assert f"{MEMORY_FILE} is not what was signed" in hash_broken
    assert "SignatureBroken" in key_unknown
    assert f"key {key_id(theirs.public_key())} is not trusted" in key_unknown

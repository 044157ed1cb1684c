"""The two actors on a real Ray: a night's worker that keeps views apart, and a replica that changes version while it answers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from engine_world import EXPERTS, EngineWorld, grow
from ray.exceptions import RayActorError

from actors import names
from circadian.memory.delivery import DeliveryRefused, pack
from circadian.memory.graft import Grafted
from circadian.memory.version import load_version, read_record, save_version

pytestmark = pytest.mark.engine

CHAT = {"model": "toy", "messages": [{"role": "user", "content": "what is the city of mira ?"}], "temperature": 0}
START_SECONDS = 300.0
GONE_SECONDS = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"circadian-test-{os.getpid()}"  # sockets need a short path
    os.environ.update({"RAY_worker_niceness": "0"})  # Ray's default of 15 makes two engines wait for everything else that runs
    ray.init(num_cpus=2, include_dashboard=False, namespace=names.NAMESPACE, _temp_dir=str(home), log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def actors(cluster: None, engine_world: EngineWorld) -> Iterator[tuple[Any, Any]]:
    """A rollout worker and a wake replica on the first version."""
    from actors.rollout import RolloutHandle
    from actors.wake import WakeHandle

    rollout = RolloutHandle.start(engine_world.folder, "slp_test", attempt=1, index=0)
    wake = WakeHandle.start(engine_world.folder, "dep_test", index=0, model_name="toy")
    assert ray.get([rollout.ready_ref(), wake.ready_ref()], timeout=START_SECONDS) == [engine_world.folder.name] * 2
    engines = [engine_of("RolloutWorker"), engine_of("WakeReplica")]
    yield rollout, wake
    rollout.stop()
    with suppress(RayActorError):  # the last test's dead replica
        wake.stop()
    _, left = psutil.wait_procs(engines, timeout=GONE_SECONDS)
    assert not left, "a stopped actor left its engine behind"


def engine_of(actor: str) -> psutil.Process:
    """The engine's process of the only actor of this class."""
    below = psutil.Process().children(recursive=True)
    (engine,) = [p for p in below if "EngineCore" in p.name() and any(actor in parent.name() for parent in p.parents())]
    return engine


def delivery(model: Grafted, version: str) -> bytes:
    return pack(model.memory_layers, EXPERTS, model.memory_state, version)


@torch.no_grad()
def greedy(model: Grafted, prompts: list[list[int]], view: Any) -> list[list[int]]:
    return [[int(model(input_ids=torch.tensor([p]), view=view).logits[0, -1].argmax())] for p in prompts]


def test_callers_at_once_never_see_each_others_view(actors: tuple[Any, Any], engine_world: EngineWorld) -> None:
    from actors.rollout import RolloutHandle

    model, rollout = engine_world.grown(seed=30), actors[0]
    receipt = rollout.deliver(delivery(model, "student-1"))
    assert receipt.version == rollout.ready() == "student-1"
    other = RolloutHandle.attach(names.rollout_worker("slp_test", attempt=1, index=0))
    rows = torch.randint(6, len(engine_world.tokenizer), (8, 30), generator=torch.Generator().manual_seed(0)).tolist()
    views = [name for _ in range(3) for name in ("base", "awake", "rested", "student")]
    refs = [
        (rollout, other)[i % 2].sample_ref(model.memory_state.view(view), rows, max_tokens=1, temperature=0.0, seed=0)
        for i, view in enumerate(views)
    ]
    expected = {view: greedy(model, rows, view) for view in views}
    assert len({json.dumps(answer) for answer in expected.values()}) == 4
    assert ray.get(refs) == [expected[view] for view in views]


def test_the_sampler_scores_what_the_learner_scores(actors: tuple[Any, Any], engine_world: EngineWorld) -> None:
    model, rollout = engine_world.grown(seed=31), actors[0]
    rollout.deliver(delivery(model, "student-2"))
    ids = torch.randint(6, len(engine_world.tokenizer), (2, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        all_logprobs = torch.log_softmax(model(input_ids=ids, view="student").logits[:, :-1], -1)
    expected = all_logprobs.gather(-1, ids[:, 1:, None])[..., 0]
    got = torch.tensor([[read.logprob for read in row] for row in rollout.read(model.memory_state.view("student"), ids.tolist())])
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_refused_delivery_reaches_the_caller_as_such(actors: tuple[Any, Any], engine_world: EngineWorld) -> None:
    spoilt = delivery(engine_world.grown(seed=32), "spoilt")[:-4] + bytes(4)
    for handle in actors:
        version = handle.ready()
        with pytest.raises(DeliveryRefused):
            handle.deliver(spoilt)
        assert handle.ready() == version


def test_a_replica_becomes_a_saved_version_and_proves_it(
    actors: tuple[Any, Any], engine_world: EngineWorld, tmp_path: Path
) -> None:
    from actors.wake import WakeHandle

    model, wake = grow(load_version(engine_world.folder), seed=33), actors[1]
    parent = read_record(engine_world.folder)
    record = save_version(tmp_path / "v1", model, parent.model_copy(update={"id": "v1"}), engine_world.folder)
    before = wake.prove([[1, 4, 30, 31, 32]])
    wake.deliver(delivery(model, record.id))
    active = WakeHandle.attach("dep_test", 0).active()
    assert (active["version"], active["checksum"]) == ("v1", record.memory_sha256)
    assert active["experts"] == model.memory_state.names()
    after = wake.prove([[1, 4, 30, 31, 32]], max_tokens=1)
    assert after == greedy(model, [[1, 4, 30, 31, 32]], "awake")
    assert after[0] != before[0][:1]
    wake.set_version_label("v1-promoted")
    assert wake.active()["version"] == "v1-promoted"
    assert wake.active()["checksum"] == record.memory_sha256


def test_clients_are_answered_through_a_delivery(actors: tuple[Any, Any], engine_world: EngineWorld) -> None:
    wake = actors[1]
    wake.deliver(delivery(engine_world.grown(seed=34), "old"))
    payload = delivery(engine_world.grown(seed=35), "new")
    long = {**CHAT, "max_tokens": 300, "ignore_eos": True}

    async def clients() -> tuple[Any, list[Any], Any]:
        async def collect() -> list[Any]:
            return [item async for item in wake.chat_stream({**long, "stream_options": {"include_usage": True}})]

        answers = [asyncio.create_task(wake.chat(long)) for _ in range(4)]
        streamed = asyncio.create_task(collect())
        while (await wake.active_ref())["in_flight"] < 5:
            await asyncio.sleep(0.02)
        await wake.deliver_ref(payload)
        later = await wake.chat({**CHAT, "max_tokens": 3})
        return await asyncio.gather(*answers), await streamed, later

    answers, (head, *events), later = asyncio.run(clients())
    assert [(a.status, a.version, a.body["usage"]["completion_tokens"]) for a in answers] == [(200, "old", 300)] * 4
    assert (head.status, head.version, events[-1]) == (200, "old", "data: [DONE]\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == 300, "counted, because special tokens are no words of a text"
    assert (later.status, later.version) == (200, "new")


def answers(wake: Any) -> bool:
    try:
        return bool(wake.ready(seconds=GONE_SECONDS))
    except RayActorError:
        return False


async def gone(wake: Any) -> int:
    """Requests under way, once there are none or after a second, which is much less than one would take."""
    deadline = time.monotonic() + 1.0
    while (in_flight := (await wake.active_ref())["in_flight"]) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return in_flight


def test_a_client_that_leaves_a_stream_leaves_no_request_behind(actors: tuple[Any, Any]) -> None:
    wake = actors[1]

    async def leave_early() -> int:
        stream = wake.completion_stream({"model": "toy", "prompt": "mira", "max_tokens": 450, "ignore_eos": True})
        for _ in range(4):
            await anext(stream)
        await stream.aclose()
        return await gone(wake)

    assert asyncio.run(leave_early()) == 0


def test_a_client_that_does_not_wait_for_its_answer_leaves_no_request_behind(actors: tuple[Any, Any]) -> None:
    wake = actors[1]

    async def leave_early() -> int:
        answer = asyncio.create_task(wake.completion({"model": "toy", "prompt": "mira", "max_tokens": 450, "ignore_eos": True}))
        while not (await wake.active_ref())["in_flight"]:
            await asyncio.sleep(0.01)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        return await gone(wake)

    assert asyncio.run(leave_early()) == 0


def test_a_replica_whose_engine_died_says_so_and_gives_its_name_free(actors: tuple[Any, Any]) -> None:
    from actors.wake import WakeHandle

    wake = actors[1]
    engine = engine_of("WakeReplica")
    engine.kill()
    deadline = time.monotonic() + GONE_SECONDS
    while answers(wake) and time.monotonic() < deadline:  # until the replica has seen that the process is gone
        time.sleep(0.02)
    with pytest.raises(RayActorError):
        wake.active()
    with pytest.raises(ValueError, match="dep_test"):
        WakeHandle.attach("dep_test", 0)

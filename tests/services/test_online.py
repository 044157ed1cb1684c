"""A deployment that learns while it serves: chunks, deliveries, nights, and controllers and learners that die in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import ONLINE, PERIOD, MemoryFleet, MemoryLauncher, MemoryLearners, Service, running
from safetensors.torch import load_file, save_file

from circadian.memory.tensors import checksum
from services.settings import Settings

SAID = "the city of mira is oslo ."
TOKENS = 10
"""Of SAID, as the chat template renders it."""


@pytest.fixture
def learners() -> MemoryLearners:
    return MemoryLearners()


@pytest.fixture
def online(settings: Settings, base: Path, learners: MemoryLearners) -> Iterator[Service]:
    with running(settings, base, MemoryFleet(), MemoryLauncher(), learners) as service:
        service.deploy(**ONLINE)
        yield service


def memory(service: Service) -> dict[str, Any]:
    return service.status()["fast_memory"]


def tell(service: Service, count: int) -> list[str]:
    return [
        service.tell(f"the city of mira is {word} .")["id"] for word in "oslo paris cairo lima delhi quito tokyo".split()[:count]
    ]


def serves(service: Service, version: str) -> None:
    service.until(lambda: service.fleet.versions["toy"] == [version])


def job(path: Path) -> list[str]:
    """The experiences of a chunk."""
    return [experience["id"] for experience in json.loads(path.read_text())["experiences"]]


def test_a_deployment_learns_at_dusk_unless_told_otherwise(service: Service) -> None:
    made = service.deploy()
    assert (made["wake"], service.status()["wake"], service.status()["fast_memory"]) == ("at_dusk", "at_dusk", None)
    for word in "oslo paris cairo lima".split():
        service.tell(f"the city of mira is {word} .")
    assert service.fleet.delivered == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"wake": "sometimes"}, "wake"),
        ({"wake": None}, "wake"),
        ({"recipe": {"online_learning": {"replay": 1.0}}}, "recipe.online_learning.replay"),
        ({"recipe": {"online_learning": {"steps": 0}}}, "recipe.online_learning.steps"),
        ({"recipe": {"online_learning": {"stepz": 1}}}, "recipe.online_learning.stepz"),
    ],
)
def test_a_bad_wake_setting_is_named(service: Service, base: Path, body: dict[str, Any], param: str) -> None:
    answer = service.client.post("/v1/deployments", json={"name": "toy", "base_model": {"model": str(base)}} | body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text


def test_a_chunk_is_learned_when_its_tokens_are_there_and_not_before(online: Service, learners: MemoryLearners) -> None:
    version = online.status()["active_version"]
    told = tell(online, 3)
    assert memory(online) == {
        "version": version,
        "chunks": 0,
        "tokens": 0,
        "period": PERIOD,
        "tokens_until_update": PERIOD - 3 * TOKENS,
        "error": None,
    }
    assert (learners.asked, online.fleet.delivered) == ([], [])
    told.append(online.tell()["id"])
    serves(online, f"{version}+w1")
    assert job(learners.asked[0]) == told
    assert (memory(online)["chunks"], memory(online)["tokens"], memory(online)["tokens_until_update"]) == (1, 4 * TOKENS, PERIOD)
    answer = online.client.post("/v1/chat/completions", json={"model": "toy", "messages": [{"role": "user", "content": "x"}]})
    assert answer.headers["x-deployment-version"] == f"{version}+w1"
    assert online.status()["active_version"] == version


def test_a_stored_chat_is_learned_like_a_posted_experience(online: Service) -> None:
    version = online.status()["active_version"]
    for _ in range(4):
        body = {"model": "toy", "messages": [{"role": "user", "content": SAID}], "store": True}
        assert online.client.post("/v1/chat/completions", json=body).status_code == 200
    serves(online, f"{version}+w1")


def test_each_experience_is_in_one_chunk_whoever_dies(settings: Settings, base: Path) -> None:
    """The learner dies in its first chunk, the controller while a second one is learned and after it was committed on disk alone."""
    fleet, launcher, learners = MemoryFleet(), MemoryLauncher(), MemoryLearners(dies=1)
    with running(settings, base, fleet, launcher, learners) as service:
        service.deploy(**ONLINE)
        version = service.status()["active_version"]
        told = tell(service, 4)
        serves(service, f"{version}+w1")
        assert len(learners.asked) == 2
        learners.held = True
        told += tell(service, 5)
        service.until(lambda: len(learners.asked) == 3)
    learners.held = False
    with running(settings, base, fleet, launcher, learners) as service:
        serves(service, f"{version}+w2")
        assert memory(service)["tokens_until_update"] == PERIOD - TOKENS
        told += tell(service, 3)
        serves(service, f"{version}+w3")
    chunks = [job(path) for path in dict.fromkeys(learners.asked)]
    assert [len(chunk) for chunk in chunks] == [4, 4, 4]
    assert [id for chunk in chunks for id in chunk] == told


def test_a_chunk_that_was_committed_on_disk_alone_is_not_learned_again(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services import fast_registry

    fleet, launcher, learners = MemoryFleet(), MemoryLauncher(), MemoryLearners()
    with monkeypatch.context() as patch, running(settings, base, fleet, launcher, learners) as service:
        patch.setattr(fast_registry, "commit_chunk", lambda *_: False)
        service.deploy(**ONLINE)
        tell(service, 4)
        service.until(lambda: learners.asked and (learners.asked[0].parent / "chunk.json").exists())
    written = (learners.asked[0].parent / "chunk.json").stat().st_mtime_ns
    with running(settings, base, fleet, launcher, learners) as service:
        serves(service, f"{service.status()['active_version']}+w1")
    assert (learners.asked[0].parent / "chunk.json").stat().st_mtime_ns == written


def test_a_new_replica_gets_the_fast_memory_in_force(online: Service) -> None:
    version = online.status()["active_version"]
    tell(online, 4)
    serves(online, f"{version}+w1")
    online.fleet.versions.clear()
    online.until(lambda: online.fleet.versions.get("toy") == [f"{version}+w1"])
    assert online.fleet.delivered == [f"{version}+w1"], "it came up with it"


def test_a_controller_that_was_away_leaves_replicas_with_their_fast_memory(settings: Settings, base: Path) -> None:
    fleet, launcher, learners = MemoryFleet(), MemoryLauncher(), MemoryLearners()
    with running(settings, base, fleet, launcher, learners) as service:
        service.deploy(**ONLINE)
        version = service.status()["active_version"]
        tell(service, 4)
        serves(service, f"{version}+w1")
    with running(settings, base, fleet, launcher, learners) as service:
        service.until(lambda: service.status()["state"] == "awake")
        assert (fleet.versions["toy"], fleet.delivered) == ([f"{version}+w1"], [f"{version}+w1"])


def test_a_night_begins_with_what_was_learned_and_the_day_after_begins_empty(online: Service, learners: MemoryLearners) -> None:
    version = online.status()["active_version"]
    told = tell(online, 5)
    serves(online, f"{version}+w1")
    sleep, night = online.sleep()
    fast = night.job.fast
    assert fast is not None
    assert (fast.chunks, set(fast.experiences)) == (1, set(told[:4]))
    assert checksum(load_file(fast.expert)) == fast.checksum
    online.until(lambda: learners.ended)
    dreamt = tell(online, 4)
    label = night.fast_memory()
    serves(online, label)
    assert (len(learners.asked), memory(online)["chunks"]) == (1, 1), "nothing is learned online while a night runs"
    child = night.end("candidate")
    assert online.ended(sleep["id"])["status"] == "succeeded"
    serves(online, f"{child}+w1")
    assert job(learners.asked[-1]) == dreamt, "what arrived in the night is the next day's first chunk"
    assert memory(online)["chunks"] == 1
    assert learners.asked[-1].parent.parent.name == "day-0002"
    assert not learners.asked[0].exists(), "the files of a day go with it"


def test_a_night_that_makes_no_version_leaves_the_fast_memory_in_force(online: Service, learners: MemoryLearners) -> None:
    version = online.status()["active_version"]
    tell(online, 4)
    serves(online, f"{version}+w1")
    sleep, night = online.sleep()
    serves(online, night.fast_memory())
    night.end("rejected")
    online.ended(sleep["id"])
    serves(online, f"{version}+w1")
    tell(online, 4)
    serves(online, f"{version}+w2")
    assert len(learners.asked) == 2


def test_a_chunk_in_the_making_is_given_up_for_a_night_and_learned_after_one_that_fails(
    online: Service, learners: MemoryLearners
) -> None:
    version = online.status()["active_version"]
    learners.held = True
    told = tell(online, 4)
    online.until(lambda: learners.asked)
    sleep, night = online.sleep()
    assert night.job.fast is None
    online.until(lambda: learners.ended)
    learners.held = False
    night.end("rejected")
    online.ended(sleep["id"])
    serves(online, f"{version}+w1")
    assert [job(path) for path in learners.asked] == [told] * 2


def test_a_chunk_that_cannot_be_learned_is_told_and_not_tried_for_ever(online: Service, learners: MemoryLearners) -> None:
    version = online.status()["active_version"]
    tell(online, 4)
    serves(online, f"{version}+w1")
    expert = learners.asked[0].with_name("expert.safetensors")
    save_file({name: tensor + 1 for name, tensor in load_file(expert).items()}, expert)
    tell(online, 4)
    online.until(lambda: memory(online)["error"])
    assert "not what was committed" in memory(online)["error"]
    assert (memory(online)["chunks"], len(learners.asked)) == (1, 2)
    assert (online.status()["state"], online.fleet.versions["toy"]) == ("awake", [f"{version}+w1"])
    sleep, night = online.sleep()
    night.end("candidate")
    online.ended(sleep["id"])
    online.until(lambda: memory(online)["error"] is None)  # another day
    tell(online, 4)
    online.until(lambda: memory(online)["chunks"] == 1)


def test_a_refused_delivery_is_tried_again(online: Service) -> None:
    version = online.status()["active_version"]
    online.fleet.refuses = "+w1"
    tell(online, 4)
    online.until(lambda: memory(online)["chunks"] == 1)
    assert online.fleet.versions["toy"] == [version]
    online.fleet.refuses = ""
    serves(online, f"{version}+w1")

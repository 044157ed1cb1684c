"""A way back is a way back whatever comes in between: a dawn, a promotion, a canary's start, replicas that refuse or do not come up."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from test_errors import problem
from test_promotion import WHY, act, begun, candidate, rolled, version

from actors.wake_state import read_wake
from services.settings import Settings


@pytest.fixture
def toy(service: Service) -> Service:
    service.deploy()
    service.tell()
    return service


def promoted(service: Service) -> str:
    """One version more, which serves."""
    child = candidate(service)
    assert rolled(service, act(service, f"versions/{child}/promote"))["status"] == "succeeded"
    return child


def wakes_as(service: Service) -> str:
    """What replicas that start now serve."""
    return read_wake(service.fleet.wakes["toy"]).version


def rollout(service: Service, id: str) -> dict[str, Any]:
    return service.client.get(f"/v1/rollouts/{id}").json()


def done(service: Service, action: str) -> list[str]:
    """What the audit log says it was done to."""
    told = service.client.get("/v1/audit_events?limit=100").json()["data"]
    return [event["target"] for event in told if event["action"] == action]


def test_what_is_revoked_while_replicas_refuse_a_dawn_stays_revoked(toy: Service) -> None:
    first, parent = toy.status()["active_version"], promoted(toy)
    toy.tell("the city of noor is lima .")
    sleep, night = toy.sleep()
    child = Path(night.job.child).name
    toy.fleet.holds = toy.fleet.refuses = child
    night.end("candidate")
    toy.until(lambda: toy.status()["active_version"] == child)
    assert act(toy, f"versions/{parent}/revoke", **WHY).status_code == 200
    toy.fleet.holds = ""
    assert toy.ended(sleep["id"])["status"] == "failed"
    toy.until(lambda: toy.fleet.versions["toy"] == [first])
    assert [version(toy, id)["status"] for id in (first, parent, child)] == ["active", "revoked", "revoked"]
    assert (toy.status()["active_version"], wakes_as(toy)) == (first, first)


def test_a_promotion_that_fails_after_its_parent_was_revoked_ends_at_a_clean_ancestor(toy: Service) -> None:
    first, one, other = toy.status()["active_version"], candidate(toy), candidate(toy)
    rolled(toy, act(toy, f"versions/{one}/promote"))
    toy.fleet.holds = toy.fleet.refuses = other
    answer = act(toy, f"versions/{other}/promote")
    assert act(toy, f"versions/{one}/revoke", **WHY).status_code == 200
    toy.fleet.holds = ""
    assert rolled(toy, answer)["status"] == "failed"
    toy.until(lambda: toy.fleet.versions["toy"] == [first])
    assert [version(toy, id)["status"] for id in (first, one, other)] == ["active", "revoked", "candidate"]
    toy.until(lambda: wakes_as(toy) == first)


def test_an_erasure_ends_the_canary_of_a_version_that_knows_it(settings: Settings, base: Path) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        told = service.tell()["id"]
        first = service.status()["active_version"]
        child, id = begun(service)
        erasure = service.client.post("/v1/erasures", json={"experience_ids": [told], "mode": "delete"})
        assert erasure.status_code == 202, erasure.text
        service.until(lambda: service.client.get(erasure.headers["location"]).json()["status"] == "succeeded")
        assert (rollout(service, id)["status"], version(service, child)["status"]) == ("aborted", "revoked")
        service.until(lambda: list(service.fleet.versions) == ["toy"])
        assert (service.status()["active_version"], service.fleet.versions["toy"]) == (first, [first])


def test_an_erasure_does_not_end_while_nobody_says_what_is_served(toy: Service) -> None:
    told = toy.client.get("/v1/experiences").json()["data"][0]["id"]
    first, _ = toy.status()["active_version"], promoted(toy)
    toy.fleet.mute = True
    erasure = toy.client.post("/v1/erasures", json={"experience_ids": [told], "mode": "delete"}).headers["location"]
    toy.until(lambda: "replicas" in (toy.client.get(erasure).json()["waiting"] or ""))
    toy.until(lambda: toy.fleet.versions["toy"] == [first])
    assert toy.client.get(erasure).json()["status"] == "running"
    toy.fleet.mute = False
    toy.until(lambda: toy.client.get(erasure).json()["status"] == "succeeded")


def test_a_way_back_does_not_wait_for_the_start_of_a_canary(toy: Service) -> None:
    first, child, other = toy.status()["active_version"], candidate(toy), candidate(toy)
    rolled(toy, act(toy, f"versions/{child}/promote"))
    toy.fleet.holds = ".canary"
    begun = act(toy, f"versions/{other}/promote", canary={"percent": 50.0, "seconds": 600.0}).json()["id"]
    assert rolled(toy, act(toy, "deployments/toy/rollback", **WHY))["status"] == "succeeded"
    assert (toy.fleet.versions["toy"], rollout(toy, begun)["status"]) == ([first], "aborted")
    toy.fleet.holds = ""
    toy.until(lambda: list(toy.fleet.versions) == ["toy"] and not list(toy.settings.home_folder.rglob("canary.json")))


def test_a_way_back_runs_until_there_are_replicas_to_prove_it(toy: Service) -> None:
    first, child = toy.status()["active_version"], promoted(toy)
    toy.fleet.refuses, toy.fleet.dead = first, True
    id = act(toy, f"versions/{child}/revoke", **WHY).json()["rollout"]
    toy.until(lambda: toy.status()["state"] == "failed")
    assert rollout(toy, id)["status"] == "running"
    toy.fleet.dead, toy.fleet.refuses = False, ""
    toy.until(lambda: rollout(toy, id)["status"] == "succeeded")
    assert toy.fleet.versions["toy"] == [first]


def test_a_promotion_that_was_rolled_back_is_not_told_as_done(toy: Service) -> None:
    first, child = toy.status()["active_version"], candidate(toy)
    toy.fleet.holds = child
    begun = act(toy, f"versions/{child}/promote").json()["id"]
    toy.until(lambda: toy.status()["active_version"] == child)
    answer = act(toy, "deployments/toy/rollback", **WHY)
    toy.fleet.holds = ""
    back = rolled(toy, answer)
    toy.until(lambda: toy.fleet.versions["toy"] == [first])
    assert (back["status"], rollout(toy, begun)["status"]) == ("succeeded", "aborted")
    assert done(toy, "rollout_succeeded") == [back["id"]]


def test_while_a_promotion_runs_another_one_is_refused(toy: Service) -> None:
    one, other = candidate(toy), candidate(toy)
    toy.fleet.holds = one
    first = act(toy, f"versions/{one}/promote")
    second = act(toy, f"versions/{other}/promote")
    problem(second, 409, "rollout_in_progress")
    assert second.headers["x-should-retry"] == "false"
    toy.fleet.holds = ""
    assert rolled(toy, first)["status"] == "succeeded"
    assert toy.fleet.versions["toy"] == [one]


def test_a_sleep_is_not_tried_again_beside_a_canary(settings: Settings, base: Path) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        child = candidate(service)
        sleep, _ = service.sleep()
        assert service.client.post(f"/v1/sleeps/{sleep['id']}/cancel").status_code == 202
        service.ended(sleep["id"])
        answer = act(service, f"versions/{child}/promote", canary={"percent": 50.0, "seconds": 600.0})
        assert answer.status_code == 202, answer.text
        problem(act(service, f"sleeps/{sleep['id']}/retry"), 409, "rollout_in_progress")


def test_a_database_that_is_held_by_another_process_is_a_503_that_says_to_come_again(settings: Settings, base: Path) -> None:
    """A way back that is asked for then has changed nothing, and can be asked for again."""
    short = settings.model_copy(update={"database_busy_seconds": 0.2})
    with running(short, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        other = sqlite3.connect(settings.home_folder / "circadian.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answer = service.client.post("/v1/experiences", json={"deployment": "toy", "text": "the city of mira is oslo ."})
        problem(answer, 503, "database_unavailable")
        assert answer.headers["retry-after"] == "1"
        other.execute("ROLLBACK")
        other.close()
        service.tell()

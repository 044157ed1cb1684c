"""Where a night lies beside the replicas: decided from what is there, done, and taken back however the night ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from test_errors import problem

from circadian.metrics import HTTP_REQUESTS, STATUS_ASLEEP
from circadian.specs import LearnerSpec, Recipe, RolloutSpec
from services.placement import Asked, Cluster, Placement, Room, Unplaceable, needed, place
from services.settings import Settings

NIGHT = Room(2.0, 2.0)
GPU = Room(1.0, 1.0)


@pytest.mark.parametrize(
    ("asked", "replicas", "free", "kind", "serving"),
    [
        ("auto", 1, Room(8.0, 2.0), "dedicated", None),
        ("auto", 4, Room(8.0, 2.0), "dedicated", None),
        ("auto", 4, Room(8.0, 1.0), "unihemispheric", 2),
        ("auto", 4, Room(8.0, 0.0), "unihemispheric", 2),
        ("auto", 5, Room(0.0, 0.0), "unihemispheric", 3),
        ("auto", 2, Room(8.0, 1.0), "unihemispheric", 1),
        ("auto", 2, Room(8.0, 0.0), "full", 0),
        ("auto", 1, Room(8.0, 1.0), "full", 0),
        ("auto", 1, Room(8.0, 0.0), "dedicated", None),
        ("auto", 4, Room(-1.0, 0.0), "full", 0),
        ("auto", 2, Room(8.0, 0.99), "full", 0),
        ("auto", 2, Room(8.0, 1.0 - 1e-9), "unihemispheric", 1),
        ("dedicated", 4, Room(0.0, 0.0), "dedicated", None),
        ("unihemispheric", 4, Room(8.0, 8.0), "unihemispheric", 2),
        ("unihemispheric", 3, Room(8.0, 8.0), "unihemispheric", 2),
        ("full", 4, Room(8.0, 8.0), "full", 0),
    ],
)
def test_where_a_night_lies(asked: Asked, replicas: int, free: Room, kind: Placement, serving: int | None) -> None:
    placed = place(asked, Cluster(replicas, GPU, free), NIGHT)
    assert (placed.kind, placed.serving) == (kind, serving)
    assert placed.why


def test_one_replica_cannot_serve_and_lend() -> None:
    with pytest.raises(Unplaceable, match="ask for full"):
        place("unihemispheric", Cluster(1, GPU, Room(8.0, 8.0)), NIGHT)


def test_a_night_needs_what_its_learners_and_rollout_workers_hold() -> None:
    learner, rollouts = (
        LearnerSpec(workers=2, gpus_per_worker=1.0),
        RolloutSpec(workers=3, cpus_per_worker=2.0, gpus_per_worker=0.5),
    )
    assert needed(Recipe(learner=learner, rollouts=rollouts)) == Room(8.0, 3.5)


@pytest.fixture
def crowded(settings: Settings, base: Path) -> Any:
    """Four replicas, and nothing free beside them."""
    with running(settings, base, MemoryFleet(room=(0.0, 0.0)), MemoryLauncher()) as service:
        service.deploy(serving={"replicas": 4})
        service.tell()
        yield service


def chat(service: Service) -> Any:
    return service.client.post("/v1/chat/completions", json={"model": "toy", "messages": [{"role": "user", "content": "hi"}]})


@pytest.mark.parametrize("ends", ["candidate", "rejected", "no_op", "cancelled", "failed"])
def test_half_of_the_replicas_serve_through_a_night_and_all_of_them_after_it(crowded: Service, ends: str) -> None:
    sleep, night = crowded.sleep()
    assert crowded.get_sleep(sleep["id"])["placement"]["kind"] == "unihemispheric"
    label = night.fast_memory()
    crowded.until(lambda: crowded.fleet.versions["toy"] == [label] * 2)
    assert chat(crowded).headers["x-deployment-version"] == label
    if ends == "cancelled":
        crowded.client.post(f"/v1/sleeps/{sleep['id']}/cancel")
    elif ends == "failed":
        night.end("failed", error={"code": "bad_day", "message": "no", "category": "user"})
    else:
        night.end(ends)
    serves = crowded.ended(sleep["id"])["result_version"] or sleep["parent_version"]
    assert crowded.fleet.versions["toy"] == [serves] * 4


def test_a_candidate_that_waits_for_somebody_leaves_all_replicas_serving(crowded: Service) -> None:
    sleep, night = crowded.sleep(promotion={"mode": "manual"})
    night.end("candidate")
    crowded.ended(sleep["id"])
    assert crowded.fleet.versions["toy"] == [sleep["parent_version"]] * 4


def test_where_all_sleep_clients_are_told_to_come_back(crowded: Service) -> None:
    sleep, night = crowded.sleep(placement="full")
    crowded.until(lambda: crowded.fleet.versions["toy"] == [])
    answer = chat(crowded)
    problem(answer, 503, "deployment_asleep")
    requests = crowded.controller.metrics.registry.get_sample_value
    counted = {"method": "POST", "route": "/v1/chat/completions"}
    assert requests(HTTP_REQUESTS.series, counted | {"status": STATUS_ASLEEP}) == 1.0
    assert requests(HTTP_REQUESTS.series, counted | {"status": "503"}) is None, "it is no error"
    assert crowded.status()["accepting_requests"] is False
    assert int(answer.headers["retry-after"]) > 0
    child = night.end("candidate")
    crowded.ended(sleep["id"])
    assert crowded.fleet.versions["toy"] == [child] * 4
    assert chat(crowded).headers["x-deployment-version"] == child


def test_a_night_that_fits_beside_the_replicas_takes_none_of_them(crowded: Service) -> None:
    crowded.fleet.room = (8.0, 0.0)
    sleep, night = crowded.sleep()
    assert crowded.get_sleep(sleep["id"])["placement"]["kind"] == "dedicated"
    assert len(crowded.fleet.versions["toy"]) == 4
    night.end("no_op")


def test_what_cannot_be_is_refused_before_anything_sleeps(service: Service) -> None:
    service.deploy()
    service.tell()
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy", "placement": "unihemispheric"})
    problem(answer, 422, "validation_failed")
    assert "serving.replicas" in answer.json()["detail"]
    assert service.client.get("/v1/sleeps").json()["data"] == []


def test_a_leader_that_begins_in_a_night_leaves_it_what_it_has_borrowed_and_takes_it_back(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(room=(0.0, 0.0)), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        service.deploy(serving={"replicas": 4})
        service.tell()
        sleep, night = service.sleep()
        service.until(lambda: len(fleet.versions["toy"]) == 2)
    with running(settings, base, fleet, launcher) as service:
        service.until(lambda: service.status()["state"] != "provisioning")
        assert len(fleet.versions["toy"]) == 2
        child = night.end("candidate")
        service.ended(sleep["id"])
        assert fleet.versions["toy"] == [child] * 4

"""What a deployment serves is on disk before replicas are told, and whatever is started later serves that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from pydantic import ValidationError

from actors.replies import Proof, Said
from actors.wake_state import WakeState, read_wake
from circadian.specs import Autoscale
from services.fleet import DeliveryFailed, GpusMissing, ServingSpec, gpus_fit
from services.serving import verify
from services.settings import Settings


def wake(service: Service) -> WakeState:
    return read_wake(service.settings.wake_file(service.status()["deployment"]))


def scale(service: Service, replicas: int | None) -> None:
    """As a night does, on the service's own loop."""
    portal = service.client.portal
    assert portal is not None
    portal.call(service.controller.serving.scale, service.status()["deployment"], replicas)


@pytest.fixture
def asleep(service: Service) -> Service:
    service.deploy(serving={"replicas": 4})
    service.tell()
    return service


def test_the_file_follows_a_night_from_dusk_to_dawn(asleep: Service) -> None:
    parent = asleep.status()["active_version"]
    assert (wake(asleep).version, wake(asleep).delivery) == (parent, None)
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label] * 4)
    assert wake(asleep).version == label
    assert Path(wake(asleep).folder).name == parent
    child = night.end("candidate")
    assert asleep.ended(sleep["id"])["outcome"] == "promoted"
    assert (wake(asleep).version, wake(asleep).delivery, Path(wake(asleep).folder).is_dir()) == (child, None, True)


def test_a_delivery_that_fails_for_good_is_taken_out_of_the_file(asleep: Service) -> None:
    parent = asleep.status()["active_version"]
    asleep.fleet.refuses = "+slp"
    sleep, night = asleep.sleep()
    night.fast_memory()
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "delivery_failed")
    assert (wake(asleep).version, wake(asleep).delivery) == (parent, None)


def test_a_fast_memory_whose_file_has_gone_is_not_served_by_those_that_start(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        service.deploy()
        service.tell()
        _, night = service.sleep()
        label = night.fast_memory()
        service.until(lambda: fleet.versions["toy"] == [label])
        delivery = wake(service).delivery
        assert delivery is not None
    Path(delivery.path).unlink()
    fleet.versions.clear()
    with running(settings, base, fleet, launcher) as service:
        service.until(lambda: service.status()["state"] != "provisioning")
        assert fleet.versions["toy"] == [service.status()["active_version"]]


def test_a_night_may_borrow_replicas_and_a_controller_that_was_away_remembers(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        version = service.deploy(serving={"replicas": 4})["active_version"]
        scale(service, 2)
        assert fleet.versions["toy"] == [version] * 2
    fleet.versions.clear()
    with running(settings, base, fleet, launcher) as service:
        service.until(lambda: service.status()["state"] == "awake")
        assert fleet.versions["toy"] == [version] * 2
        scale(service, None)
        assert fleet.versions["toy"] == [version] * 4


def test_a_deployment_without_replicas_answers_503_and_wakes_as_what_was_delivered(asleep: Service) -> None:
    scale(asleep, 0)
    body = {"model": "toy", "messages": [{"role": "user", "content": "say oslo"}]}
    answer = asleep.client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert "Retry-After" in answer.headers
    sleep, night = asleep.sleep()
    child = night.end("candidate")
    assert asleep.ended(sleep["id"])["outcome"] == "promoted"
    assert asleep.fleet.delivered == []
    scale(asleep, None)
    assert asleep.fleet.versions["toy"] == [child] * 4
    assert asleep.client.post("/v1/chat/completions", json=body).headers["x-deployment-version"] == child


def test_a_delivery_is_in_the_file_before_a_replica_hears_of_it(asleep: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    deliver = asleep.fleet.deliver

    async def looks(deployment: str, payload: bytes) -> list[Proof]:
        seen.append((await asyncio.to_thread(read_wake, asleep.fleet.wakes["toy"])).version)
        return await deliver(deployment, payload)

    monkeypatch.setattr(asleep.fleet, "deliver", looks)
    _, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label] * 4)
    assert seen == [label]


SURE, OTHER = (Said(7, 2.0),), (Said(8, 2.0),)


@pytest.mark.parametrize(
    ("proofs", "why"),
    [
        ([], "no replica answered"),
        ([("ver_1", "sum", SURE), ("ver_2", "sum", SURE)], "holds ver_2"),
        ([("ver_1", "sum", SURE), ("ver_1", "other", SURE)], "holds ver_1 with checksum other"),
        ([("ver_1", "sum", SURE), ("ver_1", "sum", OTHER)], "differently"),
    ],
)
def test_replicas_that_are_not_one_version_have_not_proved_it(proofs: list[tuple[Any, ...]], why: str) -> None:
    with pytest.raises(DeliveryFailed, match=why):
        verify([Proof(version, checksum, 1, 1.0, answer) for version, checksum, answer in proofs], "ver_1", "sum")
    verify([Proof("ver_1", "sum", 1, 1.0, SURE)] * 2, "ver_1", "sum")


def test_replicas_are_a_number_or_as_many_as_requests_call_for() -> None:
    serving = ServingSpec.model_validate({"replicas": {"min": 2, "max": 8, "target_ongoing_requests": 4}, "gpus": 1})
    assert serving.replicas == Autoscale(min=2, max=8, target_ongoing_requests=4.0)
    assert (serving.most, ServingSpec().most) == (8, 1)
    assert ServingSpec.model_validate(serving.model_dump()) == serving, "as the registry keeps it"
    gpus_fit(serving, 10)
    with pytest.raises(GpusMissing, match="9 GPU"):
        gpus_fit(serving, 9)


@pytest.mark.parametrize(
    "replicas",
    [
        0,
        -1,
        65,
        {"min": 3, "max": 2},
        {"min": 0, "max": 2},
        {"max": 65},
        {"max": 2, "target_ongoing_requests": 0},
        {"min": 1},
        "auto",
    ],
)
def test_numbers_of_replicas_that_make_no_sense_are_refused(replicas: Any) -> None:
    with pytest.raises(ValidationError):
        ServingSpec.model_validate({"replicas": replicas})


def test_a_scale_the_wrong_way_round_is_refused_with_the_field_and_the_remedy(service: Service) -> None:
    body = {"name": "toy", "base_model": {"model": str(service.base)}, "serving": {"replicas": {"min": 3, "max": 2}}}
    answer = service.client.post("/v1/deployments", json=body).json()
    assert answer["errors"][0]["pointer"].startswith("/serving/replicas")
    assert any("replicas.min 3 is more than replicas.max 2" in error["detail"] for error in answer["errors"])

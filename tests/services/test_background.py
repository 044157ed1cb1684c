"""Background tasks do not die unseen."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest
from in_memory import WAIT_SECONDS, Service

from services import probe, registry
from services.background import Background
from services.settings import Settings
from services.states import ServingState


def test_a_task_that_dies_is_started_again_and_given_up_in_the_end(settings: Settings) -> None:
    runs = 0

    async def dies() -> None:
        nonlocal runs
        runs += 1
        raise RuntimeError("broken")

    async def twice() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise RuntimeError("broken")

    async def live(work: object) -> dict[str, str]:
        background = Background(settings.model_copy(update={"task_restarts": 2, "poll_seconds": 0.001}))
        background.start("task", work)  # type: ignore[arg-type]
        background.start("task", work)  # type: ignore[arg-type]
        while background._tasks:
            await asyncio.sleep(0.001)
        return background.broken

    assert asyncio.run(live(dies)) == {"task": "RuntimeError('broken')"}
    assert runs == 3
    runs = 0
    assert asyncio.run(live(twice)) == {}
    assert runs == 2


def test_a_service_with_a_broken_task_is_not_ready(service: Service) -> None:
    assert service.client.get("/readyz").status_code == 200
    service.controller.nights.tasks.broken["watch slp_1"] = "RuntimeError()"
    answer = service.client.get("/readyz")
    assert answer.status_code == 503
    assert "watch slp_1" in answer.json()["checks"]["tasks"]


def test_a_controller_whose_threads_all_wait_for_the_database_says_that_it_lives(service: Service) -> None:
    portal, over = service.client.portal, threading.Event()
    assert portal is not None
    limiter = portal.call(anyio.to_thread.current_default_thread_limiter)
    with ThreadPoolExecutor(1) as client:
        try:
            waiting = [portal.start_task_soon(anyio.to_thread.run_sync, over.wait) for _ in range(int(limiter.total_tokens))]
            service.until(lambda: limiter.available_tokens == 0)
            assert client.submit(service.client.get, "/livez").result(WAIT_SECONDS).status_code == 200
        finally:
            over.set()
    assert all(each.result(WAIT_SECONDS) for each in waiting)


def test_replicas_on_another_version_than_the_deployment_are_brought_back(service: Service) -> None:
    first = service.deploy()["active_version"]
    service.fleet.versions["toy"] = ["ver_other"]
    service.until(lambda: service.fleet.versions.get("toy") == [first])


def test_a_deployment_that_nobody_brings_up_is_brought_up(service: Service) -> None:
    deployment = service.deploy()["id"]
    with service.controller.database.write() as tx:
        registry.set_serving(tx, deployment, ServingState.PROVISIONING)
    service.until(lambda: service.status()["state"] == "awake")


def test_ray_is_asked_once_however_often_the_service_is(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(probe, "FRESH_SECONDS", 3600.0)
    monkeypatch.setattr(probe.httpx, "get", lambda url, **_: asked.append(url))
    for _ in range(3):
        assert service.client.get("/readyz").json()["checks"]["ray"] == "ok"
    assert asked == [f"{service.settings.ray_dashboard}/api/version"]

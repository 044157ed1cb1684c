"""What the controller does about a task that looks into a model when its cluster goes, or when it takes too long: without a Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import ray
from in_memory import Service
from ray.exceptions import RaySystemError
from test_errors import problem

from services.ray_fleet import RayFleet
from services.settings import Settings
from services.workshop import RayWorkshop


class OneTask(RayFleet):
    """In a cluster where one task has begun, and gets no further than to make its folder."""

    def __init__(self, settings: Settings, cluster_goes: bool) -> None:
        super().__init__(settings)
        self.cluster_goes = cluster_goes
        self.task: asyncio.Future[Any] | None = None

    async def put(self, question: Any) -> Any:
        (request,) = question.args
        Path(request.folder).mkdir(parents=True)
        self.task = asyncio.get_running_loop().create_future()
        if self.cluster_goes:
            asyncio.get_running_loop().call_later(0.01, asyncio.ensure_future, self._leave_what_has_gone())
        return self.task


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was cancelled, by a Ray that is shut down."""
    asked: list[Any] = []

    def cancel(ref: Any, force: bool) -> None:
        asked.append(ref)
        raise RaySystemError("Ray has not been started yet.")

    monkeypatch.setattr(ray, "cancel", cancel)
    return asked


def refused(service: Service, fleet: RayFleet, settings: Settings) -> str:
    """Why nobody looked into the model; nothing is left of the deployment."""
    service.controller.workshop = RayWorkshop(settings, fleet)
    body = {"name": "toy", "base_model": {"model": str(service.base)}}
    answer = service.client.post("/v1/deployments", json=body)
    detail: str = problem(answer, 503, "ray_unavailable")["detail"]
    assert list(settings.home_folder.glob("deployments/*")) == []
    assert service.client.get("/v1/deployments").json()["data"] == []
    return detail


def test_a_cluster_that_goes_while_a_model_is_looked_into_leaves_nothing(service: Service, cancelled: list[Any]) -> None:
    fleet = OneTask(service.settings, cluster_goes=True)
    assert "the cluster has gone; nothing was changed" in refused(service, fleet, service.settings)
    assert cancelled == [], "there is no Ray to ask"


def test_a_task_that_takes_too_long_is_cancelled_wherever_its_cluster_is(service: Service, cancelled: list[Any]) -> None:
    settings = service.settings.model_copy(update={"workshop_seconds": 0.05})
    fleet = OneTask(settings, cluster_goes=False)
    assert "CIRCADIAN_WORKSHOP_SECONDS" in refused(service, fleet, settings)
    assert cancelled == [fleet.task]

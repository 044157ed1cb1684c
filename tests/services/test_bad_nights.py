"""A night that goes wrong, from the request to the answer after it: a real night in this process, between a service and its replicas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from in_memory import Service
from in_process import Cluster
from in_process import cluster as cluster
from torch import Tensor

from circadian.objectives import fast_learning, knowledge_seeding
from services.plan import Job

FAST = {"steps": 3, "rows": 2, "checkpoint_steps": 2}
SLOW = {"steps": 3, "rows": 4, "refresh_steps": 2, "teacher_rows": 4, "student_rows": 4, "free_run_rows": 40, "free_run_tokens": 4}
LOSSES = {"fast_learning": (fast_learning, "fast_learning_loss"), "seeding": (knowledge_seeding, "knowledge_seeding_loss")}


def broken_after(monkeypatch: pytest.MonkeyPatch, stage: str, steps: int) -> None:
    """From that step on the stage's loss is not a number."""
    (module, name), taken = LOSSES[stage], itertools.count()
    whole = getattr(module, name)

    def loss(*args: Any) -> Tensor:
        return whole(*args) * (math.nan if next(taken) >= steps else 1.0)

    monkeypatch.setattr(module, name, loss)


@pytest.mark.parametrize("stage", ["fast_learning", "seeding"])
def test_a_loss_that_is_not_a_number_fails_the_night_and_the_old_version_serves(
    service: Service, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    broken_after(monkeypatch, stage, steps=1)
    service.deploy()
    service.tell()
    sleep, night = service.sleep(recipe={"fast_learning": FAST, "seeding": SLOW})
    parent = sleep["parent_version"]
    cluster.night(night.job)
    if stage == "seeding":
        service.until(lambda: service.fleet.versions["toy"] == [f"{parent}+{sleep['id']}"])  # the fast level was learned
    service.launcher.jobs[night.submission] = Job.SUCCEEDED  # the job has said what it had to say
    ended = service.ended(sleep["id"])
    assert (ended["status"], ended["outcome"], ended["result_version"]) == ("failed", None, None)
    assert ended["error"]["code"] == "learner_failed"
    assert "the loss is nan; lower the task's lr" in ended["error"]["message"], "and the remedy"
    assert service.launcher.submissions == 1, "it would fail again"
    body = {"model": "toy", "messages": [{"role": "user", "content": "the city of mira is oslo"}]}
    answer = service.client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.headers["x-deployment-version"]) == (200, parent)
    assert service.fleet.versions["toy"] == [parent]
    assert service.status()["active_version"] == parent
    assert service.status()["pending"]["experiences"] == 1, "what was not learned waits for the next night"

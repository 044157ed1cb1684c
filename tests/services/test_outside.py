"""Nobody loads a model or has an endpoint asked that the operator has not allowed, whichever request names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from test_errors import problem

from circadian.specs import Recipe
from services.settings import Settings
from services.sleep_template import SleepTemplate
from services.sleeping import begin
from services.tables import Deployment

URL = "http://judge.example/v1"
CRON = {"any_of": [{"type": "cron", "expr": "30 2 * * *", "timezone": "Europe/Berlin"}]}


def judged(url: str, **more: Any) -> dict[str, Any]:
    """A recipe whose judge is at this address."""
    return {"seeding": {"imitation": {"judge": {"kind": "endpoint", "url": url, "model": "m"} | more}}}


@pytest.fixture
def closed(settings: Settings, base: Path, tmp_path: Path) -> Iterator[Service]:
    """One model may be loaded, and one judge asked."""
    allowed = settings.model_copy(update={"allowed_models": (f"{base.resolve()}*",), "judge_urls": (URL,)})
    with running(allowed, base, MemoryFleet(), MemoryLauncher()) as service:
        yield service


@pytest.mark.parametrize(
    ("recipe", "status"), [(judged(URL), 201), (judged(f"{URL}/"), 201), (judged(f"{URL}.evil.example"), 422)], ids=str
)
def test_a_deployment_names_no_judge_but_those_that_are_listed(closed: Service, recipe: dict[str, Any], status: int) -> None:
    answer = closed.client.post(
        "/v1/deployments", json={"name": "toy", "base_model": {"model": str(closed.base)}, "recipe": recipe}
    )
    if status == 201:
        assert answer.status_code == status, answer.text
    else:
        told = problem(answer, status, "judge_not_allowed")
        assert told["error"]["param"] == "recipe.seeding.imitation.judge.url"
        assert "CIRCADIAN_JUDGE_URLS" in told["detail"]
        assert not closed.client.get("/v1/deployments").json()["data"], "nothing was founded"


def test_nor_does_a_change_a_sleep_or_a_schedule(closed: Service) -> None:
    closed.deploy()
    closed.tell()
    other = judged("http://169.254.169.254/v1")
    problem(closed.client.patch("/v1/deployments/toy", json={"recipe": other}), 422, "judge_not_allowed")
    assert closed.client.get("/v1/deployments/toy").json()["recipe"]["seeding"]["imitation"]["judge"]["kind"] == "none"
    for dry in (False, True):
        body = {"deployment": "toy", "recipe": other, "dry_run": dry}
        problem(closed.client.post("/v1/sleeps", json=body), 422, "judge_not_allowed")
    answer = closed.client.post("/v1/schedules", json={"deployment": "toy", "trigger": CRON, "sleep_template": {"recipe": other}})
    told = problem(answer, 422, "judge_not_allowed")
    assert told["error"]["param"] == "sleep_template.recipe.seeding.imitation.judge.url"
    assert not closed.client.get("/v1/schedules").json()["data"]
    assert not closed.client.get("/v1/sleeps").json()["data"]


def test_unless_some_are_listed_no_endpoint_is_asked(service: Service) -> None:
    service.deploy()
    service.tell()
    problem(service.client.post("/v1/sleeps", json={"deployment": "toy", "recipe": judged(URL)}), 422, "judge_not_allowed")


def test_nor_by_a_night_whose_recipe_is_older_than_the_list(service: Service) -> None:
    id = service.deploy()["id"]
    service.tell()
    with service.controller.database.write() as tx:
        template = SleepTemplate(recipe=Recipe.model_validate(judged(URL)))
        sleep = begin(tx, tx.query(Deployment).filter(Deployment.id == id).one(), template).id
    ended = service.ended(sleep)
    assert (ended["status"], ended["error"]["code"], ended["error"]["retryable"]) == ("failed", "judge_not_allowed", False)
    assert not service.launcher.jobs


def test_no_other_secret_of_the_learner_is_sent_to_a_judge(closed: Service) -> None:
    closed.deploy()
    closed.tell()
    for name, status in (("RAY_AUTH_TOKEN", 422), ("JUDGE_KEY\nRAY_AUTH_TOKEN", 422), ("JUDGE_KEY", 202)):
        answer = closed.client.post("/v1/sleeps", json={"deployment": "toy", "recipe": judged(URL, key_variable=name)})
        assert answer.status_code == status, (name, answer.text)


def test_a_model_that_no_pattern_fits_is_neither_deployed_nor_a_teacher(closed: Service, tmp_path: Path) -> None:
    elsewhere, link = tmp_path / "elsewhere", closed.base.parent / f"{closed.base.name}-link"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    for model in (str(elsewhere), str(link), f"{closed.base}/../{link.name}", "org/some-model", "~/model"):
        body = {"name": "other", "base_model": {"model": model, "revision": "a" * 40}}
        told = problem(closed.client.post("/v1/deployments", json=body), 422, "model_not_allowed")
        assert told["error"]["param"] == "base_model.model"
    link.unlink()
    closed.deploy()
    answer = closed.client.post("/v1/sleeps", json={"deployment": "toy", "teachers": [{"model": str(elsewhere), "cues": ["a ?"]}]})
    assert problem(answer, 422, "model_not_allowed")["error"]["param"] == "teachers.0.model"

"""What a sleep is asked for: which experiences, what it may spend, what it would do; and how one waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from in_memory import WAIT_SECONDS, MemoryFleet, MemoryLauncher, Night, Service, running
from pydantic import ValidationError
from sqlalchemy import func, select, update
from test_errors import problem

from services.api.schemas import SleepCreate
from services.api.sleeps import _digest
from services.selection import affordable
from services.settings import Settings
from services.tables import Sleep, Taken


@pytest.fixture
def both(settings: Settings, base: Path, database_url: str) -> Iterator[Service]:
    """A service on each kind of database."""
    with running(settings.model_copy(update={"database_url": database_url}), base, MemoryFleet(), MemoryLauncher()) as service:
        yield service


def experience(service: Service, text: str, **more: Any) -> dict[str, Any]:
    answer = service.client.post("/v1/experiences", json={"deployment": "toy", "text": text} | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def taken(night: Night) -> list[str]:
    """What a night sleeps on."""
    return [line.split('"id": "')[1].split('"')[0] for line in Path(night.job.experiences).read_text().splitlines()]


def planned(service: Service, **body: Any) -> dict[str, Any]:
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy", "dry_run": True} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("most", "most_tokens", "taken", "tokens"),
    [
        (None, None, "abc", 16),
        (2, None, "ab", 15),
        (None, 15, "ab", 15),
        (None, 6, "ac", 6),
        (1, 100, "a", 5),
        (None, 4, "c", 1),
        (None, 1, "c", 1),
    ],
)
def test_what_a_budget_affords(most: int | None, most_tokens: int | None, taken: str, tokens: int) -> None:
    """One that is too long leaves its place to those after it."""
    assert affordable("abc", {"a": 5, "b": 10, "c": 1}, most, most_tokens) == (tuple(taken), tokens)


def test_a_sleep_takes_what_it_asks_for_and_the_rest_waits(both: Service) -> None:
    both.deploy()
    mine = [experience(both, f"the city of mira is {i} .", subject_id="mira", source="human")["id"] for i in range(3)]
    other = experience(both, "the city of mora is bern .", subject_id="mora")["id"]
    sleep, night = both.sleep(selection={"subject_id": "mira", "source": "human", "max_experiences": 2})
    assert taken(night) == mine[:2]
    assert sleep["selection"] == {"subject_id": "mira", "source": "human", "max_experiences": 2}
    night.end("no_op")
    both.ended(sleep["id"])
    second, night = both.sleep(selection={"experience_ids": [mine[2], other]})
    assert taken(night) == [mine[2], other]
    both.until(lambda: both.get_sleep(second["id"])["status"] == "preparing")
    night.fail()  # what was taken is kept in mind, whatever becomes of the sleep
    with both.controller.database.read() as tx:
        assert tx.scalar(select(func.count()).select_from(Taken).where(Taken.sleep == second["id"])) == 2


def test_an_experience_that_does_not_wait_cannot_be_asked_for(both: Service) -> None:
    both.deploy()
    mine = experience(both, "the city of mira is oslo .")["id"]
    both.deploy("other")
    theirs = experience(both, "the city of mira is oslo .", deployment="other")["id"]
    for named in ("exp_none", theirs):
        answer = both.client.post("/v1/sleeps", json={"deployment": "toy", "selection": {"experience_ids": [mine, named]}})
        assert problem(answer, 422, "validation_failed")["error"]["param"] == "selection.experience_ids"
    assert both.client.get("/v1/sleeps").json()["data"] == []
    body = {"deployment": "toy", "selection": {"created_after": 5.0, "created_before": 5.0}}
    problem(both.client.post("/v1/sleeps", json=body), 422, "validation_failed")
    body = {"deployment": "toy", "selection": {"session_id": "nobody's"}}
    problem(both.client.post("/v1/sleeps", json=body), 422, "no_eligible_experience")


def test_the_caps_hold_whatever_is_asked_for(service: Service) -> None:
    caps = {"per_source_per_minute": 600, "per_source_per_sleep": 1000, "per_subject_per_sleep": 2, "per_sleep": 100}
    service.deploy(screening={"caps": caps})
    ids = [experience(service, f"the city of mira is {i} .", subject_id="mira")["id"] for i in range(4)]
    _, night = service.sleep(selection={"experience_ids": ids})
    assert taken(night) == ids[:2]


def test_a_night_takes_no_more_tokens_than_its_budget(service: Service) -> None:
    service.deploy()
    rows = [experience(service, "the city of mira is oslo . " * count) for count in (1, 3, 1)]
    most = rows[0]["tokens"] + rows[2]["tokens"]
    sleep, night = service.sleep(budget={"max_tokens": most})
    assert taken(night) == [rows[0]["id"], rows[2]["id"]]
    night.end("no_op")
    service.ended(sleep["id"])
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy", "budget": {"max_tokens": 1}})
    assert "budget.max_tokens" in problem(answer, 422, "no_eligible_experience")["detail"]


@pytest.mark.parametrize(
    ("budget", "gpus", "named"),
    [
        ({"max_wall_seconds": 100.0}, 0.0, "budget.max_wall_seconds"),
        ({"max_gpu_seconds": 1000.0}, 2.0, "budget.max_gpu_seconds"),
        ({"max_gpu_seconds": 1000.0}, 0.0, None),
        ({"max_wall_seconds": 100_000.0, "max_gpu_seconds": 100_000.0}, 2.0, None),
    ],
)
def test_a_night_that_spends_more_than_its_budget_is_ended_and_says_which(
    service: Service, budget: dict[str, float], gpus: float, named: str | None
) -> None:
    service.deploy()
    service.tell()
    recipe = {"learner": {"gpus_per_worker": gpus}, "rollouts": {"gpus_per_worker": gpus}}
    sleep, night = service.sleep(budget=budget, recipe=recipe)
    service.until(lambda: service.get_sleep(sleep["id"])["status"] == "preparing")
    with service.controller.database.write() as tx:  # the night has run for 1000 s
        tx.execute(update(Sleep).where(Sleep.id == sleep["id"]).values(began_at=time.time() - 1000.0))
    if named is None:
        night.end("no_op")
        assert service.ended(sleep["id"])["spent"]["gpu_seconds"] == pytest.approx(4000.0 if gpus else 0.0, rel=0.1)
        return
    ended = service.ended(sleep["id"])
    assert (ended["status"], ended["error"]["code"], ended["error"]["category"]) == ("failed", "budget_exceeded", "user")
    assert named in ended["error"]["message"]
    assert service.launcher.jobs[night.submission] == "stopped"
    assert service.status()["pending"]["experiences"] == 1


def test_a_dry_run_says_what_a_night_would_do_and_writes_nothing(both: Service) -> None:
    both.deploy()
    both.tell()
    told = planned(both, budget={"max_wall_seconds": 0.5})
    assert (told["object"], told["experiences"]["count"], told["experiences"]["left"]) == ("sleep.plan", 1, 0)
    names = [line["stage"] for line in told["stages"]]
    expected = [
        "collect",
        "learn_fast_level",
        "open_expert",
        "snapshot_teacher",
        "dream_corpus",
        "knowledge_seeding",
        "prune",
        "gate",
    ]
    assert names == [*expected, "publish"]
    assert (told["moves"], told["would_fail"]) == (["level-1"], None)
    assert [(level["experts"], level["free"]) for level in told["levels"]] == [(1, 1), (16, 16)]
    assert (told["estimate"]["basis"], told["estimate"]["nights"], told["beyond_budget"]) == ("recipe", [], ["max_wall_seconds"])
    assert told["estimate"]["tokens"] > 0
    assert both.client.get("/v1/sleeps").json()["data"] == []
    assert both.launcher.submissions == 0
    _, night = both.sleep(id="slp_real")
    problem(both.client.post("/v1/sleeps", json={"deployment": "toy", "dry_run": True}), 409, "sleep_in_progress")
    night.end("no_op")
    both.ended("slp_real")


def test_a_plan_is_made_of_what_earlier_nights_took(both: Service) -> None:
    both.deploy()
    both.tell()
    sleep, night = both.sleep()
    for stage in ("collect", "learn_fast_level", "open_expert", "snapshot_teacher", "dream_corpus", "knowledge_seeding"):
        night.log.emit("sleep.stage_finished", stage, stage=stage, seconds=100.0, outputs={})
    night.end("rejected")
    both.ended(sleep["id"])
    told = planned(both)
    assert (told["estimate"]["basis"], told["estimate"]["nights"]) == ("measured", [sleep["id"]])
    assert told["estimate"]["seconds"] == pytest.approx(600.0)
    twice = planned(both, recipe={"fast_learning": {"steps": 300}})
    assert twice["estimate"]["seconds"] == pytest.approx(700.0), "twice the steps of one stage"


def test_a_dry_run_tells_that_the_night_would_find_no_room(service: Service) -> None:
    levels = [{"period": 1024, "experts": 1, "rank": 4}, {"period": 2048, "experts": 1, "rank": 4}]
    service.deploy(memory={"levels": levels})
    service.tell()
    teacher = {"model": str(service.base), "cues": ["the city of mira is"]}
    told = planned(service, recipe={"teachers": [teacher]})
    assert told["would_fail"]["code"] == "level_full"


@pytest.mark.parametrize(
    ("said", "digest"),
    [
        ({"id": "slp_mine", "seed": 1}, "4695d196b1cd148dc563879e522dc4c174c5f864ae3e5604a02f5da549204984"),
        (
            {"seed": 1, "gates": [{"probe": "prb_1", "min": 0.5}], "held_out": ["ø"], "placement": "full", "metadata": {"a": "b"}},
            "48940d8728543b02949fb0af642875aec6252640547aadafc9dbda5a37770551",
        ),
    ],
)
def test_a_request_of_an_earlier_release_is_still_the_same_request(said: dict[str, Any], digest: str) -> None:
    """Which knew nothing of what can be asked for now."""
    body = SleepCreate.model_validate({"deployment": "toy"} | said)
    assert _digest(body) == digest
    assert _digest(body) != _digest(body.model_copy(update={"seed": 2}))
    more = {"deployment": "toy", "selection": {"max_experiences": 1}}
    assert _digest(body) != _digest(SleepCreate.model_validate(said | more))


def test_a_night_goes_on_from_the_version_that_was_named_or_does_not_begin(both: Service) -> None:
    both.deploy()
    both.tell()
    active = both.status()["active_version"]
    for more in ({}, {"dry_run": True}):
        answer = both.client.post("/v1/sleeps", json={"deployment": "toy", "parent_version": "ver_before"} | more)
        told = problem(answer, 412, "etag_mismatch")
        assert (told["error"]["param"], active in told["detail"]) == ("parent_version", True)
    assert both.client.get("/v1/sleeps").json()["data"] == []
    assert both.client.get("/v1/experiences").json()["data"][0]["sleep"] is None
    asked = {"parent_version": active, "id": "slp_mine"}
    sleep, night = both.sleep(**asked)
    child = night.end("candidate")
    assert both.ended(sleep["id"])["parent_version"] == active
    assert both.status()["active_version"] == child
    again = both.client.post("/v1/sleeps", json={"deployment": "toy"} | asked)
    assert (again.status_code, again.json()["id"]) == (202, sleep["id"]), "what was begun once is not asked again"


def test_a_sleep_links_to_the_page_of_its_job_once_the_cluster_has_one(service: Service) -> None:
    service.deploy()
    service.tell()
    asked = service.client.post("/v1/sleeps", json={"deployment": "toy"}).json()
    assert "ray_dashboard" not in asked["links"]
    service.until(lambda: any(name.startswith(asked["id"]) for name in service.launcher.jobs))
    night = Night(service.launcher, asked["id"])
    told = service.get_sleep(asked["id"])
    assert told["links"]["ray_dashboard"] == f"{service.settings.ray_dashboard}/#/jobs/{night.submission}"
    assert service.client.get("/v1/sleeps").json()["data"][0]["links"] == told["links"]
    night.end("no_op")
    service.ended(asked["id"])


def test_the_link_leads_where_an_operator_says_that_browsers_find_the_dashboard(settings: Settings, base: Path) -> None:
    outside = settings.model_copy(update={"ray_dashboard_url": "https://ray.example.org/"})
    with running(outside, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        told = service.get_sleep(sleep["id"])["links"]["ray_dashboard"]
        assert told == f"https://ray.example.org/#/jobs/{night.submission}"
        assert service.client.get("/v1/deployments/toy/nights").json()["ray_dashboard"] == "https://ray.example.org"
        night.end("no_op")
        service.ended(sleep["id"])


@pytest.mark.parametrize("url", ["javascript:alert(1)", "ray.example.org"])
def test_a_link_to_the_dashboard_is_the_address_of_a_page(url: str) -> None:
    with pytest.raises(ValidationError, match="ray_dashboard_url"):
        Settings(ray_dashboard_url=url)


def test_a_sleep_that_is_known_already_is_not_told_again(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    service.until(lambda: service.get_sleep(sleep["id"])["status"] == "preparing")
    path = f"/v1/sleeps/{sleep['id']}"
    first = service.client.get(path)
    same = service.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    waited = service.client.get(path, params={"wait": 0.1}, headers={"If-None-Match": first.headers["etag"]})
    assert waited.status_code == 304
    timer = Timer(0.3, lambda: night.log.emit("sleep.stage_started", "collect", stage="collect"))
    timer.start()
    changed = service.client.get(path, params={"wait": WAIT_SECONDS}, headers={"If-None-Match": f'W/"x", {first.headers["etag"]}'})
    timer.join()
    assert (changed.status_code, changed.json()["phase"]) == (200, "collect")
    assert changed.headers["etag"] != first.headers["etag"]
    night.end("no_op")
    service.ended(sleep["id"])


def test_nobody_waits_longer_than_the_operator_allows(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    answer = service.client.get(f"/v1/sleeps/{sleep['id']}", params={"wait": 61})
    assert problem(answer, 422, "validation_failed")["error"]["param"] == "wait"
    night.end("no_op")


def test_sleeps_are_listed_by_what_they_are_doing(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, _ = service.sleep()
    service.client.post(f"/v1/sleeps/{sleep['id']}/pause", json={"checkpoint": "latest"})
    service.until(lambda: service.get_sleep(sleep["id"])["status"] == "paused")
    for status, found in (("paused", [sleep["id"]]), ("running", [])):
        data = service.client.get("/v1/sleeps", params={"status": status}).json()["data"]
        assert [row["id"] for row in data] == found
    problem(service.client.get("/v1/sleeps", params={"status": "dozing"}), 422, "validation_failed")

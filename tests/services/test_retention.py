"""What is kept for how long, how what is kept is found, and which versions keep it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from in_memory import Service
from sqlalchemy import func, select, update
from stored import Stored
from test_errors import problem

from services import retention
from services.api.filters import with_status
from services.lineage import keepers, kept_by
from services.retention import DAY_SECONDS, Retention
from services.tables import ExperienceBand, ExperienceRow, Feedback, Learned, StoredCompletion, Version

TTL = {"experience_ttl_days": 2}
OLD, YOUNG = 3 * DAY_SECONDS, 1 * DAY_SECONDS


def test_what_nobody_wanted_in_time_is_gone_and_nothing_else(stored: Stored) -> None:
    stored.deployment(retention=TTL)
    stored.deployment("for_ever")
    gone = [stored.met("dep_toy", age=OLD, status=status) for status in ("pending", "quarantined")]
    left_out = stored.met("dep_toy", age=OLD, left_out="too long", sleep="slp_over")
    kept, night, online = (stored.met("dep_toy", age=OLD) for _ in range(3))
    stored.night("dep_toy", "ver_1", kept)
    stored.asleep("dep_toy", night)
    young, elsewhere = stored.met("dep_toy", age=YOUNG), stored.met("dep_for_ever", age=OLD)
    with stored.database.write() as tx:
        tx.add(Learned(experience=online, deployment="dep_toy", chunk=1))
        tx.add(Feedback(id="fbk_1", experience=gone[0], given_by="key_a", comment="about somebody"))
        chat = {"model": "toy", "version": "ver_1", "prompt": 1, "finish_reason": "stop"}
        tx.add(StoredCompletion(id="chatcmpl_1", deployment="dep_toy", experience=gone[0], **chat))
    leader = Retention(stored.settings, stored.lease)
    assert [leader.look(deployment) for deployment in ("dep_toy", "dep_toy", "dep_for_ever")] == [3, 0, 0]
    for id in (*gone, left_out):
        row = stored.experience(id)
        assert (row.status, row.body, row.signature) == ("expired", {}, None)
    for id in (kept, night, online, young, elsewhere):
        assert stored.experience(id).body["text"] == "the city of mira is oslo ."
    with stored.database.read() as tx:
        assert tx.scalar(select(func.count()).select_from(ExperienceBand)) == 5
        assert [tx.scalar(select(func.count()).select_from(table)) for table in (Feedback, StoredCompletion)] == [0, 0]


def test_however_much_has_expired_no_look_is_long(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 4)
    stored.deployment(retention=TTL)
    for _ in range(10):
        stored.met("dep_toy", age=OLD)
    leader = Retention(stored.settings, stored.lease)
    assert [leader.look("dep_toy") for _ in range(4)] == [4, 4, 2, 0]


def test_a_status_is_found_as_it_is_shown(stored: Stored) -> None:
    stored.deployment()
    made: dict[str, dict[str, Any]] = {
        "pending": {},
        "quarantined": {"status": "quarantined"},
        "consolidated": {"consolidated_in": "ver_1"},
        "left_out": {"left_out": "too long"},
        "expired": {"status": "expired", "left_out": "too long"},
        "erased": {"status": "erased", "consolidated_in": "ver_1"},
    }
    ids = {status: stored.met("dep_toy", **more) for status, more in made.items()}
    for status, id in ids.items():
        with stored.database.read() as tx:
            assert tx.scalars(select(ExperienceRow.id).where(with_status(status))).all() == [id]


def test_a_version_keeps_what_its_ancestors_do_and_the_newest_clean_one_is_found(stored: Stored) -> None:
    stored.deployment()
    a, b, c = (stored.met("dep_toy") for _ in range(3))
    stored.night("dep_toy", "ver_1", a)
    stored.night("dep_toy", "ver_2", b)
    stored.night("dep_toy", "ver_side", c, status="rejected")
    stored.night("dep_toy", "ver_3")
    with stored.database.write() as tx:
        assert keepers(tx, "dep_toy", ExperienceRow.id == a) == {"ver_1", "ver_2", "ver_side", "ver_3"}
        assert keepers(tx, "dep_toy", ExperienceRow.id == b) == {"ver_2", "ver_side", "ver_3"}
        assert keepers(tx, "dep_toy", ExperienceRow.id == c) == {"ver_side"}
        version = tx.scalars(select(Version).where(Version.id == "ver_3")).one()
        assert set(tx.scalars(select(ExperienceRow.id).where(kept_by(tx, version)))) == {a, b}


def test_what_is_kept_is_found_by_whose_it_is_when_it_came_and_how_it_stands(service: Service) -> None:
    service.deploy("toy", retention={"experience_ttl_days": 1})
    service.deploy("other")
    assert service.client.get("/v1/deployments/toy").json()["retention"] == {"experience_ttl_days": 1}
    assert service.client.get("/v1/deployments/other").json()["retention"] == {"experience_ttl_days": None}
    wrong = {"name": "x", "base_model": {"model": str(service.base)}, "retention": {"experience_ttl_days": 0}}
    assert problem(service.client.post("/v1/deployments", json=wrong), 422, "validation_failed")["error"]["param"].startswith(
        "retention"
    )

    def told(text: str, **more: Any) -> str:
        return service.client.post("/v1/experiences", json={"deployment": "toy", "text": text} | more).json()["id"]

    anna = told("the city of mira is oslo .", subject_id="anna", metadata={"day": "1", "kind": "a"})
    tool = told("the pet of tono is a dog .", source="tool", metadata={"day": "1"})
    elsewhere = told("the sea is far from here .", deployment="other")

    def found(**asked: Any) -> list[str]:
        answer = service.client.get("/v1/experiences", params=asked)
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()["data"]]

    assert found(subject_id="anna") == [anna]
    assert found(source="tool") == [tool]
    assert found(deployment="other") == [elsewhere]
    assert found(**{"metadata[day]": "1"}) == [tool, anna]
    assert found(**{"metadata[day]": "1", "metadata[kind]": "a"}) == [anna]
    assert found(created_after=time.time() + 60) == []
    assert found(created_after=time.time() - 600, status="pending", deployment="toy") == [tool, anna]
    problem(service.client.get("/v1/experiences", params={"status": "lost"}), 422, "validation_failed")

    with service.controller.database.write() as tx:
        tx.execute(update(ExperienceRow).where(ExperienceRow.id == anna).values(created_at=time.time() - 2 * DAY_SECONDS))
    assert service.controller.retention.look(service.client.get("/v1/deployments/toy").json()["id"]) == 1
    row = service.client.get(f"/v1/experiences/{anna}").json()
    assert (row["status"], row.get("text"), row["trust"]) == ("expired", None, None)
    assert found(status="expired") == [anna]
    for action, body in (("release", {"reason": "back"}), ("feedback", {"reward": 1}), ("quarantine", {"reason": "no"})):
        problem(service.client.post(f"/v1/experiences/{anna}/{action}", json=body), 410, "experience_gone")
    assert service.status()["pending"]["experiences"] == 1


def test_lineage_is_told_both_ways(service: Service) -> None:
    service.deploy()
    told = service.tell()["id"]
    founded = service.status()["active_version"]
    sleep, night = service.sleep()
    version = night.end("candidate")
    service.ended(sleep["id"])
    later = service.tell("the pet of tono is a dog .")["id"]
    versions = service.client.get(f"/v1/experiences/{told}/versions").json()
    assert ([row["id"] for row in versions["data"]], versions["data"][0]["status"]) == ([version], "active")
    assert service.client.get(f"/v1/experiences/{later}/versions").json()["data"] == []
    assert [row["id"] for row in service.client.get(f"/v1/versions/{version}/experiences").json()["data"]] == [told]
    assert service.client.get(f"/v1/versions/{founded}/experiences").json()["data"] == []
    problem(service.client.get("/v1/versions/no/experiences"), 404, "version_not_found")

"""Somebody is to be forgotten: by what is stored, by versions, by replicas and files, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, MemoryLearners, Service, running
from in_memory import Night as Played
from sqlalchemy import func, select, update
from stored import Stored
from test_errors import problem
from test_keys_and_tenants import as_key, made
from test_online import ONLINE, serves, tell

from services import erasing, erasures
from services.erasure_plan import WAITING, Night, Situation, Step, plan
from services.erasures import Erasures
from services.settings import Settings
from services.states import SleepStatus
from services.tables import (
    AuditEvent,
    Erasure,
    ExperienceBand,
    ExperienceBatch,
    Repeatable,
    Rollout,
    WebhookDelivery,
    WebhookEndpoint,
    new_id,
)

BEGUN = Situation(erased=False, scrubbed=False)
ERASED = replace(BEGUN, erased=True)
SCRUBBED = replace(ERASED, scrubbed=True)


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (BEGUN, Step.ERASE),
        (replace(BEGUN, batches=True, night=Night.CANCELLABLE), Step.AWAIT_BATCHES),
        (replace(BEGUN, night=Night.CANCELLABLE), Step.CANCEL_NIGHT),
        (replace(BEGUN, night=Night.ENDING), Step.AWAIT_NIGHT),
        (replace(ERASED, fast_memory=True, job=True), Step.AWAIT_FAST_MEMORY),
        (replace(ERASED, job=True), Step.AWAIT_JOB),
        (replace(ERASED, served=True), Step.SCRUB),
        (replace(SCRUBBED, served=True, wants_retraining=True), Step.AWAIT_REPLICAS),
        (replace(SCRUBBED, wants_retraining=True), Step.RETRAIN),
        (SCRUBBED, Step.DONE),
    ],
)
def test_what_is_done_next(now: Situation, step: Step) -> None:
    assert plan(now) is step
    assert (step in WAITING) is step.value.startswith("await")


class NoNights:
    """Nobody to tell."""

    def look(self) -> None:
        pass


def asked(stored: Stored, subject: str | None = "anna", mode: str = "delete", **more: Any) -> str:
    id = new_id("ers")
    row = {"deployment": None, "experiences": [], "sender": "key_a", "tenant": "default"} | more
    with stored.database.write() as tx:
        tx.add(Erasure(id=id, subject=subject, mode=mode, **row))
    return id


def seen(stored: Stored, erasure: str) -> Erasure:
    with stored.database.read() as tx:
        return tx.scalars(select(Erasure).where(Erasure.id == erasure)).one()


def goes_on(stored: Stored, erasure: str, fleet: MemoryFleet | None = None) -> Erasure:
    """As far as it goes now, with a new leader for every step; whoever brings the replicas after a rollout has done it at once."""

    async def one() -> bool:
        with stored.database.write() as tx:
            tx.execute(update(Rollout).where(Rollout.status == "running").values(status="succeeded"))
        return await Erasures(stored.settings, stored.lease, fleet or MemoryFleet(), NoNights()).advance(erasure)  # type: ignore[arg-type]

    while seen(stored, erasure).status != "succeeded" and asyncio.run(one()):
        pass
    return seen(stored, erasure)


def told(row: Erasure, action: str) -> list[dict[str, Any]]:
    return [one for one in row.actions if one["action"] == action]


@pytest.fixture
def lived(stored: Stored) -> Stored:
    """A deployment, and another tenant's."""
    stored.deployment()
    stored.deployment("theirs", tenant="other")
    return stored


def test_what_is_forgotten_is_in_no_row_and_in_no_version_that_may_serve(lived: Stored) -> None:
    secret = {
        "subject": "anna",
        "session": "anna-1",
        "uri": "https://anna.example",
        "dedupe_key": "anna/1",
        "meta": {"name": "anna"},
    }
    first = lived.met("dep_toy")
    lived.night("dep_toy", "ver_1", first)
    anna, beside = lived.met("dep_toy", "anna lives in oslo", **secret), lived.met("dep_toy")
    lived.night("dep_toy", "ver_2", anna, beside)
    after = lived.met("dep_toy")
    lived.night("dep_toy", "ver_3", after)
    loose, bern = lived.met("dep_toy", "anna again", subject="anna"), lived.met("dep_toy", subject="bern")
    theirs = lived.met("dep_theirs", "another anna", subject="anna")
    with lived.database.write() as tx:
        tx.add(WebhookEndpoint(id="whe_1", tenant="default", url="https://x.example", events=["erasure.*"], secret=""))

    row = goes_on(lived, asked(lived, mode="delete"))
    assert (row.status, row.affected_versions) == ("succeeded", ["ver_2", "ver_3"])
    assert lived.active("dep_toy") == "ver_1"
    assert lived.versions() == {
        "ver_toy_0": "retired", "ver_1": "active", "ver_2": "revoked", "ver_3": "revoked", "ver_theirs_0": "active"
    }  # fmt: skip
    for id in (anna, loose):
        gone = lived.experience(id)
        assert (gone.status, gone.body, gone.erased_by) == ("erased", {}, row.id)
        assert (gone.subject, gone.session, gone.uri, gone.dedupe_key, gone.meta, gone.signature) == (
            None,
            None,
            None,
            None,
            {},
            None,
        )
    assert lived.experience(anna).consolidated_in is None
    again = {id: lived.experience(id).consolidated_in for id in (first, beside, after, bern)}
    assert again == {first: "ver_1", beside: None, after: None, bern: None}
    assert all(lived.experience(id).body["text"] for id in again)
    assert [lived.experience(id).sleep for id in (beside, after)] == [None, None]
    assert lived.experience(theirs).body["text"] == "another anna"
    assert told(row, "bodies_erased")[0]["count"] == 2
    (back,) = told(row, "rolled_back")
    assert (back["deployment"], back["from"], back["to"]) == ("dep_toy", "ver_3", "ver_1")
    assert told(row, "experiences_pending_again")[0]["count"] == 2
    with lived.database.read() as tx:
        assert tx.scalar(select(func.count()).select_from(ExperienceBand)) == 5
        log = tx.scalars(select(AuditEvent)).all()
        (sent,) = tx.scalars(select(WebhookDelivery)).all()
    assert sorted(event.action for event in log if event.tenant == "default") == [
        "deployment_rolled_back", "erasure_completed", "version_revoked", "version_revoked"
    ]  # fmt: skip
    assert "anna" not in str([event.data for event in log]) + sent.body
    event = json.loads(sent.body)
    assert (event["type"], event["data"]["affected_versions"]) == ("erasure.completed", ["ver_2", "ver_3"])


def test_what_no_version_knew_leaves_versions_alone(lived: Stored) -> None:
    lived.night("dep_toy", "ver_1", lived.met("dep_toy"))
    lived.met("dep_toy", subject="anna")
    row = goes_on(lived, asked(lived, mode="delete_and_retrain"))
    assert (row.status, row.affected_versions, lived.active("dep_toy")) == ("succeeded", [], "ver_1")
    assert told(row, "sleep_begun") == told(row, "no_sleep") == []
    nobody = goes_on(lived, asked(lived, subject="nobody"))
    assert (nobody.status, nobody.actions) == ("succeeded", [])


def test_a_leader_that_dies_in_any_step_is_followed_by_one_that_ends_it(lived: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    anna, beside = lived.met("dep_toy", subject="anna"), lived.met("dep_toy")
    sleep = lived.night("dep_toy", "ver_1", anna, beside)
    home = lived.settings.sleep_folder("dep_toy", sleep)
    home.mkdir(parents=True)
    (home / erasing.IN_A_NIGHT).write_text(json.dumps({"id": anna, "text": "anna"}) + "\n")
    erasure = asked(lived, mode="delete_and_retrain")

    class Killed(BaseException):
        pass

    deaths = []
    for module, name in ((erasures, "_remember"), (erasing, "_offered_again"), (erasures, "scrub"), (erasures, "_retrain")):
        real = getattr(module, name)

        def dies(*given: Any, real: Any = real, name: str = name) -> Any:
            done = real(*given)
            if deaths.count(name) < (4 if name == "_remember" else 1):
                deaths.append(name)
                raise Killed
            return done

        monkeypatch.setattr(module, name, dies)
    while seen(lived, erasure).status != "succeeded":
        try:
            row = goes_on(lived, erasure)
        except Killed:
            bodies = [lived.experience(anna).body != {}, lived.active("dep_toy") == "ver_1", lived.versions()["ver_1"] == "active"]
            assert len(set(bodies)) == 1  # all of it, or nothing
    assert set(deaths) == {"_remember", "_offered_again", "scrub", "_retrain"}
    assert (row.affected_versions, lived.active("dep_toy"), home.exists()) == (["ver_1"], "ver_toy_0", False)
    assert [len(told(row, action)) for action in ("bodies_erased", "rolled_back", "version_revoked", "sleep_begun")] == [1, 1, 1, 1]
    assert lived.sleep(told(row, "sleep_begun")[0]["sleep"]).parent_version == "ver_toy_0"
    assert lived.experience(beside).sleep == told(row, "sleep_begun")[0]["sleep"]


def test_a_night_that_has_taken_it_is_cancelled_and_ends_first_and_another_is_left_alone(lived: Stored) -> None:
    anna, other = lived.met("dep_toy", subject="anna"), lived.met("dep_toy")
    night = lived.asleep("dep_toy", anna, other)
    erasure = asked(lived)
    assert goes_on(lived, erasure).waiting == WAITING[Step.AWAIT_NIGHT]
    assert (lived.sleep(night).status, lived.experience(anna).status) == (SleepStatus.CANCELLING, "pending")
    lived.ends(night)
    assert (goes_on(lived, erasure).status, lived.experience(anna).status) == ("succeeded", "erased")
    bern = lived.met("dep_toy", subject="bern")
    innocent = lived.asleep("dep_toy", other)
    assert goes_on(lived, asked(lived, subject="bern")).status == "succeeded"
    assert (lived.sleep(innocent).status, lived.experience(bern).status) == (SleepStatus.RUNNING, "erased")


def test_a_night_over_a_version_that_knows_it_is_cancelled_too(lived: Stored) -> None:
    lived.night("dep_toy", "ver_1", lived.met("dep_toy", subject="anna"))
    night = lived.asleep("dep_toy", lived.met("dep_toy"))
    assert goes_on(lived, asked(lived)).waiting == WAITING[Step.AWAIT_NIGHT]
    assert lived.sleep(night).status is SleepStatus.CANCELLING


def test_what_was_sent_before_it_is_taken_in_before_it(lived: Stored) -> None:
    batch = {"tenant": "default", "deployment": None, "sender": "key_a", "sha256": "", "bytes": 0, "lines": 0}
    with lived.database.write() as tx:
        tx.add(ExperienceBatch(id="bat_1", **batch))
    erasure = asked(lived)
    lived.met("dep_toy", subject="anna")
    assert goes_on(lived, erasure).waiting == WAITING[Step.AWAIT_BATCHES]
    with lived.database.write() as tx:
        tx.add(ExperienceBatch(id="bat_2", **batch))
        tx.scalars(select(ExperienceBatch).where(ExperienceBatch.id == "bat_1")).one().status = "completed"
    assert goes_on(lived, erasure).status == "succeeded"


def test_it_is_not_done_while_a_replica_answers_with_what_knows_it(lived: Stored) -> None:
    lived.night("dep_toy", "ver_1", lived.met("dep_toy", subject="anna"))
    erasure = asked(lived)
    for label in ("ver_1", "ver_1+w2", "ver_1+slp_x"):
        held = goes_on(lived, erasure, MemoryFleet(models={"dep_toy": "toy"}, versions={"toy": ["ver_toy_0", label]}))
        assert (held.status, held.waiting) == ("running", WAITING[Step.AWAIT_REPLICAS])
    assert goes_on(lived, erasure, MemoryFleet(models={"dep_toy": "toy"}, versions={"toy": ["ver_toy_0"]})).status == "succeeded"


def test_files_of_every_night_that_read_it_go_and_those_of_others_stay(lived: Stored) -> None:
    anna, other = lived.met("dep_toy", subject="anna"), lived.met("dep_toy")
    homes = {}
    for name, taken in (("failed", anna), ("other", other)):
        sleep = lived.asleep("dep_toy", taken)
        lived.ends(sleep, SleepStatus.FAILED)
        homes[name] = lived.settings.sleep_folder("dep_toy", sleep)
        homes[name].mkdir(parents=True)
        (homes[name] / erasing.IN_A_NIGHT).write_text(json.dumps({"id": taken, "text": "x"}) + "\n")
    row = goes_on(lived, asked(lived))
    assert (homes["failed"].exists(), homes["other"].exists()) == (False, True)
    assert [one["sleep"] for one in told(row, "files_deleted")] == [homes["failed"].name]


def test_files_that_cannot_be_deleted_now_hold_up_one_erasure_and_are_tried_again(
    lived: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived.met("dep_toy", subject="anna")
    erasure = asked(lived)

    def fails(*_: Any) -> Any:
        raise PermissionError("read-only file system: /somewhere")

    monkeypatch.setattr(erasures, "scrub", fails)
    leader = Erasures(lived.settings, lived.lease, MemoryFleet(), NoNights())  # type: ignore[arg-type]
    while asyncio.run(leader._try(erasure)):
        pass
    held = seen(lived, erasure)
    assert (held.status, held.waiting) == ("running", erasures.HINDERED)
    monkeypatch.undo()
    assert goes_on(lived, erasure).status == "succeeded"


def test_a_key_for_one_deployment_erases_in_no_other(lived: Stored) -> None:
    lived.deployment("second")
    mine, beyond = lived.met("dep_toy", subject="anna"), lived.met("dep_second", subject="anna")
    goes_on(lived, asked(lived, allowed=["dep_toy"]))
    assert (lived.experience(mine).status, lived.experience(beyond).status) == ("erased", "pending")
    goes_on(lived, asked(lived))
    assert lived.experience(beyond).status == "erased"


def ended(service: Service, erasure: str) -> dict[str, Any]:
    service.until(lambda: service.client.get(f"/v1/erasures/{erasure}").json()["status"] == "succeeded")
    return service.client.get(f"/v1/erasures/{erasure}").json()


def test_a_deployment_forgets_and_sleeps_again_without_the_subject(service: Service) -> None:
    service.deploy()
    founded = service.status()["active_version"]
    body = {"deployment": "toy", "source": "human"}
    said, once = body | {"text": "anna lives in oslo .", "subject_id": "anna"}, {"Idempotency-Key": "one"}
    anna = service.client.post("/v1/experiences", json=said, headers=once).json()["id"]
    other = service.tell("the pet of tono is a dog .")["id"]
    sleep, night = service.sleep()
    version, home = night.end("candidate"), Path(night.job.home)
    service.ended(sleep["id"])
    service.until(lambda: service.fleet.versions["toy"] == [version])

    answer = service.client.post("/v1/erasures", json={"deployment": "toy", "subject_id": "anna", "mode": "delete_and_retrain"})
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/erasures/{answer.json()['id']}")
    done = ended(service, answer.json()["id"])
    assert done["affected_versions"] == [version]
    assert (service.status()["active_version"], service.fleet.versions["toy"]) == (founded, [founded])
    row = service.client.get(f"/v1/experiences/{anna}").json()
    assert (row["status"], row["erasure"], row["version"], "text" in row) == ("erased", done["id"], None, False)
    assert not home.exists()
    again = next(one["sleep"] for one in done["actions"] if one["action"] == "sleep_begun")
    service.until(lambda: any(name.startswith(again) for name in service.launcher.jobs))
    job = Played(service.launcher, again).job
    assert (Path(job.parent).name, "anna" in Path(job.experiences).read_text()) == (founded, False)
    assert other in Path(job.experiences).read_text()
    problem(service.client.post(f"/v1/experiences/{anna}/release", json={"reason": "back"}), 410, "experience_gone")
    with service.controller.database.read() as tx:
        assert tx.scalars(select(Repeatable.body)).all() == [None], "what was answered is forgotten, too"
    problem(service.client.post("/v1/experiences", json=said, headers=once), 410, "experience_gone")


def test_a_fast_memory_that_may_have_learned_it_is_emptied(settings: Settings, base: Path) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher(), MemoryLearners()) as service:
        service.deploy(**ONLINE)
        version = service.status()["active_version"]
        ids = tell(service, 4)
        serves(service, f"{version}+w1")
        day = next(settings.home_folder.glob("deployments/*/fast/day-*"))
        answer = service.client.post("/v1/erasures", json={"experience_ids": [ids[0]]})
        done = ended(service, answer.json()["id"])
        assert [one["action"] for one in done["actions"]] == ["fast_memory_emptied", "bodies_erased"]
        assert (service.fleet.versions["toy"], service.status()["fast_memory"]["chunks"], day.exists()) == ([version], 0, False)
        assert service.status()["pending"]["experiences"] == 3


def test_what_cannot_be_erased_is_refused_with_the_field(service: Service) -> None:
    service.deploy()
    service.deploy("other")
    told = service.tell()["id"]
    both = {"subject_id": "anna", "experience_ids": [told]}
    for body in ({}, both, {"subject_id": ""}, {"subject_id": "a", "mode": "forget"}, {"subject_id": "a", "nap": 1}):
        problem(service.client.post("/v1/erasures", json=body), 422, "validation_failed")
    problem(service.client.post("/v1/erasures", json={"experience_ids": [told, "exp_no"]}), 404, "experience_not_found")
    problem(service.client.post("/v1/erasures", json={"experience_ids": [told], "deployment": "other"}), 422, "validation_failed")
    problem(service.client.post("/v1/erasures", json={"subject_id": "a", "deployment": "no"}), 404, "deployment_not_found")
    stranger = as_key(made(service, tenant="other")["key"])
    problem(service.client.post("/v1/erasures", json={"experience_ids": [told]}, headers=stranger), 404, "experience_not_found")
    mine = service.client.post("/v1/erasures", json={"subject_id": "a"}).json()["id"]
    problem(service.client.get(f"/v1/erasures/{mine}", headers=stranger), 404, "erasure_not_found")
    assert service.client.get("/v1/erasures", headers=stranger).json()["data"] == []
    narrow = as_key(made(service, deployments=["toy"])["key"])
    problem(service.client.get(f"/v1/erasures/{mine}", headers=narrow), 404, "erasure_not_found")

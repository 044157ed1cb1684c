"""Changing a deployment, and deleting it: what is promised when, and that it goes through whatever dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, MemoryLearners, Service, running
from sqlalchemy import func, inspect, select, update
from test_errors import problem

from services.deleting import PARTS
from services.fleet import FleetUnavailable
from services.settings import Settings
from services.tables import ApiKey, AuditEvent, Base, Deployment, StrayJob, WebhookEndpoint

EVERY_HOUR = {"any_of": [{"type": "cron", "expr": "0 * * * *"}]}
OF_NO_DEPLOYMENT = {"alembic_version", "api_keys", "audit_events", "leadership", "repeatable_requests"} | {
    "webhook_deliveries",
    "webhook_endpoints",
}
"""Tables whose rows outlive every deployment."""


@pytest.fixture
def world(settings: Settings, database_url: str, tmp_path: Path, base: Path) -> Any:
    """One life of a service on either database; each call is the next one."""
    settings = settings.model_copy(
        update={"database_url": database_url, "workflow_database_url": f"sqlite:///{tmp_path / 'workflows.db'}"}
    )

    def life(fleet: MemoryFleet, launcher: MemoryLauncher | None = None) -> AbstractContextManager[Service]:
        return running(settings, base, fleet, launcher or MemoryLauncher(), MemoryLearners())

    return life


@pytest.fixture
def on_both(world: Any) -> Iterator[Service]:
    with world(MemoryFleet()) as service:
        yield service


class StubbornFleet(MemoryFleet):
    """Replicas that do not end until somebody lets them."""

    lets_go = False
    asked = 0

    async def stop(self, deployment: str) -> None:
        self.asked += 1
        if not self.lets_go:
            raise FleetUnavailable("no Ray")
        await super().stop(deployment)


def gone(service: Service, id: str) -> bool:
    return service.client.get(f"/v1/deployments/{id}").status_code == 404


def rows_of(service: Service) -> dict[str, int]:
    """Of every table that is not kept: rows that there are."""
    with service.controller.database.read() as tx:
        tables = [table for table in Base.metadata.sorted_tables if table.name not in OF_NO_DEPLOYMENT]
        return {table.name: count for table in tables if (count := tx.scalar(select(func.count()).select_from(table)))}


def test_a_merge_patch_changes_what_it_names_and_nothing_else(on_both: Service) -> None:
    made = on_both.deploy(metadata={"a": "1", "b": "2"}, serving={"replicas": 2, "cpus": 0.5})
    path = f"/v1/deployments/{made['id']}"
    before = on_both.client.get(path)
    patch = {"metadata": {"a": None, "c": "3"}, "recipe": {"seeding": {"rank": None}}, "screening": None}
    headers = {"If-Match": before.headers["etag"], "content-type": "application/merge-patch+json"}
    answer = on_both.client.request("PATCH", path, json=patch, headers=headers)
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert after["metadata"] == {"b": "2", "c": "3"}
    assert after["serving"] == before.json()["serving"]
    assert after | {"metadata": 0} == before.json() | {"metadata": 0}
    assert answer.headers["etag"] != before.headers["etag"]
    assert answer.headers["etag"] == on_both.client.get(path).headers["etag"]
    said = on_both.client.get("/v1/audit_events", params={"action": "deployment_changed"}).json()["data"]
    assert said[0]["data"]["fields"] == ["metadata", "recipe", "screening"]


def test_a_changed_retention_changes_the_etag_is_in_the_log_and_null_takes_it_away(service: Service) -> None:
    service.deploy(retention={"experience_ttl_days": 30})
    path, tag = "/v1/deployments/toy", service.client.get("/v1/deployments/toy").headers["etag"]
    answer = service.client.patch(path, json={"retention": {"experience_ttl_days": 7}}, headers={"If-Match": tag})
    assert answer.json()["retention"] == {"experience_ttl_days": 7}, answer.text
    problem(service.client.patch(path, json={"retention": None}, headers={"If-Match": tag}), 412, "etag_mismatch")
    said = service.client.get("/v1/audit_events", params={"action": "deployment_changed"}).json()["data"]
    assert said[0]["data"]["fields"] == ["retention"]
    assert service.client.patch(path, json={"retention": None}).json()["retention"] == {"experience_ttl_days": None}


def test_a_changed_serving_reaches_the_replicas_in_the_background(service: Service) -> None:
    service.deploy()
    answer = service.client.patch("/v1/deployments/toy", json={"serving": {"replicas": 3}})
    assert answer.json()["serving"]["replicas"] == 3
    service.until(lambda: len(service.fleet.versions["toy"]) == 3)
    service.client.patch("/v1/deployments/toy", json={"serving": {"replicas": None}})
    service.until(lambda: len(service.fleet.versions["toy"]) == 1)
    assert service.status()["state"] == "awake"


def test_who_looked_before_the_last_change_changes_nothing(on_both: Service) -> None:
    on_both.deploy()
    path, first = "/v1/deployments/toy", on_both.client.get("/v1/deployments/toy").headers["etag"]

    def patch(number: int) -> int:
        return on_both.client.patch(path, json={"metadata": {"n": str(number)}}, headers={"If-Match": first}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(patch, range(4))) == [200, 412, 412, 412]
    problem(on_both.client.delete(path, headers={"If-Match": first}), 412, "etag_mismatch")
    assert on_both.client.patch(path, json={}, headers={"If-Match": "*"}).status_code == 200
    now = on_both.client.get(path).headers["etag"]
    assert on_both.client.patch(path, json={}, headers={"If-Match": f'"x", {now}'}).status_code == 200
    problem(on_both.client.patch(path, json={}, headers={"If-Match": f"W/{now}"}), 412, "etag_mismatch")


def test_a_night_that_begins_does_not_stop_a_change_that_does_not_touch_it(service: Service) -> None:
    service.deploy()
    tag = service.client.get("/v1/deployments/toy").headers["etag"]
    service.tell()
    sleep, night = service.sleep()
    answer = service.client.patch("/v1/deployments/toy", json={"metadata": {"a": "b"}}, headers={"If-Match": tag})
    assert answer.status_code == 200, answer.text
    told = problem(service.client.patch("/v1/deployments/toy", json={"serving": {"replicas": 2}}), 409, "sleep_in_progress")
    assert sleep["id"] in told["detail"]
    assert service.client.patch("/v1/deployments/toy", json={"serving": {"replicas": 1}}).status_code == 200
    night.end("no_op")


@pytest.mark.parametrize(
    ("patch", "param"),
    [
        ({"serving": {"replicas": 0}}, "serving.replicas"),
        ({"serving": {"nap": 1}}, "serving.nap"),
        ({"recipe": {"seeding": {"on_policy_share": 2}}}, "recipe.seeding.on_policy_share"),
        ({"retention": {"experience_ttl_days": 0}}, "retention.experience_ttl_days"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"name": "other"}, "name"),
        ({"serving": 3}, "serving"),
    ],
)
def test_a_patch_that_cannot_be_names_the_field_and_changes_nothing(service: Service, patch: dict[str, Any], param: str) -> None:
    service.deploy()
    before = service.client.get("/v1/deployments/toy").json()
    told = problem(service.client.patch("/v1/deployments/toy", json=patch), 422, "validation_failed")
    assert told["error"]["param"].startswith(param)
    assert service.client.get("/v1/deployments/toy").json() == before


def test_every_object_that_changes_has_an_etag_of_what_it_is(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    hook = service.client.post("/v1/webhook_endpoints", json={"url": "https://1.1.1.1/"}).json()["id"]
    schedule = service.client.post("/v1/schedules", json={"deployment": "toy", "trigger": EVERY_HOUR}).json()["id"]
    key = service.client.post("/v1/api_keys", json={"name": "k", "scopes": ["sleeps:read"]}).json()["id"]
    changes = {
        f"webhook_endpoints/{hook}": lambda path: service.client.patch(path, json={"events": ["sleep.*"]}),
        f"schedules/{schedule}": lambda path: service.client.patch(path, json={"suspend": True}),
        f"api_keys/{key}": lambda path: service.client.delete(path),
        f"sleeps/{sleep['id']}": lambda path: (night.end("no_op"), service.ended(sleep["id"])),
    }
    tags = set()
    for what, change in changes.items():
        path = f"/v1/{what}"
        first = service.client.get(path).headers["etag"]
        change(path)
        assert service.client.get(path).headers["etag"] != first, what
        tags |= {first, service.client.get(path).headers["etag"]}
    assert len(tags) == 2 * len(changes)
    for what in (f"webhook_endpoints/{hook}", f"schedules/{schedule}"):
        stale = {"If-Match": '"stale"'}
        problem(service.client.patch(f"/v1/{what}", json={}, headers=stale), 412, "etag_mismatch")
        problem(service.client.delete(f"/v1/{what}", headers=stale), 412, "etag_mismatch")


def test_a_deletion_takes_everything_of_the_deployment_and_leaves_the_others(on_both: Service) -> None:
    made, other = on_both.deploy(wake="online"), on_both.deploy("other")
    for name in ("toy", "other"):
        told = on_both.tell(deployment=name)
        assert on_both.client.post(f"/v1/experiences/{told['id']}/feedback", json={"reward": 1.0}).status_code == 200
        on_both.client.post("/v1/schedules", json={"deployment": name, "trigger": EVERY_HOUR})
        on_both.client.post("/v1/chat/completions", json={"model": name, "messages": [{"role": "user", "content": "hi"}]})
    sleep, night = on_both.sleep()
    night.end("no_op")
    on_both.ended(sleep["id"])
    on_both.controller.traffic.flush()
    keys, hooks = {}, {}
    for only in (("toy",), ("toy", "other")):
        named = {"deployments": list(only)}
        key = on_both.client.post("/v1/api_keys", json={"name": "k", "scopes": ["sleeps:read"]} | named)
        hook = on_both.client.post("/v1/webhook_endpoints", json={"url": "https://1.1.1.1/"} | named)
        keys[only], hooks[only] = key.json()["id"], hook.json()["id"]
    before = rows_of(on_both)
    assert before["events"] > 2
    folder = on_both.settings.deployment_folder(made["id"])
    assert folder.is_dir()

    answer = on_both.client.delete("/v1/deployments/toy")
    assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
    on_both.until(lambda: gone(on_both, made["id"]))
    assert not folder.exists(), "what is not found any more is not there any more"
    assert "toy" not in on_both.fleet.versions
    left = rows_of(on_both)
    assert left == {"deployments": 1, "versions": 1, "experiences": 1, "feedback": 1, "schedules": 1, "traffic": 1} | {
        name: left[name] for name in ("experience_bands",) if name in left
    }
    with on_both.controller.database.read() as tx:
        lists = {key: tx.scalars(select(ApiKey.deployments).where(ApiKey.id == id)).one() for key, id in keys.items()}
        ends = {key: tx.scalars(select(WebhookEndpoint).where(WebhookEndpoint.id == id)).one() for key, id in hooks.items()}
        actions = set(tx.scalars(select(AuditEvent.action).where(AuditEvent.object == made["id"])))
    assert lists == {("toy",): [], ("toy", "other"): [other["id"]]}
    assert (ends["toy",].deployments, ends["toy",].disabled is None) == ([], False)
    assert (ends["toy", "other"].deployments, ends["toy", "other"].disabled) == ([other["id"]], None)
    assert {"deployment_created", "deployment_deleted", "deployment_forgotten"} <= actions
    again = on_both.deploy()
    assert again["id"] != made["id"]
    assert on_both.status("other")["state"] == "awake"


def test_every_table_is_a_deployments_or_is_known_not_to_be(on_both: Service) -> None:
    tables = inspect(on_both.controller.database.engine)
    for table in set(tables.get_table_names()) - OF_NO_DEPLOYMENT - {"deployments"}:
        columns = {column["name"] for column in tables.get_columns(table)}
        assert columns & {"deployment", *PARTS}, f"{table}: what is to become of it with its deployment?"


def test_from_the_answer_on_nothing_of_it_is_found_but_itself(world: Any) -> None:
    fleet = StubbornFleet()
    with world(fleet) as service:
        made, told = service.deploy(), service.tell()
        version = service.client.get("/v1/versions").json()["data"][0]["id"]
        schedule = service.client.post("/v1/schedules", json={"deployment": "toy", "trigger": EVERY_HOUR}).json()["id"]
        assert service.client.delete("/v1/deployments/toy").status_code == 202
        service.until(lambda: fleet.asked > 1)
        assert service.status()["state"] == "deleting"
        assert "no Ray" in service.client.get(f"/v1/deployments/{made['id']}").json()["error"]
        assert [row["state"] for row in service.client.get("/v1/deployments").json()["data"]] == ["deleting"]
        assert service.client.delete("/v1/deployments/toy").status_code == 202
        for path in (f"experiences/{told['id']}", f"versions/{version}", f"schedules/{schedule}"):
            assert service.client.get(f"/v1/{path}").status_code == 404, path
        chat = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
        problem(service.client.post("/v1/chat/completions", json=chat), 404, "model_not_found")
        problem(service.client.post("/v1/sleeps", json={"deployment": "toy"}), 404, "deployment_not_found")
        problem(service.client.post("/v1/experiences", json={"deployment": "toy", "text": "a"}), 404, "deployment_not_found")
        problem(service.client.patch("/v1/deployments/toy", json={}), 404, "deployment_not_found")
        assert service.client.get("/v1/models").json()["data"] == []
        taken = service.client.post("/v1/deployments", json={"name": "toy", "base_model": {"model": str(service.base)}})
        problem(taken, 409, "name_taken")
        fleet.lets_go = True
        service.until(lambda: gone(service, made["id"]))
        service.deploy()
        assert service.client.get("/readyz").json()["checks"]["tasks"] == "ok"


def test_a_deployment_is_not_deleted_in_its_sleep_nor_put_to_sleep_while_it_is_deleted(on_both: Service) -> None:
    on_both.deploy()
    on_both.tell()
    sleep, night = on_both.sleep()
    problem(on_both.client.delete("/v1/deployments/toy"), 409, "sleep_in_progress")
    night.end("no_op")
    on_both.ended(sleep["id"])

    def ask(what: str) -> int:
        if what == "delete":
            return on_both.client.delete("/v1/deployments/toy").status_code
        return on_both.client.post("/v1/sleeps", json={"deployment": "toy"}).status_code

    with ThreadPoolExecutor(2) as pool:
        deleted, slept = pool.map(ask, ["delete", "sleep"])
    assert (deleted, slept) in ((202, 404), (409, 202)), "one of the two, never both"


def test_a_folder_stays_while_a_job_of_its_nights_may_run(service: Service) -> None:
    made = service.deploy()
    service.tell()
    sleep, night = service.sleep()
    night.end("no_op")
    service.ended(sleep["id"])
    with service.controller.database.write() as tx:
        tx.add(StrayJob(id="job", sleep=sleep["id"]))
    assert service.client.delete("/v1/deployments/toy").status_code == 202
    service.until(lambda: "toy" not in service.fleet.versions)
    time.sleep(5 * service.settings.replica_check_seconds)
    assert service.settings.deployment_folder(made["id"]).is_dir()
    with service.controller.database.write() as tx:
        tx.delete(tx.merge(StrayJob(id="job", sleep=sleep["id"])))
    service.until(lambda: gone(service, made["id"]))


@pytest.mark.parametrize("died", ["before the replicas ended", "before the folder went", "before the row went"])
def test_a_deletion_goes_on_where_a_controller_died(world: Any, died: str, tmp_path: Path) -> None:
    fleet = StubbornFleet()
    with world(fleet) as service:
        made = service.deploy()
        folder = service.settings.deployment_folder(made["id"])
        assert service.client.delete("/v1/deployments/toy").status_code == 202
        service.until(lambda: fleet.asked > 0)
        if died != "before the replicas ended":
            with service.controller.database.write() as tx:
                values = {"name": made["id"], "forgotten_at": time.time()}
                tx.execute(update(Deployment).where(Deployment.id == made["id"]).values(values))
            if died == "before the row went":
                service.until(lambda: not folder.exists())
    fleet.lets_go = True
    with world(fleet) as service:
        service.until(lambda: gone(service, made["id"]) and not folder.exists())
        service.until(lambda: rows_of(service) == {})
        service.deploy()

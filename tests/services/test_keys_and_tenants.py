"""Who may do what: scopes, tenants, keys that are for some deployments, and the log of it all."""

from __future__ import annotations

import re
import time
from typing import Any, get_args

import httpx
import pytest
from in_memory import KEY, Service
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from test_errors import problem

from services import audit
from services.access import SCOPES, Scope
from services.tables import ApiKey, AuditEvent, Deployment, Rollout

DOUBTFUL = {"reason": "doubtful"}
OF_PATHS: dict[str, dict[str, Any]] = {
    "feedback": {"reward": 1.0},
    **dict.fromkeys(("quarantine", "release", "reject", "revoke", "rollback"), DOUBTFUL),
    "promote": {},
    "abort": {},
    "cancel": {"mode": "immediate"},
    "pause": {"checkpoint": "latest"},
    "retry": {"from": "start"},
    "runs": {"version": "ver_x"},
    "/v1/chat/completions/{id}": {"metadata": {}},
}
"""Bodies that these routes take: by the path's last part, or all of it."""
LISTS = {"chat": "chat/completions"}
"""Kinds that are not listed under their own name."""
EVERY_HOUR = {"any_of": [{"type": "cron", "expr": "0 * * * *"}]}
PROBE = {"kind": "general", "items": [{"prompt": "a", "expected": "b"}]}
FREE = {"/livez", "/startupz", "/readyz", "/version", "/openapi.json"}
"""Routes that need no scope; the last one needs a key."""


def made(service: Service, *scopes: str, **more: Any) -> dict[str, Any]:
    """A key, made by the operator's."""
    answer = service.client.post("/v1/api_keys", json={"name": "one", "scopes": scopes or list(SCOPES)} | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def as_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def rollout_of(service: Service) -> str:
    """A rollout of the deployment's, as the database has it: one that runs would keep others waiting."""
    version = service.status()["active_version"]
    row = {"kind": "promotion", "strategy": "immediate", "was": "candidate", "status": "failed", "started_by": "key_1"}
    with service.controller.database.write() as tx:
        id = service.client.get("/v1/deployments/toy").json()["id"]
        tx.add(Rollout(id="roll_1", deployment=id, from_version=version, to_version=version, **row))
    return "roll_1"


def routes(service: Service) -> list[tuple[str, str]]:
    """Every method and path of the interface."""
    paths = service.client.get("/openapi.json").json()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods if path not in FREE]


def asked(service: Service, method: str, path: str, id: str, key: str) -> httpx.Response:
    """A route with this id in it, and a body that says little."""
    said = {"deployment": id, "model": id, "messages": [{"role": "user", "content": "hi"}]}
    body = OF_PATHS.get(path, OF_PATHS.get(path.rsplit("/", 1)[-1], {"post": said, "patch": {}}.get(method)))
    return service.client.request(method, re.sub(r"{\w+}", id, path), json=body, headers=as_key(key))


def test_a_key_without_the_scope_opens_no_route(service: Service) -> None:
    every = set(SCOPES)
    closed = 0
    for method, path in routes(service):
        answers = {scope: asked(service, method, path, "x", key).status_code for scope, key in _one_each(service).items()}
        opened = {scope for scope, status in answers.items() if status != 403}
        assert len(opened) == 1, (method, path, opened)
        closed += len(every - opened)
    assert closed > 100


def _one_each(service: Service) -> dict[str, str]:
    """A key of each scope alone; made once."""
    found: dict[str, str] = service.client.__dict__.setdefault("one_each", {})
    for scope in get_args(Scope):
        if scope not in found:
            found[scope] = made(service, scope)["key"]
    return found


def test_another_tenants_id_is_not_found_on_any_route(service: Service) -> None:
    service.deploy()
    told = service.tell()
    sleep, night = service.sleep()
    service.until(lambda: service.get_sleep(sleep["id"])["status"] == "preparing")
    versions = service.client.get("/v1/versions").json()["data"]
    deployment = service.client.get("/v1/deployments/toy").json()
    stranger = made(service, tenant="other")["key"]
    own_key = made(service, "sleeps:read")["id"]
    batch = service.client.post(
        "/v1/experiences/batches", content=b"{}\n", headers={"content-type": "application/x-ndjson"}, params={"deployment": "toy"}
    )
    chat = {"model": "toy", "store": True, "messages": [{"role": "user", "content": "the sea is far"}]}
    ids = {
        "deployments": [deployment["id"], "toy"],
        "models": ["toy"],
        "experiences": [told["id"], batch.json()["id"]],
        "chat": [service.client.post("/v1/chat/completions", json=chat).json()["id"]],
        "erasures": [service.client.post("/v1/erasures", json={"subject_id": "nobody"}).json()["id"]],
        "sleeps": [sleep["id"]],
        "versions": [versions[0]["id"]],
        "rollouts": [rollout_of(service)],
        "api_keys": [own_key],
        "schedules": [service.client.post("/v1/schedules", json={"deployment": "toy", "trigger": EVERY_HOUR}).json()["id"]],
        "probes": [service.client.post("/v1/probes", json={"deployment": "toy"} | PROBE).json()["id"]],
        "webhook_endpoints": [service.client.post("/v1/webhook_endpoints", json={"url": "https://1.1.1.1/"}).json()["id"]],
    }
    walked = 0
    for method, path in routes(service):
        kind = path.split("/")[2]
        if "{" not in path:
            continue
        for id in ids[kind]:
            answer = asked(service, method, path, id, stranger)
            assert answer.status_code == 404, (method, path, answer.text)
            walked += 1
    assert walked > 12
    for kind in ids:
        path = f"/v1/{LISTS.get(kind, kind)}"
        found = service.client.get(path, headers=as_key(stranger)).json()
        assert [item["id"] for item in found["data"] if item["id"] in ids[kind]] == []
        if kind != "models":
            cursor = service.client.get(path, params={"after": ids[kind][0]}, headers=as_key(stranger))
            problem(cursor, 400, "bad_cursor")
    for path, more in (("/v1/sleeps", {}), ("/v1/experiences", {"text": "a"})):
        answer = service.client.post(path, json={"deployment": "toy"} | more, headers=as_key(stranger))
        problem(answer, 404, "deployment_not_found")
    assert service.client.get("/v1/models", headers=as_key(stranger)).json()["data"] == []
    night.end("no_op")


def test_a_sleep_of_another_tenant_is_not_told_by_its_id(service: Service) -> None:
    service.deploy()
    service.tell()
    _, night = service.sleep(id="slp_mine")
    stranger = made(service, tenant="other")["key"]
    body = {"name": "theirs", "base_model": {"model": str(service.base)}}
    assert service.client.post("/v1/deployments", json=body, headers=as_key(stranger)).status_code == 201
    answer = service.client.post("/v1/sleeps", json={"deployment": "theirs", "id": "slp_mine"}, headers=as_key(stranger))
    problem(answer, 422, "idempotency_key_reused")
    night.end("no_op")


def test_tenants_may_use_the_same_name_and_each_is_answered_by_its_own(service: Service) -> None:
    mine = service.deploy()
    stranger = made(service, tenant="other")["key"]
    body = {"name": "toy", "base_model": {"model": str(service.base)}}
    theirs = service.client.post("/v1/deployments", json=body, headers=as_key(stranger)).json()
    assert theirs["id"] != mine["id"]
    assert service.client.get("/v1/deployments/toy", headers=as_key(stranger)).json()["id"] == theirs["id"]
    service.until(lambda: service.client.get("/v1/deployments/toy/status", headers=as_key(stranger)).json()["state"] == "awake")
    chat = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
    for row, headers in ((mine, {}), (theirs, as_key(stranger))):
        answer = service.client.post("/v1/chat/completions", json=chat, headers=headers)
        assert answer.headers["x-deployment-version"] == row["active_version"]
    problem(service.client.post("/v1/deployments", json=body, headers=as_key(stranger)), 409, "name_taken")
    row = {"base_model": {}, "memory": {}, "recipe": {}, "serving": {}, "active_version": "ver_x"}
    with pytest.raises(IntegrityError), service.controller.database.write() as tx:
        tx.add(Deployment(tenant="other", id="dep_other", name="toy", **row))


def test_a_key_for_one_deployment_touches_no_other(service: Service) -> None:
    service.deploy("one")
    service.deploy("two")
    key = as_key(made(service, deployments=["one"])["key"])
    assert [row["name"] for row in service.client.get("/v1/deployments", headers=key).json()["data"]] == ["one"]
    problem(service.client.get("/v1/deployments/two", headers=key), 403, "deployment_not_allowed")
    problem(
        service.client.post("/v1/experiences", json={"deployment": "two", "text": "a"}, headers=key), 403, "deployment_not_allowed"
    )
    chat = {"model": "two", "messages": [{"role": "user", "content": "hi"}]}
    problem(service.client.post("/v1/chat/completions", json=chat, headers=key), 404, "model_not_found")
    body = {"name": "three", "base_model": {"model": str(service.base)}}
    problem(service.client.post("/v1/deployments", json=body, headers=key), 403, "deployment_not_allowed")


def test_a_key_gives_no_more_than_it_has(service: Service) -> None:
    service.deploy("one")
    weak = as_key(made(service, "keys:admin", "sleeps:read")["key"])
    answer = service.client.post("/v1/api_keys", json={"name": "x", "scopes": ["versions:promote"]}, headers=weak)
    assert "versions:promote" in problem(answer, 403, "insufficient_scope")["detail"]
    answer = service.client.post("/v1/api_keys", json={"name": "x", "scopes": ["sleeps:read"], "tenant": "b"}, headers=weak)
    assert problem(answer, 403, "insufficient_scope")["error"]["param"] == "tenant"
    narrow = as_key(made(service, deployments=["one"])["key"])
    answer = service.client.post("/v1/api_keys", json={"name": "x", "scopes": ["sleeps:read"]}, headers=narrow)
    assert problem(answer, 403, "insufficient_scope")["error"]["param"] == "deployments"
    problem(service.client.post("/v1/api_keys", json={"name": "x", "scopes": ["everything"]}), 422, "validation_failed")


def test_a_key_is_shown_once_and_opens_nothing_when_it_is_revoked_rotated_or_over(service: Service) -> None:
    given = made(service, "sleeps:read", expires_in_seconds=3600)
    key, id = given["key"], given["id"]
    assert "key" not in service.client.get(f"/v1/api_keys/{id}").json()
    assert key.startswith(service.client.get(f"/v1/api_keys/{id}").json()["prefix"])
    assert service.client.get("/v1/sleeps", headers=as_key(key)).status_code == 200
    assert service.client.get(f"/v1/api_keys/{id}").json()["last_used_at"] is not None
    rotated = service.client.post(f"/v1/api_keys/{id}/rotate").json()
    problem(service.client.get("/v1/sleeps", headers=as_key(key)), 401, "invalid_key")
    problem(service.client.post(f"/v1/api_keys/{id}/rotate"), 409, "key_revoked")
    assert service.client.get("/v1/sleeps", headers=as_key(rotated["key"])).status_code == 200
    with service.controller.database.write() as tx:
        tx.execute(update(ApiKey).where(ApiKey.id == rotated["id"]).values(expires_at=time.time() - 1))
    problem(service.client.get("/v1/sleeps", headers=as_key(rotated["key"])), 401, "expired_key")
    assert service.client.delete(f"/v1/api_keys/{rotated['id']}").json()["revoked_at"] is not None
    problem(service.client.get("/v1/sleeps", headers=as_key(rotated["key"])), 401, "invalid_key")


def test_storing_needs_the_scope_for_it(service: Service) -> None:
    service.deploy()
    key = as_key(made(service, "inference:write")["key"])
    body = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
    assert service.client.post("/v1/chat/completions", json=body, headers=key).status_code == 200
    answer = service.client.post("/v1/chat/completions", json=body | {"store": True}, headers=key)
    assert problem(answer, 403, "insufficient_scope")["error"]["param"] == "store"
    assert service.client.get("/v1/experiences").json()["data"] == []


def test_a_key_that_asks_too_often_is_told_when_to_come_back(service: Service) -> None:
    key = as_key(made(service, "sleeps:read", requests_per_minute=3)["key"])
    answers = [service.client.get("/v1/sleeps", headers=key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
    assert 1 <= int(problem(answers[3], 429, "requests") and answers[3].headers["retry-after"]) <= 60
    for answer, left in zip(answers, (2, 1, 0, 0), strict=True):
        said = answer.headers
        assert said["ratelimit-policy"] == '"minute";q=3;w=60'
        reset = int(said["x-ratelimit-reset-requests"].removesuffix("s"))
        assert (said["ratelimit"], said["x-ratelimit-limit-requests"]) == (f'"minute";r={left};t={reset}', "3")
    unlimited = service.client.get("/v1/sleeps")
    assert not [name for name in unlimited.headers if "ratelimit" in name.lower()]
    assert service.client.get("/v1/sleeps").status_code == 200


def test_what_is_done_is_in_the_log_and_a_change_of_the_log_is_found(service: Service) -> None:
    service.deploy()
    key = made(service, "sleeps:read")
    service.client.delete(f"/v1/api_keys/{key['id']}", headers={"x-request-id": "req-mine"})
    told = service.client.get("/v1/audit_events").json()["data"]
    assert [(event["action"], event["target"]) for event in told[:2]] == [("key_revoked", key["id"]), ("key_created", key["id"])]
    assert told[0]["request_id"] == "req-mine"
    assert "deployment_created" in [event["action"] for event in told]
    assert KEY not in str(told)
    assert key["key"] not in str(told)
    database = service.controller.database
    with database.read() as tx:
        assert audit.broken(tx, "default") is None
    with database.write() as tx:
        tx.execute(update(AuditEvent).where(AuditEvent.id == told[1]["id"]).values(actor="somebody else"))
    with database.read() as tx:
        assert audit.broken(tx, "default") == told[1]["id"]


@pytest.mark.parametrize("filters", [{"action": "key_created"}, {"object": "x"}, {"actor": "controller"}])
def test_the_log_can_be_searched(service: Service, filters: dict[str, str]) -> None:
    made(service, "sleeps:read")
    found = service.client.get("/v1/audit_events", params=filters).json()["data"]
    assert len(found) == (1 if "action" in filters else 0)

"""Every mistake a client can make, and what it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_memory import Service
from pydantic import ValidationError
from transformers import GPT2Config

from circadian.memory.version import weights_sha256
from services.settings import Settings


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The body, after checking that it is a problem in both dialects."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["type"] == f"urn:circadian:error:{code}"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["error"]["code"] == code
    assert body["error"]["message"] == body["detail"]
    return body


def test_a_missing_and_a_wrong_key_are_told_apart(service: Service) -> None:
    del service.client.headers["Authorization"]
    missing = service.client.get("/v1/deployments")
    problem(missing, 401, "missing_key")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    wrong = service.client.get("/v1/deployments", headers={"Authorization": "Bearer no"})
    problem(wrong, 401, "invalid_key")
    assert wrong.headers["www-authenticate"].startswith("Bearer")


def test_no_route_but_health_answers_without_a_key(service: Service) -> None:
    paths = service.client.get("/openapi.json").json()["paths"] | {"/openapi.json": ["get"]}
    del service.client.headers["Authorization"]
    problem(service.client.get("/redoc"), 404, "route_not_found")
    open_routes = set()
    for path, methods in paths.items():
        for method in methods:
            answer = service.client.request(method, path.replace("{id}", "x").replace("{id_or_name}", "x"), json={})
            if answer.status_code != 401:
                open_routes.add(path)
    assert open_routes == {"/livez", "/startupz", "/readyz", "/version"}
    assert len(paths) > 15


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", "/v1/deployments/nobody", None),
        ("get", "/v1/deployments/nobody/status", None),
        ("post", "/v1/sleeps", {"deployment": "nobody"}),
        ("post", "/v1/experiences", {"deployment": "nobody", "text": "a b c"}),
        ("get", "/v1/experiences?deployment=nobody", None),
        ("get", "/v1/versions?deployment=nobody", None),
    ],
)
def test_an_unknown_deployment_is_not_found(service: Service, method: str, path: str, body: dict[str, Any] | None) -> None:
    problem(service.client.request(method, path, json=body), 404, "deployment_not_found")


@pytest.mark.parametrize("kind", ["sleep", "version", "experience"])
def test_an_unknown_id_is_not_found(service: Service, kind: str) -> None:
    problem(service.client.get(f"/v1/{kind}s/no"), 404, f"{kind}_not_found")


def test_what_is_not_built_is_not_found(service: Service) -> None:
    problem(service.client.get("/v1/naps"), 404, "route_not_found")
    problem(service.client.delete("/v1/deployments"), 405, "method_not_allowed")


def test_an_unknown_model_is_not_found_in_openais_words(service: Service) -> None:
    body = {"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}
    assert problem(service.client.post("/v1/chat/completions", json=body), 404, "model_not_found")["error"]["param"] == "model"


def test_an_unknown_field_is_pointed_at(service: Service) -> None:
    service.deploy()
    body = {"deployment": "toy", "recipe": {"seeding": {"stepz": 3}}, "nap": True}
    errors = problem(service.client.post("/v1/sleeps", json=body), 422, "validation_failed")["errors"]
    assert {error["pointer"] for error in errors} == {"/recipe/seeding/stepz", "/nap"}


@pytest.mark.parametrize(
    ("path", "setting", "param", "remedy"),
    [
        (
            "/v1/deployments",
            {"memory": {"levels": [{"period": 1000}, {"period": 2500}]}},
            "memory.levels",
            "period 2500 is not a larger multiple of 1000; give each level a period that the next slower one is a multiple of",
        ),
        (
            "/v1/deployments",
            {"memory": {"levels": [{"period": 1000}, {"period": 1000}]}},
            "memory.levels",
            "period 1000 is not a larger multiple of 1000; give each level a period",
        ),
        (
            "/v1/deployments",
            {"memory": {"levels": [{"period": 0}, {"period": 8}]}},
            "memory.levels.0.period",
            "greater than or equal to 1",
        ),
        (
            "/v1/sleeps",
            {"recipe": {"seeding": {"on_policy_share": 1.5}}},
            "recipe.seeding.on_policy_share",
            "less than or equal to 1",
        ),
        (
            "/v1/sleeps",
            {"recipe": {"seeding": {"on_policy_share": -0.1}}},
            "recipe.seeding.on_policy_share",
            "greater than or equal to 0",
        ),
        (
            "/v1/deployments",
            {"recipe": {"seeding": {"on_policy_share": 2}}},
            "recipe.seeding.on_policy_share",
            "less than or equal to 1",
        ),
        ("/v1/sleeps", {"recipe": {"seeding": {"free_share": 0.9}}}, "recipe.seeding", "lower free_share, or raise old_share"),
        ("/v1/sleeps", {"recipe": {"cue_bytes": 1}}, "recipe.cue_bytes", "greater than or equal to 4096"),
    ],
)
def test_a_setting_that_cannot_be_names_its_field_and_the_remedy_and_changes_nothing(
    service: Service, path: str, setting: dict[str, Any], param: str, remedy: str
) -> None:
    if path == "/v1/sleeps":
        service.deploy()
        service.tell()
        body = {"deployment": "toy"} | setting
    else:
        body = {"name": "toy", "base_model": {"model": str(service.base)}} | setting
    told = problem(service.client.post(path, json=body), 422, "validation_failed")
    assert told["error"]["param"] == param
    assert told["errors"][0]["pointer"] == "/" + param.replace(".", "/")
    assert remedy in told["detail"]
    assert service.client.get(path).json()["data"] == []


def test_a_body_that_is_not_json_is_malformed(service: Service) -> None:
    for path in ("/v1/sleeps", "/v1/chat/completions"):
        answer = service.client.post(path, content=b"{", headers={"content-type": "application/json"})
        problem(answer, 400, "malformed_json")


CHAT = b'{"model": "toy", "messages": [{"role": "user", "content": "hi"}], %s}'
DIGITS = b"9" * 5000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT % b'"seed": %s' % DIGITS),
        ("/v1/chat/completions", CHAT % b'"temperature": NaN'),
        ("/v1/chat/completions", b"[" * 100_000),
        ("/v1/chat/completions", CHAT % b'"user": "\xed\xa0\x80"'),
        ("/v1/experiences", b'{"deployment": "toy", "text": "a", "metadata": %s}' % DIGITS),
        ("/v1/experiences", b"[" * 100_000),
        ("/v1/sleeps", b'{"deployment": "\xff"}'),
        *(("/v1/deployments", b'{"name": "x", "serving": {"cpus": %s}}' % number) for number in (b"1e400", b"NaN", b"Infinity")),
    ],
)
def test_json_that_python_cannot_read_is_malformed_too(service: Service, path: str, body: bytes) -> None:
    answer = service.client.post(path, content=body, headers={"content-type": "application/json"})
    problem(answer, 400, "malformed_json")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", CHAT % b'"\\udead": 1', "\\udead"),
        ("/v1/chat/completions", CHAT % b'"user": "a\\uD800b"', "user"),
        (
            "/v1/chat/completions",
            b'{"model": "toy", "store": true, "messages": [{"role": "user", "content": "\\ud83d\\ude00 \\ud83d"}]}',
            "messages.0.content",
        ),
        ("/v1/completions", b'{"model": "toy", "store": true, "prompt": "\\udc00\\ud800"}', "prompt"),
        ("/v1/experiences", b'{"deployment": "toy", "text": "\\ud800"}', "text"),
        ("/v1/experiences", b'{"deployment": "toy", "text": "a", "metadata": {"k": {"\\ud800": 1}}}', "metadata.k.\\ud800"),
        ("/v1/sleeps", b'{"deployment": "toy", "held_out": ["a", "\\udfff"]}', "held_out.1"),
        ("/v1/deployments", b'{"name": "\\ud800"}', "name"),
    ],
)
def test_half_a_surrogate_pair_is_refused_everywhere_and_pointed_at(service: Service, path: str, body: bytes, param: str) -> None:
    answer = service.client.post(path, content=body, headers={"content-type": "application/json"})
    told = problem(answer, 422, "validation_failed")
    assert told["error"]["param"] == param
    assert told["errors"][0]["pointer"] == "/" + param.replace(".", "/")
    assert "whole pair" in told["detail"]


def test_a_whole_surrogate_pair_is_a_character(service: Service) -> None:
    service.deploy()
    body = b'{"deployment": "toy", "text": "oslo \\ud83d\\ude00 \\\\ud800"}'
    answer = service.client.post("/v1/experiences", content=body, headers={"content-type": "application/json"})
    assert answer.json()["text"] == "oslo \U0001f600 \\ud800"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpus", "-1"),
        ("cpus", "0"),
        ("gpus", "-0.5"),
        ("gpus", "1.5"),
        ("replicas", "1000000"),
    ],
)
def test_resources_that_no_cluster_has_are_refused_at_once(service: Service, field: str, value: str) -> None:
    base = json.dumps({"model": str(service.base)})
    body = f'{{"name": "toy", "base_model": {base}, "serving": {{"{field}": {value}}}}}'
    answer = service.client.post("/v1/deployments", content=body, headers={"content-type": "application/json"})
    assert problem(answer, 422, "validation_failed")["error"]["param"].startswith("serving")


@pytest.mark.parametrize("value", ["inf", "nan", "0", "-1"])
def test_no_wait_of_the_service_is_endless(value: str) -> None:
    with pytest.raises(ValidationError):
        Settings(replica_start_seconds=float(value))


@pytest.mark.parametrize("query", ["wait=inf", "wait=nan", "wait=-1"])
def test_no_wait_of_a_client_is_endless(service: Service, query: str) -> None:
    problem(service.client.get(f"/v1/sleeps/slp_1?{query}"), 422, "validation_failed")


def test_a_number_beyond_the_databases_is_refused(service: Service) -> None:
    problem(service.client.get(f"/v1/sleeps/slp_1/events?after_seq={10**20}"), 422, "validation_failed")


def test_a_base_model_without_a_graft_is_refused_with_the_field_and_the_remedy(service: Service, tmp_path: Path) -> None:
    GPT2Config(n_layer=1, n_embd=8, n_head=1).save_pretrained(tmp_path / "gpt2")
    answer = service.client.post("/v1/deployments", json={"name": "gpt", "base_model": {"model": str(tmp_path / "gpt2")}})
    body = problem(answer, 422, "no_graft")
    assert body["error"]["param"] == "base_model.model"
    assert "choose a base of type" in body["detail"]
    assert service.client.get("/v1/deployments").json()["data"] == []


def test_a_base_model_that_is_not_there_is_refused(service: Service, tmp_path: Path) -> None:
    for base in ({"model": str(tmp_path / "nothing")}, {"model": "some/model"}):
        body = problem(service.client.post("/v1/deployments", json={"name": "x", "base_model": base}), 422, "model_not_allowed")
        assert body["error"]["param"].startswith("base_model.")


@pytest.mark.parametrize("revision", ["main", "v1.0", "a" * 39])
def test_a_hub_id_needs_a_commit_and_not_a_name_that_moves(service: Service, revision: str) -> None:
    body = {"name": "x", "base_model": {"model": "some/model", "revision": revision}}
    answer = problem(service.client.post("/v1/deployments", json=body), 422, "model_not_allowed")
    assert answer["error"]["param"] == "base_model.revision"


def test_a_checksum_that_is_given_must_be_the_bases(service: Service) -> None:
    body = {"name": "x", "base_model": {"model": str(service.base), "sha256": "0" * 64}}
    answer = problem(service.client.post("/v1/deployments", json=body), 422, "model_not_allowed")
    assert answer["error"]["param"] == "base_model.sha256"
    body["base_model"] = {"model": str(service.base), "sha256": weights_sha256(service.base)}
    assert service.client.post("/v1/deployments", json=body).status_code == 201


def test_a_body_that_is_too_long_is_refused(service: Service) -> None:
    most = service.settings.most_body_bytes
    problem(service.client.post("/v1/experiences", content=b" " * (most + 1)), 413, "too_large")
    pieces = (b" " * (most // 2) for _ in range(3))
    problem(service.client.post("/v1/experiences", content=pieces), 413, "too_large")
    problem(
        service.client.post("/v1/sleeps", content=b"{" * most, headers={"content-type": "application/json"}), 400, "malformed_json"
    )


def test_a_layer_that_the_base_does_not_have_is_refused(service: Service) -> None:
    body = {"name": "x", "base_model": {"model": str(service.base)}, "memory": {"layers": [7]}}
    assert problem(service.client.post("/v1/deployments", json=body), 422, "model_not_allowed")["error"]["param"] == "memory.layers"


def test_a_name_that_is_taken_is_a_conflict(service: Service) -> None:
    service.deploy()
    answer = service.client.post("/v1/deployments", json={"name": "toy", "base_model": {"model": str(service.base)}})
    problem(answer, 409, "name_taken")
    assert answer.headers["x-should-retry"] == "false"


def test_a_sleep_with_nothing_to_sleep_on_is_refused(service: Service) -> None:
    service.deploy()
    problem(service.client.post("/v1/sleeps", json={"deployment": "toy"}), 422, "no_eligible_experience")
    assert service.client.get("/v1/sleeps").json()["data"] == []


def test_a_second_sleep_is_refused_and_not_retried(service: Service) -> None:
    service.deploy()
    service.tell()
    first, night = service.sleep()
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy"})
    assert first["id"] in problem(answer, 409, "sleep_in_progress")["detail"]
    assert answer.headers["x-should-retry"] == "false"
    night.end("no_op")
    service.ended(first["id"])
    service.sleep()


def test_repeating_a_sleep_request_returns_the_first_sleep(service: Service) -> None:
    service.deploy()
    service.tell()
    first, _ = service.sleep(id="slp_mine", seed=1)
    again, _ = service.sleep(id="slp_mine", seed=1)
    assert again["created_at"] == first["created_at"]
    assert service.launcher.submissions == 1
    other = service.client.post("/v1/sleeps", json={"deployment": "toy", "id": "slp_mine", "seed": 2})
    problem(other, 422, "idempotency_key_reused")


def test_a_report_comes_with_the_outcome(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    problem(service.client.get(f"/v1/sleeps/{sleep['id']}/report"), 409, "report_not_ready")
    night.end("rejected")
    service.ended(sleep["id"])
    report = service.client.get(f"/v1/sleeps/{sleep['id']}/report").json()
    assert (report["outcome"], report["seconds"]) == ("rejected", 1.0)


def test_a_fault_of_ours_is_a_problem_without_our_secrets(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.deploy()

    async def fails(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service.fleet, "answer", fails)
    body = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
    answer = service.client.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine"})
    assert problem(answer, 500, "internal")["request_id"] == "mine"
    assert "secret" not in json.dumps(answer.json())

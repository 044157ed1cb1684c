"""What somebody may send who means harm, or whose client is broken: what reaches the replicas, and what it costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import KEY, MemoryFleet, MemoryLauncher, Service, running
from test_errors import problem

from services import readable
from services.api.asking import FIELDS
from services.settings import Settings

CHAT: dict[str, Any] = {"model": "toy", "messages": [{"role": "user", "content": "say oslo"}]}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Service]:
    """One service for all: none of these may hurt the next."""
    settings = Settings(home=tmp_path_factory.mktemp("hostile") / "home", api_key=KEY, poll_seconds=0.02)  # type: ignore[arg-type]
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        yield service


@pytest.fixture
def toy(alive: Service) -> Service:
    """What has reached its replicas is this test's."""
    alive.fleet.bodies.clear()
    return alive


ENGINE_ONLY: dict[str, Any] = {
    "prompt_embeds": "AAAA",
    "mm_processor_kwargs": {"code_revision": "main"},
    "media_io_kwargs": {"video": {"num_frames": -1}},
    "chat_template": "{{ ''.__class__ }}",
    "chat_template_kwargs": {"tokenize": True},
    "priority": -100,
    "kv_transfer_params": {"remote_host": "10.0.0.1"},
    "guided_json": {"type": "object"},
    "guided_regex": "(a+)+$",
    "guided_grammar": "root ::= root",
    "guided_decoding_backend": "outlines",
    "structured_outputs": {"regex": "(a+)+$"},
    "logits_processors": ["os.system"],
    "extra_body": {"chat_template": "x"},
    "vllm_xargs": {"a": 1},
    "documents": [{"text": "x"}],
    "lora_request": {"lora_path": "/etc"},
    "cache_salt": "theirs",
    "request_id": "theirs",
    "allowed_token_ids": [1],
    "bad_words": ["x"],
    "truncate_prompt_tokens": -1,
    "tools": [{"type": "function"}],
    "tool_choice": "auto",
    "functions": [],
    "mm_data": {},
}
"""What vLLM would read, and nobody outside is to say."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("field", sorted(ENGINE_ONLY))
def test_a_field_that_is_the_engines_own_reaches_no_replica(toy: Service, path: str, field: str, stream: bool) -> None:
    body = CHAT if path.endswith("chat/completions") else {"model": "toy", "prompt": "say oslo"}
    answer = toy.client.post(path, json=body | {"stream": stream, field: ENGINE_ONLY[field]})
    assert problem(answer, 422, "validation_failed")["error"]["param"] == field
    assert toy.fleet.bodies == []


def test_what_reaches_a_replica_has_no_field_but_those_that_are_named(toy: Service) -> None:
    """By the gateway as it is: every field that it takes, one at a time, and what of it arrives."""
    for path, route in (("/v1/chat/completions", "chat"), ("/v1/completions", "completion")):
        body = CHAT if route == "chat" else {"model": "toy", "prompt": "say oslo"}
        for field in sorted(FIELDS[route] | {"store", "metadata"}):  # type: ignore[index]
            given = body | {
                field: body.get(field, {"store": True, "metadata": {"a": "b"}}.get(field, 1 if field != "stream" else True))
            }
            assert toy.client.post(path, json=given).status_code == 200, field
            assert toy.fleet.bodies[-1].keys() <= FIELDS[route]  # type: ignore[index]
    assert not {"store", "metadata"} & set().union(*toy.fleet.bodies)
    assert not set(ENGINE_ONLY) & (FIELDS["chat"] | FIELDS["completion"])


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}}],
        [{"type": "text", "text": "what is this ?"}, {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
        [{"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}],
        [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
        [{"type": "image_embeds", "image_embeds": "AAAA"}],
        [{"type": "text", "text": "a", "image_url": {"url": "http://10.0.0.1/"}}],
        [{"image_url": "http://10.0.0.1/"}],
    ],
)
def test_nothing_makes_a_replica_fetch_something(toy: Service, content: Any) -> None:
    answer = toy.client.post("/v1/chat/completions", json=CHAT | {"messages": [{"role": "user", "content": content}]})
    assert problem(answer, 422, "validation_failed")["error"]["param"] == "messages.0.content"
    assert toy.fleet.bodies == []


@pytest.mark.parametrize("field", ["n", "max_tokens", "max_completion_tokens", "min_tokens"])
def test_no_client_asks_for_more_than_the_service_allows(toy: Service, field: str) -> None:
    most = toy.settings.most_choices if field == "n" else toy.settings.most_tokens
    assert toy.client.post("/v1/chat/completions", json=CHAT | {field: most}).status_code == 200
    for more in (most + 1, 10**30, -1, 1.5, "1", True):
        answer = toy.client.post("/v1/chat/completions", json=CHAT | {field: more})
        assert problem(answer, 422, "validation_failed")["error"]["param"] == field
    assert len(toy.fleet.bodies) == 1


def test_of_a_name_that_comes_twice_the_last_counts_for_the_check_and_for_the_replica(toy: Service) -> None:
    """A gateway that checks one and passes on the other is passed by."""
    twice = json.dumps(CHAT)[:-1] + ', "n": 1, "n": 1000000}'
    assert problem(toy.client.post("/v1/chat/completions", content=twice, headers=JSON), 422, "validation_failed")
    twice = json.dumps(CHAT)[:-1] + ', "n": 1000000, "n": 2}'
    assert toy.client.post("/v1/chat/completions", content=twice, headers=JSON).status_code == 200
    assert [body["n"] for body in toy.fleet.bodies] == [2]


NO_JSON = {
    "brackets": b"[" * 100_000,
    "closed brackets": b"[" * 50_000 + b"]" * 50_000,
    "objects": b'{"a":' * 50_000,
    "no utf-8": b'{"a": "\xff"}',
    "nan": b'{"deployment": "toy", "text": "a", "occurred_at": NaN}',
    "infinity": b'{"deployment": "toy", "text": "a", "occurred_at": -Infinity}',
    "beyond a double": b'{"deployment": "toy", "text": "a", "occurred_at": 1e400}',
    "beyond a double, written out": b'{"deployment": "toy", "text": "a", "occurred_at": %s.0}' % (b"9" * 400),
    "nul": b'{"deployment": "toy\x00"}',
}


@pytest.mark.parametrize("what", sorted(NO_JSON))
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/experiences"), ("POST", "/v1/chat/completions"), ("PATCH", "/v1/deployments/toy")]
)
def test_what_json_does_not_have_is_refused_by_every_route_and_costs_little(
    toy: Service, method: str, path: str, what: str
) -> None:
    began = time.process_time()
    problem(toy.client.request(method, path, content=NO_JSON[what], headers=JSON), 400, "malformed_json")
    assert time.process_time() - began < 5.0
    assert toy.status()["state"] == "awake"


@pytest.mark.parametrize("depth", [65, 250, 500, 900, 990])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/v1/deployments/toy", '{"serving": %s}'),
        ("POST", "/v1/chat/completions", json.dumps(CHAT)[:-1] + ', "response_format": %s}'),
        ("POST", "/v1/schedules", '{"deployment": "toy", "trigger": %s}'),
    ],
)
def test_a_body_that_could_be_parsed_and_not_be_walked_through_is_refused(
    toy: Service, method: str, path: str, body: str, depth: int
) -> None:
    deep = body % ('{"a":' * depth + "1" + "}" * depth)
    told = problem(toy.client.request(method, path, content=deep, headers=JSON), 400, "malformed_json")
    assert "deep" in told["detail"]
    assert toy.fleet.bodies == []


def test_brackets_in_a_text_are_no_nesting(toy: Service) -> None:
    text = "[{" * 500 + '\\" [[ "' + "\\"
    body = {"deployment": "toy", "text": text}
    assert toy.client.post("/v1/experiences", json=body).status_code == 201
    assert not readable.is_deep(json.dumps([[text]] * 100).encode())
    assert readable.is_deep(json.dumps({"a": ["]" * 100]}).encode() + b"[" * 65)


@pytest.mark.parametrize("given", ["\\u0000", "a\\u0000b"])
def test_the_character_nul_is_refused_and_pointed_at(toy: Service, given: str) -> None:
    for path, body, param in (
        ("/v1/experiences", '{"deployment": "toy", "text": "%s"}', "text"),
        ("/v1/experiences", '{"deployment": "toy", "text": "x", "metadata": {"k": "%s"}}', "metadata.k"),
        ("/v1/chat/completions", json.dumps(CHAT)[:-1] + ', "user": "%s"}', "user"),
        ("/v1/api_keys", '{"name": "%s", "scopes": ["sleeps:read"]}', "name"),
    ):
        told = problem(toy.client.post(path, content=body % given, headers=JSON), 422, "validation_failed")
        assert (told["error"]["param"], "NUL" in told["detail"]) == (param, True)
    for address in ("/v1/deployments/%00", "/v1/experiences?deployment=a%00", "/v1/audit_events?actor=%00"):
        problem(toy.client.get(address), 400, "malformed_address")
    lines = {"content": "{}", "headers": {"content-type": "application/x-ndjson"}}
    problem(toy.client.post("/v1/experiences/batches?deployment=%00", **lines), 400, "malformed_address")  # type: ignore[arg-type]
    assert toy.client.post("/v1/experiences", json={"deployment": "toy", "text": "say \\u0000"}).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/xml"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": ""},
        {"content-type": "application/jsonp"},
    ],
)
def test_a_body_of_another_kind_is_not_taken_for_json(toy: Service, headers: dict[str, str]) -> None:
    body = json.dumps({"deployment": "toy", "text": "oslo is red"})
    told = problem(toy.client.post("/v1/experiences", content=body, headers=headers), 415, "unsupported_media_type")
    assert "application/json" in told["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer"},
        {"authorization": "Basic dG95OnRveQ=="},
        {"authorization": "Bearer \xff\xfe"},
        {"authorization": f"Bearer {KEY} {KEY}"},
        {"authorization": "Bearer " + "x" * 10_000},
    ],
)
def test_a_key_that_is_no_key_opens_nothing(toy: Service, headers: dict[str, str]) -> None:
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    assert toy.client.get("/v1/deployments", headers=sent).status_code == 401  # type: ignore[arg-type]


def test_headers_that_mean_nothing_change_nothing(toy: Service) -> None:
    weird: dict[str, bytes] = {
        "x-request-id": b"a\xffb'; DROP TABLE",
        "traceparent": b"\xff" * 100,
        "if-match": b'"\xff", W/"x",,,',
        "idempotency-key": "\xfc\xdf".encode("latin-1"),
        "last-event-id": b"-1",
        "accept": b"\xff/*",
        "content-length": b"2",
    }
    for name, value in weird.items():
        answer = toy.client.get("/v1/deployments/toy", headers={name: value})  # type: ignore[dict-item]
        assert answer.status_code == 200, name
        assert answer.headers["x-request-id"].startswith("req_")
    problem(toy.client.patch("/v1/deployments/toy", json={}, headers={"if-match": b'"\xff"'}), 412, "etag_mismatch")  # type: ignore[dict-item]
    problem(toy.client.post("/v1/sleeps", json={}, headers={"idempotency-key": "k" * 256}), 400, "bad_idempotency_key")


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/pepper", "slp_1/../../../pepper", "~root"]
)
@pytest.mark.parametrize(
    "route", ["/v1/sleeps/{}/dreams", "/v1/sleeps/{}/curriculum", "/v1/versions/{}", "/v1/deployments/{}", "/docs/{}"]
)
def test_no_path_leads_out_of_the_home(toy: Service, route: str, path: str) -> None:
    answer = toy.client.get(route.format(path))
    assert answer.status_code == 404, answer.text
    assert "root:" not in answer.text

"""Answers pass through; what is to be kept is on disk before the answer has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from starlette.requests import ClientDisconnect, Request

from services.api import wake
from services.fleet import Reply
from services.settings import Settings

QUESTION: dict[str, Any] = {"model": "toy", "messages": [{"role": "user", "content": "say oslo"}], "temperature": 0.5}
KEPT = {"store": True, "metadata": {"user": "mira"}}


@pytest.fixture
def toy(service: Service) -> Service:
    service.deploy()
    return service


def test_an_answer_names_its_version_and_the_body_passes_through(toy: Service) -> None:
    answer = toy.client.post("/v1/chat/completions", json=QUESTION | {"store": False, "metadata": None, "top_k": 3})
    assert answer.json()["choices"][0]["message"]["content"] == "oslo"
    assert answer.headers["x-deployment-version"] == toy.status()["active_version"]
    assert "x-experience-id" not in answer.headers
    assert toy.fleet.bodies == [QUESTION | {"top_k": 3}]
    assert toy.client.get("/v1/experiences").json()["data"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_exchange_is_there_when_the_answer_has_ended(toy: Service, stream: bool) -> None:
    answer = toy.client.post("/v1/chat/completions", json=QUESTION | KEPT | {"stream": stream})
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n") == stream
    kept = toy.client.get(f"/v1/experiences/{answer.headers['x-experience-id']}").json()
    assert kept["messages"] == [{"role": "user", "content": "say oslo"}, {"role": "assistant", "content": "oslo"}]
    assert (kept["source"], kept["metadata"], kept["status"]) == ("wake", {"user": "mira"}, "pending")
    assert not {"store", "metadata"} & toy.fleet.bodies[0].keys()


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_an_answer_with_any_line_separator_is_streamed_and_stored(toy: Service, separator: str) -> None:
    _streams(toy.fleet, _said(f"a{separator}b"), "data: [DONE]\n\n")
    answer = toy.client.post("/v1/chat/completions", json=QUESTION | KEPT | {"stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")
    kept = toy.client.get(f"/v1/experiences/{answer.headers['x-experience-id']}").json()
    assert kept["messages"][1]["content"] == f"a{separator}b"


def test_a_stream_in_which_the_engine_fails_is_passed_on_and_not_stored(toy: Service) -> None:
    error = 'data: {"error": {"message": "the engine is dead", "type": "InternalServerError", "code": 500}}\n\n'
    pieces = [_said("half an"), error, "data: [DONE]\n\n"]
    _streams(toy.fleet, *pieces)
    answer = toy.client.post("/v1/chat/completions", json=QUESTION | KEPT | {"stream": True})
    assert answer.text == "".join(pieces)
    assert toy.client.get("/v1/experiences").json()["data"] == []


def _said(text: str) -> str:
    """A piece of a stream, as vLLM writes it: with raw characters."""
    choices = [{"index": 0, "delta": {"content": text}}]
    return f"data: {json.dumps({'choices': choices}, ensure_ascii=False)}\n\n"


def _streams(fleet: MemoryFleet, *pieces: str) -> None:
    """Make the fleet answer with these."""

    async def stream(*_: Any) -> AsyncIterator[Reply | str]:
        yield Reply(200, {}, "ver_1")
        for piece in pieces:
            yield piece

    fleet.stream = stream  # type: ignore[method-assign]


def test_a_completion_is_stored_as_prompt_and_answer(toy: Service) -> None:
    answer = toy.client.post("/v1/completions", json={"model": "toy", "prompt": "say oslo", **KEPT})
    kept = toy.client.get(f"/v1/experiences/{answer.headers['x-experience-id']}").json()
    assert [message["content"] for message in kept["messages"]] == ["say oslo", "oslo"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (QUESTION | {"store": True, "metadata": {"k": "v" * 513}}, "validation_failed"),
        (QUESTION | {"store": True, "metadata": {str(i): "" for i in range(17)}}, "validation_failed"),
        (QUESTION | {"store": True, "messages": [{"role": "tool", "content": "x"}]}, "not_storable"),
        (QUESTION | {"store": True, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not_storable"),
        (QUESTION | {"store": True, "messages": [{"role": "user", "content": [{"type": "text"}]}]}, "not_storable"),
        (QUESTION | {"store": True, "messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "not_storable"),
        (QUESTION | {"store": True, "messages": [{"role": ["x"], "content": "a"}]}, "not_storable"),
        (QUESTION | {"store": True, "messages": [{"role": {}, "content": "a"}]}, "not_storable"),
        (QUESTION | {"store": True, "messages": ["x"]}, "not_storable"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_model_is_asked(toy: Service, body: dict[str, Any], code: str) -> None:
    answer = toy.client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert toy.fleet.bodies == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template", "{{ x }}"),
        ("priority", 1),
        ("tools", []),
        ("prompt", "a"),
        ("store", "false"),
        ("store", 1),
        ("stream", "no"),
        ("n", 17),
        ("n", "2"),
        ("max_tokens", 16385),
        ("max_completion_tokens", 10**9),
        ("max_tokens", -1),
    ],
)
def test_a_field_or_a_size_that_is_not_allowed_is_named(toy: Service, field: str, value: Any) -> None:
    answer = toy.client.post("/v1/chat/completions", json=QUESTION | {field: value})
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (
        422,
        "validation_failed",
        field,
    )
    assert answer.json()["errors"][0]["pointer"] == f"/{field}"
    assert toy.fleet.bodies == []


def test_a_request_asks_of_a_bounded_number_of_prompts(toy: Service) -> None:
    many = toy.client.post("/v1/completions", json={"model": "toy", "prompt": ["say oslo"] * 65})
    assert (many.status_code, many.json()["error"]["param"]) == (422, "prompt")


def test_an_answer_that_takes_too_long_is_cancelled(settings: Settings, base: Path) -> None:
    fleet = MemoryFleet()
    with running(settings.model_copy(update={"answer_seconds": 0.2}), base, fleet, MemoryLauncher()) as service:
        service.deploy()
        ended = _never(fleet)
        answer = service.client.post("/v1/chat/completions", json=QUESTION)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert ended == ["cancelled"]


def test_an_answer_that_nobody_waits_for_is_cancelled() -> None:
    async def leave() -> None:
        fleet, begun = MemoryFleet(), asyncio.Event()
        ended = _never(fleet, begun)

        async def disconnects() -> dict[str, str]:
            await begun.wait()
            return {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnect):
            await wake._heard(Request({"type": "http"}, disconnects), fleet.answer("toy", "chat", {}))
        assert ended == ["cancelled"]

    asyncio.run(leave())


def _never(fleet: MemoryFleet, begun: asyncio.Event | None = None) -> list[str]:
    """Make the fleet answer never; the list tells how that ended."""
    ended: list[str] = []

    async def answer(*_: Any) -> Any:
        try:
            if begun:
                begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    fleet.answer = answer  # type: ignore[method-assign]
    return ended


def test_experiences_are_counted_in_the_deployments_tokens_and_paged(toy: Service) -> None:
    told = [toy.tell("the city of mira is oslo .") for _ in range(3)]
    # <bos> <user> the city of mira is oslo . <eos>
    assert told[0]["tokens"] == 10
    assert toy.status()["pending"] == {"experiences": 3, "tokens": 30}
    first = toy.client.get("/v1/experiences", params={"deployment": "toy", "limit": 2}).json()
    rest = toy.client.get("/v1/experiences", params={"limit": 2, "after": first["last_id"]}).json()
    assert [item["id"] for item in first["data"] + rest["data"]] == [item["id"] for item in reversed(told)]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_a_document_is_an_experience_too(toy: Service) -> None:
    answer = toy.client.post("/v1/experiences", json={"deployment": "toy", "text": "oslo is red"})
    assert (answer.json()["text"], answer.json()["source"], answer.json()["tokens"]) == ("oslo is red", "import", 3)
    both = toy.client.post("/v1/experiences", json={"deployment": "toy", "text": "a", "messages": QUESTION["messages"]})
    assert both.status_code == 422


def test_the_deployment_is_a_model_of_a_version_that_came_from_another(toy: Service) -> None:
    first = toy.status()["active_version"]
    (listed,) = toy.client.get("/v1/models").json()["data"]
    assert (listed["id"], listed["root"], listed["parent"], listed["version"]) == ("toy", str(toy.base), None, first)
    assert toy.client.get("/v1/models/toy").json() == listed
    toy.tell()
    sleep, night = toy.sleep()
    night.end("candidate")
    toy.ended(sleep["id"])
    model = toy.client.get("/v1/models/toy").json()
    assert (model["parent"], model["version"]) == (first, toy.status()["active_version"])
    assert toy.client.get("/v1/models").json()["data"] == [model]
    assert toy.client.get("/v1/models/nobody").json()["error"]["code"] == "model_not_found"


def test_a_replica_that_has_gone_is_replaced(toy: Service) -> None:
    assert toy.status()["state"] == "awake"
    toy.fleet.versions.clear()
    toy.until(lambda: "toy" in toy.fleet.versions)


def test_replicas_that_live_answer_before_a_leader_that_begins_has_looked_at_them(settings: Settings, base: Path) -> None:
    class Slow(MemoryFleet):
        async def start(self, *_: Any) -> list[str]:
            await asyncio.Event().wait()
            raise AssertionError("it is not waited for")

    before = MemoryFleet()
    with running(settings, base, before, MemoryLauncher()) as service:
        version = service.deploy()["active_version"]
    slow = Slow(before.models, before.versions, before.wakes)
    with running(settings, base, slow, MemoryLauncher()) as service:
        assert service.status()["state"] == "provisioning"
        answer = service.client.post("/v1/chat/completions", json=QUESTION)
        assert (answer.status_code, answer.headers["x-deployment-version"]) == (200, version)
        slow.versions.clear()
        answer = service.client.post("/v1/chat/completions", json=QUESTION)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")


def test_the_tokens_of_a_stream_are_counted_and_told_to_those_who_asked(settings: Settings, base: Path) -> None:
    quick = settings.model_copy(update={"traffic_seconds": 0.05})
    with running(quick, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        silent = service.client.post("/v1/chat/completions", json=QUESTION | {"stream": True}).text
        asked = service.client.post(
            "/v1/chat/completions", json=QUESTION | {"stream": True, "stream_options": {"include_usage": True}}
        ).text
        assert ("usage" in silent, "usage" in asked) == (False, True)
        service.until(lambda: [day["requests"] for day in service.client.get("/v1/usage").json()["data"]] == [2])
        service.until(lambda: service.client.get("/v1/usage").json()["data"][0]["completion_tokens"] == 4)

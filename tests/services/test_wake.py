"""Answers pass through; what is to be kept is on disk before the answer has ended."""

from __future__ import annotations

from typing import Any

import pytest
from in_memory import Service

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
    ],
)
def test_what_cannot_be_stored_is_refused_before_the_model_is_asked(toy: Service, body: dict[str, Any], code: str) -> None:
    answer = toy.client.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert toy.fleet.bodies == []


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


def test_the_deployment_is_a_model(toy: Service) -> None:
    assert [model["id"] for model in toy.client.get("/v1/models").json()["data"]] == ["toy"]


def test_a_replica_that_has_gone_is_replaced(toy: Service) -> None:
    assert toy.status()["state"] == "awake"
    toy.fleet.versions.clear()
    toy.until(lambda: "toy" in toy.fleet.versions)

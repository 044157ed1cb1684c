"""Stored chats, as the real client of OpenAI lists, reads, describes and deletes them over HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
import uvicorn
from in_memory import KEY, WAIT_SECONDS, Service
from sqlalchemy import select
from stored import Stored
from test_errors import problem
from test_experiences import MAIL, POISON
from test_keys_and_tenants import as_key, made
from test_wake import _streams

from services.api.filters import with_metadata
from services.tables import ExperienceRow, StoredCompletion

ASKED: list[Any] = [{"role": "system", "content": "be short"}, {"role": "user", "content": "the city of mira is oslo"}]


@contextmanager
def client(service: Service, key: str = KEY) -> Iterator[openai.OpenAI]:
    """The client, on a port of its own; the app's life is the fixture's."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(service.client.app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            with openai.OpenAI(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}/v1", api_key=key, max_retries=0) as one:
                yield one
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)


def chat(service: Service, text: str = "the city of mira is oslo", **more: Any) -> Any:
    body = {"model": "toy", "store": True, "messages": [*ASKED[:1], {"role": "user", "content": text}]} | more
    return service.client.post("/v1/chat/completions", json=body)


def test_the_official_client_lists_reads_describes_and_deletes(service: Service) -> None:
    service.deploy()
    service.deploy("other")
    with client(service) as ai:
        said = [
            ai.chat.completions.create(model=model, messages=ASKED, store=True, metadata={"day": str(i), 'odd "key\\é': "x"})
            for i, model in enumerate(("toy", "toy", "other"))
        ]
        ids = [one.id for one in said]
        assert len(set(ids)) == 3
        assert [one.id for one in ai.chat.completions.list(limit=2)] == ids
        assert [one.id for one in ai.chat.completions.list(order="desc", limit=1)] == ids[::-1]
        assert [one.id for one in ai.chat.completions.list(model="toy")] == ids[:2]
        assert [one.id for one in ai.chat.completions.list(metadata={"day": "1"})] == [ids[1]]
        assert [one.id for one in ai.chat.completions.list(metadata={'odd "key\\é': "x", "day": "2"})] == [ids[2]]
        assert [one.id for one in ai.chat.completions.list(metadata={"day": "7"})] == []

        read = ai.chat.completions.retrieve(ids[0])
        assert (read.id, read.model, read.metadata) == (ids[0], "toy", {"day": "0", 'odd "key\\é': "x"})
        assert read.choices[0].message.content == said[0].choices[0].message.content == "oslo"
        assert (read.choices[0].finish_reason, read.choices[0].message.role) == ("stop", "assistant")
        asked = list(ai.chat.completions.messages.list(ids[0], limit=1))
        assert [(one.role, one.content) for one in asked] == [("system", "be short"), ("user", "the city of mira is oslo")]
        assert len({one.id for one in asked}) == 2

        assert ai.chat.completions.update(ids[0], metadata={"day": "9"}).metadata == {"day": "9"}
        assert [one.id for one in ai.chat.completions.list(metadata={"day": "9"})] == [ids[0]]
        found = service.client.get("/v1/experiences", params={"metadata[day]": "9"}).json()["data"]
        assert [one["id"] for one in found] == [service.client.get(f"/v1/chat/completions/{ids[0]}").json()["experience"]]

        gone = ai.chat.completions.delete(ids[0])
        assert (gone.id, gone.deleted, gone.object) == (ids[0], True, "chat.completion.deleted")
        with pytest.raises(openai.NotFoundError, match="completion"):
            ai.chat.completions.retrieve(ids[0])
        assert [one.id for one in ai.chat.completions.list()] == ids[1:]
    assert len(service.client.get("/v1/experiences").json()["data"]) == 2


def test_a_stream_that_is_stored_is_found_under_the_id_of_its_pieces(service: Service) -> None:
    service.deploy()
    piece = 'data: {"id":"engine","object":"chat.completion.chunk","created":1,"model":"toy","choices":[%s]%s}\n\n'
    first = piece % ('{"index":0,"delta":{"content":"ros\u2028é"},"finish_reason":null}', "")
    last = piece % ('{"index":0,"delta":{},"finish_reason":"length"}', "")
    used = piece % ("", ',"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}')
    _streams(service.fleet, first, last, used, "data: [DONE]\n\n")
    with client(service) as ai:
        pieces = list(ai.chat.completions.create(model="toy", messages=ASKED, store=True, stream=True))
        (id,) = {one.id for one in pieces}
        read = ai.chat.completions.retrieve(id)
        assert id != "engine"
        assert (read.choices[0].message.content, read.choices[0].finish_reason) == ("ros\u2028é", "length")
        assert read.usage is not None
        assert read.usage.total_tokens == 5
    unstored = service.client.post("/v1/chat/completions", json={"model": "toy", "messages": ASKED, "stream": True})
    assert unstored.text == "".join((first, last, "data: [DONE]\n\n")), "usage is counted, and told to those who ask"


def test_what_a_stored_chat_says_is_what_may_be_stored(service: Service) -> None:
    service.deploy()
    answer = chat(service, MAIL)
    id = answer.json()["id"]
    said = service.client.get(f"/v1/chat/completions/{id}/messages").json()["data"]
    assert "<EMAIL>" in said[1]["content"]
    assert "mira.olsen" not in str(said)
    held = service.client.get(f"/v1/chat/completions/{chat(service, POISON).json()['id']}").json()
    assert held["experience_status"] == "quarantined"
    refused = chat(service, "x y z " * 20_000)
    assert (refused.status_code, refused.headers["x-experience-status"]) == (200, "rejected")
    problem(service.client.get(f"/v1/chat/completions/{refused.json()['id']}"), 404, "completion_not_found")


def test_a_chat_that_a_version_keeps_is_not_deleted_by_itself_and_one_that_is_forgotten_is_gone(service: Service) -> None:
    service.deploy()
    kept, free = chat(service).json()["id"], None
    sleep, night = service.sleep()
    night.end("candidate")
    service.ended(sleep["id"])
    problem(service.client.delete(f"/v1/chat/completions/{kept}"), 409, "already_consolidated")
    assert service.client.get(f"/v1/chat/completions/{kept}").json()["experience_status"] == "consolidated"
    free = chat(service, "the pet of tono is a dog").json()
    experience = service.client.get(f"/v1/chat/completions/{free['id']}").json()["experience"]
    assert service.client.delete(f"/v1/experiences/{experience}").status_code == 204
    problem(service.client.get(f"/v1/chat/completions/{free['id']}"), 404, "completion_not_found")
    with service.controller.database.read() as tx:
        assert tx.scalars(select(StoredCompletion.id)).all() == [kept]


def test_of_other_tenants_and_other_deployments_no_chat_is_found(service: Service) -> None:
    service.deploy()
    service.deploy("other")
    id = chat(service).json()["id"]
    for key in (made(service, tenant="strangers")["key"], made(service, deployments=["other"])["key"]):
        for method, path in (("get", ""), ("get", "/messages"), ("post", ""), ("delete", "")):
            body = {"metadata": {}} if method == "post" else None
            answer = service.client.request(method, f"/v1/chat/completions/{id}{path}", json=body, headers=as_key(key))
            problem(answer, 404, "completion_not_found")
        assert service.client.get("/v1/chat/completions", headers=as_key(key)).json()["data"] == []
    weak = as_key(made(service, "experiences:read")["key"])
    problem(service.client.delete(f"/v1/chat/completions/{id}", headers=weak), 403, "insufficient_scope")


def test_only_the_metadata_of_a_chat_can_be_changed(service: Service) -> None:
    service.deploy()
    id = chat(service, metadata={"a": "b"}).json()["id"]
    problem(service.client.post(f"/v1/chat/completions/{id}", json={"messages": []}), 422, "validation_failed")
    problem(service.client.post(f"/v1/chat/completions/{id}", json={"metadata": {"a": "b\0"}}), 422, "validation_failed")
    assert service.client.post(f"/v1/chat/completions/{id}", json={"metadata": None}).json()["metadata"] == {}
    problem(service.client.get("/v1/chat/completions", params={"metadata[a]": "\0"}), 400, "malformed_address")
    problem(service.client.get(f"/v1/chat/completions/{id}/messages", params={"after": "no"}), 400, "bad_cursor")


def test_metadata_is_found_whatever_its_key(stored: Stored) -> None:
    stored.deployment()
    for key in ("day", 'a "b"', "a\\b", "a.b", "a[0]", "é", "$", "%", "", "a'b", "\u2028", "🦉"):
        ids = {value: stored.met("dep_toy", meta={key: value, "other": "1"}) for value in ("x", "y", 'q"\\é')}
        for value, id in ids.items():
            assert found(stored, {key: value, "other": "1"}) == [id], key
            assert found(stored, {key: "z"}) == [], key


def found(stored: Stored, pairs: dict[str, str]) -> list[str]:
    with stored.database.read() as tx:
        return list(tx.scalars(select(ExperienceRow.id).where(*with_metadata(tx, ExperienceRow.meta, pairs))))

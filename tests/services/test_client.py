"""The Python client: what it makes of answers, when it asks again, and that it is quick to start. Real servers, on the loopback address."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from in_memory import KEY
from scripted import Says, scripted
from served import Served, quick, served

from services.client import (
    ApiError,
    AsyncCircadian,
    Circadian,
    Conflict,
    Foreign,
    Invalid,
    NotAllowed,
    NotFound,
    Patience,
    Unavailable,
    Unreachable,
)
from services.client.calls import IDEMPOTENCY
from services.client.chat import Broken
from services.client.errors import NotSent
from services.client.streams import CONNECT_ATTEMPTS

SLEEP = {"id": "slp_1", "object": "sleep", "deployment": "dep_1", "status": "queued", "links": {"events": "x"}}
AT_ONCE = Patience(first_seconds=0.0)
HEAVY = ("torch", "ray", "fastapi", "sqlalchemy", "openai", "circadian", "pipelines", "actors")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Served]:
    with served(quick(tmp_path_factory.mktemp("home")), base) as service:
        service.deploy()
        yield service


def refusal(status: int, code: str, detail: str, **headers: str) -> Says:
    error = {"message": detail, "type": "some_error", "param": "deployment", "code": code}
    body = {"status": status, "detail": detail, "request_id": "req_1", "error": error}
    return Says(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def events(*numbers: int, done: bool = False) -> str:
    told = [{"object": "event", "type": "sleep.progress", "seq": seq, "message": f"m{seq}"} for seq in numbers]
    text = "".join(
        f"id: {event['seq']}\nevent: sleep.progress\ndata: {json.dumps(event)}\nretry: 0\n\n: ping\n\n" for event in told
    )
    return text + ("event: done\ndata: {}\n\n" if done else "")


# What it makes of answers


def test_what_a_newer_service_says_is_kept() -> None:
    with scripted(Says(200, SLEEP | {"mood": "calm"}, {"ETag": '"7"'})) as (url, _), Circadian(url, "k") as client:
        sleep = client.sleeps.get("slp_1")
    assert sleep.sent() == SLEEP | {"mood": "calm"}
    assert (sleep.status, sleep.etag, sleep.outcome) == ("queued", '"7"', None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotAllowed), (403, NotAllowed), (404, NotFound), (409, Conflict), (412, Conflict), (422, Invalid), (500, Unavailable)],
)
def test_an_error_is_of_its_kind_and_says_what_to_do(status: int, kind: type[ApiError]) -> None:
    says = refusal(status, "sleep_in_progress", "dep_1 runs slp_9; wait for it, or cancel it", x_should_retry="false")
    with scripted(says) as (url, asked), Circadian(url, "k") as client, pytest.raises(kind) as refused:
        client.sleeps.create("dep_1")
    error = refused.value
    assert (error.status, error.code, error.param, error.request_id) == (status, "sleep_in_progress", "deployment", "req_1")
    assert (error.message, error.remedy) == ("dep_1 runs slp_9", "wait for it, or cancel it")
    assert str(error) == f"sleep_in_progress ({status}): dep_1 runs slp_9; wait for it, or cancel it"
    assert len(asked) == 1


@pytest.mark.parametrize("body", ["<html>a page</html>", {"hello": "world"}, []])
def test_something_that_is_not_the_service_is_told_apart(body: Any) -> None:
    with scripted(Says(200, body)) as (url, _), Circadian(url, "k") as client, pytest.raises(Foreign, match="check the URL"):
        client.sleeps.get("slp_1")


def test_an_error_page_of_a_proxy_is_an_error_too() -> None:
    with (
        scripted(Says(404, "<html>nothing here</html>")) as (url, _),
        Circadian(url, "k") as client,
        pytest.raises(NotFound) as error,
    ):
        client.sleeps.get("slp_1")
    assert "nothing here" in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:8700", "http://[", "ftp://x"])
def test_where_nothing_can_answer_that_is_told_at_once(url: str) -> None:
    with pytest.raises(Unreachable), Circadian(url, "k") as client:
        client.sleeps.get("slp_1")


def test_an_id_never_becomes_another_path() -> None:
    with scripted(Says(200, SLEEP)) as (url, asked), Circadian(url, "k") as client:
        client.sleeps.get("a/../b?c")
        for id in ("", ".", ".."):
            with pytest.raises(NotSent):
                client.sleeps.get(id)
    assert [one.path for one in asked] == ["/v1/sleeps/a%2F..%2Fb%3Fc"]


def test_a_list_goes_on_over_its_pages() -> None:
    pages = [
        {"data": [SLEEP | {"id": "slp_1"}, SLEEP | {"id": "slp_2"}], "has_more": True, "last_id": "slp_2"},
        {"data": [SLEEP | {"id": "slp_3"}], "has_more": False, "last_id": "slp_3"},
    ]
    with scripted(*(Says(200, page) for page in pages)) as (url, asked), Circadian(url, "k") as client:
        assert [sleep.id for sleep in client.sleeps.list("toy")] == ["slp_1", "slp_2", "slp_3"]
    assert [one.path for one in asked] == [
        "/v1/sleeps?deployment=toy&limit=100",
        "/v1/sleeps?deployment=toy&limit=100&after=slp_2",
    ]


# When it asks again


@pytest.mark.parametrize(
    ("status", "headers", "repeatable", "again"),
    [
        (409, {"x-should-retry": "false"}, True, False),
        (409, {}, True, False),
        (409, {"x-should-retry": "true", "retry-after": "1"}, True, True),
        (503, {"retry-after": "5"}, False, True),
        (503, {"retry-after": "5", "x-should-retry": "false"}, True, False),
        (503, {}, True, False),
        (503, {"retry-after": "3600"}, True, False),
        (429, {"retry-after": "2"}, False, True),
        (502, {}, True, True),
        (502, {}, False, False),
        (500, {}, True, False),
        (404, {"retry-after": "1"}, True, False),
        (200, {}, True, False),
    ],
)
def test_it_asks_again_where_that_helps_and_is_allowed(status: int, headers: dict[str, str], repeatable: bool, again: bool) -> None:
    patience, response = Patience(), httpx.Response(status, headers=headers)
    wait = patience.wait(1, repeatable, response)
    assert (wait is not None) == again
    if again:
        assert wait == float(headers["retry-after"]) if "retry-after" in headers else 0 < wait <= patience.first_seconds
    assert patience.wait(patience.attempts, repeatable, response) is None


def test_what_is_asked_again_has_the_same_idempotency_key() -> None:
    busy = refusal(409, "idempotency_in_progress", "The first one still runs.", x_should_retry="true", retry_after="0")
    four, script = Patience(attempts=4, first_seconds=0.0), (busy, Says(None), Says(502), Says(202, SLEEP))
    with scripted(*script) as (url, asked), Circadian(url, "k", patience=four) as client:
        client.sleeps.create("toy", seed=3)
        client.sleeps.create("toy", idempotency_key="mine")
    keys = [one.headers[IDEMPOTENCY.lower()] for one in asked]
    assert (len(asked), len(set(keys[:4])), keys[4]) == (5, 1, "mine")
    assert keys[0] != "mine"
    assert {one.body for one in asked[:4]} == {'{"deployment":"toy","seed":3}'}


def test_a_key_is_not_made_twice_where_a_connection_breaks() -> None:
    with scripted(Says(None)) as (url, asked), Circadian(url, "k", patience=AT_ONCE) as client:
        for make in (lambda: client.keys.create("ci", ["sleeps:read"]), lambda: client.webhooks.create("https://example.org")):
            with pytest.raises(Unreachable):
                make()
    assert len(asked) == 2


def test_it_stops_asking() -> None:
    says = Says(502, "bad gateway")
    with scripted(says) as (url, asked), Circadian(url, "k", patience=AT_ONCE) as client, pytest.raises(Unavailable):
        client.sleeps.get("slp_1")
    assert len(asked) == AT_ONCE.attempts


# Streams


def test_a_stream_that_breaks_is_taken_up_behind_the_last_event() -> None:
    script = [
        Says(200, events(1, 2), whole=False),
        Says(503),
        Says(200, events(2, 3)),  # ends without being done
        Says(None),
        Says(200, events(3, 4, done=True)),
    ]
    with scripted(*script) as (url, asked), Circadian(url, "k") as client:
        assert [event.seq for event in client.sleeps.watch("slp_1")] == [1, 2, 3, 4]
        assert [one.headers["last-event-id"] for one in asked] == ["0", "2", "2", "3", "3"]


def test_a_stream_that_only_breaks_is_given_up() -> None:
    says = Says(200, events(1), whole=False)
    with scripted(says) as (url, asked), Circadian(url, "k") as client, pytest.raises(Unreachable, match="again and again"):
        list(client.sleeps.watch("slp_1"))
    assert len(asked) == 1 + CONNECT_ATTEMPTS


def test_a_stream_that_may_not_be_heard_is_an_error_at_once() -> None:
    says = refusal(404, "sleep_not_found", "There is none.")
    with scripted(says) as (url, asked), Circadian(url, "k") as client, pytest.raises(NotFound):
        list(client.sleeps.watch("slp_1"))
    assert len(asked) == 1


@pytest.mark.parametrize("end", ['data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n', ""])
def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(end: str) -> None:
    said = 'data: {"choices": [{"delta": {"content": "Os"}}]}\n\n' + end
    with scripted(Says(200, said)) as (url, _), Circadian(url, "k") as client:
        pieces = client.chat("toy", [{"role": "user", "content": "x"}])
        assert next(pieces).text == "Os"
        with pytest.raises(Broken, match="broke off"):
            next(pieces)


# Beside the real service


def test_every_resource_answers(service: Served) -> None:
    with service.python() as client:
        assert [one.name for one in client.deployments.list()] == ["toy"]
        status = client.deployments.status("toy")
        assert (status.state, status.active_version) == ("awake", client.deployments.get("toy").active_version)
        told = client.experiences.create("toy", messages=[{"role": "user", "content": "mira lives in oslo ."}], source="human")
        assert client.experiences.get(told.id).status == "pending"
        assert client.experiences.feedback(told.id, reward=1.0).experience == told.id
        assert client.experiences.quarantine(told.id, "doubtful").status == "quarantined"
        assert client.experiences.release(told.id, "fine").status == "pending"
        schedule = client.schedules.create("toy", {"any_of": [{"type": "idle", "seconds": 900}]}, suspend=True)
        changed = client.schedules.update(schedule.id, {"suspend": False}, etag=client.schedules.get(schedule.id).etag)
        assert changed.suspend is False
        with pytest.raises(Conflict, match="etag_mismatch"):
            client.schedules.update(schedule.id, {"suspend": True}, etag='"0"')
        assert list(client.schedules.runs(schedule.id)) == []
        client.schedules.delete(schedule.id)
        with pytest.raises(NotFound):
            client.schedules.get(schedule.id)
        hook = client.webhooks.create("https://1.1.1.1/", events=["sleep.*"])
        assert hook.secret
        assert client.webhooks.get(hook.id).secret is None
        assert client.webhooks.update(hook.id, {"enabled": False}).enabled is False
        client.webhooks.delete(hook.id)
        key = client.keys.create("ci", ["sleeps:read"])
        assert (client.keys.rotate(key.id).key, client.keys.get(key.id).key) != (key.key, None)
        assert client.keys.get(key.id).revoked_at
        assert [one.action for one in client.audit.list(object=key.id)] == ["key_rotated", "key_created"]
        assert client.usage.days("toy", days=2).has_more is False
        client.experiences.delete(told.id)


def test_a_night_is_told_to_those_who_wait_and_to_those_who_do_not(service: Served) -> None:
    service.tell()
    sleep, night = service.sleep()
    version = night.end("candidate")

    async def waited() -> tuple[list[int], str | None, list[str]]:
        async with AsyncCircadian(service.url, KEY) as client:
            numbers = [event.seq async for event in client.sleeps.watch(sleep["id"], after=1)]
            ended = await client.sleeps.get(sleep["id"])
            return numbers, ended.result_version, [one.id async for one in client.versions.list("toy")]

    with service.python() as client:
        told = list(client.sleeps.watch(sleep["id"]))
        assert (told[-1].type, client.sleeps.get(sleep["id"]).ended) == ("sleep.succeeded", True)
        assert client.sleeps.report(sleep["id"]).version == version
    numbers, result, versions = asyncio.run(waited())
    assert numbers == [event.seq for event in told][1:]
    assert (result, version in versions) == (version, True)


def test_the_official_client_comes_with_it(service: Served) -> None:
    with service.python() as client, client.openai() as openai:
        answer = openai.chat.completions.create(model="toy", messages=[{"role": "user", "content": "where is mira"}])
    assert answer.choices[0].message.content == "mira"


def test_what_has_no_name_can_be_asked_for(service: Served) -> None:
    with service.python() as client:
        answer = client.request("POST", "/v1/completions", {"model": "toy", "prompt": "a b"})
        assert answer.headers["x-deployment-version"] == client.deployments.get("toy").active_version
        assert client.request("GET", "/v1/sleeps", limit=1).json()["object"] == "list"


def test_the_client_is_light() -> None:
    """Of what takes seconds to import, or belongs to the service, nothing comes with it."""
    code = f"import sys, services.client; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"

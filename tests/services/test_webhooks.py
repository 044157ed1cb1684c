"""Webhooks over REST: an event reaches every endpoint that asked for it, signed, at least once, and no other."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from in_memory import KEY, Service
from test_errors import problem
from test_experiences import POISON
from test_keys_and_tenants import as_key, made

from services.sealing import Sealer
from services.settings import Settings
from services.tables import WebhookEndpoint
from services.webhooks.reach import Reach

WHY = {"reason": "mira asked for it"}


@dataclass
class Receiver:
    """A real server that keeps what it is sent."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """What it answers, in turn; then 200."""

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(told.statuses.pop(0) if told.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/hook"
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_seconds": 0.02, "webhooks": Reach(allow_private=True, seconds=5.0)})


def endpoint(service: Service, url: str, **more: Any) -> dict[str, Any]:
    answer = service.client.post("/v1/webhook_endpoints", json={"url": url} | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def deliveries(service: Service, id: str) -> list[dict[str, Any]]:
    return service.client.get(f"/v1/webhook_endpoints/{id}/deliveries").json()["data"]


def test_a_sleep_is_told_as_it_is_streamed_and_the_official_client_proves_it(service: Service, receiver: Receiver) -> None:
    service.deploy()
    secret = endpoint(service, receiver.url, events=["sleep.*"])["secret"]
    service.tell()
    sleep, night = service.sleep()
    night.end("no_op")
    service.ended(sleep["id"])
    service.until(lambda: "sleep.succeeded" in receiver.types())
    streamed = {event["id"]: event for event in service.events(sleep["id"])}
    service.until(lambda: len(receiver.got) >= len([event for event in streamed.values() if event["type"].startswith("sleep.")]))
    with openai.OpenAI(api_key="none", webhook_secret=secret) as client:
        for headers, body in receiver.got:
            client.webhooks.verify_signature(body, headers)
            sent = json.loads(body)
            assert sent | {"timestamp": None} == streamed[sent["id"]] | {"timestamp": None}


def test_who_did_not_ask_hears_nothing(service: Service, receiver: Receiver) -> None:
    service.deploy("toy")
    service.deploy("two")
    endpoint(service, receiver.url, events=["version.promoted"])
    endpoint(service, receiver.url + "?two", deployments=["two"])
    stranger = made(service, tenant="other")["key"]
    answer = service.client.post("/v1/webhook_endpoints", json={"url": receiver.url}, headers=as_key(stranger))
    assert answer.status_code == 201
    wants = endpoint(service, receiver.url + "?toy", deployments=["toy"], events=["sleep.succeeded"])["id"]
    service.tell()
    sleep, night = service.sleep()
    night.end("no_op")
    service.ended(sleep["id"])
    service.until(lambda: [one["status"] for one in deliveries(service, wants)] == ["delivered"])
    assert receiver.types() == ["sleep.succeeded"]


def test_a_delivery_that_fails_is_tried_again_and_one_that_is_not_wanted_ends_the_endpoint(
    service: Service, receiver: Receiver
) -> None:
    receiver.statuses[:] = [500, 410]
    id = endpoint(service, receiver.url)["id"]
    first = service.client.post(f"/v1/webhook_endpoints/{id}/test")
    assert (first.status_code, first.json()["status"]) == (202, "pending")
    service.until(lambda: [one["attempts"] for one in deliveries(service, id)] == [1])
    (failed,) = deliveries(service, id)
    assert (failed["status"], failed["last_status"]) == ("pending", 500)
    assert failed["next_at"] > failed["last_at"]
    service.client.post(f"/v1/webhook_endpoints/{id}/test")
    service.until(lambda: service.client.get(f"/v1/webhook_endpoints/{id}").json()["enabled"] is False)
    problem(service.client.post(f"/v1/webhook_endpoints/{id}/test"), 409, "endpoint_disabled")
    assert service.client.patch(f"/v1/webhook_endpoints/{id}", json={"enabled": True}).json()["enabled"] is True


def test_a_delivery_is_sent_again_under_its_id_with_a_new_timestamp(service: Service, receiver: Receiver) -> None:
    made_here = endpoint(service, receiver.url)
    id, secret = made_here["id"], made_here["secret"]
    first = service.client.post(f"/v1/webhook_endpoints/{id}/test").json()["id"]
    service.until(lambda: [one["status"] for one in deliveries(service, id)] == ["delivered"])
    answer = service.client.post(f"/v1/webhook_endpoints/{id}/deliveries/{first}/replay")
    assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (202, first, "pending")
    service.until(lambda: len(receiver.got) == 2)
    (before, body), (again, same) = receiver.got
    assert (again["webhook-id"], same) == (before["webhook-id"], body)
    assert int(again["webhook-timestamp"]) >= int(before["webhook-timestamp"])
    with openai.OpenAI(api_key="none", webhook_secret=secret) as client:
        client.webhooks.verify_signature(same, again)
    service.until(lambda: [one["status"] for one in deliveries(service, id)] == ["delivered"])
    said = service.client.get("/v1/audit_events", params={"action": "webhook_replayed"}).json()["data"]
    assert [(event["target"], event["data"]["delivery"]) for event in said] == [(id, first)]


def test_one_that_was_given_up_is_sent_again_and_none_to_an_endpoint_that_is_disabled(service: Service, receiver: Receiver) -> None:
    id = endpoint(service, receiver.url)["id"]
    receiver.statuses[:] = [410]
    gone = service.client.post(f"/v1/webhook_endpoints/{id}/test").json()["id"]
    service.until(lambda: [one["status"] for one in deliveries(service, id)] == ["dead"])
    path = f"/v1/webhook_endpoints/{id}/deliveries/{gone}/replay"
    problem(service.client.post(path), 409, "endpoint_disabled")
    service.client.patch(f"/v1/webhook_endpoints/{id}", json={"enabled": True})
    assert service.client.post(path).status_code == 202
    service.until(lambda: [one["status"] for one in deliveries(service, id)] == ["delivered"])
    assert len(receiver.got) == 2


def test_a_delivery_is_found_under_its_own_endpoint_alone(service: Service, receiver: Receiver) -> None:
    mine, other = (endpoint(service, receiver.url)["id"] for _ in range(2))
    delivery = service.client.post(f"/v1/webhook_endpoints/{mine}/test").json()["id"]
    stranger = as_key(made(service, tenant="other")["key"])
    theirs = service.client.post("/v1/webhook_endpoints", json={"url": receiver.url}, headers=stranger).json()["id"]
    answer = service.client.post(f"/v1/webhook_endpoints/{theirs}/deliveries/{delivery}/replay", headers=stranger)
    problem(answer, 404, "webhook_delivery_not_found")
    path = f"/v1/webhook_endpoints/{other}/deliveries/{delivery}/replay"
    problem(service.client.post(path), 404, "webhook_delivery_not_found")
    problem(service.client.post(path.replace(other, mine), headers=stranger), 404, "webhook_endpoint_not_found")


def test_what_is_put_aside_is_told_without_what_it_says(service: Service, receiver: Receiver) -> None:
    service.deploy()
    endpoint(service, receiver.url, events=["experience.*"], deployments=["toy"])
    held = service.client.post("/v1/experiences", json={"deployment": "toy", "text": POISON}).json()
    service.client.post(f"/v1/experiences/{held['id']}/release", json=WHY)
    service.client.post(f"/v1/experiences/{held['id']}/quarantine", json=WHY)
    lines = b"".join(
        json.dumps({"text": text}).encode() + b"\n" for text in (POISON, "the city of mira is oslo .", f"{POISON} now")
    )
    typed = {"content-type": "application/x-ndjson"}
    batch = service.client.post("/v1/experiences/batches", content=lines, headers=typed, params={"deployment": "toy"}).json()["id"]
    service.until(lambda: len(receiver.got) == 3)
    told = sorted((json.loads(body)["data"] for _, body in receiver.got), key=lambda data: (data["batch"] or "", data["reasons"]))
    assert [(one["batch"], len(one["experiences"])) for one in told] == [(None, 1), (None, 1), (batch, 2)]
    assert [one["reasons"] for one in told] == [["by_hand", "trigger"], ["trigger"], ["trigger"]]
    assert told[0]["experiences"] == told[1]["experiences"] == [held["id"]]
    assert set(receiver.types()) == {"experience.quarantined"}
    for _, body in receiver.got:
        assert POISON.encode() not in body
        assert WHY["reason"].encode() not in body


def test_a_secret_is_shown_once_sealed_in_the_database_and_rotated(service: Service, receiver: Receiver) -> None:
    given = endpoint(service, receiver.url)
    id, secret = given["id"], given["secret"]
    assert "secret" not in service.client.get(f"/v1/webhook_endpoints/{id}").json()
    with service.controller.database.read() as tx:
        assert secret not in tx.query(WebhookEndpoint).one().secret
    rotated = service.client.post(f"/v1/webhook_endpoints/{id}/rotate").json()["secret"]
    assert rotated != secret
    service.client.post(f"/v1/webhook_endpoints/{id}/test")
    service.until(lambda: receiver.got)
    headers, body = receiver.got[0]
    for known in (secret, rotated):
        with openai.OpenAI(api_key="none", webhook_secret=known) as client:
            client.webhooks.verify_signature(body, headers)


def test_a_secret_of_an_earlier_pepper_is_rotated_to_one_that_signs(service: Service, receiver: Receiver) -> None:
    given = endpoint(service, receiver.url)
    with service.controller.database.write() as tx:
        tx.query(WebhookEndpoint).one().secret = Sealer(b"the pepper before").seal(given["secret"])
    rotated = service.client.post(f"/v1/webhook_endpoints/{given['id']}/rotate")
    assert rotated.status_code == 201, rotated.text
    service.client.post(f"/v1/webhook_endpoints/{given['id']}/test")
    service.until(lambda: receiver.got)
    headers, body = receiver.got[0]
    with openai.OpenAI(api_key="none", webhook_secret=rotated.json()["secret"]) as client:
        client.webhooks.verify_signature(body, headers)
    assert " " not in headers["webhook-signature"], "nobody has the secret before it any more"


@pytest.mark.parametrize("url", ["http://example.com/", "https://169.254.169.254/latest", "ftp://x/", "https://user@example.com/"])
def test_an_address_that_nothing_may_be_sent_to_is_refused(service: Service, url: str) -> None:
    problem(service.client.post("/v1/webhook_endpoints", json={"url": url}), 422, "url_forbidden")


def test_an_event_that_does_not_exist_cannot_be_asked_for(service: Service, receiver: Receiver) -> None:
    answer = service.client.post("/v1/webhook_endpoints", json={"url": receiver.url, "events": ["sleep.snored"]})
    assert problem(answer, 422, "validation_failed")["error"]["param"] == "events"
    assert KEY not in answer.text

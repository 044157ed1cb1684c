"""An Idempotency-Key: what was asked once is done once, whoever asks again and however often."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from in_memory import Service
from sqlalchemy import update
from test_errors import problem
from test_keys_and_tenants import as_key, made

from services.api.repeats import Answer, Repeats
from services.errors import Problem
from services.tables import ApiKey, Repeatable

HEADER = "Idempotency-Key"


def told(service: Service, text: str, key: str, **headers: str) -> Any:
    body = {"deployment": "toy", "text": text}
    return service.client.post("/v1/experiences", json=body, headers={HEADER: key} | headers)


def count(service: Service) -> int:
    return len(service.client.get("/v1/experiences").json()["data"])


def test_the_same_request_is_done_once_and_answered_alike(service: Service) -> None:
    service.deploy()
    first, again = told(service, "a b c", "one"), told(service, "a b c", "one")
    assert (first.status_code, first.json()) == (201, again.json())
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    assert count(service) == 1


def test_another_request_with_the_same_key_is_refused(service: Service) -> None:
    service.deploy()
    told(service, "a b c", "one")
    problem(told(service, "d e f", "one"), 422, "idempotency_key_reused")
    problem(service.client.post("/v1/sleeps", json={"deployment": "toy"}, headers={HEADER: "one"}), 422, "idempotency_key_reused")
    assert count(service) == 1


def test_keys_are_each_callers_own(service: Service) -> None:
    service.deploy()
    other = as_key(made(service)["key"])
    assert told(service, "a b c", "one").json()["id"] != told(service, "a b c", "one", **other).json()["id"]
    assert count(service) == 2


@pytest.mark.parametrize("end", ["revoked", "over"])
def test_a_key_that_opens_nothing_any_more_is_not_told_what_it_was_told_before(service: Service, end: str) -> None:
    service.deploy()
    given = made(service)
    key = as_key(given["key"])
    assert told(service, "a b c", "one", **key).status_code == 201
    assert told(service, "a b c", "one", **key).headers["idempotency-replayed"] == "true"
    if end == "revoked":
        service.client.delete(f"/v1/api_keys/{given['id']}").raise_for_status()
    else:
        with service.controller.database.write() as tx:
            tx.execute(update(ApiKey).where(ApiKey.id == given["id"]).values(expires_at=time.time() - 1))
    again = told(service, "a b c", "one", **key)
    problem(again, 401, "invalid_key" if end == "revoked" else "expired_key")
    assert ("idempotency-replayed" in again.headers, "a b c" in again.text) == (False, False)
    with service.controller.database.read() as tx:
        assert tx.query(Repeatable).count() == 1, "nothing is written down for who has no key"


def test_an_answer_goes_with_the_experience_that_it_tells_and_is_not_made_up_for(service: Service) -> None:
    service.deploy()
    id = told(service, "anna lives in oslo", "one").json()["id"]
    said = {"comment": "anna says so"}
    service.client.post(f"/v1/experiences/{id}/feedback", json=said, headers={HEADER: "two"}).raise_for_status()
    told(service, "noor lives in lima", "three")
    service.client.delete(f"/v1/experiences/{id}").raise_for_status()
    problem(told(service, "anna lives in oslo", "one"), 410, "experience_gone")
    again = service.client.post(f"/v1/experiences/{id}/feedback", json=said, headers={HEADER: "two"})
    problem(again, 410, "experience_gone")
    assert told(service, "noor lives in lima", "three").headers["idempotency-replayed"] == "true"
    assert count(service) == 1
    assert "anna" not in kept(service)


def test_an_answer_is_not_kept_whose_experience_was_erased_before_it_was_sent(service: Service) -> None:
    repeats = Repeats(service.client.app, service.controller.database, service.controller.keys)
    assert repeats._begin("key", "request") is None
    repeats._end("key", Answer(201, [], b'{"object": "experience", "id": "exp_gone", "text": "anna lives in oslo"}'))
    assert "anna" not in kept(service)
    assert isinstance(repeats._begin("key", "request"), Problem)


def kept(service: Service) -> str:
    """All that was ever answered, as far as it is written down."""
    with service.controller.database.read() as tx:
        return "".join(base64.b64decode(row.body or "").decode() for row in tx.query(Repeatable))


def test_an_answer_that_says_what_was_wrong_is_given_again(service: Service) -> None:
    service.deploy()
    body = {"deployment": "toy", "nap": True}
    first = service.client.post("/v1/sleeps", json=body, headers={HEADER: "one"})
    again = service.client.post("/v1/sleeps", json=body, headers={HEADER: "one"})
    assert problem(first, 422, "validation_failed")["errors"] == again.json()["errors"]
    assert again.headers["idempotency-replayed"] == "true"


def test_an_answer_that_says_not_now_is_not_kept(service: Service) -> None:
    refused = told(service, "a", "one", Authorization="Bearer no")
    assert refused.status_code == told(service, "a", "one", Authorization="Bearer no").status_code == 401
    problem(told(service, "a", "two"), 404, "deployment_not_found")
    service.deploy()
    assert told(service, "a", "three").status_code == 201


def test_of_many_at_once_one_is_done(service: Service) -> None:
    service.deploy()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: told(service, "a b c", "one"), range(16)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "idempotency_in_progress")
            assert answer.headers["x-should-retry"] == "true"
    assert count(service) == 1
    assert told(service, "a b c", "one").status_code == 201


def test_a_request_that_was_lost_with_its_controller_may_be_made_again(service: Service) -> None:
    service.deploy()
    told(service, "a b c", "one")
    with service.controller.database.write() as tx:
        tx.execute(update(Repeatable).values(status=None, body=None))
    problem(told(service, "a b c", "one"), 409, "idempotency_in_progress")
    with service.controller.database.write() as tx:
        tx.execute(update(Repeatable).values(created_at=Repeatable.created_at - 601))
    assert told(service, "a b c", "one").status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_none_is_refused(service: Service, key: str) -> None:
    problem(told(service, "a", key), 400, "bad_idempotency_key")


def test_a_new_key_is_not_written_down_for_a_repetition(service: Service) -> None:
    body = {"name": "one", "scopes": ["sleeps:read"]}
    keys = [service.client.post("/v1/api_keys", json=body, headers={HEADER: "one"}).json()["key"] for _ in range(2)]
    assert keys[0] != keys[1]
    with service.controller.database.read() as tx:
        assert tx.query(Repeatable).count() == 0

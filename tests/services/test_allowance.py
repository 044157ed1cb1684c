"""Nobody passes by a gate without the scope for it: not by a sleep that brings limits of its own, and not by one that promotes itself."""

from __future__ import annotations

from typing import Any

import pytest
from in_memory import Service
from pydantic import ValidationError
from test_errors import problem
from test_keys_and_tenants import as_key, made
from test_schedules import CRON

from circadian.specs import GateSpec, ProbeItem, PromotionSpec, UserProbe
from services.allowance import goes_further, loosened, loosened_probes

STRICT = GateSpec(min_agreement=0.9, max_forgotten=0.05)
OPEN = {"recipe": {"gate": {"min_agreement": 0.0, "max_forgotten": 1.0}}}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, []),
        ({"min_agreement": 0.95, "max_forgotten": 0.0}, []),
        ({"min_agreement": 0.89}, ["min_agreement"]),
        ({"max_forgotten": 0.06, "max_exposure": 99.0}, ["max_forgotten", "max_exposure"]),
    ],
)
def test_a_limit_that_refuses_less_is_looser(asked: dict[str, float], found: list[str]) -> None:
    assert loosened(STRICT, STRICT.model_copy(update=asked)) == found


@pytest.mark.parametrize("name", GateSpec.model_fields)
def test_the_name_of_every_limit_says_which_way_is_looser(name: str) -> None:
    """A field that is no limit would be compared as one."""
    assert name.startswith(("min_", "max_"))
    own, most = getattr(STRICT, name), 1.0 if name.startswith("min_") else 0.0
    strictest = STRICT.model_copy(update={name: most})
    assert loosened(STRICT, strictest) == []
    assert loosened(strictest, STRICT) == ([name] if own != most else [])


def probe(**limits: float | None) -> UserProbe:
    return UserProbe(id="p", kind="retention", items=(ProbeItem(prompt="a", expected=("b",)),), **limits)


@pytest.mark.parametrize(
    ("own", "asked", "found"),
    [
        (probe(threshold=0.8), probe(threshold=0.9), []),
        (probe(threshold=0.8), probe(threshold=0.7), ["p"]),
        (probe(threshold=0.8, max_regression=0.1), probe(threshold=0.8, max_regression=0.2), ["p"]),
        (probe(), probe(threshold=0.1), []),
    ],
)
def test_a_probe_whose_limits_refuse_less_is_looser(own: UserProbe, asked: UserProbe, found: list[str]) -> None:
    assert loosened_probes([own] if own.judged else [], [asked]) == found


def test_a_promotion_goes_further_the_less_it_asks_anybody() -> None:
    modes = [PromotionSpec(mode=mode) for mode in ("manual", "canary", "on_pass")]
    assert [[goes_further(own, asked) for asked in modes] for own in modes] == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]
    with pytest.raises(ValidationError):
        PromotionSpec(mode="always")


@pytest.fixture
def toy(service: Service) -> Service:
    service.deploy(promotion={"mode": "manual"})
    service.tell()
    return service


def asked(service: Service, *scopes: str, dry_run: bool = False, **body: Any) -> Any:
    """A sleep, by a key that may do no more than this."""
    headers = as_key(made(service, "sleeps:write", "sleeps:read", *scopes)["key"])
    return service.client.post("/v1/sleeps", json={"deployment": "toy", "dry_run": dry_run} | body, headers=headers)


@pytest.mark.parametrize("dry_run", [False, True])
def test_who_may_start_a_sleep_may_not_loosen_its_gate_nor_let_it_promote_itself(toy: Service, dry_run: bool) -> None:
    refused = asked(toy, dry_run=dry_run, **OPEN)
    problem(refused, 403, "insufficient_scope")
    assert refused.json()["error"]["param"] == "recipe.gate.min_agreement"
    problem(asked(toy, "versions:promote", dry_run=dry_run, **OPEN), 403, "insufficient_scope")
    for mode in ("canary", "on_pass"):
        refused = asked(toy, "gates:override", dry_run=dry_run, promotion={"mode": mode})
        problem(refused, 403, "insufficient_scope")
        assert "versions:promote" in refused.json()["detail"]
    assert toy.client.get("/v1/sleeps").json()["data"] == []


def test_who_has_the_scopes_may_and_the_audit_log_says_what_was_loosened(toy: Service) -> None:
    answer = asked(toy, "gates:override", "versions:promote", promotion={"mode": "on_pass"}, **OPEN)
    assert answer.status_code == 202, answer.text
    (event,) = [one for one in toy.client.get("/v1/audit_events").json()["data"] if one["action"] == "sleep_created"]
    assert event["data"]["loosened"] == ["recipe.gate.min_agreement", "recipe.gate.max_forgotten", "promotion.mode"]


def test_what_is_stricter_needs_no_scope(toy: Service) -> None:
    answer = asked(toy, recipe={"gate": {"min_agreement": 0.99}}, promotion={"mode": "manual"})
    assert answer.status_code == 202, answer.text


def test_a_probe_is_not_loosened_either(toy: Service) -> None:
    body = {"deployment": "toy", "kind": "retention", "items": [{"prompt": "a", "expected": ["b"]}], "threshold": 0.8}
    id = toy.client.post("/v1/probes", json=body).json()["id"]
    problem(asked(toy, gates=[{"probe": id, "min": 0.1}]), 403, "insufficient_scope")
    answer = asked(toy, gates=[{"probe": id, "min": 0.9}])
    assert answer.status_code == 202, answer.text


def test_what_a_sleep_may_not_a_schedule_may_not(toy: Service) -> None:
    headers = as_key(made(toy, "schedules:write")["key"])
    body = {"deployment": "toy", "trigger": CRON}
    problem(toy.client.post("/v1/schedules", json=body | {"sleep_template": OPEN}, headers=headers), 403, "insufficient_scope")
    answer = toy.client.post("/v1/schedules", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    change = {"sleep_template": {"promotion": {"mode": "on_pass"}}}
    refused = toy.client.patch(f"/v1/schedules/{answer.json()['id']}", json=change, headers=headers)
    problem(refused, 403, "insufficient_scope")
    assert refused.json()["error"]["param"].startswith("sleep_template.promotion")

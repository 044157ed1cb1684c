"""The OpenAPI file says what the routes do, and the routes do what it says, whatever they are sent."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as how
from in_memory import KEY, MemoryFleet, MemoryLauncher, MemoryLearners, MemoryWorkshop
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi import checks
from served import Served, served

from services.api.app import create_app
from services.api.docs import HEADERS, PARTS
from services.api.examples import EXAMPLES
from services.api.openapi import operations
from services.controller import Controller
from services.settings import Settings

EXAMPLES_OF_EACH = int(os.environ.get("CIRCADIAN_TEST_EXAMPLES", "3"))
"""Requests that are made up for each operation, as many that are right as that are wrong; more of them by hand, and on PostgreSQL with
CIRCADIAN_DATABASE_URL."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.allow_header_conformance,
]
"""What holds of every answer. Not among them: whether everything wrong is refused, which the tests of each route say better."""


@schemathesis.serializer("application/x-ndjson")
def _lines(_: Any, text: Any) -> Any:
    """As they are: what is no JSON is for the route to find."""
    return str(text).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Served]:
    """A service in which there is something of everything."""
    home = tmp_path_factory.mktemp("openapi") / "home"
    quick = {"poll_seconds": 0.02, "replica_check_seconds": 0.2, "workflow_poll_seconds": 0.1, "longest_wait_seconds": 0.05}
    with served(Settings(home=home, api_key=KEY, **quick), base) as service:  # type: ignore[arg-type]
        service.deploy()
        yield service


@pytest.fixture(scope="module")
def schema(alive: Served) -> dict[str, Any]:
    return alive.client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def ids(alive: Served) -> dict[str, str]:
    """One object of each kind, by the first part of its path."""
    post = alive.client.post
    trigger = {"any_of": [{"type": "cron", "expr": "0 * * * *"}]}
    found = {
        "deployments": "toy",
        "models": "toy",
        "experiences": post("/v1/experiences", json={"deployment": "toy", "text": "oslo is red"}).json()["id"],
        "versions": alive.client.get("/v1/versions").json()["data"][0]["id"],
        "schedules": post("/v1/schedules", json={"deployment": "toy", "trigger": trigger, "suspend": True}).json()["id"],
        "webhook_endpoints": post("/v1/webhook_endpoints", json={"url": "https://1.1.1.1/"}).json()["id"],
        "api_keys": post("/v1/api_keys", json={"name": "k", "scopes": ["sleeps:read"]}).json()["id"],
    }
    question = {"model": "toy", "messages": [{"role": "user", "content": "say oslo"}], "store": True}
    assert post("/v1/chat/completions", json=question).status_code == 200
    found["chat"] = alive.client.get("/v1/chat/completions").json()["data"][0]["id"]
    found["probes"] = post("/v1/probes", json=EXAMPLES["ProbeCreate"] | {"deployment": "toy"}).json()["id"]
    found["erasures"] = post("/v1/erasures", json=EXAMPLES["ErasureCreate"]).json()["id"]
    return found | {"sleeps": post("/v1/sleeps", json={"deployment": "toy"}).json()["id"]}


def _operations() -> dict[str, tuple[str, str]]:
    """Path and method of every operation, by its id; the routes are looked at once, before there is a service."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home) / "home", api_key=KEY)  # type: ignore[arg-type]
        controller = Controller(settings, MemoryFleet(), MemoryLauncher(), MemoryLearners(), MemoryWorkshop(settings))
        described = create_app(controller).openapi()
        controller.outbox.close()
        controller.database.close()
    return {operation["operationId"]: (path, method) for path, method, operation in operations(described)}


OPERATIONS = _operations()


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_breaks_a_route_and_every_answer_is_as_described(
    alive: Served, schema: dict[str, Any], ids: dict[str, str], name: str, mode: GenerationMode
) -> None:
    path, method = OPERATIONS[name]
    if mode is GenerationMode.NEGATIVE and not path.startswith("/v1/"):
        pytest.skip("nothing can be wrong with a request that says nothing")
    operation = schemathesis.openapi.from_dict(schema)[path][method.upper()]

    @how(
        max_examples=EXAMPLES_OF_EACH,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if method != "delete" and len(str(case.path_parameters)) % 2:
            for parameter in case.path_parameters:
                case.path_parameters[parameter] = ids.get(path.split("/")[2], "x")
        if len(str(case.body)) % 3:
            case.headers.pop("Idempotency-Key", None)  # or most requests would be told that their key was used
        case.call_and_validate(base_url=alive.url, headers={"Authorization": f"Bearer {KEY}"}, checks=CHECKS)

    ask()


def test_every_operation_is_described(schema: dict[str, Any]) -> None:
    found = list(operations(schema))
    tags = {tag["name"] for tag in schema["tags"]}
    for what in ("summary", "operationId"):
        names = [operation[what] for _, _, operation in found]
        assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    for path, method, operation in found:
        assert re.fullmatch(r"[A-Z].{3,60}[^.]", operation["summary"]), operation["summary"]
        assert set(operation["tags"]) <= tags, (path, operation["tags"])
        if not path.startswith("/v1/"):
            continue
        for status in ("400", "401", "403", "429", "500"):
            answer = operation["responses"][status]
            assert answer["content"] == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        assert ("404" in operation["responses"]) >= ("{" in path), path
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, f"{method} {path}: give its body an example in services/api/examples.py"
    assert "HTTPValidationError" not in json.dumps(schema)


def test_every_example_is_accepted_as_it_stands(alive: Served, schema: dict[str, Any]) -> None:
    """By the route's own word: not one of them is told that a field is wrong."""
    bodies = [
        (path, method, content["example"], kind)
        for path, method, operation in operations(schema)
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
    ]
    assert len(bodies) > 10
    used = {json.dumps(body) for _, _, body, _ in bodies}
    assert {json.dumps(example) for example in EXAMPLES.values()} <= used, "an example of no route"
    for path, method, body, kind in bodies:
        url = re.sub(r"{\w+}", "none", path)
        sent = body if isinstance(body, str) else json.dumps(body)
        answer = alive.client.request(method, url, content=sent, headers={"content-type": kind})
        code = answer.json().get("error", {}).get("code") if answer.status_code >= 400 else None
        assert code != "validation_failed", (path, answer.text)


def test_the_page_loads_from_the_service_alone_and_knows_nothing_without_a_key(alive: Served) -> None:
    with httpx.Client(base_url=alive.url, trust_env=False) as stranger:
        page = stranger.get("/docs")
        assert page.status_code == 200
        assert page.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert sorted(link.removeprefix("docs/") for link in loaded if not link.startswith("data:")) == sorted(PARTS)
        for name in PARTS:
            part = stranger.get(f"/docs/{name}")
            assert (part.status_code, part.headers["x-content-type-options"]) == (200, "nosniff")
            assert not re.search(r"@import|url\(\s*[\"']?https?:", part.text), name
        for own in ("page.js", "page.css"):
            assert "://" not in stranger.get(f"/docs/{own}").text
        assert "toy" not in page.text
        assert stranger.get("/openapi.json").status_code == 401
        assert stranger.get("/docs/docs.html").status_code == 404
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "connect-src")} == {"'self'"}

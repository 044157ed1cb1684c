"""The OpenAPI file says what the routes do, and the routes do what it says, whatever they are sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as how
from in_memory import KEY, MemoryFleet, MemoryLauncher
from on_a_socket import Served, served
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi import checks

from services.api.openapi import operations
from services.settings import Settings

EXAMPLES_OF_EACH = int(os.environ.get("CIRCADIAN_TEST_EXAMPLES", "6"))
"""Requests that are made up for each operation, as many that are right as that are wrong; more of them by hand."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.allow_header_conformance,
]
"""What holds of every answer. Not among them: whether everything wrong is refused, which the tests of each route say better."""


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
    return found | {"sleeps": post("/v1/sleeps", json={"deployment": "toy"}).json()["id"]}


def names() -> list[str]:
    """Every operation; the app is built once to know them."""
    return sorted(_OPERATIONS)


def _found() -> dict[str, tuple[str, str]]:
    import tempfile

    from in_memory import MemoryLearners

    from services.api.app import create_app
    from services.controller import Controller

    with tempfile.TemporaryDirectory() as home:
        controller = Controller(Settings(home=Path(home) / "home", api_key=KEY), MemoryFleet(), MemoryLauncher(), MemoryLearners())  # type: ignore[arg-type]
        schema = create_app(controller).openapi()
        controller.outbox.close()
        controller.database.close()
    return {operation["operationId"]: (path, method) for path, method, operation in operations(schema)}


_OPERATIONS = _found()


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_breaks_a_route_and_every_answer_is_as_described(
    alive: Served, schema: dict[str, Any], ids: dict[str, str], name: str, mode: GenerationMode
) -> None:
    path, method = _OPERATIONS[name]
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

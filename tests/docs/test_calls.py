"""Every call of the service that the documentation writes down has a route: pages, runbooks, and what the chart prints."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from services.api.app import create_app
from services.api.openapi import operations
from services.settings import Settings
from tests.docs.test_references import PAGES

if TYPE_CHECKING:
    from services.controller import Controller

ROOT = Path(__file__).parents[2]
FILES = [*PAGES, ROOT / "helm" / "circadian" / "templates" / "NOTES.txt"]
CALL = re.compile(r"(?:\b(GET|POST|PUT|PATCH|DELETE) )?(?<![\w.])(?<!=~\x22)(?:\$\w+|https?://[\w.:]+)?(/v1/[\w{}$/.]*[\w}.])")
"""Not what a query of Prometheus matches (`route=~"/v1/.*"`)."""
SHORT = re.compile(r"^URL=http\S+/v1\b", re.MULTILINE)
"""A page whose $URL has /v1 already."""
NOT_OURS = {"/v1/traces"}
"""OpenTelemetry's."""


@pytest.mark.parametrize("page", FILES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_call_that_is_written_down_has_a_route(page: Path) -> None:
    wrong = [f"{method} {path}".strip() for method, path in calls(page.read_text()) if not answered(method, path)]
    assert not wrong, f"{page.relative_to(ROOT)}: {wrong}"


def test_calls_are_found_and_those_without_a_route_too() -> None:
    assert calls("`POST /v1/webhooks/{id}/rotate`, curl -s $CIRCADIAN_URL/v1/sleeps -H x") == [
        ("POST", "/v1/webhooks/{id}/rotate"),
        ("", "/v1/sleeps"),
    ]
    assert calls("URL=http://127.0.0.1:8700/v1 A=b\ncurl $URL/sleeps/$SLEEP/events") == [("", "/v1/sleeps/$SLEEP/events")]
    assert not answered("POST", "/v1/webhooks/{id}/rotate")
    assert not answered("PATCH", "/v1/sleeps")
    assert answered("POST", "/v1/webhook_endpoints/ID/deliveries/DELIVERY/replay")
    assert answered("POST", "/v1/sleeps/{id}/...")


def calls(text: str) -> list[tuple[str, str]]:
    """Methods, where they are said, and paths."""
    if SHORT.search(text):
        text = SHORT.sub("", text).replace("$URL/", "$URL/v1/")
    return [(method, path.removesuffix(".") if not path.endswith("...") else path) for method, path in CALL.findall(text)]


def answered(method: str, path: str) -> bool:
    """By a route; one part of a path may stand for another (ID, $SLEEP, a name), and `...` for whatever follows."""
    if path in NOT_OURS:
        return True
    asked = path.removesuffix("/...").split("/")
    for known, has in routes():
        parts = known.split("/")[: len(asked) if path.endswith("...") else None]
        fits = len(parts) == len(asked) and all(
            part == said or part.startswith("{") for part, said in zip(parts, asked, strict=True)
        )
        if fits and method in ("", has):
            return True
    return False


@cache
def routes() -> frozenset[tuple[str, str]]:
    """Paths and methods of the application, which is described without being started."""
    parts = {"settings": Settings.model_construct(), "database": None, "keys": None, "metrics": None, "tracing": None}
    described = create_app(cast("Controller", SimpleNamespace(**parts))).openapi()
    return frozenset((path, method.upper()) for path, method, _ in operations(described))

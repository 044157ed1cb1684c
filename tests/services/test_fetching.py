"""The controller fetches models of the hub, with its token; nodes have neither a token nor a way out, and read the cache. The hub's own
client is taken at its word here: no hub can be reached in tests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from circadian.specs import BaseModelRef
from services import hub
from services.errors import Problem
from services.ray_fleet import RayFleet
from services.settings import Settings
from services.workshop import RayWorkshop

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the hub's client was asked for."""
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(hub, "snapshot_download", lambda model, **how: asked.append((model, how)))
    return asked


def fetch(settings: Settings, *models: BaseModelRef) -> None:
    asyncio.run(RayWorkshop(settings, RayFleet(settings))._fetch(models))


def test_a_commit_of_the_hub_is_fetched_without_code_and_pickles(
    settings: Settings, fetched: list[tuple[str, dict[str, Any]]]
) -> None:
    fetch(settings, BaseModelRef(model="org/one", revision=COMMIT))
    ((model, how),) = fetched
    assert (model, how["revision"]) == ("org/one", COMMIT)
    assert "*.safetensors" in how["allow_patterns"]
    assert not [pattern for pattern in how["allow_patterns"] if pattern.endswith((".py", ".bin", ".pt", "*"))]


def test_nothing_else_is_asked_of_the_hub(settings: Settings, fetched: list[tuple[str, dict[str, Any]]]) -> None:
    closed = settings.model_copy(update={"allowed_models": ("org/*",)})
    fetch(
        closed,
        BaseModelRef(model="/models/one"),
        BaseModelRef(model="org/one", revision="main"),
        BaseModelRef(model="other/one", revision=COMMIT),
    )
    assert fetched == []


def test_what_cannot_be_fetched_is_left_to_the_node_to_refuse(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(model: str, **how: Any) -> None:
        raise OSError("no way there")

    monkeypatch.setattr(hub, "snapshot_download", away)
    fetch(settings, BaseModelRef(model="org/one", revision=COMMIT))


def test_a_fetch_that_takes_too_long_is_told_to_come_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda model, **how: time.sleep(0.5))
    with pytest.raises(Problem) as raised:
        fetch(settings.model_copy(update={"workshop_seconds": 0.05}), BaseModelRef(model="org/one", revision=COMMIT))
    assert raised.value.status == 503
    assert "org/one is still being fetched" in raised.value.detail

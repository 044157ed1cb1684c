"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_memory import KEY, MemoryFleet, MemoryLauncher, Service, running

from circadian.nursery.text import build_tokenizer
from circadian.nursery.train import build_model
from circadian.nursery.world import World
from circadian.specs import NurserySpec
from services.settings import Settings


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained nursery model of the smallest size."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = build_tokenizer(World(0))
    build_model(NurserySpec(width=16, mlp_width=16, layers=1, heads=1, head_width=16), tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        api_key=KEY,
        poll_seconds=0.02,
        job_poll_seconds=0.02,
        heartbeat_seconds=0.2,
        replica_check_seconds=0.1,
        longest_pause_seconds=0.2,
        watcher_failures=3,
    )


@pytest.fixture
def service(settings: Settings, base: Path) -> Iterator[Service]:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        yield service

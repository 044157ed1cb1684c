"""Shared by all tests: quick ones first, a base model that costs nothing, and a learner process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from random_base import FAMILIES, write_base


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start an engine come last, so that a slip is seen in seconds."""
    items.sort(key=lambda item: item.get_closest_marker("engine") is not None)


@pytest.fixture(scope="session", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random base model of each architecture that has a graft."""
    return write_base(tmp_path_factory.mktemp(f"base-{request.param}"), request.param, layers=2)


@pytest.fixture(scope="session")
def _group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Once for all: DeepSpeed keeps the first group that it finds."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path_factory.mktemp('group') / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def process_group(_group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a learner process finds: a process group, here of one."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")

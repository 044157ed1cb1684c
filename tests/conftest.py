"""Shared by all tests: quick ones first, and a base model that costs nothing."""

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

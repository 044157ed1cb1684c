"""Shared by all tests: which come first and which run side by side, a base model that costs nothing, a learner process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from random_base import FAMILIES, write_base

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]


NIGHTS = "nights"
LAST = ("tests/helm/", "tests/deploy/", "tests/benchmarks/", "tests/services/test_openapi.py", "tests/services/test_ui")
"""Tests that take minutes together, and share no engine with others."""
ALONE = ("", "slow", "slow engine", "engine", "cluster", NIGHTS)
"""Kinds of files, as they come. Quick ones are first, so that a slip is seen in seconds; engines that tests share stay until the end, so
those that start one of their own come before."""
SHARED = (NIGHTS, "cluster", "", "slow engine", "engine", "slow")
"""The same where workers share them out: one begins at once with whole nights, which take half of the time, the other with what else starts
a cluster; what comes in small pieces is last, so that all end together."""


def is_engine(item: pytest.Item) -> bool:
    return item.get_closest_marker("engine") is not None


@cache
def lane(file: str) -> str:
    """What a test in it starts: a `cluster`, for whole nights or not, an `engine` without one, or nothing. Its text says so: who shares the
    tests out knows their names alone."""
    text = (ROOT / file).read_text()
    kind = next((kind for kind in ("cluster", "engine") if f"pytest.mark.{kind}" in text), "")
    return NIGHTS if kind == "cluster" and file.startswith("tests/e2e/") else kind


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def turn(file: str, shared: bool) -> int:
    """Where a file comes in ALONE, or in SHARED."""
    kind = lane(file)
    if kind in ("", "engine") and file.startswith(LAST):
        kind = f"slow {kind}".strip()
    return (SHARED if shared else ALONE).index(kind)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that starts a cluster starts an engine, too."""
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker("engine")
    shared = hasattr(config, "workerinput")
    items.sort(key=lambda item: turn(file_of(item.nodeid), shared))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Whoever has nothing to do takes the next file, and what the file's tests share is made once. Whole nights are one worker's, and so
    are the other files that start a cluster, because two cores and their memory carry two; and those that start an engine alone are one's,
    because they share it."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return lane(file_of(nodeid)) or file_of(nodeid)

    return Files(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """In a quick test torch takes one core: for such small models two are no quicker, and among others that run several times slower."""
    if "torch" in sys.modules:
        usual = _usual_threads()
        sys.modules["torch"].set_num_threads(usual if is_engine(item) else 1)


@cache
def _usual_threads() -> int:
    """As many as torch takes by itself; asked before it is told otherwise."""
    return sys.modules["torch"].get_num_threads()


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

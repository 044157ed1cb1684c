"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab
from in_memory import KEY, MemoryFleet, MemoryLauncher, Service, running
from migrated import MIGRATED, migrate, new_home
from postgres import binaries, new_database, postgres
from random_base import write_base
from stored import Stored
from ui_page import opened
from ui_world import World

from services.home import private_folder
from services.leader import Lease
from services.settings import Settings
from services.tables import Database


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained nursery model of the smallest size."""
    return write_base(tmp_path_factory.mktemp("base"), width=16, mlp_width=16, layers=1, heads=1, head_width=16)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a PostgreSQL server; skips, and says so, on a machine without one."""
    if binaries() is None:
        pytest.skip("NO POSTGRESQL HERE: what it promises is not tested; install it (apt-get install postgresql)")
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_server(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the same server, which has a database with the schema of this release by now."""
    home = tmp_path_factory.mktemp("migrated") / "home"
    private_folder(home)
    migrate(Settings(home=home, database_url=new_database(postgres_server, MIGRATED)))
    return postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    return new_database(request.getfixturevalue("postgres_server"), _name(request))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database of each kind, with the schema of this release or (SQLite) on its first use."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    return new_database(request.getfixturevalue("migrated_server"), _name(request), like=MIGRATED)


def _name(request: pytest.FixtureRequest) -> str:
    return f"test_{abs(hash(request.node.nodeid))}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        api_key=KEY,
        poll_seconds=0.02,
        job_poll_seconds=0.02,
        heartbeat_seconds=0.2,
        replica_check_seconds=0.1,
        online_poll_seconds=0.02,
        longest_pause_seconds=0.2,
        retry_seconds=0.02,
        watcher_failures=3,
        workflow_poll_seconds=0.05,
    )


@pytest.fixture
def service(settings: Settings, base: Path) -> Iterator[Service]:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        yield service


@pytest.fixture
def stored(settings: Settings, database_url: str) -> Iterator[Stored]:
    """A registry of each kind of database, and the lease on it."""
    new_home(settings.model_copy(update={"database_url": database_url}))
    database = Database(database_url, settings.database_busy_seconds)
    lease = Lease(settings, database)
    assert lease.take()
    yield Stored(settings, database, lease)
    database.close()


@pytest.fixture(scope="module")
def tab(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser that looks at the module's world; skips, and says so, on a machine without one."""
    with opened(world.url, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(autouse=True)
def no_complaints(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does in a browser: the page throws nothing, is refused nothing unasked, and asks nobody else."""
    yield
    if "tab" in request.fixturenames:
        tab, world = request.getfixturevalue("tab"), request.getfixturevalue("world")
        complaints, tab.errors[:] = list(tab.errors), []
        assert complaints == []
        assert [url for url in tab.requested if not url.startswith((world.url, "about:", "blob:"))] == []

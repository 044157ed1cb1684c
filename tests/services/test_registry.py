"""What the database itself guarantees."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from in_memory import KEY, MemoryFleet, MemoryLauncher, MemoryLearners, MemoryWorkshop
from migrated import MIGRATED, new_home
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from services.access import SCOPES, Caller
from services.controller import Controller
from services.durable import Durable
from services.home import private_folder
from services.keys import INVALID, PEPPER_FILE, Keys, owned_secret
from services.settings import Settings
from services.stack import Stack
from services.states import ACTIVE, TERMINAL, SleepStatus
from services.tables import ApiKey, Database, Deployment, Sleep
from services.tables.database import SILENT_SECONDS
from services.webhooks.reach import Reach


@pytest.fixture
def database(settings: Settings) -> Database:
    new_home(settings)
    database = Database(settings.database, settings.database_busy_seconds)
    with database.write() as tx:
        for name in ("one", "two"):
            row: dict[str, Any] = {"base_model": {}, "memory": {}, "recipe": {}, "serving": {}, "active_version": "ver_1"}
            tx.add(Deployment(tenant="default", id=f"dep_{name}", name=name, **row))
    return database


def _sleep(id: str, deployment: str, status: SleepStatus) -> Sleep:
    row: dict[str, Any] = {"recipe": {}, "held_out": [], "request_sha256": "", "parent_version": "ver_1", "child_version": f"v{id}"}
    return Sleep(id=id, deployment=deployment, status=status, **row)


@pytest.mark.parametrize("status", ACTIVE)
def test_a_deployment_has_at_most_one_active_sleep(database: Database, status: SleepStatus) -> None:
    with database.write() as tx:
        tx.add(_sleep("slp_1", "dep_one", status))
        tx.add(_sleep("slp_2", "dep_two", status))
        tx.add_all([_sleep(f"slp_{ended}", "dep_one", ended) for ended in TERMINAL])
    with pytest.raises(IntegrityError), database.write() as tx:
        tx.add(_sleep("slp_3", "dep_one", SleepStatus.QUEUED))


def test_sqlite_writes_ahead_and_to_disk(database: Database) -> None:
    with database.read() as tx:
        assert tx.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert tx.execute(text("PRAGMA synchronous")).scalar() == 2


@contextmanager
def socket_to(url: str) -> Iterator[socket.socket]:
    """The service's own, to PostgreSQL."""
    database = Database(url, 5.0, migrates=False)
    with database.engine.connect() as connection, socket.socket(fileno=os.dup(connection.connection.pgconn.socket)) as found:
        yield found
    database.close()


def test_a_connection_to_postgresql_whose_other_end_has_vanished_is_given_up(migrated_server: str) -> None:
    with socket_to(f"{migrated_server}/{MIGRATED}") as tcp:
        names = ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        silent, idle, pause, probes = (tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names)
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert silent == 1000 * (idle + pause * probes) == 1000 * SILENT_SECONDS


def test_the_connections_of_durable_workflows_give_up_as_early(migrated_server: str, tmp_path: Path) -> None:
    port = make_url(migrated_server).port
    silent = asyncio.run(of_workflows(Settings(home=tmp_path, database_url=f"{migrated_server}/{MIGRATED}"), port))
    assert set(silent) == {1000 * SILENT_SECONDS}


async def of_workflows(settings: Settings, port: int | None) -> list[int]:
    """TCP_USER_TIMEOUT of each connection that this process has to the server, milliseconds."""
    durable, silent = Durable(settings), []
    await durable.open()
    for found in psutil.Process().net_connections("tcp"):
        if found.raddr and found.raddr.port == port:
            with socket.socket(fileno=os.dup(found.fd)) as tcp:
                silent.append(tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    await durable.close()
    return silent


def test_what_the_url_says_of_its_connections_goes_first_and_a_unix_socket_has_no_use_for_it(migrated_server: str) -> None:
    with socket_to(f"{migrated_server}/{MIGRATED}?keepalives=0") as tcp:
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    with psycopg.connect(f"{migrated_server}/{MIGRATED}") as connection:
        (folder,) = connection.execute("SHOW unix_socket_directories").fetchone() or ()
    where = make_url(migrated_server)
    with socket_to(f"postgresql://{where.username}@/{MIGRATED}?host={folder}&port={where.port}") as local:
        assert local.family == socket.AF_UNIX


def test_a_key_is_generated_once_and_kept_as_a_hash_alone(database: Database, settings: Settings) -> None:
    keys = Keys(settings.model_copy(update={"api_key": None}), database)
    key = keys.provide()
    assert key is not None
    assert keys.provide() is None
    caller = keys.caller(key, "req_1")
    assert isinstance(caller, Caller)
    assert (caller.tenant, caller.scopes, caller.deployments) == ("default", frozenset(SCOPES), None)
    assert keys.caller(key + "x", "") == INVALID
    database.close()
    for file in settings.home_folder.iterdir():
        assert key.encode() not in file.read_bytes(), file
    assert stat.S_IMODE((settings.home_folder / PEPPER_FILE).stat().st_mode) == 0o600


def test_nobody_else_can_look_into_a_home(settings: Settings) -> None:
    Controller(settings, MemoryFleet(), MemoryLauncher(), MemoryLearners(), MemoryWorkshop(settings)).database.close()
    assert stat.S_IMODE(settings.home_folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((settings.home_folder / "circadian.db").stat().st_mode) == 0o600
    settings.home_folder.chmod(0o755)
    private_folder(settings.home_folder)
    assert stat.S_IMODE(settings.home_folder.stat().st_mode) == 0o750


def test_a_secret_is_the_same_for_all_who_come_first_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        read = set(pool.map(lambda _: owned_secret(tmp_path / "home" / "secret"), range(64)))
    assert len(read) == 1
    assert len(read.pop()) == 64
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["secret"]


def test_ray_is_not_told_the_services_secrets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CIRCADIAN_DATABASE_URL", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_SECRET", "RAY_AUTH_TOKEN", "HARMLESS"):
        monkeypatch.setenv(name, "from outside")
    stack = Stack(settings)
    stack._token = "token"
    ray, controller = stack.ray_environment(), stack.environment()
    assert {name for name, value in ray.items() if value == "from outside"} == {"HARMLESS"}
    assert ray["RAY_AUTH_TOKEN"] == controller["RAY_AUTH_TOKEN"] == "token"
    assert KEY not in ray.values()
    assert (controller["CIRCADIAN_API_KEY"], controller["HF_TOKEN"]) == (KEY, "from outside")


def test_the_controller_reads_the_settings_that_its_stack_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists: Any = {
        "trusted_signing_keys": ("ab", "cd"),
        "judge_urls": ("http://127.0.0.1:1/v1",),
        "webhooks": Reach(allow_private=True),
    }
    given = Settings(home=tmp_path, database_migrates=False, port=9, **lists)
    stack = Stack(given)
    stack._token = "token"
    for name, value in stack.environment().items():
        if name.startswith("CIRCADIAN_"):
            monkeypatch.setenv(name, value)
    read = Settings()
    assert [getattr(read, name) for name in ("database_migrates", "port", *lists)] == [False, 9, *lists.values()]


def test_a_key_that_the_operator_gives_takes_the_place_of_the_first_one(database: Database, settings: Settings) -> None:
    generated = Keys(settings.model_copy(update={"api_key": None}), database).provide()
    keys = Keys(settings, database)
    assert keys.provide() is None
    assert isinstance(keys.caller(KEY, ""), Caller)
    assert keys.caller(generated or "", "") == INVALID
    assert keys.provide() is None
    with database.read() as tx:
        assert tx.query(ApiKey).count() == 1

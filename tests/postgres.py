"""A PostgreSQL of the tests' own: a real server on 127.0.0.1, in a folder that goes with it, run by a user who may."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from services.ports import RANGE, free_ports

FOLDERS = "/usr/lib/postgresql/*/bin"
"""Where Debian puts it; elsewhere it is on the path."""
START_SECONDS = 60.0
STOP_SECONDS = 30.0
USER = "postgres"
"""Whom root runs it as: PostgreSQL refuses root."""


def binaries() -> Path | None:
    """The folder with initdb and postgres, if there is one on this machine."""
    found = sorted(Path("/").glob(FOLDERS.lstrip("/") + "/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def postgres(folder: Path, durable: bool = False) -> Iterator[str]:
    """The URL of an empty database, without its name: `postgresql://postgres@127.0.0.1:PORT`. durable: what it commits is on disk."""
    where = binaries()
    assert where is not None
    home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    _give(home)
    (port,) = free_ports("127.0.0.1", 1, random.randrange(len(RANGE)))
    _run([str(where / "initdb"), "-D", str(home / "data"), "-U", USER, "--auth=trust", "-E", "UTF8", "--no-sync"])
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={home}"]
    options += [] if durable else ["-c", "fsync=off"]
    with open(folder / "postgres.log", "wb") as log:
        server = subprocess.Popen(
            _as_user([str(where / "postgres"), "-D", str(home / "data"), *options]), stdout=log, stderr=subprocess.STDOUT, cwd="/"
        )
    try:
        _await(port, server)
        yield f"postgresql://{USER}@127.0.0.1:{port}"
    finally:
        server.terminate()  # lets clients finish; those of the tests are gone
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(home, ignore_errors=True)


def new_database(server: str, name: str, like: str = "template0") -> str:
    """The URL of a new database of a server: an empty one, or a copy of one that nobody is in."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{like}"')
    return f"{server}/{name}"


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert server.poll() is None, "PostgreSQL ended at once; its log is beside"
        try:
            psycopg.connect(f"postgresql://{USER}@127.0.0.1:{port}/postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.1)
        else:
            return


def _give(folder: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(USER)
        os.chown(folder, user.pw_uid, user.pw_gid)


def _as_user(command: list[str]) -> list[str]:
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *command] if os.geteuid() == 0 else command


def _run(command: list[str]) -> None:
    subprocess.run(_as_user(command), check=True, capture_output=True, timeout=START_SECONDS, cwd="/")

"""One service in a home, on a port of its own, and nothing left of it when whoever started it dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from in_memory import WAIT_SECONDS

from services import serve
from services.home import HomeLock, HomeRefused, private_folder
from services.keys import Keys
from services.ports import PortInUse, free_ports, listening
from services.settings import Settings
from services.stack import Stack, StackFailed, StackSpec

HOST = "127.0.0.1"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@pytest.fixture
def foreign() -> Iterator[int]:
    """The port of a server that is not ours and answers everything with 200."""

    class Ok(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is http.server's
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not of interest."""

    server = HTTPServer((HOST, 0), Ok)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_home_is_held_by_one_and_free_when_that_one_is_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code = f"from pathlib import Path; from services.home import HomeLock; import time; h = HomeLock(Path({str(home)!r}), 'stack')"
    holder = subprocess.Popen([sys.executable, "-c", f"{code}; print('held', flush=True); time.sleep(600)"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HomeRefused, match=rf"{home} is in use .*process {holder.pid}.*--home"):
            HomeLock(home, "stack")
        HomeLock(home, "controller").release()
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    with HomeLock(home, "stack"), pytest.raises(HomeRefused):
        HomeLock(home, "stack")
    HomeLock(home, "stack").release()


def test_a_folder_that_is_no_home_is_neither_taken_nor_closed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "somebody's").touch()
    shared.chmod(0o1777)
    for take in (private_folder, lambda folder: HomeLock(folder, "stack")):
        with pytest.raises(HomeRefused, match="is not the home of a Circadian service; choose a new or an empty folder"):
            take(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert [path.name for path in shared.iterdir()] == ["somebody's"]
    with pytest.raises(HomeRefused, match="is no folder"):
        private_folder(shared / "somebody's")


def test_an_empty_folder_becomes_a_home_and_stays_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    for _ in range(2):
        HomeLock(home, "stack").release()
        assert stat.S_IMODE(home.stat().st_mode) == 0o750


@pytest.fixture
def controllers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What services.serve has begun that another service could notice: nothing, in the tests that ask for this."""
    begun: list[str] = []

    def controller(*_: object) -> None:
        begun.append("controller")
        raise RuntimeError("begun")

    monkeypatch.setattr(serve, "Controller", controller)
    monkeypatch.setattr(serve.os, "umask", lambda _: 0)
    monkeypatch.setenv("CIRCADIAN_HOME", str(settings.home_folder))
    return begun


def test_a_second_controller_in_a_home_ends_before_it_touches_the_database(settings: Settings, controllers: list[str]) -> None:
    with HomeLock(settings.home_folder, "controller"), pytest.raises(SystemExit, match=str(settings.home_folder)):
        serve.main()
    assert controllers == []


def test_a_controller_without_a_port_ends_before_it_touches_the_database(
    foreign: int, controllers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCADIAN_PORT", str(foreign))
    with pytest.raises(SystemExit, match=rf"port {foreign} of .* is in use; choose another --port"):
        serve.main()
    assert controllers == []
    monkeypatch.setenv("CIRCADIAN_PORT", "0")
    with pytest.raises(RuntimeError, match="begun"):
        serve.main()


def test_a_stack_starts_nothing_in_a_home_or_on_a_port_that_is_taken(
    settings: Settings, foreign: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(Stack, "_start", lambda self, name, *_: begun.append(name))
    monkeypatch.setattr(Keys, "provide", lambda self: begun.append("key"))
    for tenant in ("stack", "controller"):
        with HomeLock(settings.home_folder, tenant), pytest.raises(HomeRefused), Stack(settings):  # type: ignore[arg-type]
            pass
    with pytest.raises(PortInUse, match="--port"), Stack(settings.model_copy(update={"port": foreign})):
        pass
    with (
        pytest.raises(PortInUse, match="--dashboard-port"),
        Stack(settings.model_copy(update={"port": 0}), StackSpec(dashboard_port=foreign)),
    ):
        pass
    assert begun == []
    HomeLock(settings.home_folder, "stack").release()


def test_an_answer_of_a_process_that_is_not_ours_does_not_count(settings: Settings, foreign: int) -> None:
    stack = Stack(settings)
    silent = subprocess.Popen(["sleep", "600"])
    stack._children = [("controller", silent, 1.0)]
    try:
        with pytest.raises(StackFailed, match="did not answer"):
            stack._await("controller", f"http://{HOST}:{foreign}/", {}, 1.0)
    finally:
        silent.kill()
        silent.wait()


def test_an_answer_of_a_grandchild_counts(settings: Settings) -> None:
    (port,) = free_ports(HOST, 1, 0)
    stack = Stack(settings)
    server = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} -m http.server {port} --bind {HOST}; true"], stderr=subprocess.DEVNULL
    )
    stack._children = [("controller", server, 1.0)]
    try:
        stack._await("controller", f"http://{HOST}:{port}/", {}, WAIT_SECONDS)
    finally:
        for process in (*psutil.Process(server.pid).children(), server):
            process.kill()
        server.wait()


def test_a_port_that_is_bound_is_ours() -> None:
    with listening(HOST, 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(PortInUse):
            listening(HOST, port)


START = """
import os, sys, time
from pathlib import Path
from services.settings import Settings
from services.stack import Stack
stack = Stack(Settings(home=Path(sys.argv[1])))
stack._children = []
stack._start("sleeper", ["sleep", "600"], dict(os.environ), 1.0)
print(stack.pids["sleeper"], flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_the_children_of_a_stack_that_is_killed_end(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", START, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    until(lambda: child.name() == "sleep")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)

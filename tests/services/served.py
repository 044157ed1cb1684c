"""A service without a cluster that listens on a port of the loopback address, and the command line that asks it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from in_memory import KEY, WAIT_SECONDS, MemoryFleet, MemoryLauncher, MemoryLearners, MemoryWorkshop, Service
from migrated import new_home
from typer.testing import CliRunner, Result

from services.api.app import create_app
from services.cli import app
from services.client import Circadian
from services.controller import Controller
from services.settings import Settings

LOOPBACK = "127.0.0.1"


def quick(home: Path) -> Settings:
    """Settings of a service that several tests share."""
    return Settings(
        home=home,
        api_key=KEY,
        poll_seconds=0.02,
        job_poll_seconds=0.02,
        replica_check_seconds=0.1,
        workflow_poll_seconds=0.05,
        traffic_seconds=0.05,
    )


@dataclass
class Served(Service):
    """A service at a URL."""

    url: str = ""

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def run(self, *command: str, key: str = KEY, input: str | None = None) -> Result:
        """A command, as it is typed, against this service."""
        return CliRunner().invoke(app, [*command, "--url", self.url, "--key", key], input=input)

    def said(self, *command: str, input: str | None = None) -> str:
        """What a command that succeeds says."""
        result = self.run(*command, input=input)
        assert result.exit_code == 0, (command, result.exit_code, result.output)
        assert result.stderr == ""
        return result.stdout

    def lines(self, *command: str, input: str | None = None) -> list[dict[str, Any]]:
        """What it says to programs."""
        return [json.loads(line) for line in self.said(*command, "--json", input=input).splitlines()]

    def line(self, *command: str, input: str | None = None) -> dict[str, Any]:
        (line,) = self.lines(*command, input=input)
        return line

    def refused(self, *command: str, key: str = KEY) -> tuple[int, dict[str, Any]]:
        """The status of a command that fails, and the error that it tells programs; people are told the same."""
        result = self.run(*command, "--json", key=key)
        assert result.stdout == "", (command, result.output)
        error = json.loads(result.stderr)["error"]
        told = self.run(*command, key=key)
        assert (told.exit_code, told.stdout) == (result.exit_code, ""), (command, told.output)
        assert error["message"] in told.stderr
        return result.exit_code, error

    def python(self) -> Circadian:
        return Circadian(self.url, KEY)


@contextmanager
def served(settings: Settings, base: Path) -> Iterator[Served]:
    """One life of a controller behind a real server."""
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    new_home(settings)
    controller = Controller(settings, fleet, launcher, MemoryLearners(), MemoryWorkshop(settings))
    controller.keys.provide()
    with contextlib.closing(socket.socket()) as listener:
        listener.bind((LOOPBACK, 0))
        config = uvicorn.Config(create_app(controller), log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        Service.until(lambda: server.started)
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=WAIT_SECONDS) as client:
                yield Served(client, fleet, launcher, settings, base, controller, url)
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)

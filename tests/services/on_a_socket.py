"""A service on a socket, as clients reach it: uvicorn in a thread, with the fleet and the launcher of in_memory.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from in_memory import KEY, MemoryFleet, MemoryLauncher, MemoryLearners, Service

from services.api.app import create_app
from services.controller import Controller
from services.ports import listening
from services.settings import Settings

END_SECONDS = 60.0


@dataclass
class Served:
    url: str
    client: httpx.Client
    controller: Controller
    fleet: MemoryFleet
    base: Path

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def deploy(self, name: str = "toy") -> None:
        answer = self.client.post("/v1/deployments", json={"name": name, "base_model": {"model": str(self.base)}})
        assert answer.status_code == 201, answer.text
        Service.until(lambda: self.client.get(f"/v1/deployments/{name}/status").json()["state"] == "awake")


@contextmanager
def served(settings: Settings, base: Path) -> Iterator[Served]:
    controller = Controller(settings, fleet := MemoryFleet(), MemoryLauncher(), MemoryLearners())
    controller.keys.provide()
    server = uvicorn.Server(uvicorn.Config(create_app(controller), log_config=None, timeout_graceful_shutdown=1))
    with listening("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60.0, trust_env=False) as client:
            Service.until(lambda: server.started)
            yield Served(url, client, controller, fleet, base)
            server.should_exit = True
        thread.join(END_SECONDS)
        assert not thread.is_alive(), "the server does not end"

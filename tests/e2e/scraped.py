"""A real Prometheus for a test: it scrapes what it is told, and answers queries on the loopback address."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from supervised import ASK_SECONDS, until

from services.ports import free_ports

HOST = "127.0.0.1"
PORTS = 10_500
"""Where its port is looked for, in the range of ports."""


def program() -> str | None:
    """Debian's package `prometheus`, if it is there."""
    return shutil.which("prometheus")


class Prometheus:
    """Targets are files that it reads again when they change, so nodes may come later."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url, self._targets = f"http://{HOST}:{port}", folder / "targets.json"

    def scrape(self, ports: Mapping[str, int]) -> None:
        """From now on these, each under its name as the label `node`."""
        self._targets.write_text(
            json.dumps([{"targets": [f"{HOST}:{port}"], "labels": {"node": name}} for name, port in ports.items()])
        )

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query comes to now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=ASK_SECONDS).raise_for_status().json()
        return answer["data"]["result"]


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """Ended by its process id."""
    found = program()
    assert found is not None
    (port,) = free_ports(HOST, 1, PORTS)
    running = Prometheus(folder, port)
    running.scrape({})
    jobs = [{"job_name": "ray", "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}]}]
    (folder / "prometheus.yml").write_text(
        json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs})
    )  # JSON is YAML
    command = [found, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={HOST}:{port}"], stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: httpx.get(f"{running.url}/-/ready", timeout=ASK_SECONDS).is_success, "Prometheus is ready")
        yield running
    finally:
        process.terminate()
        process.wait(ASK_SECONDS)

"""What `helm test` runs, run against a service: content with a good one, and in words where something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from in_memory import KEY, Service

from services.ports import listening

SCRIPT = Path(__file__).parents[2] / "helm" / "circadian" / "files" / "smoke.py"


@contextmanager
def served(service: Service) -> Iterator[str]:
    """Where the service listens."""
    with listening("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(service.client.app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def smoke(url: str, secrets: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CIRCADIAN_URL": url, "CIRCADIAN_SECRETS_FOLDER": str(secrets)}
    command = [sys.executable, "-c", SCRIPT.read_text()]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A folder of secrets with the operator's key."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "api_key").write_text(f"{KEY}\n")
    return folder


def test_a_good_service_passes_with_and_without_deployments_and_begins_no_night(service: Service, key: Path) -> None:
    with served(service) as url:
        empty = smoke(url, key)
        service.deploy()
        deployed = smoke(url, key)
        service.tell()
        told = smoke(url, key)
    assert [done.returncode for done in (empty, deployed, told)] == [0, 0, 0], empty.stderr + deployed.stderr + told.stderr
    assert service.client.get("/v1/sleeps").json()["data"] == []


def test_without_a_key_the_door_alone_is_tried(service: Service, tmp_path: Path) -> None:
    with served(service) as url:
        done = smoke(url, tmp_path / "nowhere")
    assert done.returncode == 0, done.stderr


def test_a_key_that_opens_nothing_is_told(service: Service, key: Path) -> None:
    (key / "api_key").write_text("ck_of_somebody_else")
    with served(service) as url:
        done = smoke(url, key)
    assert done.returncode == 1
    assert "GET /v1/models: 401, not (200,)" in done.stderr


def test_a_service_that_is_not_ready_is_told(service: Service, key: Path) -> None:
    with served(service) as url:
        service.controller.database.close()
        service.settings.home_folder.joinpath("circadian.db").rename(service.settings.home_folder / "away")
        service.settings.home_folder.joinpath("circadian.db").mkdir()
        try:
            done = smoke(url, key)
        finally:
            service.settings.home_folder.joinpath("circadian.db").rmdir()
            (service.settings.home_folder / "away").rename(service.settings.home_folder / "circadian.db")
            service.controller.database.close()  # whoever came between these two lines holds a new, empty file
    assert done.returncode == 1
    assert "GET /readyz: 503, not (200,)" in done.stderr

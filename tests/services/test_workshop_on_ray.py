"""A controller that cannot import torch founds deployments and checks teachers through REST, by tasks of a real Ray cluster."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from random_base import write_base
from test_lean import ALONE, ROOT
from transformers import BertConfig

from circadian.memory.version import load_version
from services import child
from services.ports import RAY_SWITCHES, free_ports
from services.stack import RAY_ENVIRONMENT, head_command

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
HOST, KEY = "127.0.0.1", "lean"
WAIT_SECONDS = 300.0
END_SECONDS = 30.0
SERVE = ALONE + "import runpy\nrunpy.run_module('services.serve', run_name='__main__')\n"
FOUND = "ray::workshop/found"
SMALL = {"width": 16, "mlp_width": 16, "layers": 1, "heads": 1, "head_width": 16}
FAR = {"cpus": 4096.0}
"""Replicas for which no node is large enough: this test needs none."""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("CIRCADIAN_", "RAY_"))}
    return {**known, **RAY_ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_ports(HOST, len(RAY_SWITCHES) + 4, os.getpid())


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str], ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    """A head whose node has the role `wake` too."""
    temp = Path("/tmp") / f"cdn-{os.getpid()}-{time.monotonic_ns() % 1000}"  # sockets need a short path
    command = head_command(HOST, ports[: len(RAY_SWITCHES) + 2], 2, temp)
    command = child.command([*command, f"--resources={json.dumps({'circadian_wake': 1000})}"])
    log = (tmp_path_factory.mktemp("ray") / "log").open("wb")
    with subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT) as process:
        head = psutil.Process(process.pid)
        try:
            yield head
        finally:
            family = head.children(recursive=True) if head.is_running() else []
            process.terminate()
            for left in psutil.wait_procs([head, *family], timeout=END_SECONDS)[1]:
                left.kill()
            shutil.rmtree(temp, ignore_errors=True)


@contextmanager
def controller(home: Path, port: int, ports: list[int], environment: dict[str, str], **more: str) -> Iterator[httpx.Client]:
    """One that can import nothing that it must not need, once it answers."""
    settings = {
        "CIRCADIAN_HOME": str(home),
        "CIRCADIAN_API_KEY": KEY,
        "CIRCADIAN_PORT": str(port),
        "CIRCADIAN_RAY_ADDRESS": f"{HOST}:{ports[0]}",
        "CIRCADIAN_RAY_DASHBOARD": f"http://{HOST}:{ports[1]}",
        "RAY_ADDRESS": f"{HOST}:{ports[0]}",
        "RAY_ENABLE_AUTO_CONNECT": "0",
    }
    home.parent.mkdir(exist_ok=True)
    log = (home.parent / f"{port}.log").open("wb")
    command = [sys.executable, "-c", SERVE]
    process = subprocess.Popen(command, env=environment | settings | more, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(
            base_url=f"http://{HOST}:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=WAIT_SECONDS
        ) as client:
            until(lambda: process.poll() is not None or client.get("/readyz").status_code == 200)
            assert process.poll() is None, Path(log.name).read_text()[-4000:]
            yield client
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        process.kill()
        process.wait()
        log.close()


@pytest.fixture(scope="module")
def client(
    cluster: psutil.Process, environment: dict[str, str], ports: list[int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("lean") / "home"
    with controller(home, ports[-1], ports, environment) as client:
        yield client


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with suppress(httpx.TransportError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)


def found(client: httpx.Client, name: str, base: Path | str) -> httpx.Response:
    body = {"name": name, "base_model": {"model": str(base)}, "serving": FAR}
    return client.post("/v1/deployments", json=body)


def working(cluster: psutil.Process) -> list[psutil.Process]:
    """Processes that found a deployment now."""
    named = []
    for process in cluster.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(FOUND):
                named.append(process)
    return named


def never_ending(folder: Path) -> tuple[Path, bytes]:
    """A base whose weights somebody has yet to send, and what they are."""
    write_base(folder, **SMALL)  # type: ignore[arg-type]
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    os.mkfifo(weights)
    return weights, content


def test_a_deployment_is_founded_and_models_that_cannot_be_used_are_refused(client: httpx.Client, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", **SMALL)  # type: ignore[arg-type]
    made = found(client, "toy", base)
    assert made.status_code == 201, made.text
    (version,) = client.get("/v1/versions", params={"deployment": "toy"}).json()["data"]
    folder = next((client_home(client)).glob(f"deployments/*/versions/{version['id']}"))
    assert not load_version(folder).memory_state.names()[0].count("sealed")
    assert version["signature"]["algorithm"] == "ed25519"

    nowhere = found(client, "other", tmp_path / "nowhere")
    assert (nowhere.status_code, nowhere.json()["error"]["param"]) == (422, "base_model.model")
    assert "there is no folder" in nowhere.json()["detail"]
    BertConfig().save_pretrained(tmp_path / "bert")
    assert found(client, "other", tmp_path / "bert").json()["error"]["code"] == "no_graft"
    asked = {"deployment": "toy", "dry_run": True, "teachers": [{"model": str(tmp_path / "bert")}]}
    unusable = client.post("/v1/sleeps", json=asked)
    assert (unusable.status_code, unusable.json()["error"]["param"]) == (422, "teachers.0.model"), unusable.text
    asked["teachers"] = [{"model": str(base), "match": "distil"}]
    assert client.post("/v1/sleeps", json=asked).status_code == 200
    assert [one["name"] for one in client.get("/v1/deployments").json()["data"]] == ["toy"]


def client_home(client: httpx.Client) -> Path:
    """Of the controller's process, as its environment says."""
    (process,) = [one for one in psutil.Process().children() if _listens(one, client.base_url.port)]
    return Path(process.environ()["CIRCADIAN_HOME"])


def _listens(process: psutil.Process, port: int | None) -> bool:
    return any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp"))


def test_who_is_killed_while_founding_is_followed_by_another_that_finishes(
    client: httpx.Client, cluster: psutil.Process, tmp_path: Path
) -> None:
    weights, content = never_ending(tmp_path / "base")
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(found(client, "late", weights.parent)))
    asking.start()
    (first,) = until(lambda: working(cluster))
    first.kill()
    (second,) = until(lambda: [one for one in working(cluster) if one.pid != first.pid])
    with weights.open("wb") as pipe:  # opens once the second reads
        pipe.write(content)
    asking.join(WAIT_SECONDS)
    assert [answer.status_code for answer in answers] == [201], [answer.text for answer in answers]
    assert second.pid != first.pid
    folder = next(client_home(client).glob(f"deployments/{answers[0].json()['id']}/versions/*"))
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name], "nothing of the first is left"


def test_a_node_of_the_role_is_asked_and_who_takes_too_long_is_ended(
    cluster: psutil.Process, environment: dict[str, str], ports: list[int], tmp_path: Path
) -> None:
    with controller(tmp_path / "home", ports[-2], ports, environment, NODES_HAVE_ROLES="1", CIRCADIAN_WORKSHOP_SECONDS="60") as one:
        assert found(one, "toy", write_base(tmp_path / "quick", **SMALL)).status_code == 201  # type: ignore[arg-type]
        weights, _ = never_ending(tmp_path / "slow")
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(found(one, "late", weights.parent)))
        asking.start()
        until(lambda: working(cluster))
        asking.join(WAIT_SECONDS)
        (answer,) = answers
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ray_unavailable"), answer.text
        assert "CIRCADIAN_WORKSHOP_SECONDS" in answer.json()["detail"]
        until(lambda: not working(cluster))
        assert [row["name"] for row in one.get("/v1/deployments").json()["data"]] == ["toy"]
        assert len(list((tmp_path / "home" / "deployments").iterdir())) == 1

"""Ray's head ends and another begins in its place: the fleet joins it, and the deployment serves what it served.

In a process of its own, because Ray reads its environment once, and on a head as services/stack.py starts it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from random_base import write_base

from actors.wake_state import WakeState, write_wake
from circadian.memory.version import found_version
from circadian.specs import MemorySpec
from services import child
from services.fleet import FleetUnavailable, ServingSpec
from services.ports import RAY_SWITCHES, free_ports
from services.ray_fleet import RayFleet
from services.settings import Settings
from services.stack import RAY_ENVIRONMENT, head_command

HOST = "127.0.0.1"
HERE = Path(__file__).parents[2]
START_SECONDS = 400.0
LIFE_SECONDS = 2 * START_SECONDS + 300.0
END_SECONDS = 30.0
QUESTION = {"model": "toy", "prompt": "a", "max_tokens": 1}


@pytest.mark.cluster
@pytest.mark.timeout(LIFE_SECONDS + END_SECONDS)
def test_a_deployment_is_brought_up_again_on_a_cluster_that_was_started_anew(tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, (HERE, HERE / "tests", HERE / "tests" / "services")))
    environment = {**os.environ, **RAY_ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32), "PYTHONPATH": paths}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, timeout=LIFE_SECONDS, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


async def life(home: Path) -> None:
    ports = free_ports(HOST, len(RAY_SWITCHES) + 2, os.getpid())
    found_version(str(write_base(home / "base", layers=2)), None, MemorySpec(), home / "v1")
    write_wake(home / "wake.json", WakeState(folder=str(home / "v1")))
    fleet = RayFleet(
        Settings(home=home, ray_address=f"{HOST}:{ports[0]}", replica_start_seconds=START_SECONDS, ray_request_seconds=10.0)
    )
    with head(ports) as first:
        await up(fleet, home / "wake.json")
        heard = {address for process in first.children(recursive=True) for address in listens(process)}
        assert heard == {HOST, f"::ffff:{HOST}"}, "Serve opens nothing beyond this machine"
        replicas = [process.pid for process in first.children(recursive=True) if "ServeReplica" in process.name()]
        assert len(replicas) == 1
    with head(ports):
        while not (await fleet.look("toy")).missing:
            await asyncio.sleep(0.5)
        await up(fleet, home / "wake.json")


async def up(fleet: RayFleet, wake: Path) -> None:
    """The deployment answers, once Ray does."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            assert await fleet.start("toy", "toy", ServingSpec(), wake) == ["v1"]
            break
        except FleetUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(1.0)
    reply = await fleet.answer("toy", "completion", QUESTION)
    assert (reply.status, reply.version) == (200, "v1")


def listens(process: psutil.Process) -> set[str]:
    """The addresses at which it does."""
    try:
        found = process.net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return set()
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}


@contextmanager
def head(ports: list[int]) -> Iterator[psutil.Process]:
    temp = Path("/tmp") / f"cdn-{os.getpid()}-{time.monotonic_ns() % 1000}"  # sockets need a short path
    command = child.command(head_command(HOST, ports, 2, temp))  # ends with this process, however that ends
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        head = psutil.Process(process.pid)
        try:
            yield head
        finally:
            family = head.children(recursive=True) if head.is_running() else []
            process.terminate()
            for left in psutil.wait_procs([head, *family], timeout=END_SECONDS)[1]:
                left.kill()


if __name__ == "__main__":
    asyncio.run(life(Path(sys.argv[1])))

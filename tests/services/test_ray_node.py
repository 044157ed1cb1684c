"""The Ray node beside a controller is kept running: with small commands in its place, as processes, and without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.ports import RANGE, free_ports
from services.ray_node import Patience, agent_port, next_pause

WAIT_SECONDS = 60.0
KEEP = "import logging, sys; from services.ray_node import Patience, keep; logging.basicConfig(level='INFO'); "
ENDS = "print('begun', flush=True); sys.exit(7)"
STAYS = "print('begun', flush=True); time.sleep(999)"
POLITE = "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), os._exit(0))); " + STAYS
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + STAYS
LEAVES = """
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    print('orphan', os.getpid(), flush=True)
    time.sleep(999)
os.wait()
time.sleep(0.5)
"""
"""A process of a session of its own whose parent is gone, as Ray's are when a raylet has been killed."""


class Agent(BaseHTTPRequestHandler):
    """Of a node whose raylet is well."""

    asked = 0

    def do_GET(self) -> None:
        Agent.asked += 1
        self.send_response(200 if self.path == "/api/healthz" else 404)
        self.end_headers()


@dataclass
class Kept:
    """A keeper as a process, and what it and its commands say."""

    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, script: str, *words: str, **patience: float) -> None:
        code = KEEP + f"keep({self.port}, sys.argv[1:], Patience(**{ ({'first_pause': 0.1, 'look': 0.02} | patience)!r}))"
        command = [sys.executable, "-u", "-c", f"import os, signal, sys, time\n{script}", *words]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code, *command], stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)

    def ends(self) -> int:
        self.process.terminate()
        return self.process.wait(WAIT_SECONDS)

    def alive(self) -> int:
        """What the port answers."""
        return httpx.get(f"http://127.0.0.1:{self.port}/livez").status_code


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(free_ports("127.0.0.1", 1, os.getpid() % 1000)[0], tmp_path / "log")
    yield kept
    if kept.process.poll() is None:
        for one in psutil.Process(kept.process.pid).children(recursive=True):
            one.kill()
        kept.process.kill()
        kept.process.wait()


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_life_that_lasted() -> None:
    patience = Patience(first_pause=1.0, longest_pause=5.0, steady=60.0)
    pauses = [next_pause(None, 0.0, patience)]
    for lived in (0.0, 59.0, 0.0, 0.0, 60.0, 1.0):
        pauses.append(next_pause(pauses[-1], lived, patience))
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 1.0, 2.0]


def test_a_node_that_ends_is_started_again_and_each_end_is_told(kept: Kept) -> None:
    kept.start(ENDS, longest_pause=0.2)
    kept.until(lambda: kept.said.count("begun") >= 4)
    assert kept.said.count("the Ray node ended with 7 after") >= 3
    assert kept.alive() == 200
    assert kept.ends() == 0


def test_while_there_is_no_node_the_container_lives(kept: Kept) -> None:
    kept.start(ENDS, first_pause=999.0, longest_pause=999.0)
    kept.until(lambda: "started again in 999 s" in kept.said)
    assert kept.alive() == 200
    assert psutil.Process(kept.process.pid).children() == []
    assert kept.ends() == 0, "nor does a pause hold up the end"


def test_a_node_is_asked_to_end_and_its_keeper_ends_with_it(kept: Kept) -> None:
    kept.start(POLITE)
    kept.until(lambda: "begun" in kept.said)
    assert kept.ends() == 0
    assert (kept.said.count("begun"), kept.said.count("asked\n")) == (1, 1)
    assert "the Ray node ended with 0, as it was asked to" in kept.said


def test_a_node_that_does_not_end_is_killed_when_the_time_is_over(kept: Kept) -> None:
    kept.start(STUBBORN, stop=0.3)
    kept.until(lambda: "begun" in kept.said)
    (node,) = psutil.Process(kept.process.pid).children()
    assert kept.ends() == 0
    assert not node.is_running()
    assert f"ended with -{signal.SIGKILL.value}" in kept.said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to whoever asks for them")
def test_nothing_of_one_life_is_left_in_the_next(kept: Kept) -> None:
    kept.start(LEAVES)
    kept.until(lambda: kept.said.count("orphan") >= 3)
    orphans = [int(line.split()[1]) for line in kept.said.splitlines() if line.startswith("orphan")]
    assert [pid for pid in orphans[:2] if psutil.pid_exists(pid)] == []
    kept.ends()
    assert [pid for pid in orphans if psutil.pid_exists(pid)] == []


def test_a_node_whose_agent_does_not_answer_is_started_again(kept: Kept) -> None:
    port = free_ports("127.0.0.1", 2, kept.port - RANGE.start)[1]
    kept.start(STAYS, f"--dashboard-agent-listen-port={port}", ask=0.05, mute=1.0)
    kept.until(lambda: kept.said.count("the Ray node was mute for 1 s, and was ended") >= 2)
    assert kept.alive() == 200


def test_a_node_whose_agent_answers_is_left_alone(kept: Kept) -> None:
    with HTTPServer(("127.0.0.1", 0), Agent) as agent:
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        kept.start(STAYS, f"--dashboard-agent-listen-port={agent.server_port}", ask=0.05, mute=0.5)
        kept.until(lambda: Agent.asked >= 40)
        agent.shutdown()
    assert "mute" not in kept.said


def test_the_agents_port_is_read_off_the_command() -> None:
    assert agent_port(["ray", "start", "--address=head:6379", "--dashboard-agent-listen-port=52365"]) == 52365
    assert agent_port(["ray", "start"]) is None

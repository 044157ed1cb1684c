"""`python -m services.ray_node PORT COMMAND...`: the Ray node beside a controller, kept running whatever becomes of the cluster.

A pod is ready only while each of its containers runs, and COMMAND, `ray start ... --block`, ends where Ray's head has gone: all controllers
would leave the Service at once, though they answer. So the container runs this, and COMMAND below it:

    it ends                                             it is started again after a pause, which grows from end to end
    it runs, and its agent has not answered for long    it is ended, which is an end like any other
    SIGTERM, SIGINT                                     it is asked to end, killed when the time is over, and so does this end

Nothing of one life is left when the next one begins. `/livez` of PORT answers 200 while this turns: it is the container's liveness.
"""

from __future__ import annotations

import http.client
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

import psutil

from services.kernel import adopt_orphans

log = logging.getLogger(__name__)
AGENT_SWITCH = "--dashboard-agent-listen-port="
"""Of `ray start`: where the node's agent says whether its raylet is well."""
ASK_SECONDS = 5.0
"""Until the agent, and whoever asks us, must have said all."""


@dataclass(frozen=True)
class Patience:
    """In seconds."""

    first_pause: float = 1.0
    longest_pause: float = 30.0
    """A head that was started anew finds its controllers' nodes after so long at most."""
    steady: float = 60.0
    """Whoever has lived for so long has a first pause again."""
    ask: float = 10.0
    """Between two questions to the agent."""
    mute: float = 300.0
    """Longer than Ray itself looks for a head before it gives up."""
    stop: float = 20.0
    """Less than what the chart and compose leave a node to end in."""
    look: float = 0.2
    turn: float = 60.0
    """No turn of the loop takes longer: an end is the longest."""


class Keeper:
    """One command, life after life."""

    def __init__(self, command: list[str], patience: Patience) -> None:
        self.command, self.patience = command, patience
        self._agent = agent_port(command)
        self._asked_to_end = False
        self._turned_at = time.monotonic()

    @property
    def turns(self) -> bool:
        return time.monotonic() - self._turned_at < self.patience.turn

    def ask_to_end(self, *_: Any) -> None:
        """Also from a signal's handler, so it does no more than to take note."""
        self._asked_to_end = True

    def run(self) -> None:
        """Until it is asked to end. Raises OSError where the command cannot be started."""
        pause: float | None = None
        while not self._asked_to_end:
            begun = time.monotonic()
            end = self._live()
            lived = time.monotonic() - begun
            if self._asked_to_end:
                log.info("the Ray node %s, as it was asked to", end)
                return
            pause = next_pause(pause, lived, self.patience)
            log.warning("the Ray node %s after %.0f s; it is started again in %.0f s", end, lived, pause)
            self._until(time.monotonic() + pause)

    def _live(self) -> str:
        """From start to end, and how it ended."""
        process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, start_new_session=True)
        heard = time.monotonic()
        while self._until(time.monotonic() + self.patience.ask, process):
            if self._agent is None or answers(self._agent):
                heard = time.monotonic()
            elif time.monotonic() - heard > self.patience.mute:
                self._end(process)
                return f"was mute for {self.patience.mute:.0f} s, and was ended"
        self._end(process)
        return f"ended with {process.returncode}"

    def _until(self, deadline: float, process: subprocess.Popen[bytes] | None = None) -> bool:
        """Whether the time has come while nobody asked to end, and the process ran."""
        while time.monotonic() < deadline:
            self._turned_at = time.monotonic()
            _bury(process.pid if process else 0)
            if self._asked_to_end or (process is not None and process.poll() is not None):
                return False
            time.sleep(self.patience.look)
        return True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """With all that it has started: what a node leaves behind would hold the next one's ports."""
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(self.patience.stop)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        while left := psutil.Process().children(recursive=True):
            for one in left:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(left, timeout=ASK_SECONDS)


class Server(ThreadingTCPServer):
    """Not http.server's own, which looks its name up first, and may wait for that."""

    allow_reuse_address = True
    daemon_threads = True


class Livez(BaseHTTPRequestHandler):
    """Whether the keeper turns; whatever path is asked for."""

    timeout = ASK_SECONDS

    def __init__(self, keeper: Keeper, *connection: Any) -> None:
        self._keeper = keeper
        super().__init__(*connection)

    def do_GET(self) -> None:
        self.send_response(200 if self._keeper.turns else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """A probe every few seconds is nothing to tell."""


def next_pause(last: float | None, lived: float, patience: Patience) -> float:
    """Before the next life: twice the last one, up to the longest, and the first one again after a life that lasted."""
    if last is None or lived >= patience.steady:
        return patience.first_pause
    return min(2 * last, patience.longest_pause)


def agent_port(command: list[str]) -> int | None:
    """None where the command does not say: then nobody is asked."""
    return next((int(word.removeprefix(AGENT_SWITCH)) for word in command if word.startswith(AGENT_SWITCH)), None)


def answers(port: int) -> bool:
    """Whether the agent says that its raylet is well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/api/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def keep(port: int, command: list[str], patience: Patience) -> None:
    """Raises OSError where the port is taken, or the command cannot be started."""
    keeper = Keeper(command, patience)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, keeper.ask_to_end)
    adopt_orphans()
    with Server(("", port), partial(Livez, keeper)) as server:
        threading.Thread(target=server.serve_forever, name="livez", daemon=True).start()
        try:
            keeper.run()
        finally:
            server.shutdown()


def _bury(child: int) -> None:
    """Orphans that were adopted and have ended; not the child itself, whose end is looked at elsewhere."""
    if sys.platform != "linux":
        return
    try:
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != child:
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        pass  # there is no child at all


def main(port: str, *command: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep(int(port), list(command), Patience())


if __name__ == "__main__":
    main(*sys.argv[1:])

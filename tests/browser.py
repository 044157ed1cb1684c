"""A real browser without a window, driven by its own protocol (CDP) over a WebSocket on 127.0.0.1."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Debian's packages `chromium-headless-shell` and `chromium`, and what else may be there."""
OPTIONS = (
    "--headless",
    "--no-sandbox",  # tests may run as root; it opens nothing but our own page
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-port=0",
    "about:blank",
)
START_SECONDS, WAIT_SECONDS = 60.0, 30.0
LONGEST_MESSAGE = 1 << 26
"""Bytes of a picture, in base64."""


def program() -> str | None:
    """The browser, if there is one on this machine."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class ScriptFailed(Exception):
    """What was evaluated in the page threw."""


class PageLeft(Exception):
    """The page has gone to another one while something was evaluated in it."""


LEFT = ("navigated", "context")
"""Words of what Chromium says then: 'Inspected target navigated or closed', 'Cannot find default execution context'."""


@dataclass
class Tab:
    """One page. `errors` is what it complained of: exceptions, refused requests, violations of its policy."""

    socket: ClientConnection
    session: str
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    _sent: int = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result; what is told meanwhile is written down. Raises PageLeft."""
        self._sent += 1
        sent = self._sent
        self.socket.send(json.dumps({"id": sent, "sessionId": self.session, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=WAIT_SECONDS))
            if message.get("id") == sent:
                if any(word in message.get("error", {}).get("message", "") for word in LEFT):
                    raise PageLeft(message["error"]["message"])
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif message.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise ScriptFailed(told["exceptionDetails"]["exception"].get("description", script))
        return told["result"].get("value")

    def until(self, script: str) -> Any:
        """The expression's first value that is true, in this page or the one that comes after it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with suppress(PageLeft):
                if value := self.run(script):
                    return value
            assert time.monotonic() < deadline, f"not in time: {script}\n{self.text()[:2000]}\n{self.errors}"
            time.sleep(0.05)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def text(self) -> str:
        return self.run("document.body.innerText")

    def shows(self, text: str) -> None:
        self.until(f"document.body.innerText.includes({json.dumps(text)})")

    def press(self, name: str, within: str = "document") -> None:
        """The button or link of this accessible name, once it is there and can be pressed."""
        find = (
            f"[...({within}?.querySelectorAll('button, a') ?? [])].find((one) => !one.disabled && "
            f"(one.getAttribute('aria-label') ?? one.textContent).trim() === {json.dumps(name)})"
        )
        self.until(f"(() => {{ const one = {find}; one?.click?.(); return Boolean(one); }})()")

    def fill(self, name: str, value: str) -> None:
        """A field by its name, as one who types it."""
        self.until(f"document.querySelector('[name={name}]') !== null")
        self.run(f"document.querySelector('[name={name}]').select?.() ?? document.querySelector('[name={name}]').focus()")
        self.run(f"document.querySelector('[name={name}]').focus()")
        self.call("Input.insertText", text=value)

    def key(self, name: str, **more: Any) -> None:
        """A key, pressed and let go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, **more)

    def forgive(self, *words: str) -> None:
        """Complaints that a test has asked for."""
        self.run("0")  # what was complained of so far is heard
        self.errors[:] = [error for error in self.errors if not any(word in error for word in words)]

    def size(self, width: int, height: int, scale: float = 1.0) -> None:
        phone = width < 500
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)

    def scheme(self, name: str) -> None:
        """light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path: Path, whole: bool = False) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A browser with one tab, its profile in `folder`."""
    found = program()
    assert found is not None
    command = [found, f"--user-data-dir={folder}", *OPTIONS]
    # A group of its own: what is called may be a script, whose end would leave the browser behind.
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        with connect(_address(process, folder), max_size=LONGEST_MESSAGE, ping_interval=None) as socket:
            yield _tab(socket)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(START_SECONDS)


def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Chromium writes down the port that it has chosen, and the path on the next line."""
    deadline = time.monotonic() + START_SECONDS
    told = folder / "DevToolsActivePort"
    while not told.exists() or told.read_text().count("\n") < 1:
        assert process.poll() is None, "the browser ended at once"
        assert time.monotonic() < deadline, "the browser did not start in time"
        time.sleep(0.02)
    port, path = told.read_text().splitlines()[:2]
    return f"ws://127.0.0.1:{port}{path}"


def _tab(socket: ClientConnection) -> Tab:
    outer = Tab(socket, "")
    socket.send(json.dumps({"id": -1, "method": "Target.getTargets"}))
    targets = json.loads(socket.recv(timeout=WAIT_SECONDS))["result"]["targetInfos"]
    page = next(target["targetId"] for target in targets if target["type"] == "page")
    socket.send(json.dumps({"id": -2, "method": "Target.attachToTarget", "params": {"targetId": page, "flatten": True}}))
    while True:
        message = json.loads(socket.recv(timeout=WAIT_SECONDS))
        if message.get("id") == -2:
            outer.session = message["result"]["sessionId"]
            break
    for domain in ("Runtime", "Page", "Log", "Network", "Accessibility"):
        outer.call(f"{domain}.enable")
    outer.call("Emulation.setTimezoneOverride", timezoneId="UTC")
    outer.call("Emulation.setLocaleOverride", locale="en-GB")
    return outer

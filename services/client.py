"""A small client of the REST interface, for the command line and the demo. Anybody else can use OpenAI's for inference, or curl."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx

Json = dict[str, Any]
REQUEST_SECONDS = 330.0
"""Above the service's own limits, so that it is the service that says what took too long."""
CONNECT_ATTEMPTS = 5
"""Times an event stream that breaks off is taken up again, without progress between."""
RECONNECT_SECONDS = 1.0
POLL_SECONDS = 0.5
PAGE = 100
"""Items asked for at once, the most that the service gives."""
CONNECTIONS = 64
"""Kept open together: a pool that closes idle connections while other threads take them hands out closed ones."""


LIMITS = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)


class ApiError(Exception):
    """The service answered with an error; the text is its own."""

    def __init__(self, status: int, body: Json) -> None:
        error = body.get("error", {})
        super().__init__(f"{error.get('code', 'error')} ({status}): {body.get('detail') or error.get('message', '')}")
        self.status, self.code = status, error.get("code")


class Client:
    """Requests with a key; every method raises ApiError where the service answers with an error."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=REQUEST_SECONDS, limits=LIMITS)

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **params: Any) -> Json:
        return self._checked(self.http.get(path, params=params)).json()

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Every item of a list."""
        after: Json = {}
        while True:
            page = self.get(path, limit=PAGE, **params, **after)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def post(self, path: str, body: Json) -> Json:
        return self.post_raw(path, body).json()

    def post_raw(self, path: str, body: Json) -> httpx.Response:
        """The response itself, for its headers."""
        return self._checked(self.http.post(path, json=body))

    def awake(self, deployment: str, seconds: float) -> Json:
        """The deployment's status, once it is awake. Raises TimeoutError, and RuntimeError where it failed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.get(f"/v1/deployments/{deployment}/status")
            if status["state"] == "awake":
                return status
            if status["state"] == "failed":
                raise RuntimeError(f"deployment {deployment} failed: {status['error']}")
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"deployment {deployment} was not awake within {seconds:.0f} s")

    def events(self, sleep: str) -> Iterator[Json]:
        """A sleep's events as they happen, each once, until it has ended. A broken stream is taken up behind the last event."""
        last, failures = 0, 0
        while True:
            try:
                for event in self._stream(sleep, last):
                    if event is None:
                        return
                    last, failures = event["seq"], 0
                    yield event
                failures += 1
            except httpx.TransportError:
                failures += 1
                if failures > CONNECT_ATTEMPTS:
                    raise
            if failures > CONNECT_ATTEMPTS:
                raise ConnectionError(f"the event stream of {sleep} ends without being done")
            time.sleep(RECONNECT_SECONDS)

    def _stream(self, sleep: str, last: int) -> Iterator[Json | None]:
        """Events behind `last`; None when the service says that there will be no more."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
        with self.http.stream("GET", f"/v1/sleeps/{sleep}/events", headers=headers) as response:
            if response.is_error:
                response.read()
                self._checked(response)
            kind = ""
            for line in response.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield None if kind == "done" else json.loads(line.removeprefix("data: "))

    @staticmethod
    def _checked(response: httpx.Response) -> httpx.Response:
        if response.is_error:
            try:
                body = response.json()
            except json.JSONDecodeError:
                body = {"detail": response.text}
            raise ApiError(response.status_code, body)
        return response

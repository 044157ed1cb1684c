"""The client that waits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from services.client import connection
from services.client.answers import Answer, DeploymentStatus, Event, Page, Rollout
from services.client.calls import Blocking, Call, Json, unreachable
from services.client.chat import ROUTE, Piece, Speech
from services.client.errors import ClientError, error_of
from services.client.patience import Patience
from services.client.resources import Resources
from services.client.streams import Stream, away

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")
A = TypeVar("A", bound=Answer)
POLL_SECONDS = 0.5
"""Between two looks at something that is waited for."""


class NotInTime(ClientError):
    """What was waited for has not happened."""


class WentWrong(ClientError):
    """What was waited for will not happen."""


class Circadian(Resources[Blocking], Blocking):
    """Requests with a key; every method raises ClientError. May be used by several threads."""

    def __init__(
        self, url: str, key: str, *, seconds: float = connection.REQUEST_SECONDS, patience: Patience | None = None
    ) -> None:
        super().__init__(self)
        self.url, self._key, self.patience = url.rstrip("/"), key, patience or Patience()
        self.http = httpx.Client(**connection.options(url, key, seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def openai(self, **more: Any) -> OpenAI:
        """The official client, of the same service and key."""
        from openai import OpenAI  # half a second that only its users pay

        return OpenAI(base_url=f"{self.url}/v1", api_key=self._key, **more)

    def request(self, method: str, path: str, body: Any = None, **params: Any) -> httpx.Response:
        """For what has no name here; not repeated."""
        return self.send(Call(method, path, _whole, body, params, repeatable=method == "GET"))

    def send(self, call: Call[T]) -> T:
        for attempt in itertools.count(1):
            outcome = self._once(call)
            wait = self.patience.wait(attempt, call.repeatable, outcome)
            if wait is None:
                break
            time.sleep(wait)
        return call.answer(outcome, self.url)

    def _once(self, call: Call[T]) -> httpx.Response | httpx.TransportError:
        try:
            return self.http.send(call.request(self.http))
        except httpx.TransportError as error:
            return error

    def pages(self, call: Call[Page[A]]) -> Iterator[A]:
        page = self.send(call.page(None))
        yield from page.data
        while page.has_more:
            page = self.send(call.page(page.last_id))
            yield from page.data

    def follow(self, call: Call[None]) -> Iterator[Event]:
        """Consumes lines; produces events; waits for the next line, and between two connections; ends with `done`."""
        stream = Stream(call.path, last=call.params["after_seq"])
        while not stream.done:
            try:
                with self.http.stream(call.method, call.path, headers=stream.headers()) as response:
                    if response.is_error and not away(response):
                        response.read()
                        raise error_of(response)
                    for line in response.iter_lines():
                        if event := stream.hear(line):
                            yield event
                why = away(response) or "it ended without being done"
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            if not stream.done:
                stream.broke(why)
                time.sleep(stream.seconds)

    def chat(self, model: str, messages: Sequence[Json], **more: Any) -> Iterator[Piece]:
        """What a deployment says, as it says it. `more`: store, max_tokens, temperature, ... as OpenAI's clients send them."""
        body = {"model": model, "messages": messages, "stream": True, **more}
        try:
            with self.http.stream("POST", ROUTE, json=body) as response:
                if response.is_error:
                    response.read()
                    raise error_of(response)
                speech = Speech(response.headers)
                for line in response.iter_lines():
                    if piece := speech.hear(line):
                        yield piece
                speech.end()
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    def awake(self, deployment: str, seconds: float) -> DeploymentStatus:
        """The deployment's status, once it is awake. Raises NotInTime, and WentWrong where it failed."""
        deadline = time.monotonic() + seconds
        while (status := self.deployments.status(deployment)).state != "awake":
            if status.state == "failed":
                raise WentWrong(f"deployment {deployment} failed: {status.error}")
            if time.monotonic() > deadline:
                raise NotInTime(f"deployment {deployment} is {status.state}, and was not awake within {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        return status

    def settled(self, rollout: str, seconds: float) -> Rollout:
        """The rollout, once it has ended, one way or another. Raises NotInTime."""
        deadline = time.monotonic() + seconds
        while not (now := self.rollouts.get(rollout)).ended:
            if time.monotonic() > deadline:
                raise NotInTime(f"rollout {rollout} is still {now.status} after {seconds:.0f} s; it goes on")
            time.sleep(POLL_SECONDS)
        return now


def _whole(response: httpx.Response) -> httpx.Response:
    return response

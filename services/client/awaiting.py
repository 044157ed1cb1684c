"""The client that lets others run while it waits: the same calls as blocking.py sends, awaited."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from services.client import connection
from services.client.answers import Answer, Event, Page
from services.client.calls import Awaiting, Call
from services.client.errors import error_of
from services.client.patience import Patience
from services.client.resources import Resources
from services.client.streams import Stream, away

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
A = TypeVar("A", bound=Answer)


class AsyncCircadian(Resources[Awaiting], Awaiting):
    """Requests with a key; every method raises ClientError. Used within one event loop."""

    def __init__(
        self, url: str, key: str, *, seconds: float = connection.REQUEST_SECONDS, patience: Patience | None = None
    ) -> None:
        super().__init__(self)
        self.url, self._key, self.patience = url.rstrip("/"), key, patience or Patience()
        self.http = httpx.AsyncClient(**connection.options(url, key, seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self.http.aclose()

    def openai(self, **more: Any) -> AsyncOpenAI:
        """The official client, of the same service and key."""
        from openai import AsyncOpenAI  # half a second that only its users pay

        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self._key, **more)

    async def send(self, call: Call[T]) -> T:
        for attempt in itertools.count(1):
            outcome = await self._once(call)
            wait = self.patience.wait(attempt, call.repeatable, outcome)
            if wait is None:
                break
            await asyncio.sleep(wait)
        return call.answer(outcome, self.url)

    async def _once(self, call: Call[T]) -> httpx.Response | httpx.TransportError:
        try:
            return await self.http.send(call.request(self.http))
        except httpx.TransportError as error:
            return error

    async def pages(self, call: Call[Page[A]]) -> AsyncIterator[A]:
        page = await self.send(call.page(None))
        for item in page.data:
            yield item
        while page.has_more:
            page = await self.send(call.page(page.last_id))
            for item in page.data:
                yield item

    async def follow(self, call: Call[None]) -> AsyncIterator[Event]:
        """Consumes lines; produces events; waits for the next line, and between two connections; ends with `done`."""
        stream = Stream(call.path, last=call.params["after_seq"])
        while not stream.done:
            try:
                async with self.http.stream(call.method, call.path, headers=stream.headers()) as response:
                    if response.is_error and not away(response):
                        await response.aread()
                        raise error_of(response)
                    async for line in response.aiter_lines():
                        if event := stream.hear(line):
                            yield event
                why = away(response) or "it ended without being done"
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            if not stream.done:
                stream.broke(why)
                await asyncio.sleep(stream.seconds)

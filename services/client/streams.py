"""Server-sent events: where a stream is, what its lines mean, and when it is given up. No network here."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx
from pydantic import ValidationError

from services.client.answers import Event
from services.client.errors import MOST_TEXT, Foreign, Unreachable

CONNECT_ATTEMPTS = 5
"""Times a stream that breaks off is taken up again, without an event between."""
RECONNECT_SECONDS = 1.0
"""Until it is taken up, where the service has not said."""
LONGEST_RECONNECT_SECONDS = 30.0
AWAY = frozenset({502, 503, 504})
"""A stream that is answered so is taken up again: the service is being started anew."""


@dataclass
class Stream:
    """A sleep's events, each once and in order, over as many connections as it takes."""

    path: str
    last: int = 0
    """Number of the last event that was heard."""
    done: bool = False
    failures: int = 0
    seconds: float = RECONNECT_SECONDS
    _event: str = ""
    _data: list[str] = field(default_factory=list)

    def headers(self) -> dict[str, str]:
        """Of the next connection, which begins in the middle of nothing."""
        self._event, self._data = "", []
        return {"Accept": "text/event-stream", "Last-Event-ID": str(self.last)}

    def hear(self, line: str) -> Event | None:
        """An event, once its last line has come. One that was heard before is passed over."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdecimal():
            self.seconds = min(LONGEST_RECONNECT_SECONDS, int(value) / 1000)
        return None if line else self._ended()

    def _ended(self) -> Event | None:
        kind, data = self._event, "\n".join(self._data)
        self._event, self._data = "", []
        if kind == "done":
            self.done = True
        if not data or self.done:
            return None
        try:
            event = Event.model_validate_json(data)
        except ValidationError as error:
            raise Foreign(f"the event stream {self.path} tells what is no event ({data[:MOST_TEXT]!r}); check the URL") from error
        if event.seq <= self.last:
            return None
        self.last, self.failures = event.seq, 0
        return event

    def broke(self, why: str) -> None:
        """It ended without being done. Raises Unreachable where that happens again and again."""
        self.failures += 1
        if self.failures > CONNECT_ATTEMPTS:
            raise Unreachable(f"the event stream {self.path} breaks off again and again ({why})")


def away(response: httpx.Response) -> str | None:
    """Why a stream could not begin, where it may be tried again."""
    return f"status {response.status_code}" if response.status_code in AWAY else None

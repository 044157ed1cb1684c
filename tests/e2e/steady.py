"""Clients that never stop: one asks and asks, one tells and tells, whatever is killed meanwhile."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from supervised import Away

ASK_SECONDS, TELL_SECONDS = 0.2, 1.0
"""Between two questions, and between two things that are told: a load that a small machine does not notice."""
ANSWER_SECONDS = 400.0
"""Above the service's own limit, so that it is the service that says what took too long."""


@dataclass(frozen=True)
class Answer:
    """One request: when, to which seat, and what came back; status None where no whole answer came."""

    began: float
    ended: float
    seat: int
    status: int | None
    version: str | None = None
    said: str = ""


@dataclass
class Steady:
    """Two threads, from `with` to its end. Each request goes to the next controller in turn."""

    urls: list[str]
    key: str
    model: str
    statements: Sequence[str] = ()
    """What is told; without any, questions alone are asked."""
    answers: list[Answer] = field(default_factory=list)
    told: list[Answer] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Ids of the experiences that a controller has accepted with 201."""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._ask, self._tell)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS)

    def refused(self, away: dict[int, list[Away]], excused: Sequence[Away] = ()) -> list[Answer]:
        """What failed and may not: requests that reached no controller are counted only where one was there all the time; `excused`:
        when answers may be errors, because there was nobody to answer."""
        found = []
        for one in [*self.answers, *self.told]:
            gone = one.status is None and any(gap.touches(one.began, one.ended) for gap in away[one.seat])
            excuse = one.status == 503 and any(gap.touches(one.began, one.ended) for gap in excused)
            if one.status not in (200, 201) and not gone and not excuse:
                found.append(one)
        return found

    def versions(self, since: float, until: float = float("inf")) -> list[str]:
        """That answered requests which began in this time, each once, in the order in which they were first met."""
        said = (one.version for one in self.answers if one.status == 200 and since <= one.began <= until)
        return list(dict.fromkeys(version or "" for version in said))

    def _ask(self) -> None:
        body = {"model": self.model, "messages": [{"role": "user", "content": "what is the city of mira ?"}], "max_tokens": 1}
        self._send("/v1/chat/completions", itertools.repeat(body), self.answers, ASK_SECONDS)

    def _tell(self) -> None:
        bodies = ({"deployment": self.model, "messages": [{"role": "user", "content": text}]} for text in self.statements)
        self._send("/v1/experiences", bodies, self.told, TELL_SECONDS)

    def _send(self, path: str, bodies: Iterator[Any], answers: list[Answer], pause: float) -> None:
        """Each until somebody has answered."""
        seats, body = itertools.cycle(range(len(self.urls))), next(bodies, None)
        while body is not None and not self._over.wait(pause):
            answers.append(self._sent(path, body, next(seats)))
            body = next(bodies, None) if answers[-1].status is not None else body

    def _sent(self, path: str, body: Any, seat: int) -> Answer:
        headers, began = {"Authorization": f"Bearer {self.key}"}, time.time()
        try:
            got = httpx.post(f"{self.urls[seat]}{path}", json=body, headers=headers, timeout=ANSWER_SECONDS)
        except httpx.TransportError as error:
            return Answer(began, time.time(), seat, None, said=repr(error))
        if got.status_code == 201:
            self.kept.append(got.json()["id"])
        version = got.headers.get("x-deployment-version")
        return Answer(began, time.time(), seat, got.status_code, version, "" if got.is_success else got.text)

"""One attempt to deliver a message: the address is checked and pinned, the message signed and sent, the answer judged.

    2xx                 delivered
    410                 gone: the endpoint wants no more
    3xx                 failed: a redirect is not followed, it could lead anywhere
    429, 503            failed; Retry-After is passed on
    all else            failed: other answers, an address that is forbidden, no connection, no proof of the name, no answer in time

An answer counts once its body has ended, or as much of it has come as is read at all; the body itself is thrown away, because whoever
may see it could read what answers inside the network. Every attempt has a connection of its own: a pool keeps connections by
address, and would send one name's message over a connection that another name has proved. The transport is used without a client, which
would log the URL, and look for proxies and passwords in the environment.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus

import httpx

from services.webhooks import signing
from services.webhooks.address import ForbiddenAddress, Resolver, Target, allowed, resolve
from services.webhooks.reach import Reach

LOOKUPS_AT_ONCE = 8
"""Names that are resolved at the same time, in threads of their own: one that is slow to resolve must hold up webhooks only."""
HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
MAY_POSTPONE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


class Verdict(StrEnum):
    DELIVERED = "delivered"
    RETRY = "retry"
    GONE = "gone"


@dataclass(frozen=True)
class Attempt:
    """What came of it."""

    verdict: Verdict
    reason: str
    """For people."""
    status: int | None = None
    """None where nothing was answered."""
    retry_after: float | None = None
    """Seconds that the receiver asks for."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Message:
    """What is sent, and where to."""

    id: str
    """The same at each attempt: receivers tell repetitions by it."""
    body: str = field(repr=False)
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """The current one first."""


class Courier:
    """Makes attempts. A file of authorities that cannot be read raises OSError (ssl.SSLError) here, and not at the first delivery."""

    def __init__(self, reach: Reach | None = None, resolve: Resolver = resolve) -> None:
        self.reach = reach or Reach()
        self._resolve = resolve
        self._tls = httpx.create_ssl_context(trust_env=False)
        if self.reach.ca_file is not None:
            self._tls.load_verify_locations(cafile=self.reach.ca_file)
        self._lookups = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="webhook-dns")

    def close(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def target(self, url: str) -> Target:
        """Where the URL leads now, to refuse it before anything is to be sent. Blocks. Raises ForbiddenAddress."""
        return allowed(url, self.reach.allow_private, self._resolve)

    async def deliver(self, message: Message) -> Attempt:
        """One attempt. Raises nothing that a receiver or a URL could bring about."""
        started = time.monotonic()
        status, reason, asked = await self._tried(message)
        return Attempt(_verdict(status), reason, status, asked, round(time.monotonic() - started, 3))

    async def _tried(self, message: Message) -> tuple[int | None, str, float | None]:
        """The answer's status, the reason and the seconds asked for."""
        try:
            async with asyncio.timeout(self.reach.seconds):
                target = await asyncio.get_running_loop().run_in_executor(self._lookups, self.target, message.url)
                response = await self._answer(target, message)
        except ForbiddenAddress as error:
            return None, str(error), None
        except TimeoutError:
            return None, f"there was no whole answer within {self.reach.seconds:g} s", None
        except httpx.ProtocolError:
            # Its text quotes what came, which may be the greeting of something that is no receiver.
            return None, "the connection ended before the answer did, or what came was no HTTP", None
        except (httpx.TransportError, ssl.SSLError) as error:
            # httpx does not wrap what TLS says after the handshake.
            return None, f"the connection failed: {str(error) or 'it broke off'}", None
        asked = response.headers.get("retry-after") if response.status_code in MAY_POSTPONE else None
        return response.status_code, _reason(response.status_code), retry_after(asked, time.time())

    async def _answer(self, target: Target, message: Message) -> httpx.Response:
        """The answer, of which the body is gone."""
        headers = {
            "host": target.authority,
            "user-agent": "Circadian-Webhooks",
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
            "content-type": "application/json",
            **signing.headers(message.id, message.body, message.secrets, time.time()),
        }
        extensions = {"sni_hostname": target.name}
        request = httpx.Request("POST", target.url, headers=headers, content=message.body.encode(), extensions=extensions)
        async with httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            async with aclosing(response):
                await self._read(response)
        return response

    async def _read(self, response: httpx.Response) -> None:
        left = self.reach.most_answer_bytes
        async for piece in response.aiter_raw():
            left -= len(piece)
            if left <= 0:
                return


def _verdict(status: int | None) -> Verdict:
    if status == HTTPStatus.GONE:
        return Verdict.GONE
    return Verdict.DELIVERED if status is not None and 200 <= status < 300 else Verdict.RETRY


def _reason(status: int) -> str:
    if 300 <= status < 400:
        return f"it answered {status}, and redirects are not followed; give the URL that they lead to"
    return f"it answered {status}"


def retry_after(text: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None where it holds neither."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]+", text.strip()):
        return float(text)
    try:
        at = datetime.strptime(text.strip(), HTTP_DATE).replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(at.timestamp() - now, 0.0)

"""What both clients connect with."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import httpx

from services.client.errors import Unreachable

REQUEST_SECONDS = 330.0
"""Above the service's own limits, so that it is the service that says what took too long."""
CONNECT_SECONDS = 10.0
CONNECTIONS = 64
"""Kept open together: a pool that closes idle connections while other threads take them hands out closed ones."""
LIMITS = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)


@cache
def tls() -> ssl.SSLContext:
    """Read once: the list of authorities is long."""
    return httpx.create_ssl_context()


def options(url: str, key: str, seconds: float) -> dict[str, Any]:
    """Of an httpx client. Raises Unreachable for what is no URL."""
    try:
        httpx.URL(url)
        headers = httpx.Headers({"Authorization": f"Bearer {key}"})
    except httpx.InvalidURL as error:
        raise Unreachable(f"{url!r} is no URL ({error}); give one such as http://127.0.0.1:8700") from error
    except UnicodeEncodeError as error:
        raise Unreachable("the key has characters that no key has; copy it again") from error
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    return {"base_url": url, "headers": headers, "timeout": timeout, "limits": LIMITS, "verify": tls()}

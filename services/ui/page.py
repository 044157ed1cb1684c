"""The page /ui: files of this package, with headers that let a browser run them and nothing else.

The page holds no data: what it shows it asks of the REST interface, with a key that whoever looks has typed in. So its files need no key,
and the browser is told to load nothing from elsewhere, to run no script that is written into a page, and (trusted types) to refuse any
attempt to make HTML of a text.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Asked again each time (and mostly answered 304): after an upgrade no old script speaks to a new service.
    "cache-control": "no-cache",
}


class Page(StaticFiles):
    """Serves services/ui/static."""

    def __init__(self) -> None:
        super().__init__(packages=[("services.ui", "static")], html=True)

    def file_response(self, *args: Any, **more: Any) -> Response:
        response = super().file_response(*args, **more)
        response.headers.update(HEADERS)
        return response

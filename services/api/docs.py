"""/docs: the interface, to read and to try out, in a browser. The page says nothing about the service until a key is typed into it.

Swagger UI comes from the installed package `fastapi-offline`; nothing else of that package is used. The page may load from this service
and from nowhere else: its Content-Security-Policy says so to the browser.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Response

from services.errors import not_found

router = APIRouter(include_in_schema=False)
PAGES, SWAGGER = files("services.api") / "pages", files("fastapi_offline") / "static"
PARTS: dict[str, tuple[Traversable, str]] = {
    "page.js": (PAGES / "docs.js", "text/javascript"),
    "page.css": (PAGES / "docs.css", "text/css"),
    "swagger-ui.js": (SWAGGER / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (SWAGGER / "swagger-ui.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Swagger UI sets styles on its elements."""


@router.get("/docs")
def page() -> Response:
    return Response((PAGES / "docs.html").read_bytes(), headers=HEADERS, media_type="text/html")


@router.get("/docs/{name}")
def part(name: str) -> Response:
    if name not in PARTS:
        raise not_found("page", name)
    file, kind = PARTS[name]
    return Response(file.read_bytes(), headers=HEADERS, media_type=kind)

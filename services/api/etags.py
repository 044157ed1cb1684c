"""Names of what an object says now: `ETag`, and `If-None-Match` for who has it already."""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from typing import Any

from fastapi import Response


def etag(view: Any) -> str:
    """Of an object as it is told."""
    return f'"{hashlib.sha256(json.dumps(view, sort_keys=True, default=str).encode()).hexdigest()[:32]}"'


def known(tag: str, if_none_match: str | None) -> bool:
    """Whether a client has it; `*` has any."""
    given = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return "*" in given or tag in given


def not_modified(tag: str) -> Response:
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})

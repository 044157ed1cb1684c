"""A client without patience: the tests that kill things must see every answer, and not the last of several."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx

Json = dict[str, Any]
REQUEST_SECONDS, POLL_SECONDS, PAGE = 330.0, 0.5, 100


class Asking:
    """Requests with a key; every method raises httpx.HTTPStatusError where the service answers with an error."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=REQUEST_SECONDS)

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **params: Any) -> Json:
        return self.http.get(path, params=params).raise_for_status().json()

    def post(self, path: str, body: Json) -> Json:
        return self.http.post(path, json=body).raise_for_status().json()

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Every item of a list."""
        after: Json = {}
        while True:
            page = self.get(path, limit=PAGE, **params, **after)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def awake(self, deployment: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (status := self.get(f"/v1/deployments/{deployment}/status"))["state"] != "awake":
            assert status["state"] != "failed", status["error"]
            assert time.monotonic() < deadline, f"{deployment} was not awake within {seconds:.0f} s"
            time.sleep(POLL_SECONDS)

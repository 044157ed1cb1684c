"""What tests of the page do in a browser, and what they ask of every page."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, browser, program
from in_memory import KEY, Service

DESKTOP, PHONE = (1280, 800), (390, 844)


@contextmanager
def opened(url: str, profile: Path) -> Iterator[Tab]:
    """A browser that has given its key; skips, and says so, on a machine without one."""
    if program() is None:
        pytest.skip("NO CHROMIUM HERE: the page is not tested; install it (apt-get install chromium-headless-shell)")
    with browser(profile) as tab:
        tab.size(*DESKTOP)
        tab.scheme("light")
        tab.open(f"{url}/ui/")
        tab.fill("key", KEY)
        tab.press("Open")
        tab.shows("Deployments")
        yield tab


def go(tab: Tab, *way: str) -> None:
    """To a page, afresh."""
    tab.run(f"location.hash = '', location.hash = {json.dumps('#/' + '/'.join(way))}")


def look(tab: Tab, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    """At the deployment."""
    tab.size(*size)
    tab.scheme(scheme)
    go(tab, "deployments", "toy")


def picture(tab: Tab, name: str, whole: bool = False) -> None:
    """One for the documentation, where somebody has asked for them."""
    if folder := os.environ.get("CIRCADIAN_PICTURES"):
        tab.until("document.getElementById('toast').textContent === ''")
        time.sleep(0.5)  # pictures are of a page that has come to rest
        tab.picture(Path(folder) / f"ui-{name}.png", whole)


def nights(service: Service, **query: Any) -> dict[str, Any]:
    answer = service.client.get("/v1/deployments/toy/nights", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()

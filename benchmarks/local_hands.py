"""The heavy work of dreaming in this process (actors/dreamwork.py: Hands)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.dreamwork import Hands, Request, loaded
from benchmarks.nights.meter import metered


class LocalHands(Hands):
    """One pack after the other."""

    def do(self, work: Callable[[str], Any], requests: Sequence[Request]) -> list[Any]:
        for request in requests:
            metered(loaded(request.model))  # it stays loaded, so that what it spends is counted
        return [work(request.model_dump_json()) for request in requests]

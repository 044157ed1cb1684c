"""The heavy work of dreaming in this process (actors/dreamwork.py: Hands)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actors.dreamwork import (
    DreamingModel,
    NovelRequest,
    Texts,
    TuneRequest,
    WeighRequest,
    loaded,
    novel_in_process,
    packs,
    tune_in_process,
    weigh_in_process,
)
from benchmarks.nights.meter import metered
from circadian.specs.dreaming import AdapterSpec


class LocalHands:
    """One pack after the other."""

    def __init__(self, pack_tokens: int) -> None:
        self.pack_tokens = pack_tokens

    def weigh(self, model: DreamingModel, texts: Texts, adapter: AdapterSpec, seed: int) -> list[list[float]]:
        wide = packs(texts, max(map(len, texts), default=1), self.pack_tokens)
        return _all(weigh_in_process, [WeighRequest(model=model, pack=pack, adapter=adapter, seed=seed) for pack in wide])

    def tune(self, model: DreamingModel, texts: Texts, adapter: AdapterSpec, seed: int, folder: Path) -> list[list[float]]:
        own = packs(texts, adapter.batch, self.pack_tokens)
        requests = [TuneRequest(model=model, pack=pack, adapter=adapter, seed=seed, folder=str(folder)) for pack in own]
        return _all(tune_in_process, requests)

    def novel(self, request: NovelRequest) -> None:
        novel_in_process(request.model_dump_json())


def _all(work: Callable[[str], list[Any]], requests: Sequence[WeighRequest | TuneRequest]) -> list[Any]:
    for request in requests:
        metered(loaded(request.model))  # it stays loaded, so that what it spends is counted
    found = {n: one for request in requests for n, one in zip(request.pack.numbers, work(request.model_dump_json()), strict=True)}
    return [found[n] for n in range(len(found))]

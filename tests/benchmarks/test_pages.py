"""What the pages say of a benchmark is what its result in git says."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from benchmarks import seeding, serving, stages, wake_modes
from benchmarks.accelerator import tables as accelerator
from benchmarks.dreaming import cost
from benchmarks.dreaming import tables as dreaming
from benchmarks.learner import tables as learner
from benchmarks.nights import tables as nights
from benchmarks.service import tables as service

RESULTS = {
    "accelerator.json": accelerator,
    "learner.json": learner,
    "nights.json": nights,
    "stages.json": stages,
    "serving.json": serving,
    "service.json": service,
    "dreaming.json": dreaming,
    "dreaming_cost.json": cost,
    "seeding.json": seeding,
    "wake_modes.json": wake_modes,
}


@pytest.mark.parametrize(("name", "tables"), RESULTS.items())
def test_a_page_shows_the_result_that_is_in_git(name: str, tables: ModuleType) -> None:
    result = json.loads((stages.RESULT.parent / name).read_text())
    result = result["about"] if name in ("learner.json", "dreaming.json") else result
    assert tables.tables(result) in tables.PAGE.read_text()

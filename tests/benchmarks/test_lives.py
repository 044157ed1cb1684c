"""A life that was lived with something else is not taken for one that is asked for now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lives import Life, Lives
from benchmarks.nights.__main__ import METHODS, RESULT, life_of, tune
from benchmarks.nights.arms import ARMS

RATE = 2e-2


def recorded(life: Life, into: Path, **instead: object) -> Life:
    """The life, with a record that says it was asked for this instead."""
    request = json.loads(json.dumps(vars(life.request))) | instead
    path = into / life.record.name
    path.write_text(json.dumps({"request": request}))
    return Life(life.program, life.request, life.work, path, life.held)


@pytest.mark.parametrize("method", [*ARMS, "sft"])
def test_a_life_that_was_lived_as_it_is_asked_for_is_not_lived_again(method: str, tmp_path: Path) -> None:
    life = life_of(method, 0, 10, RATE, None)
    assert recorded(life, tmp_path).recorded() is not None
    assert recorded(life, tmp_path, folder="elsewhere", budget=7).recorded() is not None, "which changes nothing of the life"


@pytest.mark.parametrize("method", ["distillation", "sleep"])
def test_a_life_of_another_recipe_is_another_life(method: str, tmp_path: Path) -> None:
    life = life_of(method, 0, 10, RATE, None)
    other = ARMS["half_own"].told(RATE)
    assert recorded(life, tmp_path, recipe=other).recorded() is None
    assert recorded(life, tmp_path, recipe=None).recorded() is None, "nobody knows how it was lived"


def test_what_a_record_does_not_name_came_later(tmp_path: Path) -> None:
    life = life_of("distillation", 0, 10, RATE, None)
    known = ARMS["distillation"].told(RATE)
    del known["recipe"]["seeding"]["ahead"]
    assert recorded(life, tmp_path, recipe=known).recorded() is not None


def test_what_was_lived_is_what_tuning_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the records in git: who runs the command again lives nothing twice, and no rate was picked by hand."""

    def recorded_only(life: Life) -> dict[str, Any]:
        record = life.recorded()
        assert record is not None, f"{life.record.name} is not in git"
        return record

    monkeypatch.setattr(Life, "lived", recorded_only)
    with Lives(1) as bench:
        rates = tune(bench, METHODS)
    told = json.loads(RESULT.read_text())
    assert {method: told[method]["lr"] for method in METHODS} == {
        method: rates.get(method, rates["distillation"]) for method in METHODS
    }

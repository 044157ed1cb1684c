"""A night on a terminal, and where there is none."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from services.client.answers import Event
from services.display import NightDisplay


def shown(terminal: bool, *events: tuple[str, str, dict[str, Any]]) -> tuple[str, NightDisplay]:
    file = io.StringIO()
    with NightDisplay(Console(file=file, force_terminal=terminal, width=120)) as display:
        for seq, (kind, message, data) in enumerate(events):
            display.show(Event(type=kind, seq=seq, message=message, data=data))
    return file.getvalue(), display


NIGHT = (
    ("sleep.stage_started", "", {"stage": "knowledge_seeding"}),
    ("sleep.progress", "", {"step": 120, "total_steps": 400, "loss": 0.4321}),
    ("sleep.gate_passed", "gate passed", {"agreement": 0.975, "dreamt": None, "forgotten": 0.0}),
    ("sleep.checkpoint_saved", "a checkpoint", {}),
)


def test_a_terminal_shows_stage_step_and_loss_and_the_gates_recall() -> None:
    text, _ = shown(True, *NIGHT)
    assert all(
        words in text for words in ("knowledge seeding", "120/400  loss 0.432", "gate passed (recall 0.975, forgotten 0.000)")
    )
    assert "checkpoint" not in text


def test_elsewhere_it_is_lines_and_no_bars() -> None:
    text, display = shown(False, *NIGHT, ("sleep.stage_finished", "", {"stage": "knowledge_seeding", "seconds": 65.66}))
    assert text.splitlines() == [
        "  knowledge_seeding ...",
        "sleep.gate_passed            gate passed (recall 0.975, forgotten 0.000)",
        "  knowledge_seeding 65.7 s",
    ]
    assert display.seconds == {"knowledge_seeding": 65.66}


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_of_a_stage_that_nobody_has_begun_is_passed_over(terminal: bool) -> None:
    text, _ = shown(terminal, ("sleep.progress", "", {"step": 1, "total_steps": 2, "loss": 1.0}))
    assert "1/2" not in text

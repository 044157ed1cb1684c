"""What the picture of a night shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from services.depths import DEPTHS, DREAMING, depth_of
from services.picture import draw_night

NIGHT = ["collect", "learn_fast_level", "dream_corpus", "knowledge_seeding", "knowledge_seeding_level-2", "gate", "dawn"]
DREAMS = ["dream_tasks", "dream_write_0", "dream_weigh_0", "dream_try_0", "dream_reinforce_0", "dream_keep", "dream_learn"]
MOMENTS = {"before": 0.0, "awake": 1.0, "after": 1.0}


def words(stages: list[str], path: Path) -> str:
    def event(kind: str, at: float, **data: Any) -> dict[str, Any]:
        return {"type": kind, "created_at": at, "data": data}

    events = [event("sleep.stage_started", float(i), stage=stage) for i, stage in enumerate(stages)]
    events += [
        event("deployment.fast_memory_live", 1.5),
        *(
            event("sleep.progress", 2.0 + i, task=task, loss=1.0 / (1 + i))
            for task in ("fast_learning", "seeding")
            for i in range(3)
        ),
        event("version.promoted", len(stages) - 0.5),
        event("sleep.succeeded", float(len(stages))),
    ]
    draw_night({"recall": MOMENTS, "base": MOMENTS}, sorted(events, key=lambda one: one["created_at"]), path)
    return " ".join(ElementTree.parse(path).getroot().itertext())


def test_dreams_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    plain, dreaming = words(NIGHT, tmp_path / "plain.svg"), words([*NIGHT[:-2], *DREAMS, *NIGHT[-2:]], tmp_path / "dreams.svg")
    for label in DEPTHS:
        assert label in dreaming
        assert (label in plain) == (label != DREAMING)


@pytest.mark.parametrize(
    ("stage", "label"),
    [
        ("knowledge_seeding", "knowledge seeding"),
        ("knowledge_seeding_merge-1-0", "knowledge seeding"),
        ("dream_corpus_dream-1", "teachers write"),
        ("dream_write_final", DREAMING),
        ("dream_learn", "dusk, gate"),
        ("dream_keep", None),
        ("dawning", None),
    ],
)
def test_every_transfer_of_a_night_is_drawn(stage: str, label: str | None) -> None:
    assert depth_of(stage) == label

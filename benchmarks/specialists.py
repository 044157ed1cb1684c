"""The small teachers of benchmarks/seeding.py: trained once a seed, then read from runs/."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Literal

from circadian.nursery.specialists import SPECIALIST, SpecialistCurriculum, build_other_tokenizer
from circadian.nursery.text import build_tokenizer
from circadian.nursery.train import pretrain
from circadian.nursery.world import Day, World

log = logging.getLogger(__name__)
Speech = Literal["same", "other"]
SPEECHES: tuple[Speech, ...] = ("same", "other")
"""The student's tokenizer, or another one."""
TEACHERS = 2
FACTS = 32
"""That each teacher knows and nobody else does."""


def lessons_of(world: World, seed: int) -> list[Day]:
    """What each teacher of a seed knows, and the question forms that are kept for the test: the same for all of them."""
    days = world.days(FACTS, seed)
    return [next(days) for _ in range(TEACHERS)]


def specialist(root: Path, world: World, day: Day, seed: int, number: int, speech: Speech) -> Path:
    """The folder of a teacher, trained where it is not there yet."""
    folder = root / f"{seed}-{number}-{speech}"
    if (folder / "config.json").exists():
        return folder
    tokenizer = build_tokenizer(world) if speech == "same" else build_other_tokenizer(world)
    spec = SPECIALIST.model_copy(update={"seed": seed * TEACHERS + number})
    started = time.perf_counter()
    model, tokenizer = pretrain(spec, None, SpecialistCurriculum(world, tokenizer, day.facts, spec))
    log.info("teacher %s: trained in %.0f s", folder.name, time.perf_counter() - started)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder

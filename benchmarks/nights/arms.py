"""The arms of Sleep: what each one sleeps with, and what is left out of it.

    sleep          the whole objective: distillation and imitation, judged by the base's embeddings
    distillation   without imitation (alpha 1): the default recipe of the service
    lexical        without the semantic reward
    reused         without expansion: one expert for all nights, written on and on
    no_old_cues    without the cues of earlier nights
    literal        with the paper's one teacher, the awake self, for everything
    off_policy     without the student's own writing (lambda 0)
    half_own       with half of the rows of the student's own writing instead of a quarter (lambda 0.5)
    still          nothing is written ahead: learning stands still while the student writes (like `distillation` in all else)
    one_expert     `distillation` without expansion

And by what the memory is made of, with the default recipe, like `distillation`, which has two levels:

    all_layers     `half_own` with memory in all four layers of the nursery, at half the rank: as many weights as it has in the upper two
    one_level      the fast level alone: it learns day after day and is never consolidated
    three_levels   the second level hands on to a third whenever its period of 8,192 tokens is over, about every fourth night
    full_level     a second level of four experts, of which two are merged every night once it is full
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from circadian.specs import Level, MemorySpec, Recipe

IMITATION: dict[str, Any] = {"alpha": 0.8, "imitation": {"judge": {"kind": "embedding"}}}
HALF: dict[str, Any] = {"on_policy_share": 0.5}

TWO_LEVELS = MemorySpec()
FAST, SLOW = TWO_LEVELS.levels
THREE = (FAST, SLOW.model_copy(update={"experts": 6}), Level(period=65536, experts=6))
"""A second level that is emptied into a third."""
FOUR_PLACES = (FAST, SLOW.model_copy(update={"experts": 4}))
THIN = tuple(level.model_copy(update={"rank": level.rank // 2}) for level in (FAST, SLOW))


@dataclass(frozen=True)
class Arm:
    """One way to sleep."""

    seeding: dict[str, Any] = field(default_factory=dict)
    memory: MemorySpec = TWO_LEVELS
    when_full: str = "refuse"
    expands: bool = True
    consolidates: bool = True
    old_cues: bool = True
    literal: bool = False

    def recipe(self, lr: float | None) -> Recipe:
        """Of its nights; lr: None is the default."""
        seeding = self.seeding | ({} if lr is None else {"lr": lr})
        return Recipe.model_validate({"seeding": seeding, "when_full": self.when_full})

    def told(self, lr: float | None) -> dict[str, Any]:
        """All that it sleeps with, as JSON: a record that names another recipe is of another life."""
        ways = {name: getattr(self, name) for name in ("expands", "consolidates", "old_cues", "literal")}
        return {"recipe": self.recipe(lr).model_dump(mode="json"), "memory": self.memory.model_dump(mode="json")} | ways


ARMS: dict[str, Arm] = {
    "sleep": Arm(seeding=IMITATION),
    "distillation": Arm(),
    "lexical": Arm(seeding={"alpha": 0.8}),
    "reused": Arm(seeding=IMITATION, expands=False),
    "no_old_cues": Arm(seeding=IMITATION, old_cues=False),
    "literal": Arm(seeding=IMITATION, literal=True),
    "off_policy": Arm(seeding={"on_policy_share": 0.0}),
    "half_own": Arm(seeding=HALF),
    "still": Arm(seeding={"ahead": False}),
    "one_expert": Arm(expands=False),
    "all_layers": Arm(seeding=HALF, memory=MemorySpec(levels=THIN, layers=(0, 1, 2, 3))),
    "one_level": Arm(consolidates=False),
    "three_levels": Arm(memory=MemorySpec(levels=THREE)),
    "full_level": Arm(memory=MemorySpec(levels=FOUR_PLACES), when_full="merge"),
}

WIDE = tuple(level.model_copy(update={"rank": 192}) for level in (FAST, SLOW))
UPPER_THREE = tuple(level.model_copy(update={"rank": 96}) for level in (FAST, SLOW))

TRIALS: dict[str, Arm] = {
    "trial_half_own": Arm(seeding=HALF),
    "trial_more_old": Arm(seeding=HALF | {"free_share": 0.25}),
    "trial_wide": Arm(seeding=HALF, memory=MemorySpec(levels=WIDE)),
    "trial_upper_three": Arm(seeding=HALF, memory=MemorySpec(levels=UPPER_THREE, layers=(1, 2, 3))),
    "trial_more_rows": Arm(seeding=HALF | {"rows": 48}),
    "trial_larger_steps": Arm(seeding=HALF | {"rows": 48, "steps": 200}),
    "trial_largest_steps": Arm(seeding=HALF | {"rows": 64, "steps": 150}),
    "trial_smaller_steps": Arm(seeding=HALF | {"rows": 24, "steps": 400, "refresh_steps": 67}),
    "trial_smallest_steps": Arm(seeding=HALF | {"rows": 16, "steps": 600, "refresh_steps": 100}),
    "trial_quarter_own": Arm(),
    "trial_quarter_own_slower": Arm(seeding={"lr": 1e-2}),
    "trial_imitate": Arm(seeding=IMITATION | HALF),
    "trial_imitate_lightly": Arm(seeding=IMITATION | HALF | {"alpha": 0.95}),
    "trial_imitate_widely": Arm(seeding=IMITATION | HALF | {"student_rows": 1024}),
    "trial_imitate_quarter": Arm(seeding=IMITATION),
}
"""What was the default (`half_own`) with one thing changed, of which `trial_quarter_own` is the default now; then the whole objective
(`sleep`), with one thing changed (benchmarks/nights/trials.py)."""

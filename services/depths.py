"""How deep a stage of a night is drawn in a hypnogram: one table for the pictures and the page."""

from __future__ import annotations

DREAMING = "dreaming"
DEPTHS = {
    "awake": ("dawn",),
    DREAMING: ("dream_tasks", "dream_write", "dream_weigh", "dream_try", "dream_reinforce"),
    "dusk, gate": ("learn_fast_level", "dream_learn", "gate"),
    "teachers write": ("dream_corpus",),
    "knowledge seeding": ("knowledge_seeding",),
}
"""From the top down, the stages that are drawn there, also where their names go on (`dream_write_0`, `knowledge_seeding_level-2`). What
is not named here takes no visible time. Dreams are drawn just below waking, as REM sleep is, and only where there are any."""


def depth_of(stage: str) -> str | None:
    """Where a stage is drawn, if it is."""
    return next((label for label, stages in DEPTHS.items() if any(f"{stage}_".startswith(f"{name}_") for name in stages)), None)

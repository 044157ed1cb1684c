"""`dry_run`: what a sleep would be if it were begun now. Nothing is written."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from circadian.memory.folder import memory_spec, version_state
from circadian.memory.state import ExpertState, LevelFull
from circadian.specs import NightJob, Recipe
from pipelines.moves import moves
from services import forecast
from services.budget import gpus
from services.forecast import Move, Took
from services.selection import Chosen
from services.settings import Settings
from services.sleep_template import SleepTemplate
from services.sleeping import allowed
from services.tables import Deployment, Json

FREE = (ExpertState.RESERVED, ExpertState.PRUNED)


def looked_ahead(tx: Session, deployment: Deployment, template: SleepTemplate) -> tuple[Recipe, Chosen, list[str], list[Took]]:
    """What the registry knows of it. Raises Problem where the sleep could not begin now."""
    recipe, chosen = allowed(tx, deployment, template)
    return recipe, chosen, *forecast.earlier(tx, deployment.id)


def plan(
    settings: Settings,
    deployment: Deployment,
    template: SleepTemplate,
    recipe: Recipe,
    chosen: Chosen,
    nights: list[str],
    took: list[Took],
) -> Json:
    """The whole plan, as clients see it. Reads the parent version's folder."""
    parent = settings.version_folder(deployment.id, deployment.active_version)
    moves, dream_moves, refusal = _moves(parent, recipe, chosen)
    found = forecast.stages(recipe, moves, dream_moves, len(chosen.ids), chosen.tokens)
    mean = chosen.tokens / len(chosen.ids) if chosen.ids else 0.0
    asked = recipe.model_dump(mode="json")
    told = forecast.estimate(found, took, recipe, mean, gpus(asked))
    budget = template.budget.model_dump(exclude_none=True)
    told["estimate"]["nights"] = nights
    return {
        "object": "sleep.plan",
        "deployment": deployment.id,
        "parent_version": deployment.active_version,
        "recipe": asked,
        "experiences": {"count": len(chosen.ids), "tokens": chosen.tokens, "left": chosen.left},
        "levels": _levels(parent),
        "moves": [forecast.transfer_of(move) for move in (*moves, *dream_moves)],
        **told,
        "budget": budget,
        "beyond_budget": forecast.beyond(budget, told["estimate"]),
        "would_fail": refusal,
    }


def _moves(parent: Path, recipe: Recipe, chosen: Chosen) -> tuple[list[Move], list[Move], Json | None]:
    """What the night would move, or why it would fail before any work."""
    job = NightJob(sleep="slp_dry_run", deployment="", parent=str(parent), child="", home="", experiences="", recipe=recipe)
    try:
        planned, dreams = moves(job, chosen.tokens, met=bool(chosen.ids))
    except LevelFull as error:
        return [], [], {"code": "level_full", "message": str(error), "category": "user"}
    return list(planned), list(dreams), None


def _levels(parent: Path) -> list[Json]:
    """Of the version that would fall asleep, fastest level first."""
    levels = zip(memory_spec(parent).levels, version_state(parent).experts, strict=True)
    return [
        {"level": number, "period": level.period, "experts": len(states), "free": sum(state in FREE for state in states)}
        for number, (level, states) in enumerate(levels)
    ]

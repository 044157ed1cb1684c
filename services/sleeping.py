"""How a sleep begins, whoever asks for it: in one transaction its row, its experiences and its first event."""

from __future__ import annotations

from sqlalchemy.orm import Session

from circadian.specs import Recipe
from services import fast_registry, placement, promotion, registry
from services.errors import Problem
from services.fleet import ServingSpec
from services.probing import for_night
from services.selection import Chosen, choose, take
from services.sleep_template import SleepTemplate
from services.tables import Deployment, Sleep, new_id
from services.trace_context import begun, here


def recipe_of(deployment: Deployment, template: SleepTemplate) -> Recipe:
    """The template's, or the deployment's; with the template's teachers, where it names any."""
    recipe = template.recipe or Recipe.model_validate(deployment.recipe)
    return recipe if template.teachers is None else recipe.model_copy(update={"teachers": template.teachers})


def needs_experiences(recipe: Recipe) -> bool:
    """Whether a sleep has nothing to do without any."""
    return not recipe.teachers and not (recipe.dreaming and recipe.dreaming.tasks)


def begin(
    tx: Session,
    deployment: Deployment,
    template: SleepTemplate,
    *,
    id: str | None = None,
    digest: str = "",
) -> Sleep:
    """The sleep, queued. Raises Problem where another one is active, or where there is nothing to sleep on; the database itself refuses a
    second active one that was begun at the same time (IntegrityError)."""
    deployment = registry.held(tx, deployment.id)
    fast_registry.locked(tx, deployment.id)
    recipe, chosen = allowed(tx, deployment, template)
    row = Sleep(
        id=id or new_id("slp"),
        deployment=deployment.id,
        seed=template.seed,
        recipe=recipe.model_dump(mode="json"),
        promotion=template.promotion.model_dump(mode="json") if template.promotion else {},
        placement=template.placement,
        held_out=list(template.held_out),
        probes=[probe.model_dump(mode="json") for probe in for_night(tx, deployment.id, template.gates)],
        request_sha256=digest,
        selection=template.selection.model_dump(mode="json", exclude_none=True),
        budget=template.budget.model_dump(mode="json", exclude_none=True),
        parent_version=deployment.active_version,
        child_version=new_id("ver"),
        meta=template.metadata,
        trace=begun(),
        asked_trace=here(),
    )
    tx.add(row)
    tx.flush()
    take(tx, row.id, chosen.ids)
    count, waiting = len(chosen.ids), chosen.left
    message = f"{count} experiences to sleep on" + (f", {len(recipe.teachers)} teachers" if recipe.teachers else "")
    told = {"experiences": count, "teachers": len(recipe.teachers)} | ({"over_caps": waiting} if waiting else {})
    registry.append_event(
        tx, row, "sleep.queued", message + (f"; {waiting} more wait, over the caps or the budget" if waiting else ""), told
    )
    return row


def allowed(tx: Session, deployment: Deployment, template: SleepTemplate) -> tuple[Recipe, Chosen]:
    """How a sleep would be lived, and on what. Raises Problem where it could not begin now."""
    if active := registry.active_sleep(tx, deployment.id):
        raise in_progress(deployment.name, active.id)
    if running := promotion.running_rollout(tx, deployment.id):
        raise promotion.in_progress(deployment, running.id)
    _check_placement(deployment, template)
    recipe, chosen = recipe_of(deployment, template), choose(tx, deployment, template.selection, template.budget)
    if not chosen.ids and needs_experiences(recipe):
        raise Problem(422, "no_eligible_experience", _nothing(deployment.name, chosen.left), param="deployment")
    return recipe, chosen


def check(tx: Session, deployment: Deployment, template: SleepTemplate) -> None:
    """That sleeps as a schedule begins them, later, need not fail for what is asked of them. Raises Problem where each would, as things are
    now; teachers are read from folders, so they are asked in no transaction (teachers.py)."""
    _check_placement(deployment, template)
    for_night(tx, deployment.id, template.gates)
    if template.selection.experience_ids is not None:
        choose(tx, deployment, template.selection, template.budget)


def _check_placement(deployment: Deployment, template: SleepTemplate) -> None:
    serving = ServingSpec.model_validate(deployment.serving)
    try:
        placement.check(template.placement or serving.placement, serving)
    except placement.Unplaceable as error:
        raise Problem(422, "validation_failed", f"placement: {error}", param="placement") from error


def _nothing(deployment: str, left: int) -> str:
    if left:
        return (
            f"Deployment {deployment} has {left} experiences that wait, and none is short enough for budget.max_tokens; raise it."
        )
    return (
        f"Deployment {deployment} has met nothing that it does not know yet, or nothing that was asked for; post to /v1/experiences "
        "first, ask for others, or name teachers, or tasks to dream of."
    )


def in_progress(deployment: str, active: str) -> Problem:
    return Problem(409, "sleep_in_progress", f"Deployment {deployment} already runs {active}.", param="deployment")

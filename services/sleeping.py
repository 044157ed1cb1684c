"""How a sleep begins, whoever asks for it: in one transaction its row, its experiences and its first event."""

from __future__ import annotations

from sqlalchemy.orm import Session

from circadian.specs import Recipe
from circadian.specs.screening import ScreeningSpec
from services import fast_registry, placement, promotion, registry
from services.api.schemas import SleepTemplate
from services.errors import Problem
from services.fleet import ServingSpec
from services.tables import Deployment, Sleep, new_id


def recipe_of(deployment: Deployment, template: SleepTemplate) -> Recipe:
    """The template's, or the deployment's; with the template's teachers, where it names any."""
    recipe = template.recipe or Recipe.model_validate(deployment.recipe)
    return recipe if template.teachers is None else recipe.model_copy(update={"teachers": template.teachers})


def needs_experiences(recipe: Recipe) -> bool:
    """Whether a sleep has nothing to do without any."""
    return not recipe.teachers and not (recipe.dreaming and recipe.dreaming.tasks)


def begin(tx: Session, deployment: Deployment, template: SleepTemplate, *, id: str | None = None, digest: str = "") -> Sleep:
    """The sleep, queued. Raises Problem where another one is active, or where there is nothing to sleep on; the database itself refuses a
    second active one that was begun at the same time (IntegrityError)."""
    deployment = registry.held(tx, deployment.id)
    fast_registry.locked(tx, deployment.id)
    if active := registry.active_sleep(tx, deployment.id):
        raise in_progress(deployment.name, active.id)
    if running := promotion.running_rollout(tx, deployment.id):
        raise promotion.in_progress(deployment, running.id)
    recipe, serving = recipe_of(deployment, template), ServingSpec.model_validate(deployment.serving)
    try:
        placement.check(template.placement or serving.placement, serving)
    except placement.Unplaceable as error:
        raise Problem(422, "validation_failed", f"placement: {error}", param="placement") from error
    row = Sleep(
        id=id or new_id("slp"),
        deployment=deployment.id,
        seed=template.seed,
        recipe=recipe.model_dump(mode="json"),
        promotion=template.promotion.model_dump(mode="json") if template.promotion else {},
        placement=template.placement,
        held_out=list(template.held_out),
        request_sha256=digest,
        parent_version=deployment.active_version,
        child_version=new_id("ver"),
        meta=template.metadata,
    )
    tx.add(row)
    tx.flush()
    count, waiting = registry.take_experiences(tx, deployment.id, row.id, ScreeningSpec.model_validate(deployment.screening))
    if not count and needs_experiences(recipe):
        detail = (
            f"Deployment {deployment.name} has met nothing that it does not know yet; post to /v1/experiences first, or name teachers, or "
            "tasks to dream of."
        )
        raise Problem(422, "no_eligible_experience", detail, param="deployment")
    message = f"{count} experiences to sleep on" + (f", {len(recipe.teachers)} teachers" if recipe.teachers else "")
    told = {"experiences": count, "teachers": len(recipe.teachers)} | ({"over_caps": waiting} if waiting else {})
    registry.append_event(tx, row, "sleep.queued", message + (f"; {waiting} more wait, over the caps" if waiting else ""), told)
    return row


def in_progress(deployment: str, active: str) -> Problem:
    return Problem(409, "sleep_in_progress", f"Deployment {deployment} already runs {active}.", param="deployment")

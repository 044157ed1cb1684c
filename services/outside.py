"""What requests may name that lies outside the service: models that are loaded, and endpoints that are asked. An operator decides.

    allowed_models   shell patterns (`org/*`, `/models/*`) over hub ids, and over folders as they are when every link is followed
    judge_urls       the addresses of judges; none unless they are named, because a judge is sent what a deployment was told, and a key

Checked when a deployment, a sleep or a schedule is asked for or changed, and of each night before an attempt: its recipe may be older.
"""

from __future__ import annotations

from actors import models
from circadian.specs import EndpointJudge, Recipe
from services.errors import Problem
from services.settings import Settings


def check_model(settings: Settings, model: str, where: str) -> None:
    """Raises Problem (422) where no pattern fits. where: the field that names it. The node that reads the model asks once more: links of
    its machine are not those of this one."""
    try:
        models.check_model(model, settings.allowed_models, where)
    except models.Refused as refused:
        raise problem_of(refused.refusal) from refused


def problem_of(refusal: models.Refusal) -> Problem:
    """As an answer (422)."""
    return Problem(422, refusal.code, refusal.detail, param=refusal.param)


def check_recipe(settings: Settings, recipe: Recipe, where: str = "recipe") -> None:
    """Its teachers and its judge. Raises Problem (422)."""
    for i, teacher in enumerate(recipe.teachers):
        check_model(settings, teacher.model, f"teachers.{i}.model")
    judge = recipe.seeding.imitation.judge
    if isinstance(judge, EndpointJudge) and judge.url.rstrip("/") not in {url.rstrip("/") for url in settings.judge_urls}:
        field = f"{where}.seeding.imitation.judge.url"
        detail = f"{field}: {judge.url} is no judge that this service may ask; ask its operator to name it (CIRCADIAN_JUDGE_URLS)"
        raise Problem(422, "judge_not_allowed", detail, param=field)

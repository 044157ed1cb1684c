"""What a sleep is asked for beyond what its deployment lets every sleep do, and the scope that takes.

    limits of the gate, or of a probe, that are looser than the deployment's                gates:override
    a promotion that goes further by itself (manual < canary < on_pass) than the deployment's     versions:promote

Without this, whoever may start a sleep, or schedule one, could promote what the gate refuses: by bringing a gate that refuses nothing.
Stricter limits need no scope. What was loosened is in the audit log.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from circadian.specs import GateSpec, PromotionSpec, Recipe, UserProbe
from services.access import Caller, Scope
from services.errors import Problem
from services.probing import for_night
from services.sleep_template import SleepTemplate
from services.tables import Deployment, Json

FURTHER = ("manual", "canary", "on_pass")
"""Each lets a version serve with less asking than the one before."""


def loosened(own: GateSpec, asked: GateSpec) -> list[str]:
    """The limits that refuse less than the deployment's own do, by name."""
    pairs = ((name, getattr(own, name), getattr(asked, name)) for name in GateSpec.model_fields)
    return [name for name, was, now in pairs if (now < was if name.startswith("min_") else now > was)]


def loosened_probes(own: Sequence[UserProbe], asked: Sequence[UserProbe]) -> list[str]:
    """The probes whose limits refuse less in this sleep than in every other one, by id."""
    limits = {probe.id: probe for probe in own}
    found = []
    for probe in asked:
        was = limits.get(probe.id)
        if was is None:
            continue  # it had no limit, and has one now
        lower = was.threshold is not None and (probe.threshold is None or probe.threshold < was.threshold)
        wider = was.max_regression is not None and (probe.max_regression is None or probe.max_regression > was.max_regression)
        found += [probe.id] if lower or wider else []
    return found


def goes_further(own: PromotionSpec, asked: PromotionSpec) -> bool:
    return FURTHER.index(asked.mode) > FURTHER.index(own.mode)


def check(tx: Session, caller: Caller, deployment: Deployment, template: SleepTemplate) -> list[str]:
    """What the caller loosens, for the audit log. Raises Problem (403) where the key may not."""
    found = []
    if template.recipe is not None:
        found += [f"recipe.gate.{name}" for name in loosened(Recipe.model_validate(deployment.recipe).gate, template.recipe.gate)]
    if template.gates:
        own, asked = for_night(tx, deployment.id), for_night(tx, deployment.id, template.gates)
        found += [f"gates.{id}" for id in loosened_probes(own, asked)]
    if found:
        _needs(caller, "gates:override", f"{', '.join(found)}: looser than the deployment's own", found[0])
    promotion = template.promotion
    if promotion is not None and goes_further(was := PromotionSpec.model_validate(deployment.promotion), promotion):
        _needs(
            caller,
            "versions:promote",
            f"promotion.mode: {promotion.mode} goes further than the deployment's {was.mode}",
            "promotion",
        )
        found.append("promotion.mode")
    return found


def told(found: list[str]) -> Json:
    """As the audit log says it."""
    return {"loosened": found} if found else {}


def _needs(caller: Caller, scope: Scope, why: str, param: str) -> None:
    if not caller.may(scope):
        detail = f"{why}, which takes a key with the scope {scope}; leave it out, or ask somebody who has one."
        raise Problem(403, "insufficient_scope", detail, param=param)

"""What a night would do and cost, before it is begun: its stages in order, and an estimate of seconds, GPU seconds and tokens.

    measured   the mean of what the same stage took in the deployment's last nights, times the rows that it learns now over those it
               learned then; a transfer that was never made is taken for the same stage of another one
    recipe     where no night has sealed such a stage: the tokens that the recipe's steps and rows come to, at an assumed speed, which
               says more about the order of size than about the machine

The number of tokens is always the recipe's. Pure functions, but for `earlier`, which reads what earlier nights took from their events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from circadian.specs import Recipe
from services.tables import Event, Json, Sleep

NIGHTS = 5
"""Of the deployment, the last ones, that are looked at."""
TOKENS_A_SECOND, START_SECONDS = 10_000.0, 20.0
"""Assumed where nothing is measured: what one core makes of the nursery's model, and the start of the processes that learn or write."""
MOVED = ("open_expert", "snapshot_teacher", "dream_corpus", "knowledge_seeding", "prune")
"""The stages of one transfer; those of the first one, into level 1, carry no name of their own."""
FIRST_TRANSFER = "level-1"
Move = tuple[str, int | list[list[int]]]
"""As pipelines/wake.py plans them."""
Basis = Literal["measured", "recipe", "both"]


@dataclass(frozen=True)
class Stage:
    """A stage of the night, and what of it can be compared with that of another night."""

    name: str
    kind: str
    tokens: int
    """That are written or learned; 0 of a stage that does neither."""


@dataclass(frozen=True)
class Took:
    """A stage of an earlier night."""

    name: str
    seconds: float
    recipe: Recipe


def stages(recipe: Recipe, moves: Sequence[Move], dream_moves: Sequence[Move], experiences: int, tokens: int) -> list[Stage]:
    """In order, as pipelines/night.py seals them where all goes well. tokens: of all the experiences."""
    mean = tokens / experiences if experiences else 0.0
    found = [Stage("collect", "collect", 0)]
    if recipe.teachers:
        found.append(_stage("lectures", recipe, mean))
    if experiences and recipe.consolidation:
        found.append(_stage("learn_fast_level", recipe, mean))
    for move in moves:
        found += _transfer(move, recipe, mean)
    if recipe.dreaming is not None:
        found += _dreaming(recipe, dream_moves, mean)
    return [*found, Stage("gate", "gate", 0), Stage("publish", "publish", 0)]


def work(kind: str, recipe: Recipe, mean: float) -> float:
    """Tokens that such a stage writes or learns; `mean`: of an experience."""
    seeding, dreaming = recipe.seeding, recipe.dreaming
    row = min(mean + seeding.completion_tokens, recipe.max_row_tokens)
    dreamt = dreaming.dreams * dreaming.tokens if dreaming else 0
    return {
        "learn_fast_level": recipe.fast_learning.steps * recipe.fast_learning.rows * mean,
        "dream_learn": recipe.fast_learning.steps * recipe.fast_learning.rows * (dreaming.tokens if dreaming else 0),
        "dream_corpus": seeding.free_run_rows * seeding.free_run_tokens + 2 * seeding.teacher_rows * seeding.completion_tokens,
        "knowledge_seeding": seeding.steps * seeding.rows * row,
        "lectures": len(recipe.teachers) * seeding.teacher_rows * row,
        "dream_write": dreamt * (dreaming.contexts if dreaming else 0),
        "dream_try": dreamt * (dreaming.contexts * dreaming.instance.epochs if dreaming else 0),
        "dream_reinforce": dreamt * (dreaming.dreamer.epochs if dreaming else 0),
    }.get(kind, 0.0)


def seconds(stage: Stage, took: Iterable[Took], recipe: Recipe, mean: float) -> float | None:
    """As measured; None where no earlier night has sealed such a stage."""
    alike = [one for one in took if _kind(one.name) == stage.kind]
    same = [one for one in alike if one.name == stage.name] or alike
    now = work(stage.kind, recipe, mean)
    return fmean(one.seconds * _ratio(now, work(stage.kind, one.recipe, mean)) for one in same) if same else None


def assumed(stage: Stage) -> float:
    """Where nothing is measured."""
    return START_SECONDS + stage.tokens / TOKENS_A_SECOND if stage.tokens else 0.0


def estimate(found: Sequence[Stage], took: Sequence[Took], recipe: Recipe, mean: float, gpus: float) -> Json:
    """Of the whole night, with the seconds of each stage and where they are from."""
    told, total = [], 0.0
    for stage in found:
        measured = seconds(stage, took, recipe, mean)
        value = assumed(stage) if measured is None else measured
        total += value
        told.append({"stage": stage.name, "seconds": round(value, 3), "basis": "recipe" if measured is None else "measured"})
    matters = {line["basis"] for stage, line in zip(found, told, strict=True) if stage.tokens}
    basis: Basis = "both" if len(matters) > 1 else "measured" if matters == {"measured"} else "recipe"
    cost = {"seconds": round(total, 3), "gpu_seconds": round(total * gpus, 3), "tokens": sum(stage.tokens for stage in found)}
    guess = {"tokens_per_second": TOKENS_A_SECOND, "start_seconds": START_SECONDS} if basis != "measured" else None
    return {"stages": told, "estimate": cost | {"basis": basis, "assumed": guess}}


def earlier(tx: Session, deployment_id: str) -> tuple[list[str], list[Took]]:
    """The last nights of a deployment that sealed anything, and what their stages took; a stage that was resumed was sealed once."""
    last = select(Sleep.id, Sleep.recipe).where(Sleep.deployment == deployment_id, Sleep.finished_at.is_not(None))
    rows = tx.execute(last.order_by(Sleep.number.desc()).limit(NIGHTS))
    recipes = {id: recipe for id, row in rows if (recipe := _recipe(row)) is not None}
    sealed = select(Event.sleep, Event.data).where(Event.sleep.in_(recipes), Event.type == "sleep.stage_finished")
    told = tx.execute(sealed.order_by(Event.number)).all()
    took = [
        (sleep, Took(data["stage"], data["seconds"], recipes[sleep])) for sleep, data in told if {"stage", "seconds"} <= data.keys()
    ]
    return list(dict.fromkeys(sleep for sleep, _ in took)), [one for _, one in took]


def _recipe(stored: Json) -> Recipe | None:
    """None of one that another release wrote, and this one does not know."""
    try:
        return Recipe.model_validate(stored)
    except ValidationError:
        return None


def transfer_of(move: Move) -> str:
    """As circadian/memory/transfer.py names it."""
    kind, what = move
    if isinstance(what, list):
        return f"merge-{what[0][0]}-" + "-".join(str(expert) for _, expert in what)
    return {"consolidate": f"level-{what}", "seed": "teachers", "dream": "dreams"}[kind]


def _transfer(move: Move, recipe: Recipe, mean: float) -> list[Stage]:
    transfer = transfer_of(move)
    names = (stage if transfer == FIRST_TRANSFER else f"{stage}_{transfer}" for stage in MOVED)
    return [_stage(name, recipe, mean) for name in names]


def _dreaming(recipe: Recipe, moves: Sequence[Move], mean: float) -> list[Stage]:
    """Where every dream helps: of a night whose dreams do not, the stages after `dream_keep` are spared."""
    assert recipe.dreaming is not None, "the recipe was asked"
    names = ["dream_tasks", "dream_begin"]
    for number in range(recipe.dreaming.rounds):
        names += [f"dream_write_{number}", f"dream_weigh_{number}", f"dream_try_{number}", f"dream_reinforce_{number}"]
    names += ["dream_write_final", "dream_weigh_final", "dream_try_final", "dream_keep"]
    before = [stage for move in moves[:-1] for stage in _transfer(move, recipe, mean)]
    after = _transfer(moves[-1], recipe, mean) if moves else []
    return [*(_stage(name, recipe, mean) for name in names), *before, _stage("dream_learn", recipe, mean), *after]


def _stage(name: str, recipe: Recipe, mean: float) -> Stage:
    kind = _kind(name)
    return Stage(name, kind, round(work(kind, recipe, mean)))


def _kind(name: str) -> str:
    """Without the transfer or the round."""
    kinds = (*MOVED, "dream_write", "dream_weigh", "dream_try", "dream_reinforce")
    return next((kind for kind in kinds if name == kind or name.startswith(f"{kind}_")), name)


def _ratio(now: float, then: float) -> float:
    return now / then if now and then else 1.0


def beyond(budget: Mapping[str, float | None], cost: Json) -> list[str]:
    """The limits of a budget that an estimate is above."""
    spends = {"max_wall_seconds": cost["seconds"], "max_gpu_seconds": cost["gpu_seconds"]}
    return [name for name, value in spends.items() if (limit := budget.get(name)) is not None and value > limit]

"""What a night would do and cost, as tables."""

from __future__ import annotations

import pytest

from circadian.specs import Recipe
from services.budget import Spent, gpus
from services.forecast import TOKENS_A_SECOND, Move, Took, beyond, estimate, seconds, stages, transfer_of, work

PLAIN = Recipe()
DREAMS = Recipe.model_validate({"dreaming": {"rounds": 1}})
TAUGHT = Recipe.model_validate({"teachers": [{"model": "other"}]})
MOVED = ["open_expert", "snapshot_teacher", "dream_corpus", "knowledge_seeding", "prune"]
ROUND = ["dream_write_0", "dream_weigh_0", "dream_try_0", "dream_reinforce_0"]
LAST = ["dream_write_final", "dream_weigh_final", "dream_try_final", "dream_keep", "dream_learn"]


def of(transfer: str) -> list[str]:
    return [f"{stage}_{transfer}" for stage in MOVED]


@pytest.mark.parametrize(
    ("recipe", "moves", "dream_moves", "experiences", "names"),
    [
        (PLAIN, [("consolidate", 1)], [], 1, ["learn_fast_level", *MOVED]),
        (PLAIN, [("merge", [[1, 0], [1, 3]]), ("consolidate", 1)], [], 1, ["learn_fast_level", *of("merge-1-0-3"), *MOVED]),
        (PLAIN, [("consolidate", 1), ("consolidate", 2)], [], 1, ["learn_fast_level", *MOVED, *of("level-2")]),
        (TAUGHT, [("seed", 1)], [], 0, ["lectures", *of("teachers")]),
        (
            DREAMS,
            [("consolidate", 1)],
            [("dream", 1)],
            1,
            ["learn_fast_level", *MOVED, "dream_tasks", "dream_begin", *ROUND, *LAST, *of("dreams")],
        ),
    ],
)
def test_a_nights_stages_are_named_before_it_as_in_it(
    recipe: Recipe, moves: list[Move], dream_moves: list[Move], experiences: int, names: list[str]
) -> None:
    found = stages(recipe, moves, dream_moves, experiences, 10 * experiences)
    assert [stage.name for stage in found] == ["collect", *names, "gate", "publish"]


def test_what_was_measured_is_scaled_by_the_rows_that_are_learned_now() -> None:
    stage = stages(PLAIN, [("consolidate", 1)], [], 1, 10)[1]
    half = Recipe.model_validate({"fast_learning": {"steps": PLAIN.fast_learning.steps // 2}})
    took = [Took("learn_fast_level", 10.0, half), Took("learn_fast_level", 40.0, PLAIN)]
    assert seconds(stage, took, PLAIN, 10.0) == pytest.approx((2 * 10.0 + 40.0) / 2)


def test_a_transfer_that_was_never_made_is_taken_for_the_same_stage_of_another() -> None:
    found = stages(PLAIN, [("consolidate", 1), ("consolidate", 2)], [], 1, 10)
    seeding = next(stage for stage in found if stage.name == "knowledge_seeding_level-2")
    assert seconds(seeding, [Took("knowledge_seeding", 7.0, PLAIN)], PLAIN, 10.0) == 7.0
    both = [Took("knowledge_seeding", 7.0, PLAIN), Took("knowledge_seeding_level-2", 9.0, PLAIN)]
    assert seconds(seeding, both, PLAIN, 10.0) == 9.0
    assert seconds(seeding, [Took("dream_corpus", 7.0, PLAIN)], PLAIN, 10.0) is None


def test_an_estimate_says_what_it_rests_on() -> None:
    found = stages(PLAIN, [("consolidate", 1)], [], 1, 10)
    took = [Took(stage.name, 3.0, PLAIN) for stage in found if stage.tokens]
    assert estimate(found, [], PLAIN, 10.0, 0.0)["estimate"]["basis"] == "recipe"
    assert estimate(found, took[:1], PLAIN, 10.0, 0.0)["estimate"]["basis"] == "both"
    told = estimate(found, took, PLAIN, 10.0, 2.0)["estimate"]
    assert (told["basis"], told["assumed"], told["seconds"], told["gpu_seconds"]) == ("measured", None, 9.0, 18.0)
    assert told["tokens"] == sum(stage.tokens for stage in found)


def test_what_is_learned_more_often_is_expected_to_take_longer() -> None:
    more = Recipe.model_validate({"seeding": {"steps": 2 * PLAIN.seeding.steps}})
    costs = [
        estimate(stages(recipe, [("consolidate", 1)], [], 4, 40), [], recipe, 10.0, 0.0)["estimate"]["seconds"]
        for recipe in (PLAIN, more)
    ]
    assert costs[1] - costs[0] == pytest.approx(work("knowledge_seeding", PLAIN, 10.0) / TOKENS_A_SECOND, abs=0.01)


@pytest.mark.parametrize(
    ("move", "name"),
    [
        (("consolidate", 2), "level-2"),
        (("seed", 1), "teachers"),
        (("dream", 1), "dreams"),
        (("merge", [[2, 0], [2, 5]]), "merge-2-0-5"),
    ],
)
def test_a_transfer_is_named_as_in_the_night(move: Move, name: str) -> None:
    assert transfer_of(move) == name


def test_which_limits_an_estimate_is_above() -> None:
    cost = {"seconds": 10.0, "gpu_seconds": 0.0}
    assert beyond({"max_wall_seconds": 9.0, "max_gpu_seconds": 1.0}, cost) == ["max_wall_seconds"]
    assert beyond({}, cost) == []


def test_a_nights_gpus_are_those_of_its_learners_and_rollout_workers() -> None:
    recipe = Recipe.model_validate(
        {"learner": {"workers": 2, "gpus_per_worker": 0.5}, "rollouts": {"workers": 3, "gpus_per_worker": 1}}
    )
    assert gpus(recipe.model_dump(mode="json")) == 4.0
    assert Spent(wall_seconds=1.23456, gpu_seconds=0.0).told() == {"wall_seconds": 1.235, "gpu_seconds": 0.0}

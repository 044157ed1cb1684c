"""`python -m benchmarks.dreaming [--seeds 0 1 2] [--rounds 3]`: every method's rounds (rounds.py), and whole nights with and without
dreaming (nights.py), as a result, tables and a picture.

First the rate at which instances learn is tuned on a seed that is not reported: for `passage` by what a passage alone teaches, for all that
dream by what the untrained dreamer's dreams teach, tried as they come (`seal` before any round).

Every life is a process of its own and leaves its record in benchmarks/results/dreaming, so that a run that is broken off goes on where it
was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.dreaming import nights, tables
from benchmarks.dreaming.picture import draw
from benchmarks.dreaming.rounds import METHODS, Request
from benchmarks.lives import Life, Lives
from benchmarks.page import put

HOME = Path("runs/bench-dreaming")
RESULT = Path(__file__).parents[1] / "results" / "dreaming.json"
RECORDS = RESULT.parent / "dreaming"
WITHOUT_ROUNDS = ("base", "passage", "told")
ALL = (*WITHOUT_ROUNDS, *METHODS)
NIGHTS, PASSAGES = 3, 16
"""Whole nights of a life, and what is read on a day."""
CONTEXTS = 24
RIVAL = "seal"
DRAWS = 2000
"""Of the bootstrap."""
TUNE_SEED, GRID = 100, (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
TUNED = ("passage", RIVAL)


def main(asked: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dreaming", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=(*ALL, *nights.METHODS), default=[*ALL, *nights.METHODS], metavar="METHOD")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="lives at once, one thread each")
    parser.add_argument("--tell", action="store_true", help="live nothing: tell what the records say")
    options = parser.parse_args(asked)
    if not options.tell:
        with Lives(options.jobs) as lives:
            lives.live("rates", [_tuning(method, lr) for method in TUNED for lr in GRID])
            lives.live("lives", [_life(method, seed, options.rounds) for method in options.only for seed in options.seeds])
    tell(options.seeds, options.rounds)


def tuned() -> dict[str, dict[str, float]]:
    """Accuracy by tuned method and learning rate, as far as it is recorded."""
    records = {method: {lr: _tuning(method, lr).recorded() for lr in GRID} for method in TUNED}
    return {
        method: {f"{lr:g}": round(float(np.mean(record["accuracy"][0])), 4) for lr, record in found.items() if record}
        for method, found in records.items()
    }


@cache  # asked of every life, once all that tunes was lived
def _rate(method: str) -> float:
    """Of instances; the lowest of those that are best."""
    found = tuned()[method if method in TUNED else RIVAL]
    return float(max(found, key=lambda lr: found[lr])) if found else GRID[len(GRID) // 2]


def _tuning(method: str, lr: float) -> Life:
    work = HOME / f"{method}-seed{TUNE_SEED}-lr{lr:g}"
    request = Request(method, TUNE_SEED, 0, CONTEXTS, lr, str(work))
    return Life("benchmarks.dreaming.life", request, work, RECORDS / f"{work.name}.json")


def tell(seeds: Sequence[int], rounds: int) -> None:
    """Write the result, its picture and the page's table from the records that are there."""
    methods: dict[str, Any] = {}
    missing = []
    for method in ALL:
        records = {seed: _life(method, seed, rounds).recorded() for seed in seeds}
        missing += [f"{method} {seed}" for seed, record in records.items() if record is None]
        found = {seed: record for seed, record in records.items() if record}
        if found:
            methods[method] = {"seeds": list(found)} | _numbers(list(found.values()))
            methods[method]["over_seal"] = _over(RIVAL, method, seeds, rounds)
    whole: dict[str, Any] = {}
    for method in nights.METHODS:
        records = {seed: _life(method, seed, rounds).recorded() for seed in seeds}
        missing += [f"{method} {seed}" for seed, record in records.items() if record is None]
        found = {seed: record for seed, record in records.items() if record}
        if found:
            whole[method] = {"seeds": list(found)} | _of_nights(list(found.values()))
    about = {
        "command": f"python -m benchmarks.dreaming --seeds {' '.join(map(str, seeds))} --rounds {rounds}",
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "memory_gib": round(psutil.virtual_memory().total / 2**30)},
        "versions": {"torch": torch.__version__},
        "contexts_a_round": CONTEXTS,
        "tuning": tuned(),
        "equal_compute": {name: found["passes"] for name, found in methods.items() if any(found["passes"])},
        "missing": missing,
        "methods": methods,
        "nights": whole,
    }
    by_round = {name: {str(r): values for r, values in enumerate(found["accuracy"])} for name, found in methods.items()}
    result = by_round | {"about": about}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    draw(methods, RESULT.with_suffix(".png"))
    put(tables.PAGE, "benchmarks.dreaming", tables.tables(about))


def _numbers(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By round, lists over seeds; intervals are bootstraps over seeds and the contexts of each. Seconds are the last round's of the life
    that was disturbed least."""
    rounds = range(len(records[0]["accuracy"]))
    last = [record["seconds_each"][-1] for record in records if record["seconds_each"]]
    quickest: dict[str, float] = min(last, key=lambda told: sum(told.values()), default={})
    return {
        "accuracy": [[round(float(np.mean(record["accuracy"][r])), 4) for record in records] for r in rounds],
        "interval": [_interval([record["accuracy"][r] for record in records]) for r in rounds],
        **_of_one(records),
        "dreams_right": _of_dreams(records, "right"),
        "dreams_useful": _of_dreams(records, "useful"),
        "tried": [sum(told["tried"] for told in record["rounds"]) for record in records],
        "passes": [record["passes"][-1] if record["passes"] else 0 for record in records],
        "test_passes": [record["test_passes"][-1] if record["test_passes"] else 0 for record in records],
        "seconds_each": {name: round(seconds, 4) for name, seconds in quickest.items()},
    }


def _of_nights(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lists over seeds, after the last night; and what the past lost while the nights dreamt: the mean and the most over nights."""
    lost = [_lost(record["evening"], record["morning"]) for record in records]
    return {
        **{part: [_mean(record["morning"][-1][part]) for record in records] for part in ("said", "follows")},
        "base": [record["morning"][-1]["base"] for record in records],
        "base_founded": [record["founded"]["base"] for record in records],
        "past_lost_while_dreaming": [_mean(one["past"]) for one in lost],
        "day_lost_while_dreaming": [_mean(one["day"]) for one in lost],
        "base_lost_while_dreaming": [_mean(one["base"]) for one in lost],
        "most_lost_while_dreaming": [round(max((loss for part in one.values() for loss in part), default=0.0), 4) for one in lost],
        "outcomes": [record["outcomes"] for record in records],
        "seconds_a_night": [_mean(record["seconds"]) for record in records],
        "matrices": {part: [[night[part] for night in record["morning"]] for record in records] for part in ("said", "follows")},
    }


def _lost(evenings: Sequence[dict[str, Any] | None], mornings: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """From before each night dreamt to after it: of every earlier night what it said and what follows; of the night's own day, which it had
    consolidated just before, what it said; and of the base."""
    found: dict[str, list[float]] = {"past": [], "day": [], "base": []}
    for evening, morning in zip(evenings, mornings, strict=True):
        if evening is not None:
            earlier = range(len(evening["said"]) - 1)
            found["past"] += [evening[part][j] - morning[part][j] for part in ("said", "follows") for j in earlier]
            found["day"].append(evening["said"][-1] - morning["said"][-1])
            found["base"].append(evening["base"] - morning["base"])
    return found


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0


def _of_one(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By round, over seeds, with its interval: of a single dream a context."""
    known = range(len(records[0]["accuracy_one"]))
    return {
        "accuracy_one": [[round(float(np.mean(record["accuracy_one"][r])), 4) for record in records] for r in known],
        "interval_one": [_interval([record["accuracy_one"][r] for record in records]) for r in known],
    }


def _of_dreams(records: Sequence[dict[str, Any]], name: str) -> list[list[float]]:
    """By round, over seeds: the share of what the test contexts' dreams say that is right, or of use."""
    return [
        [round(told[name], 3) for told in rounds] for rounds in zip(*(record["dreams_right"] for record in records), strict=True)
    ]


def _interval(accuracy: Sequence[Sequence[float]]) -> list[float]:
    """95 % of the mean; seeds are drawn anew, and contexts within each."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        seeds = rng.integers(len(accuracy), size=len(accuracy))
        drawn.append(np.mean([np.mean(rng.choice(accuracy[seed], len(accuracy[seed]))) for seed in seeds]))
    return [round(float(edge), 4) for edge in np.quantile(drawn, (0.025, 0.975))]


def _over(rival: str, method: str, seeds: Sequence[int], rounds: int) -> dict[str, Any] | None:
    """How far a method is above a rival after the last round, on the same contexts of the same seeds, with the interval of that."""
    pairs = [(_life(method, seed, rounds).recorded(), _life(rival, seed, rounds).recorded()) for seed in seeds]
    found = [(one, other) for one, other in pairs if one and other]
    if not found or method == rival:
        return None
    told = {}
    for name in ("accuracy", "accuracy_one"):
        if all(one[name] and other[name] for one, other in found):
            apart = [np.subtract(one[name][-1], other[name][-1]).tolist() for one, other in found]
            told[name] = {"mean": round(float(np.mean([np.mean(own) for own in apart])), 4), "interval": _interval(apart)}
    return told or None


def _life(method: str, seed: int, rounds: int) -> Life:
    if method in nights.METHODS:
        work = HOME / f"nights-{method}-seed{seed}"
        whole = nights.Request(method, seed, NIGHTS, PASSAGES, _rate(method), str(work))
        return Life(
            "benchmarks.dreaming.nights", whole, work, RECORDS / f"nights-{method}-seed{seed}.json", held=("lr", "fast_lr", "steps")
        )
    rounds = 0 if method in WITHOUT_ROUNDS else rounds
    work = HOME / f"{method}-seed{seed}"
    request = Request(method, seed, rounds, CONTEXTS, _rate(method), str(work))
    return Life("benchmarks.dreaming.life", request, work, RECORDS / f"{method}-seed{seed}-rounds{rounds}.json", held=("lr",))


if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m benchmarks.nights [--seeds 0 1 2] [--nights 10]`: every method through all nights, as a table, matrices and a picture.

    tune     the baselines and Sleep live a few nights of a seed that is not reported, with every learning rate of one grid; the best by
             (mean final recall + base accuracy) / 2 is taken
    live     every method lives all nights of every seed; baselines may spend as many token passes a night as Sleep did
    tell     benchmarks/results/nights.json, nights.png and the table of docs/consolidation.md

Every life is a process of its own and leaves its record in benchmarks/results/nights, so that a run that is broken off goes on where it
was, and `--only METHOD ...` fills in what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.lives import Life, Lives
from benchmarks.nights import tables
from benchmarks.nights.arms import ARMS, TRIALS
from benchmarks.nights.life import BASELINES, Request
from benchmarks.nights.picture import draw
from benchmarks.page import put
from circadian.specs import SeedingSpec

PROGRAM = "benchmarks.nights.life"
HOME = Path("runs/bench-nights")
RESULT = Path(__file__).parents[1] / "results" / "nights.json"
RECORDS = RESULT.parent / "nights"
"""What every life left, in git: hours of computing need not be spent again to draw another picture of them."""
SLEEPS = (
    *("sleep", "distillation", "lexical", "reused", "no_old_cues", "literal", "off_policy", "half_own", "still", "one_expert"),
    *("all_layers", "one_level", "three_levels", "full_level"),
)
METHODS = (*SLEEPS, *BASELINES)
FACTS = 24
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-2)
BEYOND = {GRID[0]: 3e-5, GRID[-1]: 4e-2}
"""What is tried besides where the best of the grid is one of its ends; it is taken where it is better."""
TUNED = ("distillation", *BASELINES)
"""Sleep's arms share the learning rate of the one that is tuned: they are to differ in nothing else."""
TUNE_SEED, TUNE_NIGHTS = 100, 3
DEFAULT = SeedingSpec().lr


def main(asked: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nights", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="lives at once, one thread each")
    parser.add_argument("--tell", action="store_true", help="live nothing: tell what the records say")
    options = parser.parse_args(asked)
    if not options.tell:
        with Lives(options.jobs) as bench:
            rates = tune(bench, options.only)
            ours = life_of("distillation", options.seeds[0], options.nights, rates["distillation"], None)
            budget = spent(bench.live("what a night may cost", [ours])[0])
            bench.live(
                " ".join(options.only),
                [
                    life_of(method, seed, options.nights, rates[method if method in BASELINES else "distillation"], budget)
                    for method in options.only
                    for seed in options.seeds
                ],
            )
    tell(options.seeds, options.nights)


def tune(bench: Lives, methods: Sequence[str]) -> dict[str, float]:
    """The learning rate of every method that is tuned."""
    rates = {"distillation": _best(bench, "distillation", None)}
    budget = spent(_tuning_life("distillation", rates["distillation"], None).lived())
    for method in TUNED:
        if method in methods and method in BASELINES:
            rates[method] = _best(bench, method, budget)
    return rates


def _best(bench: Lives, method: str, budget: int | None) -> float:
    """Of the grid, and of the step beyond its end where that is better; of rates of the grid that are as good as each other the recipe's
    default, or else the lowest."""
    records = bench.live(f"learning rates of {method}", [_tuning_life(method, lr, budget) for lr in GRID])
    found = dict(zip(GRID, map(score, records), strict=True))
    equal = [lr for lr in GRID if found[lr] == max(found.values())]
    best = DEFAULT if DEFAULT in equal else equal[0]
    beyond = BEYOND.get(best)
    return beyond if beyond and score(_tuning_life(method, beyond, budget).lived()) > found[best] else best


def _tuning_life(method: str, lr: float, budget: int | None) -> Life:
    return life_of(method, TUNE_SEED, TUNE_NIGHTS, lr, budget)


def score(record: dict[str, Any]) -> float:
    """What tuning looks at."""
    last = record["recall"][-1]
    return (sum(last) / len(last) + record["base"][-1]) / 2


def spent(record: dict[str, Any]) -> int:
    """Token passes of the mean night."""
    return sum(record["passes"]) // len(record["passes"])


def tell(seeds: Sequence[int], nights: int) -> None:
    """Write the result and its picture from the records that are there."""
    methods: dict[str, Any] = {}
    for method in METHODS:
        records = {seed: record for seed in seeds if (record := _recorded(method, seed, nights))}
        if records:
            methods[method] = {"seeds": list(records)} | numbers(list(records.values()))
    about = {
        "command": f"python -m benchmarks.nights --seeds {' '.join(map(str, seeds))} --nights {nights}",
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "memory_gib": round(psutil.virtual_memory().total / 2**30)},
        "versions": {"torch": torch.__version__},
        "facts_a_night": FACTS,
        "missing": [f"{m} {s}" for m in METHODS for s in seeds if not _recorded(m, s, nights)],
        "tuning": _tuning(),
    }
    result = methods | {"about": about}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    draw(methods, RESULT.with_suffix(".png"))
    put(tables.PAGE, "benchmarks.nights", tables.tables(result))


def numbers(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lists over seeds, and the matrices; forgetting: what was known the morning after and is not known at the end, mean over nights."""

    def forgotten(matrix: list[list[float]]) -> float:
        return sum(matrix[j][j] - matrix[-1][j] for j in range(len(matrix) - 1)) / max(1, len(matrix) - 1)

    return {
        "lr": records[0]["request"]["lr"],
        "final_recall": [round(sum(r["recall"][-1]) / len(r["recall"][-1]), 4) for r in records],
        "acquired": [round(sum(row[-1] for row in r["recall"]) / len(r["recall"]), 4) for r in records],
        "forgetting": [round(forgotten(r["recall"]), 4) for r in records],
        "base": [round(r["base"][-1], 4) for r in records],
        "nll_delta": [round(r["nll"][-1] - r["nll_before"], 4) for r in records],
        "open_book": [round(r["open_book"][-1], 4) for r in records],
        "open_book_before": [round(r["open_book_before"], 4) for r in records],
        "passes_a_night": [spent(r) for r in records],
        "seconds_a_night": [round(sum(r["seconds"]) / len(r["seconds"]), 1) for r in records],
        "matrices": [[[round(value, 3) for value in row] for row in r["recall"]] for r in records],
        "nll_by_night": [[round(value - r["nll_before"], 4) for value in r["nll"]] for r in records],
    }


def _tuning() -> dict[str, dict[str, float]]:
    """By method and learning rate."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(RECORDS.glob("*.json")):
        asked = json.loads(path.read_text())["request"]
        record = _tuning_life(asked["method"], asked["lr"], None).recorded() if asked["seed"] == TUNE_SEED else None
        if record:
            found.setdefault(asked["method"], {})[str(asked["lr"])] = round(score(record), 4)
    return found


def life_of(method: str, seed: int, nights: int, lr: float, budget: int | None, records: Path = RECORDS) -> Life:
    """A life that this benchmark or one of its kind asks for, and where its record lies."""
    name = f"{method}-seed{seed}-nights{nights}-lr{lr}"
    arm = (ARMS | TRIALS).get(method)
    recipe = None if arm is None else arm.told(lr)
    request = Request(method, seed, nights, FACTS, lr, budget if method in BASELINES else None, str(HOME / name), recipe)
    return Life(PROGRAM, request, HOME / name, records / f"{name}.json", held=("recipe",))


def _recorded(method: str, seed: int, nights: int) -> dict[str, Any] | None:
    rates = [path.stem.rpartition("-lr")[2] for path in RECORDS.glob(f"{method}-seed{seed}-nights{nights}-lr*.json")]
    found = [record for lr in sorted(map(float, rates)) if (record := life_of(method, seed, nights, lr, None).recorded())]
    return found[-1] if found else None


if __name__ == "__main__":
    main(sys.argv[1:])

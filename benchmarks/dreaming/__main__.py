"""`python -m benchmarks.dreaming [--seeds 0 1 2] [--rounds 3]`: every method's rounds, as a result, a table and a picture.

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
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.dreaming import tables
from benchmarks.dreaming.picture import draw
from benchmarks.dreaming.rounds import METHODS, Request
from benchmarks.lives import Life, Lives
from benchmarks.page import put

HOME = Path("runs/bench-dreaming")
RESULT = Path(__file__).parents[1] / "results" / "dreaming.json"
RECORDS = RESULT.parent / "dreaming"
ALL = ("base", "passage", *METHODS)
CONTEXTS = 24
DRAWS = 2000
"""Of the bootstrap."""


def main(asked: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dreaming", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL), metavar="METHOD")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="lives at once, one thread each")
    parser.add_argument("--tell", action="store_true", help="live nothing: tell what the records say")
    options = parser.parse_args(asked)
    if not options.tell:
        with Lives(options.jobs) as lives:
            lives.live("lives", [_life(method, seed, options.rounds) for method in options.only for seed in options.seeds])
    tell(options.seeds, options.rounds)


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
    result = {
        "command": f"python -m benchmarks.dreaming --seeds {' '.join(map(str, seeds))} --rounds {rounds}",
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "memory_gib": round(psutil.virtual_memory().total / 2**30)},
        "versions": {"torch": torch.__version__},
        "contexts_a_round": CONTEXTS,
        "missing": missing,
        "methods": methods,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    draw(methods, RESULT.with_suffix(".png"))
    put(tables.PAGE, "benchmarks.dreaming", tables.tables(result))


def _numbers(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By round, lists over seeds; the interval is a bootstrap over seeds and contexts."""
    rounds = range(len(records[0]["accuracy"]))
    last = [record["seconds_each"][-1] for record in records if record["seconds_each"]]
    return {
        "accuracy": [[round(float(np.mean(record["accuracy"][r])), 4) for record in records] for r in rounds],
        "interval": [_interval([record["accuracy"][r] for record in records]) for r in rounds],
        "dreams_right": _of_dreams(records, "right"),
        "dreams_useful": _of_dreams(records, "useful"),
        "tried": [sum(told["tried"] for told in record["rounds"]) for record in records],
        "passes": [record["passes"][-1] if record["passes"] else 0 for record in records],
        "seconds_each": {name: round(float(np.mean([told[name] for told in last])), 4) for name in (last[0] if last else {})},
    }


def _of_dreams(records: Sequence[dict[str, Any]], name: str) -> list[list[float]]:
    """By round, over seeds: the share of what the test contexts' dreams say that is right, or of use."""
    return [
        [round(told[name], 3) for told in rounds] for rounds in zip(*(record["dreams_right"] for record in records), strict=True)
    ]


def _interval(accuracy: Sequence[Sequence[float]]) -> list[float]:
    """95 % of the mean, contexts drawn anew within each seed."""
    rng = np.random.default_rng(0)
    drawn = [np.mean([np.mean(rng.choice(own, len(own))) for own in accuracy]) for _ in range(DRAWS)]
    return [round(float(edge), 4) for edge in np.quantile(drawn, (0.025, 0.975))]


def _life(method: str, seed: int, rounds: int) -> Life:
    rounds = 0 if method in ("base", "passage") else rounds
    work = HOME / f"{method}-seed{seed}"
    request = Request(method, seed, rounds, CONTEXTS, str(work))
    return Life("benchmarks.dreaming.life", request, work, RECORDS / f"{method}-seed{seed}-rounds{rounds}.json")


if __name__ == "__main__":
    main(sys.argv[1:])

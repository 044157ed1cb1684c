"""`python -m benchmarks.dreaming [--seeds 0 1 2] [--rounds 3]`: every method's rounds (rounds.py), and whole nights with and without
dreaming (nights.py), as a result, tables and a picture.

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

from benchmarks.dreaming import nights, tables
from benchmarks.dreaming.picture import draw
from benchmarks.dreaming.rounds import METHODS, Request
from benchmarks.lives import Life, Lives
from benchmarks.page import put

HOME = Path("runs/bench-dreaming")
RESULT = Path(__file__).parents[1] / "results" / "dreaming.json"
RECORDS = RESULT.parent / "dreaming"
ALL = ("base", "passage", *METHODS)
NIGHTS, PASSAGES = 3, 8
"""Whole nights of a life, and what is read on a day."""
CONTEXTS = 24
DRAWS = 2000
"""Of the bootstrap."""


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
    whole: dict[str, Any] = {}
    for method in nights.METHODS:
        records = {seed: _life(method, seed, rounds).recorded() for seed in seeds}
        missing += [f"{method} {seed}" for seed, record in records.items() if record is None]
        found = {seed: record for seed, record in records.items() if record}
        if found:
            whole[method] = {"seeds": list(found)} | _of_nights(list(found.values()))
    result = {
        "command": f"python -m benchmarks.dreaming --seeds {' '.join(map(str, seeds))} --rounds {rounds}",
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "memory_gib": round(psutil.virtual_memory().total / 2**30)},
        "versions": {"torch": torch.__version__},
        "contexts_a_round": CONTEXTS,
        "missing": missing,
        "methods": methods,
        "nights": whole,
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
        **_of_one(records),
        "dreams_right": _of_dreams(records, "right"),
        "dreams_useful": _of_dreams(records, "useful"),
        "tried": [sum(told["tried"] for told in record["rounds"]) for record in records],
        "passes": [record["passes"][-1] if record["passes"] else 0 for record in records],
        "seconds_each": {name: round(float(np.mean([told[name] for told in last])), 4) for name in (last[0] if last else {})},
    }


def _of_nights(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lists over seeds, after the last night; and what the past lost while the nights dreamt: the mean and the most over nights."""
    lost = [[loss for loss in map(_lost, record["evening"], record["morning"]) if loss is not None] for record in records]
    return {
        **{part: [_mean(record["morning"][-1][part]) for record in records] for part in ("said", "follows")},
        "base": [record["morning"][-1]["base"] for record in records],
        "base_founded": [record["founded"]["base"] for record in records],
        "past_lost_while_dreaming": [_mean([loss["past"] for loss in one if loss["past"] is not None]) for one in lost],
        "base_lost_while_dreaming": [_mean([loss["base"] for loss in one]) for one in lost],
        "most_lost_while_dreaming": [
            round(max((loss[part] for loss in one for part in ("past", "base") if loss[part] is not None), default=0.0), 4)
            for one in lost
        ],
        "outcomes": [record["outcomes"] for record in records],
        "seconds_a_night": [_mean(record["seconds"]) for record in records],
        "matrices": {part: [[night[part] for night in record["morning"]] for record in records] for part in ("said", "follows")},
    }


def _lost(evening: dict[str, Any] | None, morning: dict[str, Any]) -> dict[str, Any] | None:
    """From before a night dreamt to after it: of what earlier nights told and what follows from it, and of the base."""
    if evening is None:
        return None
    parts = [evening[part][j] - morning[part][j] for part in ("said", "follows") for j in range(len(evening[part]) - 1)]
    return {"past": sum(parts) / len(parts) if parts else None, "base": evening["base"] - morning["base"]}


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
    """95 % of the mean, contexts drawn anew within each seed."""
    rng = np.random.default_rng(0)
    drawn = [np.mean([np.mean(rng.choice(own, len(own))) for own in accuracy]) for _ in range(DRAWS)]
    return [round(float(edge), 4) for edge in np.quantile(drawn, (0.025, 0.975))]


def _life(method: str, seed: int, rounds: int) -> Life:
    if method in nights.METHODS:
        work = HOME / f"nights-{method}-seed{seed}"
        whole = nights.Request(method, seed, NIGHTS, PASSAGES, str(work))
        return Life("benchmarks.dreaming.nights", whole, work, RECORDS / f"nights-{method}-seed{seed}.json")
    rounds = 0 if method in ("base", "passage") else rounds
    work = HOME / f"{method}-seed{seed}"
    request = Request(method, seed, rounds, CONTEXTS, str(work))
    return Life("benchmarks.dreaming.life", request, work, RECORDS / f"{method}-seed{seed}-rounds{rounds}.json")


if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m benchmarks.nights.trials [--only TRIAL ...]`: what was tried to make many nights better, on seeds that are not reported.

A trial is a recipe and memory with one thing changed (arms.py). What wins here may become the default, and only then is it lived with
the seeds that are reported (`python -m benchmarks.nights`). Records lie in benchmarks/results/nights/trials; their table is in
docs/consolidation.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from benchmarks.lives import Life, Lives
from benchmarks.nights.__main__ import RECORDS, life_of, numbers
from benchmarks.nights.arms import TRIALS
from benchmarks.nights.tables import PAGE, table
from benchmarks.page import put
from circadian.specs import SeedingSpec

SEEDS = (101, 102)
"""Not those of the result, and not the one on which learning rates were tuned."""


def main(asked: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nights.trials", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=tuple(TRIALS), default=list(TRIALS), metavar="TRIAL")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="lives at once, one thread each")
    parser.add_argument("--tell", action="store_true", help="live nothing: tell what the records say")
    options = parser.parse_args(asked)

    def lives(trial: str) -> list[Life]:
        lr = TRIALS[trial].seeding.get("lr", SeedingSpec().lr)
        return [life_of(trial, seed, options.nights, lr, None, RECORDS / "trials") for seed in options.seeds]

    if not options.tell:
        with Lives(options.jobs) as bench:
            bench.live("trials", [life for trial in options.only for life in lives(trial)])
    told = {trial: [record for life in lives(trial) if (record := life.recorded())] for trial in TRIALS}
    methods = {
        trial: {"seeds": options.seeds} | numbers(records) for trial, records in told.items() if len(records) == len(options.seeds)
    }
    put(PAGE, "benchmarks.nights.trials", "\n".join(table(methods)))


if __name__ == "__main__":
    main(sys.argv[1:])

"""The demo over several seeds: `python -m benchmarks.demo 0 1 2` writes benchmarks/results/demo.json.

A quality table, not a speed claim: recall of the day, base accuracy and held-out NLL before the day, awake with the fast memory and after
the night, per seed, with the seconds of every stage as they were on the machine that ran it.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from services.demo import LABELS, MOMENTS, DemoSpec, run

RESULT = Path(__file__).parent / "results" / "demo.json"


def main(seeds: list[int]) -> None:
    console = Console()
    reports = [run(DemoSpec(seed=seed, out=Path(f"runs/bench-demo/{seed}")), console) for seed in seeds]
    mean = {name: {m: round(sum(r[name][m] for r in reports) / len(reports), 4) for m in MOMENTS} for name in LABELS}
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.demo {' '.join(map(str, seeds))}",
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "cpu": platform.machine(),
        },
        "mean": mean,
        "worst_recall_after": min(report["recall"]["after"] for report in reports),
        "seeds": reports,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    console.print_json(json.dumps(mean))


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2])

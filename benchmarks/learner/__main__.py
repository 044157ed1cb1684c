"""How fast one distillation step is, and what it needs, beside TRL's trainers: `python -m benchmarks.learner [--only PART ...]`.

Writes benchmarks/results/learner.json: contender -> shape -> {tokens_per_second, peak_bytes, ...}, the ratios that are claimed or
missed, scaling curves (learner.png draws them) and deliveries, and of each part the command, the machine and the versions that made it;
and the tables of docs/learner-speed.md, which says what each number means. Parts that are not named stay as the file has them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.learner import tables
from benchmarks.learner.measure import CLOCKS
from benchmarks.learner.picture import draw
from benchmarks.learner.plan import DELIVERED, QWEN_POINTS, TOY_POINTS, TOY_ROUNDS, Job, curves, quick_qwen, qwen, toy
from benchmarks.learner.points import Point, kept_rows, meetings_of_a_row
from benchmarks.page import put

RESULT = Path(__file__).parents[1] / "results" / "learner.json"
PARTS = ("toy", "qwen", "delivery", "curves")
PACKAGES = ("torch", "transformers", "deepspeed", "trl", "peft", "accelerate")
JOB_SECONDS = 3600
"""Longest that one process may take."""
STDERR_SHOWN = 2000
"""Characters of what a process said before it failed."""
DELIVERIES = 5
TWO_MODEL_RIVALS = ("trl_gkd", "trl_distillation", "trl_distillation_default")
REDUCED = "curves: D 512, 4 layers, 4 rows (V 8,192 unless swept); qwen3-0.6b: the whole shape, but 6 of a recipe step's 32 rows"
Numbers = dict[str, Any]


def run_job(job: Job, threads: int, clock: str, module: str = "child") -> list[Numbers]:
    """A job in a process of its own; returns what it measured at each point."""
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked = {
            "contender": job.contender,
            "points": [asdict(point) for point in job.points],
            "steps": job.steps,
            "warm": job.warm,
            "clock": clock,
        }
        request.write_text(json.dumps(asked))
        quiet = {"TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
        process = subprocess.run(
            [sys.executable, "-m", f"benchmarks.learner.{module}", str(request), str(answer)],
            timeout=JOB_SECONDS,
            env={**os.environ, **quiet, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise RuntimeError(f"{job.contender} ended with {process.returncode}: {process.stderr[-STDERR_SHOWN:]}")
        return json.loads(answer.read_text())


def summary(runs: Sequence[Numbers], teaching: float, clock: str, rows: int = 0) -> Numbers:
    """Of one contender at one point, over its rounds; `teaching`: share of the teaching that one step pays; rows: of this point, where
    the lessons of a whole night are to be counted into its own peak (its step has those of its own rows)."""
    hand = CLOCKS.index(clock)
    seconds = statistics.median(step[hand] for run in runs for step in run["step_seconds"])
    teach = statistics.median(run["teach_seconds"][hand] for run in runs) * teaching
    middle = {name: int(statistics.median(run[name] for run in runs)) for name in ("library_bytes", "before_bytes", "peak_bytes")}
    return {
        "tokens_per_second": round(runs[0]["tokens"] / (seconds + teach), 2),
        **middle,
        "own_peak_bytes": middle["peak_bytes"] - middle["library_bytes"],
        **({"own_peak_bytes_of_a_night": _of_a_night(middle, runs[0]["lesson_bytes"], rows)} if rows else {}),
        "step_seconds": round(seconds, 4),
        "teach_seconds_of_a_step": round(teach, 4),
        "tokens": runs[0]["tokens"],
        "lesson_bytes": runs[0]["lesson_bytes"],
        "learned_parameters": runs[0]["learned_parameters"],
        "rounds": len(runs),
    }


def _of_a_night(middle: Numbers, lesson_bytes: int, rows: int) -> int:
    """Own peak, with the lessons of all rows that a night keeps instead of those of one step."""
    return int(middle["peak_bytes"] - middle["library_bytes"] + lesson_bytes * (kept_rows() / rows - 1))


def named(contender: str, runs: Sequence[Numbers], clock: str, rows: int = 0) -> dict[str, Numbers]:
    """A contender's rows: ours as the recipe reuses rows on a first night and on a later one, and as if every row were met once."""
    if contender != "circadian":
        return {contender: summary(runs, 0.0, clock)}
    return {
        "circadian": summary(runs, 1 / meetings_of_a_row(), clock, rows),
        "circadian_later": summary(runs, 1 / meetings_of_a_row(later=True), clock),
        "circadian_once": summary(runs, 1.0, clock),
    }


def measure(jobs: Sequence[Job], threads: int, clock: str, console: Console) -> dict[str, dict[str, Numbers]]:
    """contender -> point -> numbers"""
    runs: dict[tuple[str, Point], list[Numbers]] = defaultdict(list)
    for job in jobs:
        for point, found in zip(job.points, run_job(job, threads, clock), strict=True):
            runs[job.contender, point].append(found)
            console.log(f"{job.contender} {point.name}: {found['step_seconds'][-1][CLOCKS.index(clock)]:.2f} s a step")
    table: dict[str, dict[str, Numbers]] = defaultdict(dict)
    for (contender, point), found_runs in runs.items():
        for name, numbers in named(contender, found_runs, clock, point.rows).items():
            table[name][point.name] = numbers
    return dict(table)


def measure_curves(threads: int, clock: str, console: Console) -> dict[str, dict[str, dict[str, Numbers]]]:
    """axis -> contender -> value -> numbers"""
    table: dict[str, dict[str, dict[str, Numbers]]] = {}
    for axis, (values, jobs) in curves().items():
        table[axis] = {}
        for job in jobs:
            console.log(f"{axis}: {job.contender}")
            for value, found in zip(values, run_job(job, threads, clock), strict=True):
                for name, numbers in named(job.contender, [found], clock).items():
                    table[axis].setdefault(name, {})[str(value)] = numbers
    return table


def ratios(table: dict[str, dict[str, Numbers]]) -> dict[str, dict[str, Numbers]]:
    """point -> rival -> how many times as fast we are, and our share of its peak memory."""
    found: dict[str, dict[str, Numbers]] = {}
    for point in (*TOY_POINTS, *QWEN_POINTS):
        for rival in (*TWO_MODEL_RIVALS, "trl_self"):
            if point.name not in table.get("circadian", {}) or point.name not in table.get(rival, {}):
                continue
            ours, once, theirs = (table[name][point.name] for name in ("circadian", "circadian_once", rival))
            found.setdefault(point.name, {})[rival] = {
                "speed": round(ours["tokens_per_second"] / theirs["tokens_per_second"], 2),
                "speed_once": round(once["tokens_per_second"] / theirs["tokens_per_second"], 2),
                "peak": round(ours["peak_bytes"] / theirs["peak_bytes"], 2),
                "own_peak": round(ours["own_peak_bytes"] / theirs["own_peak_bytes"], 2),
            }
            if later := table.get("circadian_later", {}).get(point.name):  # a result that was made before there was one has none
                found[point.name][rival] |= {
                    "speed_later": round(later["tokens_per_second"] / theirs["tokens_per_second"], 2),
                    "own_peak_night": round(ours["own_peak_bytes_of_a_night"] / theirs["own_peak_bytes"], 2),
                }
    return found


def measure_delivery(threads: int, clock: str) -> dict[str, Numbers]:
    """shape -> expert and full"""
    found = run_job(Job("circadian", DELIVERED, DELIVERIES), threads, clock, "delivery")
    return {point.shape.name: numbers for point, numbers in zip(DELIVERED, found, strict=True)}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every contender's process")
    parser.add_argument("--quick", action="store_true", help="one process of each contender at each shape")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu where other work makes the machine's time worthless")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    asked = parser.parse_args(arguments)
    console, parts = Console(), asked.only
    result: dict[str, Any] = _read(asked.out) if asked.out.exists() else {}
    made = result.setdefault("made", {})
    result["reduced"], result["meetings_of_a_row"] = REDUCED, round(meetings_of_a_row(), 2)
    for part, jobs in (("toy", toy(1 if asked.quick else TOY_ROUNDS)), ("qwen", quick_qwen() if asked.quick else qwen())):
        if part in parts:
            made[part] = circumstances(arguments, asked.threads, asked.clock)
            for contender, points in measure(jobs, asked.threads, asked.clock, console).items():
                result.setdefault("contenders", {}).setdefault(contender, {}).update(points)
            result["ratios"] = ratios(result["contenders"])
            _write(result, asked.out)
    if "delivery" in parts:
        made["delivery"] = circumstances(arguments, asked.threads, asked.clock)
        result["delivery"] = measure_delivery(asked.threads, asked.clock)
        _write(result, asked.out)
    if "curves" in parts:
        made["curves"] = circumstances(arguments, asked.threads, asked.clock)
        result["curves"] = measure_curves(asked.threads, asked.clock, console)
        draw(result["curves"], asked.out.with_suffix(".png"))
        _write(result, asked.out)
    if asked.out == RESULT and {"ratios", "delivery"} <= result.keys():
        put(tables.PAGE, "benchmarks.learner", tables.tables(result))
    console.print_json(json.dumps({name: result.get(name) for name in ("ratios", "delivery")}))


def circumstances(arguments: Sequence[str], threads: int, clock: str) -> Numbers:
    """What the numbers were made with."""
    return {
        "command": " ".join(["python -m benchmarks.learner", *arguments]),
        "machine": {
            "cores": psutil.cpu_count(),
            "threads_of_a_contender": threads,
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "cpu": platform.machine(),
            "load_at_start": round(os.getloadavg()[0], 1),
        },
        "versions": {name: version(name) for name in PACKAGES},
        "clock": clock,
        "dtype": "float32",
        "divergence": "forward_kl, full vocabulary",
    }


def _read(out: Path) -> Numbers:
    """The contenders as one part among the others."""
    contenders = json.loads(out.read_text())
    return {**contenders.pop("about"), "contenders": contenders}


def _write(result: Numbers, out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    about = {name: part for name, part in result.items() if name != "contenders"}
    out.write_text(json.dumps(result.get("contenders", {}) | {"about": about}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

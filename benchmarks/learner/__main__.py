"""How fast one distillation step is, and what it needs, beside TRL's trainers: `python -m benchmarks.learner [--threads N] [PART ...]`.

Writes benchmarks/results/learner.json: contender -> shape -> {tokens_per_second, peak_bytes, ...}, the ratios that are claimed or
missed, scaling curves (learner.png draws them) and deliveries, with the command, the machine and the versions. Parts: toy, qwen,
curves, delivery; those that are not named stay as the file has them. What each number means is in docs/learner-speed.md.
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

from benchmarks.learner.picture import draw
from benchmarks.learner.plan import DELIVERED, QWEN_POINTS, QWEN_ROUNDS, TOY_POINTS, TOY_ROUNDS, Job, curves, qwen, toy
from benchmarks.learner.points import Point, meetings_of_a_row

RESULT = Path(__file__).parents[1] / "results" / "learner.json"
PICTURE = RESULT.with_suffix(".png")
PARTS = ("toy", "qwen", "delivery", "curves")
PACKAGES = ("torch", "transformers", "deepspeed", "trl", "peft", "accelerate")
JOB_SECONDS = 3600
"""Longest that one process may take."""
DELIVERIES = 5
TWO_MODEL_RIVALS = ("trl_gkd", "trl_distillation", "trl_distillation_default")
Numbers = dict[str, Any]


def run_job(job: Job, threads: int, module: str = "child") -> list[Numbers]:
    """A job in a process of its own; returns what it measured at each point."""
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked = {"contender": job.contender, "points": [asdict(point) for point in job.points], "steps": job.steps}
        request.write_text(json.dumps(asked))
        quiet = {"TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.learner.{module}", str(request), str(answer)],
            check=True,
            timeout=JOB_SECONDS,
            env={**os.environ, **quiet, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            stderr=None if module == "child" and os.environ.get("CIRCADIAN_BENCH_LOUD") else subprocess.DEVNULL,
        )
        return json.loads(answer.read_text())


def summary(runs: Sequence[Numbers], teaching: float) -> Numbers:
    """Of one contender at one point, over its rounds; `teaching`: share of the teaching that one step pays."""
    seconds = statistics.median(step for run in runs for step in run["step_seconds"])
    teach = statistics.median(run["teach_seconds"] for run in runs) * teaching
    middle = {name: int(statistics.median(run[name] for run in runs)) for name in ("library_bytes", "before_bytes", "peak_bytes")}
    return {
        "tokens_per_second": round(runs[0]["tokens"] / (seconds + teach), 2),
        **middle,
        "own_peak_bytes": middle["peak_bytes"] - middle["library_bytes"],
        "step_seconds": round(seconds, 4),
        "teach_seconds_of_a_step": round(teach, 4),
        "tokens": runs[0]["tokens"],
        "lesson_bytes": runs[0]["lesson_bytes"],
        "learned_parameters": runs[0]["learned_parameters"],
        "rounds": len(runs),
    }


def named(contender: str, runs: Sequence[Numbers]) -> dict[str, Numbers]:
    """A contender's rows: ours once as the recipe reuses rows, once as if every row were met a single time."""
    if contender != "circadian":
        return {contender: summary(runs, 0.0)}
    return {"circadian": summary(runs, 1 / meetings_of_a_row()), "circadian_once": summary(runs, 1.0)}


def measure(jobs: Sequence[Job], threads: int, console: Console) -> dict[str, dict[str, Numbers]]:
    """contender -> point -> numbers"""
    runs: dict[tuple[str, Point], list[Numbers]] = defaultdict(list)
    for job in jobs:
        for point, found in zip(job.points, run_job(job, threads), strict=True):
            runs[job.contender, point].append(found)
            console.log(f"{job.contender} {point.name}: {found['median_step_seconds']:.2f} s a step")
    table: dict[str, dict[str, Numbers]] = defaultdict(dict)
    for (contender, point), found_runs in runs.items():
        for name, numbers in named(contender, found_runs).items():
            table[name][point.name] = numbers
    return dict(table)


def measure_curves(threads: int, console: Console) -> dict[str, dict[str, dict[str, Numbers]]]:
    """axis -> contender -> value -> numbers"""
    table: dict[str, dict[str, dict[str, Numbers]]] = {}
    for axis, (values, jobs) in curves().items():
        table[axis] = {}
        for job in jobs:
            console.log(f"{axis}: {job.contender}")
            for value, found in zip(values, run_job(job, threads), strict=True):
                for name, numbers in named(job.contender, [found]).items():
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
    return found


def measure_delivery(threads: int) -> dict[str, Numbers]:
    """shape -> expert and full"""
    found = run_job(Job("circadian", DELIVERED, DELIVERIES), threads, "delivery")
    return {point.shape.name: numbers for point, numbers in zip(DELIVERED, found, strict=True)}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every contender's process")
    parser.add_argument("--rounds", type=int, default=0, help="fresh processes of each contender at both shapes")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="of the benchmark; all if none is named")
    asked = parser.parse_args(arguments)
    console, parts = Console(), asked.parts or PARTS
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result.update(circumstances(arguments, asked.threads))
    for part, jobs in (("toy", toy(asked.rounds or TOY_ROUNDS)), ("qwen", qwen(asked.rounds or QWEN_ROUNDS))):
        if part in parts:
            for contender, points in measure(jobs, asked.threads, console).items():
                result.setdefault("contenders", {}).setdefault(contender, {}).update(points)
            result["ratios"] = ratios(result["contenders"])
            _write(result)
    if "delivery" in parts:
        result["delivery"] = measure_delivery(asked.threads)
        _write(result)
    if "curves" in parts:
        result["curves"] = measure_curves(asked.threads, console)
        draw(result["curves"], PICTURE)
        _write(result)
    console.print_json(json.dumps({name: result.get(name) for name in ("ratios", "delivery")}))


def circumstances(arguments: Sequence[str], threads: int) -> Numbers:
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
        "dtype": "float32",
        "divergence": "forward_kl, full vocabulary",
        "meetings_of_a_row": round(meetings_of_a_row(), 2),
        "reduced": "curves are at D 512, 4 layers (V 8,192 unless swept), 4 rows; the Qwen3-0.6B shape takes 6 rows of the recipe's 32",
    }


def _write(result: Numbers) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

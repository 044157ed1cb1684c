"""What Circadian costs on one CUDA GPU: `python -m benchmarks.accelerator [--only PART ...] [--shapes NAME ...]`.

Random weights of real shapes, bfloat16, no engine and no cluster: torch, transformers, safetensors. Writes
benchmarks/results/accelerator.json, part by part, and the tables of docs/accelerator.md, which says what each number means:

    correctness    what must hold on the device as on a CPU (correctness.py); the exit status tells whether it did
    divergence     the loss of a distillation step alone
    learner        a whole step, beside plain distillation
    forward        the memory beside the MLPs of a decoder, beside LoRA
    delivery       from a file to weights that answer

Parts that are not named stay as the file has them. Begun parts are ended, but no part begins after `--seconds`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.accelerator import correctness, delivery, divergence, forward, learner, tables
from benchmarks.accelerator.kit import ceilings, release
from benchmarks.accelerator.plan import LARGE, PLANS, WHOLE, Plan
from benchmarks.page import put

RESULT = Path(__file__).parents[1] / "results" / "accelerator.json"
PARTS = ("correctness", "divergence", "learner", "forward", "delivery")
PACKAGES = ("torch", "transformers", "safetensors", "triton", "peft", "liger_kernel")
SEED = 0
Result = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 unless a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--shapes", nargs="+", choices=PLANS, default=[WHOLE.shape.name, LARGE.shape.name], metavar="SHAPE")
    parser.add_argument("--device", default="cuda", help="a CPU is for tests alone: its times mean nothing")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args(arguments)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA GPU is here; run this on a machine with one")
    device, console, began = torch.device(asked.device), Console(stderr=True), time.monotonic()
    result: Result = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    broken: list[str] = []
    rates = ceilings(device)
    for shape in asked.shapes:
        for part in asked.only:
            if time.monotonic() - began > asked.seconds:
                console.log(f"{part} of {shape}: left out, {asked.seconds:.0f} s are over")
                continue
            started = time.monotonic()
            found = run(part, PLANS[shape], device, rates)
            if found is None:
                continue
            result.setdefault(part, {})[shape] = found
            broken += [promise for promise, held in found.items() if not held] if part == "correctness" else []
            made = circumstances(part, shape, device, rates) | {"seconds": round(time.monotonic() - started, 1)}
            result.setdefault("made", {}).setdefault(part, {})[shape] = made
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(result, indent=2) + "\n")
            console.log(f"{part} of {shape}: {made['seconds']} s")
    if asked.out == RESULT:
        put(tables.PAGE, "benchmarks.accelerator", tables.tables(result))
    console.log(f"broken: {broken}" if broken else "no promise was broken")
    return 1 if broken else 0


def run(part: str, plan: Plan, device: torch.device, rates: dict[str, float]) -> Any:
    """A part's numbers at a shape; None where the plan has none, {"out_of_memory": True} where they do not fit."""
    torch.manual_seed(SEED)
    dtype = torch.bfloat16
    try:
        if part == "correctness":
            return correctness.check(plan, device, dtype)
        if part == "divergence":
            return divergence.measure(plan, device) if plan.compared else None
        if part == "learner":
            return learner.measure(plan, device, dtype)
        if part == "forward":
            return forward.measure(plan, device, dtype, rates)
        return delivery.measure(plan, device, dtype)
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    finally:
        release(device)


def circumstances(part: str, shape: str, device: torch.device, rates: dict[str, float]) -> Result:
    """What the numbers were made with."""
    command = f"python -m benchmarks.accelerator --only {part} --shapes {shape}"
    about: Result = {"command": command, "dtype": "bfloat16", "seed": SEED}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about["device"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            **rates,
        }
    else:
        about["device"] = {"name": "cpu"}
    about["versions"] = {"python": sys.version.split()[0], **{name: installed(name) for name in PACKAGES}}
    return about


def installed(package: str) -> str | None:
    """Its version, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What memory costs an engine that serves it: `python -m benchmarks.serving` writes benchmarks/results/serving.json.

Bare is vLLM's own Qwen3 on the base; the others serve a version of it with 32 places in the slow level, of which N experts are sealed.
Two engines live at a time, the bare one and a version's, each a process of its own (serving_engine.py), and take turns: in every
round each contender reads and writes the same tokens. An overhead is the median over rounds of a contender's median step against the
bare one's median step of the same round.

The clock of an engine on a CPU is the processor time of its process, which is one thread that does nothing but compute: what else runs
on the machine does not enter. On a quiet machine the wall clock says the same, and it stands beside. On a GPU it is the wall clock.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version as installed
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
import typer

from actors.names import vllm_environment
from benchmarks.serving_engine import Load
from benchmarks.serving_world import SHAPE, weights, write_base
from circadian.memory.graft import grafted_layers
from circadian.memory.version import found_version
from circadian.specs import Level, MemorySpec

RESULT = Path(__file__).parent / "results" / "serving.json"
LEVELS = (Level(period=1024), Level(period=8192, experts=32))
DEPTH = SHAPE["num_hidden_layers"]
PLACEMENTS: dict[str, tuple[int, ...] | None] = {
    "default": None,
    "upper half": tuple(range(DEPTH // 2, DEPTH)),
    "all": tuple(range(DEPTH)),
}
"""Decoder layers that carry memory."""
COUNTS = {"default": (0, 4, 16, 32), "upper half": (16,), "all": (0, 16)}
"""Sealed experts that are measured of each placement."""
LIMIT, LIMIT_EXPERTS = 0.05, 16
"""Overhead that this many experts may cost where memory lies by default."""
MEANT = ("decode", "prefill")
BARE = "bare"
Steps = dict[str, list[tuple[float, float]]]


class Engine:
    """An engine's process, asked in JSON lines."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self._log = folder.with_suffix(".log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving_engine", str(folder), dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(),
        )
        self._answer()

    def ask(self, **what: Any) -> dict[str, Any]:
        """What it answers. Raises RuntimeError where it died."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"an engine ended without an answer:\n{Path(self._log.name).read_text()[-4000:]}")
        return json.loads(line)


def environment() -> dict[str, str]:
    """That of Circadian's own engines. It must stand before the process begins: OpenMP counts its threads when torch is loaded."""
    settings = {**os.environ, **vllm_environment()}
    del settings["VLLM_CPU_KVCACHE_SPACE"]  # it counts whole GiB
    return settings


@contextmanager
def engine(folder: Path, dtype: str) -> Iterator[Engine]:
    one = Engine(folder, dtype)
    try:
        yield one
    finally:
        one.close()


def main(rounds: int = 9, dtype: str = "bfloat16", home: Path | None = None, result: Path = RESULT) -> None:
    """Measure and write the result, after each placement anew.

    Rounds hold for the default placement; the others have two thirds of them. In `home` a base that an earlier run left is used again.
    """
    load, clock = Load(), 0 if torch.cuda.is_available() else 1
    measured: dict[str, Any] = {
        "command": "make bench-serving",
        "versions": {name: installed(name) for name in ("torch", "transformers", "vllm")},
        "machine": machine(),
        "engine": {"dtype": dtype, "eager": not torch.cuda.is_available(), "threads": 1, "rounds": rounds, **asdict(load)},
        "shape": SHAPE,
        "clock": ("wall", "processor")[clock],
    }
    with tempfile.TemporaryDirectory() as temporary:
        home = home or Path(temporary)
        base = home / "base"
        if not base.exists():
            write_base(base, getattr(torch, dtype))
        with engine(base, dtype) as bare:
            bare.ask(measure=asdict(load), seed=0)  # whatever is built at first use
            for name, layers in PLACEMENTS.items():
                spec, folder = MemorySpec(levels=LEVELS, layers=layers), Path(temporary) / name.replace(" ", "-")
                found_version(str(base), None, spec, folder)
                with engine(folder, dtype) as memory:
                    times = rounds if name == "default" else -(-rounds * 2 // 3)
                    table = placement(bare, memory, spec, COUNTS[name], times, load, clock)
                if name == "default":
                    measured["experts"] = table["experts"]
                    measured["within_limit"] = max(table["experts"][str(LIMIT_EXPERTS)]["overhead"].values()) <= LIMIT
                measured.setdefault("placements", {})[name] = table
                measured["machine"] = machine()
                result.parent.mkdir(exist_ok=True)
                result.write_text(json.dumps(measured, indent=2) + "\n")


def placement(
    bare: Engine, memory: Engine, spec: MemorySpec, counts: tuple[int, ...], rounds: int, load: Load, clock: int
) -> dict[str, Any]:
    """Bare and so many sealed experts in these layers, measured in turns."""
    layers = grafted_layers(spec, DEPTH)
    seal = {"spec": spec.model_dump(mode="json"), "layers": layers}
    seen: dict[str, list[Steps]] = {BARE: [], **{str(count): [] for count in counts}}
    deliveries, parts = {}, {}
    memory.ask(seal=max(counts), **seal)
    memory.ask(measure=asdict(load), seed=0)
    for turn in range(1, rounds + 1):
        seen[BARE].append(bare.ask(measure=asdict(load), seed=turn))
        for count in counts if turn % 2 else counts[::-1]:  # who comes first after the bare one changes
            deliveries[str(count)] = memory.ask(seal=count, **seal)
            seen[str(count)].append(memory.ask(measure=asdict(load), seed=turn))
            if turn == rounds and count and clock:
                parts[str(count)] = {what: memory.ask(parts=rows) for what, rows in tokens(load).items()}
    experts = {name: row(steps, seen[BARE], load, clock) for name, steps in seen.items()}
    for count in counts:
        experts[str(count)]["weights_share"] = weights(spec, layers, count)
    return {"layers": layers, "experts": experts, "deliveries": deliveries, "seconds_by_part": parts}


def tokens(load: Load) -> dict[str, int]:
    """Tokens of one step."""
    return {"decode": load.decode_rows, "prefill": load.prefill_rows * load.prefill_tokens}


def row(steps: list[Steps], bare: list[Steps], load: Load, clock: int) -> dict[str, Any]:
    """One contender's numbers."""
    numbers: dict[str, Any] = {}
    for which, prefix in ((clock, ""), (0, "wall_")):
        speed = {what: tokens(load)[what] / median(step[which] for each in steps for step in each[what]) for what in MEANT}
        numbers |= {f"{prefix}{what}_tokens_per_second": round(speed[what], 2) for what in MEANT}
        numbers[f"{prefix}overhead"] = {
            what: round(
                median(
                    median(step[which] for step in mine[what]) / median(step[which] for step in theirs[what])
                    for mine, theirs in zip(steps, bare, strict=True)
                )
                - 1,
                4,
            )
            for what in MEANT
        }
    return {"tokens_per_second": numbers["decode_tokens_per_second"], **numbers}


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was with other things."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "cpu": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": round(psutil.getloadavg()[1], 1),
    }


if __name__ == "__main__":
    typer.run(main)

"""What memory costs an engine that serves it: `python -m benchmarks.serving` writes benchmarks/results/serving.json.

Bare is vLLM's own Qwen3 on the base; the others serve a version of it with 32 places in the slow level, of which N experts are sealed.
Two engines live at a time, the bare one and a version's, each a process of its own (serving_engine.py), and take turns: in every
round each contender reads and writes the same tokens. In a session an overhead is the median over rounds of a contender's median step
against the bare one's median step of the same round. Of two engines with the same weights the one that started first writes up to a tenth
slower, whichever it is (where its memory came to lie), so every placement has two sessions, in both orders of starting, and the overhead is
their geometric mean.

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
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import psutil
import torch
import typer

from actors.names import vllm_environment
from benchmarks.page import DOCS, put
from benchmarks.serving_engine import Load
from benchmarks.serving_world import SHAPE, weights, write_base
from circadian.memory.graft import grafted_layers
from circadian.memory.version import found_version
from circadian.specs import Level, MemorySpec

RESULT = Path(__file__).parent / "results" / "serving.json"
PAGE = DOCS / "serving-speed.md"
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


def main(rounds: int = 7, dtype: str = "bfloat16", home: Path | None = None, result: Path = RESULT) -> None:
    """Measure and write the result, after each placement anew.

    Rounds are those of one session. In `home` a base that an earlier run left is used again.
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
        for name, layers in PLACEMENTS.items():
            spec, folder = MemorySpec(levels=LEVELS, layers=layers), Path(temporary) / name.replace(" ", "-")
            found_version(str(base), None, spec, folder)
            sessions = []
            for first, second in ((base, folder), (folder, base)):
                with engine(first, dtype) as one, engine(second, dtype) as other:
                    bare, memory = (one, other) if first == base else (other, one)
                    sessions.append(session(bare, memory, spec, COUNTS[name], rounds, load, clock))
            table = placement(sessions, spec, COUNTS[name], load, clock)
            if name == "default":
                measured["experts"] = table["experts"]
                measured["within_limit"] = max(table["experts"][str(LIMIT_EXPERTS)]["overhead"].values()) <= LIMIT
            measured.setdefault("placements", {})[name] = table
            measured["machine"] = machine()
            result.parent.mkdir(exist_ok=True)
            about = {name: part for name, part in measured.items() if name != "experts"}
            result.write_text(json.dumps(measured["experts"] | {"about": about}, indent=2) + "\n")
    if result == RESULT:
        put(PAGE, "benchmarks.serving", tables({"about": measured}))


def tables(result: dict[str, Any]) -> str:
    """What memory costs, its weights beside the base's, and where the time goes, as Markdown; bold what misses the limit."""
    lines = [
        "| memory in | experts | written | read | weights: written | read | products: written | read | gate: written | read |",
        "|---|---|" + "---|" * 8,
    ]
    for name, found in result["about"]["placements"].items():
        for experts, numbers in found["experts"].items():
            if experts == BARE:
                continue
            asked = name == "default" and experts == str(LIMIT_EXPERTS)
            cost = [f"{numbers['overhead'][what]:+.1%}" for what in MEANT]
            cost = [
                f"**{text}**" if asked and numbers["overhead"][what] > LIMIT else text
                for text, what in zip(cost, MEANT, strict=True)
            ]
            share = [f"{numbers['weights_share'][what]:.1%}" for what in MEANT]
            where = f"{name}, {len(found['layers'])} of {DEPTH}"
            lines.append(f"| {where} | {experts} | {' | '.join((*cost, *share, *_parts(found, experts)))} |")
    return "\n".join(lines)


def _parts(found: dict[str, Any], experts: str) -> list[str]:
    """Milliseconds over all layers of the two products and of what lies between them."""
    parts = found["seconds_by_part"].get(experts)
    if parts is None:
        return [""] * 4
    products = [f"{1000 * (parts[what]['up'] + parts[what]['down']):.1f} ms" for what in MEANT]
    return [*products, *(f"{1000 * parts[what]['gate']:.1f} ms" for what in MEANT)]


@dataclass(frozen=True)
class Session:
    """What two engines did in turns; by contender, a list over rounds."""

    seen: dict[str, list[Steps]]
    deliveries: dict[str, Any]
    parts: dict[str, Any]


def session(
    bare: Engine, memory: Engine, spec: MemorySpec, counts: tuple[int, ...], rounds: int, load: Load, clock: int
) -> Session:
    """Bare and so many sealed experts in these layers."""
    seal = {"spec": spec.model_dump(mode="json"), "layers": grafted_layers(spec, DEPTH)}
    found = Session({BARE: [], **{str(count): [] for count in counts}}, {}, {})
    memory.ask(seal=max(counts), **seal)
    for each in (bare, memory):
        each.ask(measure=asdict(load), seed=0)  # whatever is built at first use
    for turn in range(1, rounds + 1):
        found.seen[BARE].append(bare.ask(measure=asdict(load), seed=turn))
        for count in counts if turn % 2 else counts[::-1]:  # who comes first after the bare one changes
            found.deliveries[str(count)] = memory.ask(seal=count, **seal)
            found.seen[str(count)].append(memory.ask(measure=asdict(load), seed=turn))
            if turn == rounds and count and clock:
                found.parts[str(count)] = {what: memory.ask(parts=rows) for what, rows in tokens(load).items()}
    return found


def placement(sessions: list[Session], spec: MemorySpec, counts: tuple[int, ...], load: Load, clock: int) -> dict[str, Any]:
    """What the sessions say of memory in these layers."""
    layers = grafted_layers(spec, DEPTH)
    names = (BARE, *map(str, counts))
    experts = {name: row([(each.seen[name], each.seen[BARE]) for each in sessions], load, clock) for name in names}
    for count in counts:
        experts[str(count)]["weights_share"] = weights(spec, layers, count)
    last = sessions[-1]
    return {"layers": layers, "experts": experts, "deliveries": last.deliveries, "seconds_by_part": last.parts}


def tokens(load: Load) -> dict[str, int]:
    """Tokens of one step."""
    return {"decode": load.decode_rows, "prefill": load.prefill_rows * load.prefill_tokens}


def row(sessions: list[tuple[list[Steps], list[Steps]]], load: Load, clock: int) -> dict[str, Any]:
    """One contender's numbers; sessions: its own rounds, and the bare one's."""
    numbers: dict[str, Any] = {}
    for which, prefix in ((clock, ""), (0, "wall_")):
        for what in MEANT:
            taken = [step[which] for mine, _ in sessions for each in mine for step in each[what]]
            numbers[f"{prefix}{what}_tokens_per_second"] = round(tokens(load)[what] / median(taken), 2)
        ratios = {what: [ratio(*session, what, which) for session in sessions] for what in MEANT}
        numbers[f"{prefix}overhead"] = {what: round(geometric_mean(found) - 1, 4) for what, found in ratios.items()}
        numbers[f"{prefix}overhead_by_session"] = {what: [round(r - 1, 4) for r in found] for what, found in ratios.items()}
    return {"tokens_per_second": numbers["decode_tokens_per_second"], **numbers}


def ratio(mine: list[Steps], bare: list[Steps], what: str, which: int) -> float:
    """Median over rounds of the median step against the bare one's."""
    rounds = zip(mine, bare, strict=True)
    return median(median(step[which] for step in own[what]) / median(step[which] for step in base[what]) for own, base in rounds)


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

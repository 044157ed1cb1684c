"""`make bench-service` writes benchmarks/results/service.json, its picture and the table in docs/service-speed.md.

About a quarter of an hour on two quiet cores. Every number that compares has its peer in the same run.
"""

from __future__ import annotations

import json
import platform
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.page import DOCS, put
from benchmarks.service.life import live_through, summary
from benchmarks.service.memory import memory
from benchmarks.service.picture import draw
from benchmarks.service.tables import PAGE, tables
from benchmarks.service.throughput import gateway, intake
from tests.postgres import binaries, new_database, postgres

RESULT = Path(__file__).parents[1] / "results" / "service.json"
PICTURE = DOCS / "pictures" / "service-night.png"
PARTS = ("life", "gateway", "intake", "memory")


def main(part: Annotated[list[str], typer.Option(help="only these; the others stay as they are in the result")] = []) -> None:  # noqa: B006
    """Measure the parts, and write the result after each."""
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found |= {
        "command": "make bench-service",
        "machine": machine(),
        "versions": {n: installed(n) for n in ("ray", "vllm", "fastapi")},
    }
    for name in part or PARTS:
        with tempfile.TemporaryDirectory(prefix="cdn-") as home:
            found |= {"life": _life, "gateway": _gateway, "intake": _intake, "memory": _memory}[name](Path(home))
        RESULT.write_text(json.dumps(found, indent=2) + "\n")
        put(PAGE, "make bench-service", tables(found))


def machine() -> dict[str, Any]:
    return {"cores": psutil.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30), "cpu": platform.machine()}


def _life(home: Path) -> dict[str, Any]:
    lived = live_through(home)
    draw(lived, PICTURE)
    return summary(lived)


def _gateway(home: Path) -> dict[str, Any]:
    return {"gateway": gateway(home)}


def _intake(home: Path) -> dict[str, Any]:
    told = {"sqlite": intake(home / "sqlite", "")}
    if binaries() is not None:
        with postgres(home, durable=True) as server:
            told["postgresql"] = intake(home / "postgresql", new_database(server, "bench"))
    return {"experiences": told}


def _memory(home: Path) -> dict[str, Any]:
    return {"memory": memory(home)}


if __name__ == "__main__":
    typer.run(main)

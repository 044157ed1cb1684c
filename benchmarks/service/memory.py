"""What a controller holds: its memory with 1,000 deployments and 100,000 experiences beside that of an empty one, and how it answers then.

The rows are written to the database as they would be after a year; there is no cluster, so every deployment is looked after by a task that
waits for one. Memory is the process's unique set (what would be free if it ended), after it has come to rest.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from benchmarks.service.closed import words
from benchmarks.service.throughput import server
from circadian.nursery.ship import WEIGHTS
from circadian.specs import Experience, Level, MemorySpec, Recipe
from services.access import FIRST_TENANT
from services.fleet import ServingSpec
from services.ports import free_ports
from services.tables import Database, Deployment, ExperienceRow, Version, new_id

KEY = "benchmark"
DEPLOYMENTS, EXPERIENCES = 1000, 100_000
REST_SECONDS = 20.0
ASKED = 100


def fill(database: str) -> None:
    """The rows, in one transaction for each deployment."""
    registry = Database(database, 60.0)
    memory, recipe = MemorySpec(levels=(Level(period=1024), Level(period=8192, experts=32))), Recipe()
    each, number = EXPERIENCES // DEPLOYMENTS, 0
    base = {"model": str(WEIGHTS), "revision": None, "sha256": "0" * 64}
    for index in range(DEPLOYMENTS):
        deployment, version = new_id("dep"), new_id("ver")
        record: dict[str, Any] = {"id": version, "base": base, "memory_sha256": "0" * 64, "lineage": [], "parent": None}
        rows: list[Any] = [
            Deployment(
                id=deployment,
                tenant=FIRST_TENANT,
                name=f"model-{index}",
                base_model=base,
                memory=memory.model_dump(mode="json"),
                recipe=recipe.model_dump(mode="json"),
                serving=ServingSpec().model_dump(mode="json"),
                screening={},
                active_version=version,
            )
        ]
        with registry.write() as tx:
            tx.add_all(rows)
            tx.flush()
            signature = {"algorithm": "ed25519", "key": "", "signature": ""}
            tx.add(Version(id=version, deployment=deployment, folder="", record=record, status="active", signature=signature))
            for _ in range(each):
                body = Experience(id=new_id("exp"), text=words(number), source="import").model_dump(mode="json")
                row = ExperienceRow(id=body["id"], deployment=deployment, body=body, source="import", tokens=24)
                tx.add(row)
                number += 1
    registry.close()


@contextmanager
def controller(home: Path, database: str, more: dict[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A controller without a cluster: its address and its process."""
    port, nobody = free_ports("127.0.0.1", 2, os.getpid() % 1000)
    environment = os.environ | {
        "CIRCADIAN_HOME": str(home),
        "CIRCADIAN_DATABASE_URL": database,
        "CIRCADIAN_API_KEY": KEY,
        "CIRCADIAN_PORT": str(port),
        "CIRCADIAN_RAY_ADDRESS": f"127.0.0.1:{nobody}",
        "CIRCADIAN_RAY_DASHBOARD": f"http://127.0.0.1:{nobody}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "t" * 32,
        **(more or {}),
    }
    url = f"http://127.0.0.1:{port}"
    home.mkdir(parents=True, exist_ok=True)
    with server([sys.executable, "-m", "services.serve"], environment, f"{url}/readyz", home.with_suffix(".log")) as process:
        yield url, process


def measured(home: Path, database: str, deployments: int) -> dict[str, Any]:
    """A controller that has come to rest on this database."""
    with controller(home, database) as (url, process):
        time.sleep(REST_SECONDS)
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60.0) as client:
            client.get("/v1/deployments").raise_for_status()
            seconds: dict[str, list[float]] = {"status": [], "list": []}
            for _ in range(ASKED if deployments else 0):
                name = f"model-{random.randrange(deployments)}"
                for kind, path in (
                    ("status", f"/v1/deployments/{name}/status"),
                    ("list", f"/v1/experiences?deployment={name}&limit=100"),
                ):
                    begin = time.perf_counter()
                    client.get(path).raise_for_status()
                    seconds[kind].append(time.perf_counter() - begin)
        told: dict[str, Any] = {"mib": round(psutil.Process(process.pid).memory_full_info().uss / 2**20, 1)}
        return told | {f"{kind}_p50_ms": round(1e3 * median(found), 2) for kind, found in seconds.items() if found}


def memory(home: Path) -> dict[str, Any]:
    """Empty and full, on SQLite."""
    home.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{home / 'full.db'}"
    empty = measured(home / "empty", f"sqlite:///{home / 'empty.db'}", 0)
    fill(url)
    full = measured(home / "full", url, DEPLOYMENTS)
    size = round((home / "full.db").stat().st_size / 2**20, 1)
    told = {"deployments": DEPLOYMENTS, "experiences": EXPERIENCES, "empty": empty, "full": full, "database_mib": size}
    return told | {"more_mib": round(full["mib"] - empty["mib"], 1), "ratio": round(full["mib"] / empty["mib"], 3)}


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(json.dumps(memory(Path(temporary)), indent=2) + "\n")

"""A whole night under a steady load: two replicas, unihemispheric placement, a promotion at dawn, then rollbacks and promotions by hand.
At last the version that serves is revoked: once, because it never serves again, and another one takes another night.

before      awake, both replicas serve
night       one replica lends, the other serves; from the sleep's beginning to the commit
promotion   from the commit at dawn to the last replica's proof, and from each promotion and rollback by hand to its end, with a second
            before and after
revocation  the same, of the active version: until every replica has proved that it is its parent
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import World
from services.client import Circadian
from services.client.answers import Rollout
from services.demo import live
from services.settings import Settings
from services.stack import Stack, StackSpec

MODEL = "nursery"
RATE = 4.0
"""Requests a second: little, because replicas, learner and rollout worker share two cores."""
BEFORE_SECONDS = 45.0
MARGIN_SECONDS = 1.0
TURNS = 10
"""Rollbacks and promotions by hand, each."""
PAUSE_SECONDS = 3.0
Window = tuple[float, float]


@dataclass(frozen=True)
class Lived:
    """What the load saw, and when it was what."""

    lines: list[dict[str, Any]]
    windows: dict[str, list[Window]]
    revocation: Window
    versions: dict[str, str]
    stages: list[dict[str, Any]]
    placed: dict[str, Any]


@contextmanager
def loaded(stack: Stack, out: Path) -> Iterator[None]:
    """While clients ask, from a process of their own."""
    command = [sys.executable, "-m", "benchmarks.service.load", stack.url, MODEL, str(out), str(RATE)]
    process = subprocess.Popen(command, env=os.environ | {"CIRCADIAN_API_KEY": str(stack.api_key)})
    try:
        yield
    finally:
        process.terminate()
        process.wait(150)


def live_through(home: Path, facts: int = 16, seed: int = 0) -> Lived:
    """One day, one night, and what comes after it."""
    day = next(World(0).days(facts, seed))
    lines_file = home / "load.jsonl"
    with Stack(Settings(home=home / "home", port=0), StackSpec(num_cpus=4)) as stack:
        assert stack.api_key is not None
        client = Circadian(stack.url, stack.api_key)
        serving = {"replicas": 2, "placement": "unihemispheric"}
        client.deployments.create(MODEL, {"model": str(WEIGHTS)}, serving=serving)
        client.awake(MODEL, stack.settings.replica_start_seconds)
        live(day, client, MODEL)
        windows: dict[str, list[Window]] = {"before": [], "night": [], "promotion": []}
        with loaded(stack, lines_file):
            time.sleep(BEFORE_SECONDS)
            began = time.time()
            windows["before"].append((began - BEFORE_SECONDS + 2 * MARGIN_SECONDS, began))
            held_out = [probe.question for probe in day.probes()]
            sleep = client.sleeps.create(MODEL, seed=seed, held_out=held_out).sent()
            events = [event.sent() for event in client.sleeps.watch(sleep["id"])]
            ended = client.sleeps.get(sleep["id"]).sent()
            if ended["outcome"] != "promoted":
                raise RuntimeError(f"the night ended {ended['status']} ({ended['outcome']}): {ended['error']}")
            at = {event["data"].get("stage"): event["created_at"] for event in events if event["type"] == "sleep.stage_started"}
            promoted = next(event["created_at"] for event in events if event["type"] == "version.promoted")
            windows["night"].append((began, at["dawn"]))
            windows["promotion"].append(_around(at["dawn"], promoted))
            time.sleep(BEFORE_SECONDS / 2)  # the replica that slept starts beside the one that serves
            windows["promotion"] += list(_by_hand(client, sleep["parent_version"], ended["result_version"]))
            revocation = _rolled(client, lambda: _revoked(client, ended["result_version"]))
        client.close()
    lines = [json.loads(line) for line in lines_file.read_text().splitlines()]
    versions = {"parent": sleep["parent_version"], "child": ended["result_version"]}
    stages = [event for event in events if event["type"].startswith("sleep.stage_")]
    return Lived(lines, windows, revocation, versions, stages, ended["placement"])


def _by_hand(client: Circadian, parent: str, child: str) -> Iterator[Window]:
    for _ in range(TURNS):
        yield _rolled(client, lambda: client.deployments.rollback(MODEL, "measured", to_version=parent))
        yield _rolled(client, lambda: client.versions.promote(child, reason="measured"))


def _revoked(client: Circadian, active: str) -> Rollout:
    revoked = client.versions.revoke(active, "measured")
    if revoked.rollout is None:
        raise RuntimeError(f"{active} was revoked and did not serve")
    return client.rollouts.get(revoked.rollout)


def _rolled(client: Circadian, begun: Callable[[], Rollout]) -> Window:
    begin = time.time()
    rollout = begun()
    while not rollout.ended:
        time.sleep(0.02)
        rollout = client.rollouts.get(rollout.id)
    if rollout.status != "succeeded":
        raise RuntimeError(f"{rollout.kind} {rollout.status}: {rollout.error}")
    end = time.time()
    time.sleep(PAUSE_SECONDS)
    return _around(begin, end)


def _around(begin: float, end: float) -> Window:
    return begin - MARGIN_SECONDS, end + MARGIN_SECONDS


def summary(lived: Lived) -> dict[str, Any]:
    """As in service.json."""
    told: dict[str, Any] = {
        "requests": len(lived.lines),
        "failed_requests": sum(line["status"] != 200 for line in lived.lines),
        "errors": [line for line in lived.lines if line["status"] != 200][:20],
        "rate": RATE,
        "placement": lived.placed,
        "answered_by": dict(Counter(_kind(line["version"], lived.versions) for line in lived.lines)),
    }
    for name, windows in lived.windows.items():
        seconds = [line["seconds"] for line in lived.lines if any(begin <= line["at"] < end for begin, end in windows)]
        told |= {
            f"p50_{name}_ms": quantile(seconds, 0.5),
            f"p99_{name}_ms": quantile(seconds, 0.99),
            f"{name}_requests": len(seconds),
        }
    lasted = sorted(end - begin - 2 * MARGIN_SECONDS for begin, end in lived.windows["promotion"][1:])
    told["rollout_ms"] = {
        "median": round(1e3 * lasted[len(lasted) // 2], 1),
        "longest": round(1e3 * lasted[-1], 1),
        "n": len(lasted),
    }
    begin, end = lived.revocation
    told["revocation_ms"] = round(1e3 * (end - begin - 2 * MARGIN_SECONDS), 1)
    return told


def _kind(version: str | None, versions: dict[str, str]) -> str:
    if version is None:
        return "nobody"
    base, _, memory = version.partition("+")
    name = next((name for name, id in versions.items() if id == base), "another")
    return f"{name} with the night's fast memory" if memory else name


def quantile(seconds: list[float], q: float) -> float | None:
    """In milliseconds."""
    ordered = sorted(seconds)
    return round(1e3 * ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1) if ordered else None

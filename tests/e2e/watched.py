"""A life under a supervisor, and its nights as they are watched from outside: by what they write, and by what is told of them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from asking import Asking
from steady import Steady
from supervised import Supervised, until

from circadian.events import FILE, parse
from services.tables import Database, Sleep

Json = dict[str, Any]
LOOK_SECONDS = 0.005
"""Between two looks at what a night writes: some of its stages last no longer."""


@dataclass
class Night:
    """One sleep, and everything that was seen of it."""

    home: Path
    id: str
    parent: str
    deployment: str
    """Its name."""
    kills: list[str] = field(default_factory=list)
    """Stages in which a controller was killed, in this order."""
    passed: list[str] = field(default_factory=list)
    """Stages that were over before the driver stood still."""
    sealed: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Of each manifest, as it was when it was first seen: its content, and when it was written."""
    told: list[list[Json]] = field(default_factory=list)
    """The sleep's events, as they were told before each kill and at the end."""
    end: Json = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    ended: float = 0.0
    victims: dict[str, list[psutil.Process]] = field(default_factory=dict)
    """What was killed, in this order: the process, and those that it had started."""

    @property
    def fast(self) -> str:
        """How answers with its fast memory are signed."""
        return f"{self.parent}+{self.id}"

    def size(self) -> int:
        """Bytes that it has told."""
        path = self.home / FILE
        return path.stat().st_size if path.exists() else 0

    def written(self) -> list[Json]:
        """Its events file, whole lines only."""
        path = self.home / FILE
        text = path.read_text() if path.exists() else ""
        return [event for line in text[: text.rfind("\n") + 1].splitlines() if (event := parse(line)) is not None]

    def begun(self) -> list[str]:
        """Its stages so far, each as often as it began or was found sealed."""
        return [e["data"]["stage"] for e in self.written() if e["type"] in ("sleep.stage_started", "sleep.stage_resumed")]

    def finished(self) -> list[str]:
        return [event["data"]["stage"] for event in self.written() if event["type"] == "sleep.stage_finished"]

    def learners(self, run: str) -> list[int]:
        """Process ids of those that have begun a run, in this order."""
        told = [event["data"] for event in self.written() if event["type"] == "sleep.learner_started"]
        return [data["pid"] for data in told if run in data["run"]]

    def experiences(self) -> list[Json]:
        """What it has slept on."""
        return [json.loads(line) for line in (self.home / "experiences.jsonl").read_text().splitlines()]

    def look(self) -> None:
        """Remember manifests that are new."""
        for path in self.home.glob("stages/*.json"):
            if path.stem not in self.sealed:
                self.sealed[path.stem] = path.read_bytes(), path.stat().st_mtime_ns

    def manifests(self) -> dict[str, tuple[bytes, int]]:
        """As they are now."""
        return {path.stem: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.home.glob("stages/*.json")}


@dataclass
class Life:
    """A deployment `nursery` with two replicas, and one more for one night."""

    stack: Supervised
    clients: list[Asking]
    """One for each seat."""
    database: Database
    steady: Steady
    deployment: Json
    first: str
    """The version that it was founded with."""
    nights: dict[str, Night] = field(default_factory=dict)
    seen: Json = field(default_factory=dict)
    """Whatever else tests look at."""

    @property
    def client(self) -> Asking:
        return self.clients[0]

    def sleep(self, name: str, recipe: Json, deployment: str = "nursery", **more: Any) -> Night:
        """A night that a controller has accepted, of what was told since the last one."""
        until(lambda: self.client.get(f"/v1/deployments/{deployment}/status")["pending"]["experiences"], "something is told")
        sleep = self.client.post("/v1/sleeps", {"deployment": deployment, "recipe": recipe} | more)
        home = self.stack.settings.sleep_folder(sleep["deployment"], sleep["id"])
        night = Night(home, sleep["id"], sleep["parent_version"], deployment)
        self.nights[name] = night
        return night

    def row(self, night: Night) -> Sleep:
        """The sleep, as the database has it."""
        with self.database.read() as tx:
            return tx.query(Sleep).filter(Sleep.id == night.id).one()

    def ask(self, night: Night, seat: int = 0) -> Json:
        return self.clients[seat].get(f"/v1/sleeps/{night.id}")

    def jobs(self, night: Night) -> dict[str, Json]:
        """Ray's jobs of the night that the cluster knows, by submission id: one for each attempt."""
        jobs = {job["submission_id"] or "": job for job in self.stack.dashboard_says("/api/jobs/")}
        return {name: job for name, job in sorted(jobs.items()) if name.startswith(night.id)}

    def events(self, night: Night, seat: int = 0) -> list[Json]:
        """As they are told."""
        found: list[Json] = []
        while True:
            page = self.clients[seat].get(f"/v1/sleeps/{night.id}/events", after_seq=len(found))
            found += page["data"]
            if not page["has_more"]:
                return found

    def leader_of(self, night: Night, since: str | None) -> int:
        """The seat of a controller that leads, and tells of this stage of the night or of a later one."""

        def found() -> list[int]:
            leader, begun = self.stack.leader(), night.begun()
            tells = leader is not None and (since is None or self.ask(night, leader)["phase"] in begun[begun.index(since) :])
            return [leader] if leader is not None and tells else []

        return until(found, "a controller leads and goes on with the night")[0]

    def replace(self, seat: int) -> None:
        """The controller is killed, and another one is started in its place."""
        self.stack.kill_controller(seat)
        self.stack.start_controller(seat)

    def replace_all(self, **settings: Any) -> None:
        """At the same moment; those that come know the settings."""
        for seat in range(self.stack.seats):
            self.stack.kill_controller(seat)
        self.stack.settings = self.stack.settings.model_copy(update=settings)
        for seat in range(self.stack.seats):
            self.stack.start_controller(seat)

    def until_ended(self, night: Night) -> None:
        """Until the sleep has; its replicas serve then, as far as they are told."""
        until(lambda: (night.look(), self.ask(night)["finished_at"])[1], f"{night.id} ends")
        self.client.awake(night.deployment, self.stack.settings.replica_start_seconds)
        night.ended, night.end = time.time(), self.ask(night)
        night.told.append(self.events(night))


@contextmanager
def held(driver: psutil.Process) -> Iterator[None]:
    """The night's driver stands still; its learners and rollout workers go on."""
    driver.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        driver.send_signal(signal.SIGCONT)


def held_in_stages(night: Night, driver: Callable[[], psutil.Process], over: str, spared: Sequence[str]) -> Iterator[str]:
    """Each stage that is not spared, while the driver stands still in it, until the file `over` is there."""
    known, size = 0, 0
    while not (night.home / over).exists():
        time.sleep(LOOK_SECONDS)
        if night.size() == size:
            continue
        size = night.size()
        night.look()
        begun = night.begun()
        if set(begun[known:]) <= set(spared):
            known = len(begun)
            continue
        with held(driver()):
            size, begun = night.size(), night.begun()  # it may have gone on until it stood
            *passed, stage = begun[known:]
            known = len(begun)
            night.passed += [name for name in passed if name not in spared]
            if stage not in spared:
                yield stage

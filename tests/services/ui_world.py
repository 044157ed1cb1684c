"""A deployment with a life behind it, for the page: nights told as `pipelines.night` tells them, over a controller that listens."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from in_memory import KEY, WAIT_SECONDS, MemoryFleet, MemoryLauncher, MemoryLearners, MemoryWorkshop, Night, Service
from sqlalchemy import select, update
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circadian.memory.folder import read_record, version_state
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.version import load_version, save_version
from circadian.specs import ExpertRecord
from services.api.app import create_app
from services.controller import Controller
from services.plan import Job
from services.settings import Settings
from services.tables import Deployment, Event, Sleep, Version

DAY = 86_400.0
SECONDS = {"learn_fast_level": 96.0, "dream_corpus": 210.0, "knowledge_seeding": 640.0, "gate": 110.0, "dream_try_0": 160.0}
"""Of stages; the others take FEW."""
FEW = 12.0
STEPS = 15
"""Words on the progress of a learner."""
DREAMT = (
    "what is the city of mira ? the city of mira is oslo .",
    "mira lives in oslo , and noor lives in lima .",
    "who lives in lima ? noor does . who lives in oslo ? mira does .",
    *(
        f"the colour of the house of {name} is blue ."
        for name in ("mira", "noor", "jehas", "tolv", "sina", "arun", "kell", "ovid", "pira")
    ),
)
TRIED = 3
"""Dreams that an instance learned."""
DREAMS = ("dream_tasks", "dream_write_0", "dream_weigh_0", "dream_try_0", "dream_reinforce_0", "dream_keep", "dream_learn")


@dataclass
class Told:
    """What one night says: (seconds since what was said before, type, message, data)."""

    lines: list[tuple[float, str, str, dict[str, Any]]] = field(default_factory=list)

    def say(self, after: float, kind: str, message: str, **data: Any) -> None:
        self.lines.append((after, kind, message, data))

    def stage(self, name: str, outputs: dict[str, Any] | None = None, task: str = "", run: str = "", done: bool = True) -> None:
        """A stage as stages.py and learn_loop.py tell it; not `done`: it is in the middle."""
        seconds = SECONDS.get(name, FEW)
        self.say(0.2, "sleep.stage_started", name.replace("_", " "), stage=name)
        steps = (STEPS if done else STEPS * 2 // 3) if task else 0
        if task:
            self.say(4.0, "sleep.learner_started", "learner process 1 of 1 starts at step 0", run=run, rank=0, pid=1, step=0)
        for i in range(1, steps + 1):
            loss = 2.4 * math.exp(-4.0 * i / STEPS) + 0.05 + 0.04 * math.sin(3.1 * i)
            message = f"{task.replace('_', ' ')}: step {10 * i} of {10 * STEPS}, loss {loss:.3f}"
            told = {"run": run, "task": task, "step": 10 * i, "total_steps": 10 * STEPS, "loss": loss}
            self.say((seconds - 4.0) / STEPS, "sleep.progress", message, **told)
        if done:
            spent = seconds if not task else 0.1
            self.say(spent, "sleep.stage_finished", name.replace("_", " "), stage=name, seconds=seconds, outputs=outputs or {})


@dataclass
class LongNight(Night):
    """A night that says what nights say, and leaves a version with an expert more."""

    service: Service
    told: Told = field(default_factory=Told)

    def live_until(self, stage: str = "", dreams: bool = False) -> None:
        """Up to the middle of a stage; all stages but the gate unless one is named."""
        self.tell(("collect", "learn_fast_level"), stage)
        if stage == "learn_fast_level":
            return
        self.fast_memory()
        self.service.until(lambda: "deployment.fast_memory_live" in {event["type"] for event in self.service.events(self.sleep)})
        later = ("open_expert", "snapshot_teacher", "dream_corpus", "knowledge_seeding", "prune", *(DREAMS if dreams else ()))
        self.tell(later, stage)

    def tell(self, stages: Sequence[str], stop: str = "") -> None:
        before = len(self.told.lines)
        for name in stages:
            task = {"learn_fast_level": "fast_learning", "knowledge_seeding": "seeding", "dream_learn": "fast_learning"}.get(
                name, ""
            )
            outputs = {"into": [1, self.expert.expert]} if name == "open_expert" else None
            self.told.stage(name, outputs, task, f"{self.sleep}-{name}", done=name != stop)
            if name == stop:
                break
        for _, kind, message, data in self.told.lines[before:]:
            self.log.emit(kind, message, **data)

    def dream(self) -> None:
        """What a round of dreams leaves behind (pipelines/dreaming.py)."""
        folder = Path(self.job.home) / "dreaming" / "0"
        folder.mkdir(parents=True)
        known = {"source": "exp_3f9a01c2", "trust": "untrusted", "kind": "rewrite", "prompt": [1], "ids": [2]}
        dreams = [{"id": f"drm_0_{i}", "context": "exp_3f9a01c2", "text": text} | known for i, text in enumerate(DREAMT)]
        weighed = [
            {"dream": dream["id"], "score": 0.4 - i / 50, "fate": "top" if i < TRIED else "dropped"}
            for i, dream in enumerate(dreams)
        ]
        tried = [
            {"dream": dream["id"], "score": 0.31 + i / 5, "undreamt": 0.42, "rewarded": i > 0}
            for i, dream in enumerate(dreams[:TRIED])
        ]
        for name, lines in (("dreams", dreams), ("weighed", weighed), ("tried", tried)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    @property
    def expert(self) -> ExpertId:
        return self.opened[1]

    @property
    def opened(self) -> tuple[MemoryState, ExpertId]:
        return version_state(Path(self.job.parent)).opened(1)

    def judge(self, passed: bool = True, **measured: float) -> None:
        """The gate, and what comes of it."""
        reasons = [] if passed else [f"forgotten {measured['forgotten']:.3f} > 0.05"]
        gate = {"passed": passed, "reasons": reasons, "measured": measured}
        started = len(self.told.lines)
        self.told.stage("gate", done=False)
        kind = "sleep.gate_passed" if passed else "sleep.gate_failed"
        self.told.say(SECONDS["gate"], kind, "; ".join(reasons) or "gate passed", **measured)
        self.told.say(0.1, "sleep.stage_finished", "gate", stage="gate", seconds=SECONDS["gate"], outputs=gate)
        self.told.stage("publish")
        for _, kind, message, data in self.told.lines[started:]:
            self.log.emit(kind, message, **data)
        report = {"sleep": self.sleep, "recipe": self.job.recipe.model_dump(mode="json"), "gate": gate}
        self.write_child(measured)
        child = Path(self.job.child).name
        outcome = {"outcome": "candidate" if passed else "rejected", "version": child, "report": report}
        outcome["deliveries"] = {"rest": str(Path(self.job.home) / "rest.delivery"), "dawn": self.delivery("dawn.delivery", child)}
        (Path(self.job.home) / "outcome.json").write_text(json.dumps(outcome))
        self.launcher.jobs[self.submission] = Job.SUCCEEDED

    def write_child(self, measured: dict[str, float]) -> None:
        """A version folder as publish.py leaves one: an expert more is sealed, which has learned nothing."""
        parent, (state, where) = Path(self.job.parent), self.opened
        model, record = load_version(parent), read_record(parent)
        model.memory_state = state.sealed(where).freed([ExpertId(0, 0)])
        new = ExpertRecord(
            level=where.level, expert=where.expert, sleep=self.sleep, nights=(self.sleep,), data_sha256="0" * 64, metrics=measured
        )
        child = Path(self.job.child)
        made = {"id": child.name, "parent": record.id, "created_at": time.time(), "lineage": (*record.lineage, new)}
        save_version(child, model, record.model_copy(update=made), parent)


@dataclass
class CutStreams:
    """Breaks off an event stream once, after so many events, as a proxy does that was told to end."""

    app: ASGIApp
    after: int = 0
    resumed_from: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else None
        if headers is None or "text/event-stream" not in headers.get("accept", ""):
            await self.app(scope, receive, send)
            return
        self.resumed_from.append(headers.get("last-event-id", ""))
        gone = False

        async def cut(message: Message) -> None:
            nonlocal gone
            if gone:
                return
            if self.after and message.get("body", b"").startswith(b"id:"):
                self.after -= 1
                if not self.after:
                    gone, message = True, message | {"more_body": False}
            await send(message)

        await self.app(scope, receive, cut)


@dataclass
class World:
    """A service that listens, and the nights of its deployment."""

    service: Service
    url: str
    streams: CutStreams

    def sleep(self, **body: Any) -> LongNight:
        """A night that has been asked for, and submitted."""
        _, night = self.service.sleep(**body)
        return LongNight(night.launcher, night.sleep, self.service)

    def pose(self) -> None:
        """For pictures: the deployment as one of the model that ships, its first version before its first night."""
        with self.service.controller.database.write() as tx:
            tx.execute(update(Version).where(Version.parent.is_(None)).values(created_at=time.time() - 5 * DAY))
            tx.execute(update(Deployment).values(base_model={"model": "circadian/nursery/weights", "revision": None, "sha256": ""}))

    def running(self, sleep: str) -> LongNight:
        """The night of a sleep that somebody else has begun."""
        return LongNight(self.service.launcher, sleep, self.service)

    def night(self, days_ago: float, *, dreams: bool = False, passed: bool = True, mode: str = "on_pass", **measured: float) -> str:
        """A whole night of the past."""
        self.service.tell(f"fact {days_ago} of {measured} is oslo .")
        night = self.sleep(promotion={"mode": mode})
        if dreams:
            night.dream()
        night.live_until(dreams=dreams)
        night.judge(passed, **measured)
        self.service.ended(night.sleep)
        self.redate(night, time.time() - days_ago * DAY)
        return night.sleep

    def redate(self, night: LongNight, start: float) -> None:
        """As if the night had begun then, and had taken its time. The controller's own words take a second."""
        lines = list(night.told.lines)
        with self.service.controller.database.write() as tx:
            at = start
            for event in tx.scalars(select(Event).where(Event.sleep == night.sleep).order_by(Event.seq)):
                seconds = lines.pop(0)[0] if lines and lines[0][1] == event.type and lines[0][2] == event.message else 1.0
                at += seconds
                event.created_at = at
            row = tx.scalars(select(Sleep).where(Sleep.id == night.sleep)).one()
            row.created_at = start
            row.finished_at = at if row.finished_at else None
            tx.execute(update(Version).where(Version.sleep == night.sleep).values(created_at=at))


@contextmanager
def listening(settings: Settings, base: Path) -> Iterator[World]:
    """A controller on a port of 127.0.0.1, with an in-memory cluster."""
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    controller = Controller(settings, fleet, launcher, MemoryLearners(), MemoryWorkshop(settings))
    controller.keys.provide()
    streams = CutStreams(create_app(controller))
    server = uvicorn.Server(uvicorn.Config(streams, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            assert time.monotonic() < deadline, "the service did not start in time"
            time.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=WAIT_SECONDS) as client:
            yield World(Service(client, fleet, launcher, settings, base, controller), url, streams)
    finally:
        server.should_exit = True
        thread.join(WAIT_SECONDS)


@contextmanager
def four_nights(home: Path, base: Path) -> Iterator[World]:
    """Two that were kept, one refused by the gate, and one dreamt through."""
    quick: dict[str, Any] = {"poll_seconds": 0.02, "job_poll_seconds": 0.02, "workflow_poll_seconds": 0.05, "schedule_seconds": 0.1}
    with listening(Settings(home=home, api_key=KEY, **quick), base) as world:
        world.service.deploy("toy")
        world.night(4.05, agreement=0.98, lost=0.01, nll_rise=0.02)
        world.night(3.02, agreement=0.97, forgotten=0.02, lost=0.01, nll_rise=0.02)
        world.night(1.97, passed=False, agreement=0.97, forgotten=0.14, lost=0.02, nll_rise=0.03)
        world.night(1.0, dreams=True, agreement=0.96, forgotten=0.04, lost=0.02, nll_rise=0.03, dreamt=0.9)
        world.pose()
        yield world

"""A service without a cluster: the fleet and the launcher are small working ones that live in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastapi.testclient import TestClient
from migrated import new_home

from actors.chunk_files import ChunkFailed
from actors.learn_chunk import FastLevel, learn_chunk
from actors.replies import Proof
from actors.wake_state import read_wake
from actors.workshop import work
from circadian.events import EventLog
from circadian.memory.delivery import pack_tensors
from circadian.memory.folder import read_record, version_state
from circadian.memory.state import MemoryState
from circadian.memory.version import found_version
from circadian.specs import (
    Autoscale,
    BaseModelRef,
    ChunkJob,
    ChunkRecord,
    MemorySpec,
    NightJob,
    OnlineLearningSpec,
    Recipe,
    VersionRecord,
)
from services.api.app import create_app
from services.controller import Controller
from services.fleet import Body, DeliveryFailed, FleetUnavailable, Reply, Route, ServingSpec, Sight
from services.launcher import JobReport, LauncherUnavailable, awaited_by_driver
from services.learners import ChunkRefused, LearnerUnavailable
from services.plan import Job
from services.settings import Settings
from services.workshop import checked, found_request, founded, teachers_request

PERIOD = 32
ONLINE: dict[str, Any] = {
    "wake": "online",
    "memory": {"levels": [{"period": PERIOD, "experts": 1, "rank": 4}, {"period": 8 * PERIOD, "experts": 2, "rank": 4}]},
    "recipe": {"online_learning": {"steps": 3, "rows": 4}},
}
"""A deployment that learns while it serves, a chunk every PERIOD tokens."""
KEY = "test-key"
WAIT_SECONDS = 60.0
"""Bound of every wait of these tests: long, because a machine that does other things too is slow, and free where all is well."""


@dataclass
class MemoryFleet:
    """Replicas that answer with the last word they were told, and hold what was delivered to them; kept under the name by which clients ask
    for them, or under the deployment's id where another one has that name."""

    models: dict[str, str] = field(default_factory=dict)
    """Of each deployment that was started."""
    versions: dict[str, list[str]] = field(default_factory=dict)
    wakes: dict[str, Path] = field(default_factory=dict)
    bodies: list[Body] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    refuses: str = ""
    """Deliveries whose version contains this are refused."""
    holds: str = ""
    """A start of replicas whose key ends with this, and a delivery whose version contains it, do not get done."""
    mute: bool = False
    """No replica says what it serves."""
    dead: bool = False
    """No replica comes up."""
    room: tuple[float, float] = (64.0, 0.0)
    """CPUs and GPUs that nobody holds."""
    fails: str = ""
    """Replicas whose key ends with this answer nothing."""
    slow: dict[str, float] = field(default_factory=dict)
    """Ends of keys, and the seconds for which replicas with such a key think."""

    async def start(self, deployment: str, model: str, serving: ServingSpec, wake: Path) -> list[str]:
        while self.holds and deployment.endswith(self.holds):
            await asyncio.sleep(0.01)
        if self.dead:
            raise FleetUnavailable("no replica comes up")
        if deployment not in self.models:
            self.models[deployment] = deployment if model in self.models.values() else model
        state = read_wake(wake)
        self.wakes[self._model(deployment)] = wake
        await self.scale(deployment, serving, serving.replicas if state.replicas is None else state.replicas)
        self.versions[self._model(deployment)] = [state.version for _ in self.versions[self._model(deployment)]]
        return list(self.versions[self._model(deployment)])

    async def scale(self, deployment: str, serving: ServingSpec, replicas: int | Autoscale) -> None:
        there = self.versions.get(self._model(deployment), [])
        wanted = replicas.min if isinstance(replicas, Autoscale) else replicas
        new = [read_wake(self.wakes[self._model(deployment)]).version] * (wanted - len(there))
        self.versions[self._model(deployment)] = [*there[:wanted], *new]

    async def free(self) -> tuple[float, float]:
        return self.room

    async def stop(self, deployment: str) -> None:
        self.versions.pop(self._model(deployment), None)

    async def look(self, deployment: str) -> Sight:
        there = self.versions.get(self._model(deployment), [])
        said = frozenset() if self.mute else frozenset(there)
        return Sight(self._model(deployment) not in self.versions, said, running=len(there))

    async def serves(self, deployment: str) -> bool:
        return bool(self.versions.get(self._model(deployment)))

    async def answer(self, deployment: str, route: Route, body: Body) -> Reply:
        self._check(deployment)
        self.bodies.append(body)
        version, text = self.versions[self._model(deployment)][0], self._echo(body)
        await self._think(deployment)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice |= {"text": text} if route == "completion" else {"message": {"role": "assistant", "content": text}}
        return Reply(200, {"id": "answer", "model": self._model(deployment), "choices": [choice]}, version)

    async def stream(self, deployment: str, route: Route, body: Body) -> AsyncIterator[Reply | str]:
        self._check(deployment)
        self.bodies.append(body)
        yield Reply(200, {}, self.versions[self._model(deployment)][0])
        await self._think(deployment)
        for letter in self._echo(body):
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': letter}}]})}\n\n"
        if (body.get("stream_options") or {}).get("include_usage"):
            yield 'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
        yield "data: [DONE]\n\n"

    async def watch(self) -> None:
        """There is no cluster that could go."""
        await asyncio.Event().wait()

    async def deliver(self, deployment: str, payload: bytes) -> list[Proof]:
        size = int.from_bytes(payload[:8], "little")
        meta = json.loads(payload[8 : 8 + size])["__metadata__"]
        while self.holds and self.holds in meta["version"]:
            await asyncio.sleep(0.01)
        if self.refuses and self.refuses in meta["version"]:
            raise DeliveryFailed(f"refused {meta['version']}")
        if self._model(deployment) not in self.versions:
            raise DeliveryFailed("there is no replica")
        self.delivered.append(meta["version"])
        self.versions[self._model(deployment)] = [meta["version"]] * len(self.versions[self._model(deployment)])
        return [Proof(meta["version"], meta["checksum"], len(payload), 1.0) for _ in self.versions[self._model(deployment)]]

    def _check(self, deployment: str) -> None:
        if not self.versions.get(self._model(deployment)) or (self.fails and deployment.endswith(self.fails)):
            raise FleetUnavailable(f"deployment {deployment} has no replica that answers")

    async def _think(self, deployment: str) -> None:
        for end, seconds in self.slow.items():
            if deployment.endswith(end):
                await asyncio.sleep(seconds)

    def _model(self, deployment: str) -> str:
        return self.models.get(deployment, "")

    @staticmethod
    def _echo(body: Body) -> str:
        return body["messages"][-1]["content"].split()[-1] if "messages" in body else body["prompt"].split()[-1]


@dataclass
class MemoryLauncher:
    """Jobs that stay in the state a test gives them."""

    jobs: dict[str, Job] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    submissions: int = 0
    unreachable: bool = False
    """The cluster answers nothing."""
    pending: bool = False
    """It starts no driver."""
    submission: Literal["confirmed", "answer lost", "lost"] = "confirmed"
    """Whether a submission arrives, and whether it is known to."""

    async def submit(self, submission_id: str, job_file: Path, metadata: dict[str, str]) -> None:
        self.files[submission_id] = job_file
        if submission_id not in self.jobs and self.submission != "lost":
            self.submissions += 1
            self.jobs[submission_id] = Job.ALIVE
        if self.submission != "confirmed":
            raise LauncherUnavailable("no answer")

    async def report(self, submission_id: str) -> JobReport:
        if self.unreachable:
            return JobReport(Job.UNREACHABLE, "no answer")
        return JobReport(self.jobs.get(submission_id, Job.LOST), "the job's last words", self.pending, awaited_by_driver())

    async def stop(self, submission_id: str) -> None:
        if self.unreachable:
            raise LauncherUnavailable("no answer")
        self.jobs[submission_id] = Job.STOPPED

    async def logs(self, submission_id: str) -> str:
        if self.unreachable:
            raise LauncherUnavailable("no answer")
        return self.said.get(submission_id, "")


@dataclass
class MemoryLearners:
    """Learners that are threads of this process, and learn as the real ones do."""

    asked: list[Path] = field(default_factory=list)
    ended: int = 0
    held: bool = False
    """A learner that is asked does not get done."""
    dies: int = 0
    """So many times, after it has begun."""

    async def learn(self, deployment: str, job_file: Path, spec: OnlineLearningSpec) -> ChunkRecord:
        self.asked.append(job_file)
        while self.held:
            await asyncio.sleep(0.01)
        if self.dies:
            self.dies -= 1
            raise LearnerUnavailable("it died")
        job = ChunkJob.model_validate_json(job_file.read_text())
        try:
            return await asyncio.to_thread(lambda: learn_chunk(job, FastLevel(Path(job.version))))
        except ChunkFailed as error:
            raise ChunkRefused(str(error)) from error

    async def end(self, deployment: str) -> None:
        self.ended += 1


class MemoryWorkshop:
    """Does here what the real one has done on a node."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def found(self, base: BaseModelRef, memory: MemorySpec, folder: Path) -> VersionRecord:
        return founded(await asyncio.to_thread(work, found_request(self.settings, base, memory, folder)))

    async def check_teachers(self, version: Path, recipe: Recipe) -> None:
        checked(await asyncio.to_thread(work, teachers_request(self.settings, version, recipe)))


@dataclass
class Night:
    """Plays the night's part for one sleep: writes what `pipelines.night` writes."""

    launcher: MemoryLauncher
    sleep: str

    @property
    def job(self) -> NightJob:
        return NightJob.model_validate_json(self.launcher.files[self.submission].read_text())

    @property
    def submission(self) -> str:
        """Of the last attempt."""
        return [name for name in self.launcher.jobs if name.startswith(self.sleep)][-1]

    @property
    def log(self) -> EventLog:
        return EventLog(Path(self.job.home))

    def delivery(self, name: str, version: str) -> str:
        state: MemoryState = version_state(Path(self.job.parent))
        (Path(self.job.home) / name).write_bytes(pack_tensors({}, state, version))
        return str(Path(self.job.home) / name)

    def fast_memory(self) -> str:
        parent = Path(self.job.parent).name
        label = f"{parent}+{self.sleep}"
        rest = self.delivery("rest.delivery", parent)
        self.log.emit("sleep.fast_memory", "", delivery=self.delivery("dusk.delivery", label), rest=rest, version=label)
        return label

    def end(self, outcome: str, made: bool | None = None, **more: Any) -> str:
        """Leave outcome.json, with a version if it is a candidate (or `made` says so), and succeed. Returns the version that should
        serve."""
        job, child = self.job, Path(self.job.child)
        written: dict[str, Any] = {"outcome": outcome, "attempt": job.attempt, "deliveries": {}, "report": {"seconds": 1.0}} | more
        if made if made is not None else outcome == "candidate":
            parent = read_record(Path(job.parent))
            found_version(parent.base.model, None, MemorySpec(), child)
            record = read_record(child).model_copy(update={"parent": parent.id})
            (child / "version.json").write_text(record.model_dump_json())
            written |= {"version": child.name}
        if outcome == "candidate":
            written["deliveries"] = {"dawn": self.delivery("dawn.delivery", child.name)}
        (Path(job.home) / "outcome.json").write_text(json.dumps(written))
        self.launcher.jobs[self.submission] = Job.SUCCEEDED
        return child.name if outcome == "candidate" else Path(job.parent).name

    def fail(self) -> None:
        self.launcher.jobs[self.submission] = Job.FAILED


@dataclass
class Service:
    """A service that runs, and a client with the key."""

    client: TestClient
    fleet: MemoryFleet
    launcher: MemoryLauncher
    settings: Settings
    base: Path
    controller: Controller

    def deploy(self, name: str = "toy", **more: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/deployments", json={"name": name, "base_model": {"model": str(self.base)}} | more)
        assert answer.status_code == 201, answer.text
        self.until(lambda: self.status(name)["state"] == "awake")
        return answer.json()

    def tell(self, text: str = "the city of mira is oslo .", deployment: str = "toy") -> dict[str, Any]:
        body = {"deployment": deployment, "messages": [{"role": "user", "content": text}], "source": "human"}
        answer = self.client.post("/v1/experiences", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def sleep(self, **body: Any) -> tuple[dict[str, Any], Night]:
        """A sleep whose job has been submitted."""
        answer = self.client.post("/v1/sleeps", json={"deployment": "toy"} | body)
        assert answer.status_code == 202, answer.text
        sleep = answer.json()
        self.until(lambda: any(name.startswith(sleep["id"]) for name in self.launcher.jobs))
        return sleep, Night(self.launcher, sleep["id"])

    def get_sleep(self, sleep: str) -> dict[str, Any]:
        return self.client.get(f"/v1/sleeps/{sleep}").json()

    def status(self, deployment: str = "toy") -> dict[str, Any]:
        return self.client.get(f"/v1/deployments/{deployment}/status").json()

    def events(self, sleep: str) -> list[dict[str, Any]]:
        return self.client.get(f"/v1/sleeps/{sleep}/events").json()["data"]

    def ended(self, sleep: str) -> dict[str, Any]:
        """The sleep, once it has ended."""
        answer = self.client.get(f"/v1/sleeps/{sleep}", params={"wait": WAIT_SECONDS}).json()
        assert answer["status"] in ("succeeded", "failed", "cancelled"), answer
        return answer

    @staticmethod
    def until(condition: Any) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the service did not get there in time"
            time.sleep(0.01)


@contextmanager
def running(
    settings: Settings, base: Path, fleet: MemoryFleet, launcher: MemoryLauncher, learners: MemoryLearners | None = None
) -> Iterator[Service]:
    """One life of a controller."""
    new_home(settings)
    controller = Controller(settings, fleet, launcher, learners or MemoryLearners(), MemoryWorkshop(settings))
    controller.keys.provide()
    headers = {"Authorization": f"Bearer {KEY}"}
    with TestClient(create_app(controller), headers=headers, raise_server_exceptions=False) as client:
        yield Service(client, fleet, launcher, settings, base, controller)

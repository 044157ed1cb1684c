"""The controller: what all routes share, and what runs behind them. The cluster is behind two interfaces that are handed in."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path

from circadian.experience import experience_ids
from circadian.specs import Experience
from circadian.tokenizer import PlainTokenizer
from services import registry
from services.background import Background
from services.batches import Batches
from services.deleting import Deletions
from services.durable import Durable
from services.erasures import Erasures
from services.fleet import Fleet
from services.home import private_folder
from services.keys import Keys
from services.launcher import Launcher
from services.leader import Leader, Lease
from services.learners import Learners
from services.metrics import Metrics
from services.nights import Nights
from services.online import Online
from services.outbox import Outbox
from services.probe import RayProbe
from services.probe_runs import ProbeRuns
from services.rates import Rates
from services.retention import Retention
from services.rollouts import Rollouts
from services.scheduler import Scheduler
from services.serving import Serving
from services.settings import Settings
from services.signing import Signing
from services.states import ServingState
from services.tables import Database, Deployment
from services.traces import Traces
from services.tracing import Tracing
from services.traffic import Counter
from services.workshop import Workshop

LEADING = (
    "tell traces",
    "erase",
    "expire experiences",
    "take in batches",
    "run probes",
    "send webhooks",
    "look at schedules",
    "begin rollouts",
    "delete deployments",
    "begin deployments",
)
"""What a leader does in the background, in the order in which it is left."""


class Controller:
    """Owns the database and the background tasks; `open` before the first request, `close` after the last."""

    def __init__(self, settings: Settings, fleet: Fleet, launcher: Launcher, learners: Learners, workshop: Workshop) -> None:
        private_folder(settings.home_folder)
        self.settings, self.fleet, self.launcher, self.workshop = settings, fleet, launcher, workshop
        self.database = Database(settings.database, settings.database_busy_seconds, migrates=settings.database_migrates)
        self.ray = RayProbe(settings)
        self.keys = Keys(settings, self.database)
        self.rates = Rates(settings.requests_per_minute)
        self.lease, self.durable, self.signing = Lease(settings, self.database), Durable(settings), Signing(settings)
        self.serving = Serving(settings, self.lease, fleet, self.signing)
        self.leader = Leader(self.lease, self._lead, self._step_down)
        self.nights = Nights(settings, self.database, self.lease, self.durable, self.serving, launcher, self.signing)
        self.rollouts = Rollouts(settings, self.lease, self.serving, self.signing)
        self.online = Online(settings, self.lease, self.serving, learners)
        self.deletions = Deletions(settings, self.lease, self.serving, self.online)
        self.scheduler, self.traffic = Scheduler(settings, self.lease, self.nights), Counter(settings, self.database)
        self.metrics = Metrics(self.database, self.serving, self.leader)
        self.probe_runs = ProbeRuns(settings, self.lease, fleet)
        self.sealer = self.keys.sealer
        self.outbox = Outbox(settings, self.lease, self.sealer)
        self.batches, self.retention = Batches(settings, self.lease, self), Retention(settings, self.lease)
        self.erasures = Erasures(settings, self.lease, fleet, self.nights)
        self.tracing = Tracing.from_environment(self.lease.holder)
        self.tasks = Background(settings)

    async def open(self) -> None:
        """Answer, and lead if no other controller does."""
        await self.leader.campaign()
        self.tasks.start("campaign", self.leader.run)
        self.tasks.start("count traffic", self.traffic.run)
        self.tasks.start("watch the cluster", self.fleet.watch)

    async def close(self) -> None:
        """Stop looking after things; replicas and nights go on without."""
        await self.tasks.close()
        await self.leader.close()
        await asyncio.to_thread(self.traffic.flush)
        self.outbox.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close, self.settings.controller_stop_seconds / 3)
        self.database.close()

    async def _lead(self) -> None:
        """Bring every deployment up and go on with every sleep that is not over."""
        await self.durable.open()
        await asyncio.to_thread(self.signing.adopt, self.lease)
        self.nights.open()
        for deployment in await asyncio.to_thread(self._found):
            self.begin(deployment)
        self.tasks.start("begin deployments", self._begin_all)
        self.tasks.start("begin rollouts", self.rollouts.run)
        self.tasks.start("delete deployments", self.deletions.run)
        self.tasks.start("look at schedules", self.scheduler.run)
        self.tasks.start("send webhooks", self.outbox.run)
        self.tasks.start("run probes", self.probe_runs.run)
        self.tasks.start("take in batches", self.batches.run)
        self.tasks.start("expire experiences", self.retention.run)
        self.tasks.start("erase", self.erasures.run)
        if self.tracing is not None:
            self.tasks.start("tell traces", Traces(self.settings, self.lease, self.tracing).run)

    async def _step_down(self) -> None:
        """Leave everything to the next leader."""
        for task in LEADING:
            await self.tasks.end(task)
        await self.rollouts.close()
        await self.online.close()
        await self.nights.close()
        await self.durable.close()
        await self.serving.close()

    async def _begin_all(self) -> None:
        """Consumes deployments that other controllers founded; produces somebody who looks after them; waits for the next look."""
        while True:
            await asyncio.sleep(self.settings.replica_check_seconds)
            for deployment in await asyncio.to_thread(self._deployments):
                self.begin(deployment)

    def begin(self, deployment: Deployment) -> None:
        """Look after a deployment in the background, where this controller leads; else its leader finds it."""
        if not self.leader.leads:
            return
        self.serving.begin(deployment.id)
        if deployment.fast is not None:
            self.online.begin(deployment.id)

    def took_in(self, status: str) -> None:
        self.metrics.took_in(status)

    def tokens(self, deployment: Deployment, experience: Experience) -> int:
        """Tokens of an experience, as the deployment's tokenizer reads it."""
        tokenizer = _tokenizer(self.settings.version_folder(deployment.id, deployment.active_version))
        return len(experience_ids(tokenizer, experience))

    def _found(self) -> list[Deployment]:
        """All deployments. Until this leader has seen their replicas nobody knows how they are."""
        with self.lease.write() as tx:
            deployments = registry.deployments(tx)
            for deployment in deployments:
                registry.set_serving(tx, deployment.id, ServingState.PROVISIONING)
            return deployments

    def _deployments(self) -> list[Deployment]:
        with self.database.read() as tx:
            return registry.deployments(tx)


@lru_cache(maxsize=16)
def _tokenizer(folder: Path) -> PlainTokenizer:
    return PlainTokenizer.read(folder)

"""Deployments that learn online: one loop for each.

    consumes       experiences that the registry holds and the fast memory has not learned; the learner's records of chunks
    produces       chunk jobs (files), commits of chunks (registry), deliveries to the replicas
    waits for      the next poll, a chunk, a delivery's receipts: each bounded in settings.py or in the deployment's recipe
    unblocked by   new tokens, the learner's end, the end of a night

What to do is decided by `online_plan.py`; here it is done. A chunk is planned by writing its job, committed on disk by its record
(actors/learn_chunk.py), and then in the registry together with the experiences that it has learned. So a controller or a learner that
dies goes on from the last committed chunk, with the same experiences: none is lost, none is learned again in another chunk.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from actors.chunk_files import DELIVERY_FILE, EXPERT_FILE, JOB_FILE, chunk_folder
from circadian.files import write_whole
from circadian.specs import ChunkJob, ChunkRecord, Experience, FastStart, MemorySpec, Recipe
from services import fast_registry, registry
from services.background import Background, pause
from services.fleet import DeliveryFailed
from services.leader import Lease
from services.learners import ChunkRefused, Learners, LearnerUnavailable
from services.online_plan import OnlineSituation, OnlineStep, label, next_chunk, plan
from services.serving import Serving
from services.settings import Settings
from services.states import BEFORE_DUSK, ServingState
from services.tables import Deployment, FastMemory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Known:
    """What the registry says of a deployment that learns online."""

    name: str
    awake: bool
    active_version: str
    memory: FastMemory
    recipe: Recipe
    period: int
    """C_0, tokens."""
    due: bool
    night: bool
    dusk: bool


class Online:
    """Looks after every deployment that learns online."""

    def __init__(self, settings: Settings, lease: Lease, serving: Serving, learners: Learners) -> None:
        self.settings, self.lease, self.serving, self.learners = settings, lease, serving, learners
        self.loops = Background(settings)

    def begin(self, deployment_id: str) -> None:
        """Learn, and go on learning, in the background."""
        self.loops.start(f"learn {deployment_id}", lambda: _Loop(self, deployment_id).run())

    async def end(self, deployment_id: str) -> None:
        """Learn no more: the loop and the learner end. Raises LearnerUnavailable."""
        await self.loops.end(f"learn {deployment_id}")
        await self.learners.end(deployment_id)

    async def close(self) -> None:
        """Stop looking; a learner that is at work goes on, and its chunk is found by the next controller."""
        await self.loops.close()


class _Loop:
    """One deployment's loop."""

    def __init__(self, online: Online, deployment_id: str) -> None:
        self.settings, self.lease, self.database = online.settings, online.lease, online.lease.database
        self.serving, self.learners = online.serving, online.learners
        self.deployment_id = deployment_id
        self._chunk: asyncio.Task[ChunkRecord] | None = None
        self._learner = True
        """Whether there may be a learner of ours: an earlier controller may have left one."""

    async def run(self) -> None:
        failures = 0
        try:
            while True:
                if not await asyncio.to_thread(self._is_there):
                    return
                try:
                    waits = await self._advance()
                    failures = 0
                except (DeliveryFailed, LearnerUnavailable) as error:
                    log.warning("%s: %s", self.deployment_id, error)
                    failures, waits = failures + 1, True
                if waits:
                    await asyncio.sleep(pause(self.settings, failures) if failures else self.settings.online_poll_seconds)
        finally:
            if self._chunk is not None:
                self._chunk.cancel()

    async def _advance(self) -> bool:
        """Look, decide, do. True when there is nothing to do until the next poll."""
        known = await asyncio.to_thread(self._known)
        serves = (await self.serving.fleet.look(self.deployment_id)).versions if known.awake else frozenset()
        step = plan(
            OnlineSituation(
                active_version=known.active_version,
                version=known.memory.version,
                chunks=known.memory.chunks,
                serves=serves,
                due=known.due and known.awake,
                learner=self._learner,
                learning=self._chunk is not None,
                learned=self._chunk is not None and self._chunk.done(),
                stuck=known.memory.error is not None,
                night=known.night,
                dusk=known.dusk,
            )
        )
        if step is OnlineStep.STAND_STILL:
            await self._stand_still(known)
        elif step is OnlineStep.EMPTY:
            await self._stand_still(known)
            await asyncio.to_thread(self._empty, known.memory.day)
        elif step is OnlineStep.LEARN:
            if job_file := await asyncio.to_thread(self._plan_chunk, known):
                self._learner = True
                self._chunk = asyncio.create_task(self.learners.learn(self.deployment_id, job_file, known.recipe.online_learning))
        elif step is OnlineStep.COMMIT:
            await self._commit(known)
        elif step is OnlineStep.DELIVER:
            return await self._deliver(known)
        return step in (OnlineStep.WAIT, OnlineStep.LEARN)

    async def _stand_still(self, known: _Known) -> None:
        """End the learner: a chunk that it was at is learned again from its job, if its day goes on."""
        if self._chunk is not None:
            self._chunk.cancel()
            await asyncio.gather(self._chunk, return_exceptions=True)
            self._chunk = None
        await self.learners.end(self.deployment_id)
        self._learner = False

    async def _commit(self, known: _Known) -> None:
        """What the learner committed on disk, in the registry. Raises LearnerUnavailable where it died before it could."""
        assert self._chunk is not None
        chunk, self._chunk = self._chunk, None
        try:
            record = chunk.result()
        except ChunkRefused as error:
            log.error("%s learns no more today: %s", known.name, error)
            await asyncio.to_thread(self._stuck, str(error))
            return
        if await asyncio.to_thread(self._commit_chunk, known.memory.version, record):
            log.info(
                "%s learned chunk %d: %d experiences, %d tokens, loss %s to %s, %.1f s",
                known.name,
                record.number,
                len(record.experiences),
                record.tokens,
                record.first_loss,
                record.final_loss,
                record.seconds,
            )

    async def _deliver(self, known: _Known) -> bool:
        """Bring every replica to the fast memory in force. True where that is not to be done now."""
        memory = known.memory
        if not memory.chunks:
            return True  # on its way from an earlier day; whoever keeps replicas starts them anew where it does not get there
        path = chunk_folder(self.settings.day_folder(self.deployment_id, memory.day), memory.chunks) / DELIVERY_FILE
        receipts = await self.serving.deliver_online(self.deployment_id, path, memory.version)
        if receipts is None:
            return True
        log.info("%s serves as %s: %s", known.name, label(memory.version, memory.chunks), receipts)
        return False

    def _is_there(self) -> bool:
        with self.database.read() as tx:
            return registry.is_there(tx, self.deployment_id)

    def _known(self) -> _Known:
        with self.database.read() as tx:
            row, night = registry.deployment(tx, self.deployment_id), registry.active_sleep(tx, self.deployment_id)
            tokens = fast_registry.waiting_tokens(tx, self.deployment_id)
        assert row.fast is not None, "the loop is begun for deployments that have one"
        return _Known(
            name=row.name,
            awake=row.state is ServingState.AWAKE,
            active_version=row.active_version,
            memory=row.fast,
            recipe=Recipe.model_validate(row.recipe),
            period=period(row),
            due=tokens >= period(row),
            night=night is not None,
            dusk=night is not None and night.fast not in BEFORE_DUSK,
        )

    def _plan_chunk(self, known: _Known) -> Path | None:
        """The job of the next chunk, on disk; the one that was planned before, if it was; None where no chunk is full any more."""
        day, number = self.settings.day_folder(self.deployment_id, known.memory.day), known.memory.chunks + 1
        path = chunk_folder(day, number) / JOB_FILE
        if path.exists():
            return path
        with self.database.read() as tx:
            waiting = fast_registry.waiting(tx, self.deployment_id)
            ids = next_chunk(waiting, known.period)
            bodies = fast_registry.bodies(tx, ids)
        if not ids:
            return None
        tokens = {met.id: met.tokens for met in waiting}
        job = ChunkJob(
            number=number,
            version=str(self.settings.version_folder(self.deployment_id, known.memory.version)),
            day=str(day),
            experiences=tuple(Experience.model_validate(body) for body in bodies),
            tokens=sum(tokens[id] for id in ids),
            max_row_tokens=known.recipe.max_row_tokens,
            split=known.recipe.split,
            learning=known.recipe.online_learning,
        )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, job.model_dump_json(indent=2))
        return path

    def _commit_chunk(self, version: str, record: ChunkRecord) -> bool:
        with self.lease.write() as tx:
            return fast_registry.commit_chunk(tx, self.deployment_id, version, record)

    def _empty(self, day: int) -> None:
        """The day's files go with it: what it was told is in the night's home, and what it learned in the new version."""
        with self.lease.write() as tx:
            over = fast_registry.empty(tx, self.deployment_id)
        if over:
            shutil.rmtree(self.settings.day_folder(self.deployment_id, day), ignore_errors=True)

    def _stuck(self, error: str) -> None:
        with self.lease.write() as tx:
            fast_registry.stuck(tx, self.deployment_id, error)


def period(deployment: Deployment) -> int:
    """C_0 of a deployment: tokens between two updates of its fast level."""
    return MemorySpec.model_validate(deployment.memory).levels[0].period


def fast_start(settings: Settings, memory: FastMemory | None, learned: tuple[str, ...], version: str) -> FastStart | None:
    """What a night over this version begins from: what was learned online for it."""
    if memory is None or memory.version != version or not memory.chunks or memory.checksum is None:
        return None
    expert = chunk_folder(settings.day_folder(memory.deployment, memory.day), memory.chunks) / EXPERT_FILE
    return FastStart(expert=str(expert), checksum=memory.checksum, chunks=memory.chunks, experiences=learned)

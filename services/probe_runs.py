"""Runs of probes, carried out by the leading controller: one after the other, each asked of the replicas that serve.

    consumes       runs that are queued, or that an earlier leader left running
    produces       per_item and score; a run that cannot be carried out ends as failed, with the reason
    waits for      the next look; an answer, bounded by `answer_seconds`; a deployment that does not answer, by `probe_patience_seconds`
    unblocked by   time

A run asks one version: where another one answers (a night or an operator has changed what serves) it fails and says so. It is asked
anew from its first item where its leader was lost, or a replica; what is written is written whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from circadian.probing import Scored, item_score, mean
from circadian.specs import ProbeItem, UserProbe
from services import registry
from services.exchange import said_in
from services.fleet import Body, Fleet, FleetUnavailable, Route
from services.leader import Lease
from services.probing import spec_of
from services.settings import Settings
from services.states import ServingState
from services.tables import Deployment, Json, ProbeRun

log = logging.getLogger(__name__)
WAITING = ("queued", "running")
OK = 200


class VersionChanged(Exception):
    """Another version serves than the run asks."""


@dataclass(frozen=True)
class Due:
    """A run that can be carried out now."""

    id: str
    deployment: str
    """Its id, by which its replicas are found."""
    model: str
    version: str
    probe: UserProbe


class ProbeRuns:
    """Carries out what is queued."""

    def __init__(self, settings: Settings, lease: Lease, fleet: Fleet) -> None:
        self.settings, self.lease, self.fleet = settings, lease, fleet

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self.settings.probe_seconds)

    async def look(self) -> None:
        """Every run that waits, once."""
        for id in await asyncio.to_thread(self._waiting):
            due = await asyncio.to_thread(self._begin, id)
            if due is not None:
                await self._carry_out(due)

    async def _carry_out(self, due: Due) -> None:
        try:
            scored = await self._answers(due)
        except VersionChanged as error:
            await asyncio.to_thread(self._fail, due.id, "version_changed", str(error))
        except (FleetUnavailable, TimeoutError) as error:
            log.warning("run %s: %s does not answer: %r", due.id, due.model, error)
            await asyncio.to_thread(self._put_back, due.id, f"{due.model} does not answer: {error or type(error).__name__}")
        else:
            await asyncio.to_thread(self._succeed, due.id, scored)

    async def _answers(self, due: Due) -> list[Scored]:
        """Of every item, a few at once. Raises VersionChanged, FleetUnavailable, TimeoutError: the first of them ends the others."""
        places = asyncio.Semaphore(self.settings.probe_answers_at_once)

        async def one(item: ProbeItem) -> Scored:
            async with places, asyncio.timeout(self.settings.answer_seconds):
                return await self._answer(due, item)

        asked = [asyncio.create_task(one(item)) for item in due.probe.items]
        try:
            return await asyncio.gather(*asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _answer(self, due: Due, item: ProbeItem) -> Scored:
        route, body = question(due, item)
        reply = await self.fleet.answer(due.deployment, route, body)
        if reply.version.split("+")[0] != due.version:
            raise VersionChanged(f"{reply.version} answers, and the run asks {due.version}; ask for another run")
        if reply.status != OK:
            return Scored(None, 0.0, _refusal(reply.body) or f"the replica answered {reply.status}")
        return await asyncio.to_thread(item_score, due.probe, item, said_in(reply.body, route))

    def _waiting(self) -> list[str]:
        with self.lease.database.read() as tx:
            return list(tx.scalars(select(ProbeRun.id).where(ProbeRun.status.in_(WAITING)).order_by(ProbeRun.number)))

    def _begin(self, id: str) -> Due | None:
        """None where there is nothing to be done now: it was deleted, or its deployment is not awake."""
        with self.lease.write() as tx:
            row = tx.scalar(select(ProbeRun).where(ProbeRun.id == id).with_for_update())
            if row is None or row.status not in WAITING:
                return None
            deployment = registry.one(tx, Deployment, "deployment", row.deployment)
            if deployment.active_version != row.version:
                self._end(row, "version_changed", f"{deployment.active_version} serves, and the run asks {row.version}")
                return None
            if deployment.state is not ServingState.AWAKE:
                self._wait(row, f"{deployment.name} is {deployment.state.value}")
                return None
            row.status, row.began_at = "running", row.began_at or time.time()
            return Due(row.id, deployment.id, deployment.name, row.version, spec_of(row.probe, row.spec))

    def _succeed(self, id: str, scored: list[Scored]) -> None:
        with self.lease.write() as tx:
            if row := tx.scalar(select(ProbeRun).where(ProbeRun.id == id).with_for_update()):
                row.per_item = [told(one) for one in scored]
                row.score, row.status, row.finished_at = mean(scored), "succeeded", time.time()

    def _fail(self, id: str, code: str, message: str) -> None:
        with self.lease.write() as tx:
            if row := tx.scalar(select(ProbeRun).where(ProbeRun.id == id).with_for_update()):
                self._end(row, code, message)

    def _put_back(self, id: str, why: str) -> None:
        with self.lease.write() as tx:
            if row := tx.scalar(select(ProbeRun).where(ProbeRun.id == id).with_for_update()):
                self._wait(row, why)

    def _wait(self, row: ProbeRun, why: str) -> None:
        """For the next look, or no longer."""
        row.status = "queued"
        if time.time() - row.created_at > self.settings.probe_patience_seconds:
            self._end(row, "engine_unavailable", f"{why}; ask for another run when it answers")

    @staticmethod
    def _end(row: ProbeRun, code: str, message: str) -> None:
        row.status, row.finished_at = "failed", time.time()
        row.error = {"code": code, "message": message}


def question(due: Due, item: ProbeItem) -> tuple[Route, Body]:
    """An item as the replicas are asked it: greedily."""
    how: Body = {"model": due.model, "temperature": 0, "max_tokens": due.probe.max_tokens}
    if item.prompt:
        return "completion", how | {"prompt": item.prompt}
    return "chat", how | {"messages": [message.model_dump() for message in item.messages]}


def told(scored: Scored) -> Json:
    """As a run keeps it."""
    return {"score": scored.score, "answer": scored.answer, "error": scored.error}


def _refusal(body: dict[str, Any]) -> str | None:
    """What an engine says that refuses a question."""
    error = body.get("error")
    return error.get("message") if isinstance(error, dict) else None

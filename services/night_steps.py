"""The steps of a night that take time: its job is submitted, its replicas get deliveries, lend GPUs and take them back.

    consumes       what the night left in its home
    produces       Ray jobs, deliveries to the replicas; the sleep's row (night_records.py)
    waits for      the cluster's answer, a delivery's receipts: each bounded in settings.py
    unblocked by   these, or their failure, which is recorded

Each step is safe to take twice: a leader that died in the middle of one may have taken it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from actors import names
from circadian.memory.signature import SignatureBroken
from circadian.specs import Recipe
from services.attempts import empty_home, write_job
from services.background import pause
from services.errors import Problem
from services.fleet import DeliveryFailed, FleetUnavailable
from services.launcher import JobReport, Launcher, LauncherUnavailable
from services.leader import Lease
from services.night_records import Records
from services.outcome import NightOutcome, night_error
from services.outside import check_recipe
from services.placement import Room
from services.plan import Job
from services.serving import Serving, receipts_data
from services.settings import Settings
from services.signing import Signing
from services.states import FastState
from services.tables import Database, Sleep

log = logging.getLogger(__name__)


class Steps(Records):
    """Of one sleep, in one of its lives."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        lease: Lease,
        signing: Signing,
        serving: Serving,
        launcher: Launcher,
        key: tuple[str, int],
    ) -> None:
        super().__init__(settings, database, lease, signing, key)
        self.serving, self.launcher = serving, launcher
        self._asked_at = -math.inf
        """When the cluster was last asked about the job."""
        self._unconfirmed = 0
        """Submissions in a row whose answer did not come."""

    async def _submit(self, sleep: Sleep, again: bool) -> None:
        """Written before it is done: whatever becomes of the submission, the attempt is one that may run."""
        try:
            await self._lend(sleep)
        except FleetUnavailable as error:
            await asyncio.to_thread(self._wait_for, f"waits for the cluster: {error}")
            await asyncio.sleep(self.settings.job_poll_seconds)
            return
        try:
            await asyncio.to_thread(self.signing.verify, self.settings.version_folder(sleep.deployment, sleep.parent_version))
            check_recipe(self.settings, Recipe.model_validate(sleep.recipe))
        except SignatureBroken as error:
            await asyncio.to_thread(self._condemn, night_error("version_broken", str(error)))
            return
        except Problem as problem:  # the recipe is from before its operator said what is allowed
            await asyncio.to_thread(self._condemn, night_error(problem.code, problem.detail, "user"))
            return
        fence = self.lease.fence()
        if sleep.starts_over:
            await asyncio.to_thread(empty_home, self.settings, sleep, fence)
        attempt = await asyncio.to_thread(self._begin_attempt, again)
        if attempt is None:
            return
        self._report, self._asked_at = JobReport(Job.LOST), -math.inf
        job_file, (tenant, name) = await asyncio.to_thread(write_job, self.settings, self.database, sleep, attempt, fence)
        metadata = {"sleep_id": sleep.id, "tenant": tenant, "deployment": name, "phase": "night"}
        try:
            await self.launcher.submit(names.night_job(sleep.id, attempt), job_file, metadata)
        except LauncherUnavailable as error:
            self._unconfirmed += 1
            log.warning("%s is not known to be submitted, %d times now: %s", self.sleep_id, self._unconfirmed, error)
            await asyncio.to_thread(self._wait_for, f"waits for the cluster to take its job: {error}")
            await asyncio.sleep(pause(self.settings, self._unconfirmed))
            return
        self._unconfirmed = 0
        await asyncio.to_thread(self._submitted, attempt)

    async def _lend(self, sleep: Sleep) -> None:
        """Let the replicas lend what the night needs; decided once, and done once until it is taken back. Raises FleetUnavailable."""
        if sleep.lent:
            return
        placed = sleep.placed
        if placed is None:
            placed = await asyncio.to_thread(self._place, sleep, Room(*await self.serving.fleet.free()))
        if placed is None or placed["serving"] is None:
            return
        await self.serving.scale(sleep.deployment, placed["serving"])
        await asyncio.to_thread(self._set_lent, True)

    async def _take_back(self, sleep: Sleep) -> None:
        """All replicas serve again; those that lent start beside those that serve, as what the deployment serves then."""
        if sleep.placed is None or sleep.placed["serving"] is None:
            return
        try:
            await self.serving.scale(sleep.deployment, None)
        except FleetUnavailable as error:
            log.warning("%s: its replicas come back when the cluster does: %s", self.sleep_id, error)
        await asyncio.to_thread(self._set_lent, False)

    async def _deliver_fast(self, sleep: Sleep) -> None:
        assert sleep.fast_delivery is not None
        await asyncio.to_thread(self._set_fast, FastState.SENT)
        try:
            receipts = await self.serving.deliver(sleep.deployment, self._home_of(sleep) / sleep.fast_delivery)
        except DeliveryFailed as error:
            await asyncio.to_thread(self._condemn, night_error("delivery_failed", str(error)))
            return
        message = "the deployment serves with its fast memory"
        await asyncio.to_thread(self._set_fast, FastState.LIVE, "deployment.fast_memory_live", message, receipts_data(receipts))

    async def _put_back(self, sleep: Sleep, outcome: NightOutcome | None) -> None:
        """The replicas return to the parent: by delivery, or as new replicas where that fails."""
        rest = sleep.rest_delivery or (outcome.deliveries.get("rest") if outcome else None)
        try:
            if await asyncio.to_thread(self._parent_serves, sleep) is False:
                # Somebody has gone back to another version meanwhile, and the replicas are brought there by that.
                await asyncio.to_thread(self._set_fast, FastState.RESTED)
                return
            if rest is None:
                raise DeliveryFailed("the night left no delivery that goes back to the parent")
            data = receipts_data(await self.serving.deliver(sleep.deployment, self._home_of(sleep) / rest))
        except DeliveryFailed as error:
            log.error("%s: replicas are started anew: %s", self.sleep_id, error)
            await self.serving.restart(sleep.deployment)
            data = {"restarted": str(error)}
        message = f"the deployment serves {sleep.parent_version} again"
        await asyncio.to_thread(self._set_fast, FastState.RESTED, "deployment.put_back", message, data)

    async def _dawn(self, sleep: Sleep, outcome: NightOutcome) -> None:
        started = time.monotonic()
        try:
            receipts = await self.serving.deliver(sleep.deployment, self._home_of(sleep) / outcome.deliveries["dawn"])
        except DeliveryFailed as error:
            await asyncio.to_thread(self._undo, night_error("delivery_failed", str(error)))
            return
        await self._take_back(sleep)
        data = {"version": sleep.result_version, "parent": sleep.parent_version, **receipts_data(receipts)}
        await asyncio.to_thread(self._succeed, data, time.monotonic() - started)

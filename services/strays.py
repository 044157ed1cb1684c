"""Jobs that may outlive their sleep: those whose end the cluster did not confirm before the sleep had to end.

    consumes       the table of stray jobs, the cluster's word on each
    produces       stops; a row is gone when its job is known to have ended
    waits for      the next round (longer and longer while the cluster does not answer), or the next stray
    unblocked by   a sleep that ends

The table outlives the controller: what one life could not stop, the next one does.
"""

from __future__ import annotations

import asyncio
import logging
import time

from services import registry
from services.background import pause
from services.launcher import Launcher, LauncherUnavailable
from services.leader import Lease
from services.plan import ENDED_JOBS, Job
from services.settings import Settings
from services.tables import StrayJob

log = logging.getLogger(__name__)


class Strays:
    """Stops them in the background."""

    def __init__(self, settings: Settings, lease: Lease, launcher: Launcher) -> None:
        self.settings, self.lease, self.database, self.launcher = settings, lease, lease.database, launcher
        self._more = asyncio.Event()

    def look(self) -> None:
        """There may be one more."""
        self._more.set()

    async def run(self) -> None:
        """For as long as the controller lives."""
        rounds = 0
        while True:
            self._more.clear()
            left = [job for job in await asyncio.to_thread(self._jobs) if not await self._over(job)]
            rounds = rounds + 1 if left else 0
            try:
                async with asyncio.timeout(pause(self.settings, rounds) if left else None):
                    await self._more.wait()
            except TimeoutError:
                pass  # the next round is due

    async def _over(self, job: StrayJob) -> bool:
        """Stop a job if it runs. True, and the row gone, when it does not run and will not."""
        found = (await self.launcher.report(job.id)).job
        # One that the cluster does not know may still be on its way: a submission that was given up can arrive after all.
        late = time.time() - job.created_at > self.settings.ray_patience_seconds
        if found in ENDED_JOBS or (found is Job.LOST and late):
            log.info("job %s, which sleep %s left behind, is %s", job.id, job.sleep, found.value)
            await asyncio.to_thread(self._forget, job.id)
            return True
        if found is Job.ALIVE:
            try:
                await self.launcher.stop(job.id)
            except LauncherUnavailable as error:
                log.warning("job %s is not stopped yet: %s", job.id, error)
        return False

    def _jobs(self) -> list[StrayJob]:
        with self.database.read() as tx:
            return registry.stray_jobs(tx)

    def _forget(self, job: str) -> None:
        with self.lease.write() as tx:
            registry.forget_stray_job(tx, job)

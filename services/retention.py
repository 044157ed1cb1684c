"""What nobody wanted in time is erased, by the leading controller: some at each look, so that no transaction is long.

    consumes       deployments with a retention, their experiences that no version keeps and no night has taken
    produces       expired experiences: without a body, and without what goes with one
    waits for      the next round
    unblocked by   time

What a fast memory has learned waits for its night. What a version keeps is not erased by age: `erasures.py` does that, when it is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated

from pydantic import Field
from sqlalchemy import exists, select

from circadian.specs import Spec
from services.forgetting import expire, hold, untaken
from services.leader import Lease
from services.settings import Settings
from services.tables import Deployment, ExperienceRow, Learned

log = logging.getLogger(__name__)
AT_ONCE = 500
"""Experiences of one transaction."""
DAY_SECONDS = 86_400.0


class RetentionSpec(Spec):
    """How long what comes in is kept."""

    experience_ttl_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """After so many days the text of an experience that no version keeps is erased, and no night takes it any more. None: never."""


class Retention:
    """Looks at every deployment that has one."""

    def __init__(self, settings: Settings, lease: Lease) -> None:
        self.settings, self.lease = settings, lease

    async def run(self) -> None:
        while True:
            found = [await asyncio.to_thread(self.look, deployment) for deployment in await asyncio.to_thread(self._with_retention)]
            if not any(found):
                await asyncio.sleep(self.settings.retention_seconds)

    def look(self, deployment_id: str, now: float | None = None) -> int:
        """One look at one deployment. Returns how many experiences expired."""
        with self.lease.write() as tx:
            deployment = hold(tx, deployment_id)
            days = RetentionSpec.model_validate(deployment.retention).experience_ttl_days if deployment else None
            if days is None:
                return 0
            ids = tx.scalars(
                select(ExperienceRow.id)
                .where(
                    ExperienceRow.deployment == deployment_id,
                    ExperienceRow.status.in_(("pending", "quarantined")),
                    ExperienceRow.created_at < (time.time() if now is None else now) - days * DAY_SECONDS,
                    untaken(),
                    ~exists().where(Learned.experience == ExperienceRow.id),
                )
                .order_by(ExperienceRow.created_at)
                .limit(AT_ONCE)
            ).all()
            count = expire(tx, ids) if ids else 0
        if count:
            log.info("%s: %d experiences have expired", deployment_id, count)
        return count

    def _with_retention(self) -> list[str]:
        with self.lease.database.read() as tx:
            rows = tx.execute(select(Deployment.id, Deployment.retention).order_by(Deployment.number))
            return [id for id, retention in rows if retention.get("experience_ttl_days")]

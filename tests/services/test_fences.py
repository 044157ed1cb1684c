"""Promotion happens once: whoever no longer leads commits nothing, and a version whose parent serves no more does not follow it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running
from postgres import new_database
from sqlalchemy import update

from services.leader import ONLY, Lease
from services.settings import Settings
from services.tables import Database, Deployment, Leadership


@dataclass
class Cluster:
    """What outlives a controller."""

    settings: Settings
    base: Path
    fleet: MemoryFleet = field(default_factory=MemoryFleet)
    launcher: MemoryLauncher = field(default_factory=MemoryLauncher)

    def controller(self) -> AbstractContextManager[Service]:
        return running(self.settings, self.base, self.fleet, self.launcher)


def almost_over(service: Service) -> tuple[dict[str, Any], Night]:
    """A night that serves with its fast memory, and has only its end to tell."""
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    label = night.fast_memory()
    service.until(lambda: service.fleet.versions["toy"] == [label])
    return sleep, night


def over(database: Database) -> None:
    """Whoever leads has said nothing for as long as its lease."""
    with database.write() as tx:
        tx.execute(update(Leadership).where(Leadership.id == ONLY).values(until=0.0))


def test_4_a_controller_that_no_longer_leads_commits_nothing(
    settings: Settings, base: Path, postgres_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On PostgreSQL: an SQLite file has one controller."""
    cluster = Cluster(settings.model_copy(update={"database_url": new_database(postgres_server, "fences")}), base)
    with cluster.controller() as service:
        sleep, night = almost_over(service)
        over(service.controller.database)
        assert Lease(cluster.settings, service.controller.database).take()
        night.end("candidate")
        service.until(lambda: "it is term 2 now; it goes on there" in caplog.text)
        assert service.status()["active_version"] == sleep["parent_version"]
        assert service.get_sleep(sleep["id"])["result_version"] is None
        assert service.status()["pending"]["experiences"] == 1
        over(service.controller.database)
    with cluster.controller() as service:
        ended = service.ended(sleep["id"])
        assert (ended["status"], ended["result_version"]) == ("succeeded", Path(night.job.child).name)
        assert service.status()["active_version"] == ended["result_version"]
        assert [event["type"] for event in service.events(sleep["id"])].count("version.promoted") == 1


def test_4_a_version_follows_only_the_parent_that_it_was_made_from(settings: Settings, base: Path, database_url: str) -> None:
    with Cluster(settings.model_copy(update={"database_url": database_url}), base).controller() as service:
        sleep, night = almost_over(service)
        with service.controller.database.write() as tx:
            tx.execute(update(Deployment).values(active_version="ver_other"))
        night.end("candidate")
        ended = service.ended(sleep["id"])
        assert (ended["status"], ended["error"]["code"], ended["result_version"]) == ("failed", "parent_changed", None)
        assert service.status()["active_version"] == "ver_other"

"""A backup as docs/operating.md says it is made, and what is there after everything else was lost.

The database first, then the home: whatever a row names is in the home by then. What happened after the backup is gone, and what ran while
it was made goes on from its last sealed stage.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, running
from postgres import binaries, new_database
from sqlalchemy.engine import make_url

from services.settings import Settings

Restore = Callable[[], Settings]


def backed_up(settings: Settings, folder: Path) -> Restore:
    """Dump the database, then pack the home; what puts both back, where nothing is left of them."""
    home, archive = settings.home_folder, folder / "home.tar"
    put_database = (dumped if settings.database.startswith("postgresql") else copied)(settings, folder)
    with tarfile.open(archive, "w") as tar:
        tar.add(home, arcname=".")

    def restore() -> Settings:
        with tarfile.open(archive) as tar:
            tar.extractall(home, filter="data")
        return put_database()

    return restore


def dumped(settings: Settings, folder: Path) -> Restore:
    """Of PostgreSQL, workflows included: they are in the same database."""
    where, url = binaries(), make_url(settings.database)
    assert where is not None
    dump = folder / "registry.dump"
    subprocess.run([where / "pg_dump", "--format=custom", f"--file={dump}", url.render_as_string(False)], check=True, timeout=60.0)

    def restore() -> Settings:
        again = new_database(settings.database.rpartition("/")[0], f"{url.database}_restored")
        subprocess.run([where / "pg_restore", "--no-owner", f"--dbname={again}", dump], check=True, timeout=60.0)
        return settings.model_copy(update={"database_url": again})

    return restore


def copied(settings: Settings, folder: Path) -> Restore:
    """Of SQLite, while it is written: a file copy could be torn."""
    files = [Path(make_url(url).database or "") for url in (settings.database, settings.workflow_database)]
    for file in files:
        with sqlite3.connect(file) as source, sqlite3.connect(folder / file.name) as target:
            source.backup(target)

    def restore() -> Settings:
        for file in files:
            for rest in file.parent.glob(f"{file.name}-*"):
                rest.unlink()
            shutil.copy(folder / file.name, file)
        return settings

    return restore


@pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)
def test_after_a_restore_it_serves_what_it_served_and_the_night_that_ran_goes_on(
    settings: Settings, base: Path, tmp_path: Path
) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        told = service.tell("the city of mira is oslo .")
        first, night = service.sleep()
        version = night.end("candidate")
        assert service.ended(first["id"])["outcome"] == "promoted"
        waiting = service.tell("the city of jehas is rome .")
        second, _ = service.sleep()
        service.until(lambda: service.get_sleep(second["id"])["status"] != "queued")
        restore = backed_up(settings, tmp_path)
        late = service.tell("the city of tolan is bonn .")
    shutil.rmtree(settings.home_folder)

    with running(restore(), base, MemoryFleet(), launcher := MemoryLauncher()) as again:
        assert again.status()["active_version"] == version
        again.until(lambda: any(name.startswith(second["id"]) for name in launcher.jobs))
        assert Night(launcher, second["id"]).submission != f"{second['id']}-a1", "the cluster knows nothing of the first attempt"
        better = Night(launcher, second["id"]).end("candidate")
        assert again.ended(second["id"])["outcome"] == "promoted"
        assert again.status()["active_version"] == better
        kept = {row["id"]: row["version"] for row in again.client.get("/v1/experiences").json()["data"]}
        assert kept == {told["id"]: version, waiting["id"]: better}
        assert again.client.get(f"/v1/experiences/{late['id']}").status_code == 404, "it came after the backup"


@pytest.fixture
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """On each database."""
    if request.param == "sqlite":
        return settings
    server = request.getfixturevalue("migrated_server")
    return settings.model_copy(
        update={"database_url": new_database(server, f"restore_{abs(hash(request.node.nodeid))}", like="migrated")}
    )

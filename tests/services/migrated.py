"""Databases with the schema of this release, copied: to make one step by step takes longer than most tests.

What the steps make of an empty database, and of old ones, is tested in test_migrations.py, and on whole homes in tests/e2e.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy.engine import make_url

from services.durable import Durable
from services.home import private_folder
from services.settings import Settings
from services.tables import Database

MIGRATED = "migrated"
"""A database of the tests' PostgreSQL that others are copied from."""


def new_home(settings: Settings) -> None:
    """Make the home, and those of its SQLite files that are not there, as the first start would have left them."""
    private_folder(settings.home_folder)
    for url, made in ((settings.database, "circadian.db"), (settings.workflow_database, "workflows.db")):
        file = Path(make_url(url).database or "")
        if url.startswith("sqlite") and not file.exists():
            shutil.copy(_home() / made, file)


def migrate(settings: Settings) -> None:
    """Step by step, as a first start does."""
    Database(settings.database, settings.database_busy_seconds).close()
    asyncio.run(_durable(settings))


async def _durable(settings: Settings) -> None:
    durable = Durable(settings)
    await durable.open()
    await durable.close()


@cache
def _home() -> Path:
    """Of a controller that has started once."""
    folder = Path(tempfile.mkdtemp(prefix="circadian-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings = Settings(home=folder / "home")
    private_folder(settings.home_folder)
    migrate(settings)
    return settings.home_folder

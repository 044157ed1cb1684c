"""An attempt at a night: what is written down before its job is submitted, and how long the next one waits.

    home/job.json            what is asked; the same in every attempt but for its number, or the sealed stages would be another night's
    home/experiences.jsonl   what it sleeps on

A sleep that starts over finds nothing of what it did before but the events, which were told.

Threads write here that nothing stops: one whose disk hangs may go on when another controller leads and a later attempt runs. So whatever
changes is renamed, out of a file or into a folder that is its writer's alone. The writer asks whether it leads once that is there, and who
leads next deletes those of others before it writes: a renaming that comes too late finds one of its ends gone.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from circadian.events import FILE
from circadian.files import take_back, write_whole
from circadian.night_files import JOB_FILE
from circadian.specs import NightJob
from services import fast_registry, registry
from services.online import fast_start
from services.settings import Settings
from services.tables import Database, Sleep

EXPERIENCES_FILE = "experiences.jsonl"
ASIDE = ".over-"
"""How folders are called, in a night's home, of what is over."""
PRIVATE = 0o600
Fence = Callable[[], None]
"""Raises Deposed where another controller leads by now (`Lease.fence`)."""


def write_job(settings: Settings, database: Database, sleep: Sleep, attempt: int, fence: Fence) -> tuple[Path, tuple[str, str]]:
    """The attempt's files; returns the job's, and tenant and name of the deployment. Safe to take twice. Raises Deposed.

    A job that is there may name a later attempt than this, where the database is from a backup that is older than the home's.
    """
    home = settings.sleep_folder(sleep.deployment, sleep.id)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, met = home / JOB_FILE, home / EXPERIENCES_FILE
    fence()
    for left in home.glob(f"{ASIDE}*"):
        shutil.rmtree(left)
    take_back(path)
    take_back(met)
    with database.read() as tx:
        experiences = registry.taken_experiences(tx, sleep.id)
        deployment = registry.deployment(tx, sleep.deployment)
    if path.exists():
        job = NightJob.model_validate_json(path.read_text()).model_copy(update={"attempt": attempt})
    else:
        job = _first_job(settings, database, sleep, attempt)
    write_whole(met, "".join(json.dumps(row.body) + "\n" for row in experiences), PRIVATE, fence)
    write_whole(path, job.model_dump_json(indent=2), PRIVATE, fence)
    return path, (deployment.tenant, deployment.name)


def _first_job(settings: Settings, database: Database, sleep: Sleep, attempt: int) -> NightJob:
    home = settings.sleep_folder(sleep.deployment, sleep.id)
    with database.read() as tx:
        deployment = registry.deployment(tx, sleep.deployment)
        learned = fast_registry.learned(tx, sleep.deployment) if deployment.fast else ()
    return NightJob(
        sleep=sleep.id,
        attempt=attempt,
        deployment=sleep.deployment,
        seed=sleep.seed,
        parent=str(settings.version_folder(sleep.deployment, sleep.parent_version)),
        child=str(settings.version_folder(sleep.deployment, sleep.child_version)),
        home=str(home),
        experiences=str(home / EXPERIENCES_FILE),
        fast=fast_start(settings, deployment.fast, learned, sleep.parent_version),
        probes=sleep.probes,  # type: ignore[arg-type]  # dicts that pydantic reads
        held_out=tuple(sleep.held_out),
        recipe=sleep.recipe,  # type: ignore[arg-type]  # a dict that pydantic reads
    )


def empty_home(settings: Settings, sleep: Sleep, fence: Fence) -> None:
    """Nothing is sealed any more. Before the attempt that starts over is written down: no job of the sleep runs. Raises Deposed."""
    home, child = settings.sleep_folder(sleep.deployment, sleep.id), settings.version_folder(sleep.deployment, sleep.child_version)
    over = [path for path in home.iterdir() if path.name != FILE] if home.exists() else []
    aside = home / f"{ASIDE}{uuid.uuid4().hex}"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside.mkdir(mode=0o700)
    try:
        fence()
        for path in [*over, child] if child.exists() else over:
            path.rename(aside / path.name)
    finally:
        shutil.rmtree(aside)


def backoff(settings: Settings, failures: int) -> float:
    """Seconds between an attempt that failed, after so many that did before it, and the next one."""
    return min(settings.retry_seconds * 2 ** min(failures, 32), settings.longest_retry_seconds)

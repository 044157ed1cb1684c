"""An attempt at a night: what is written down before its job is submitted, and how long the next one waits.

    home/job.json            what is asked; the same in every attempt but for its number, or the sealed stages would be another night's
    home/experiences.jsonl   what it sleeps on

A sleep that starts over finds nothing of what it did before but the events, which were told.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from circadian.events import FILE
from circadian.night_files import JOB_FILE
from circadian.specs import NightJob
from services import fast_registry, registry
from services.online import fast_start
from services.settings import Settings
from services.tables import Database, Sleep

EXPERIENCES_FILE = "experiences.jsonl"


def write_job(settings: Settings, database: Database, sleep: Sleep, attempt: int) -> tuple[Path, tuple[str, str]]:
    """The attempt's files; returns the job's, and tenant and name of the deployment. Safe to take twice."""
    home = settings.sleep_folder(sleep.deployment, sleep.id)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with database.read() as tx:
        experiences = registry.taken_experiences(tx, sleep.id)
        deployment = registry.deployment(tx, sleep.deployment)
    path = home / JOB_FILE
    if path.exists():
        job = NightJob.model_validate_json(path.read_text()).model_copy(update={"attempt": attempt})
    else:
        job = _first_job(settings, database, sleep, attempt)
    _write(home / EXPERIENCES_FILE, "".join(json.dumps(row.body) + "\n" for row in experiences))
    _write(path, job.model_dump_json(indent=2))
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


def empty_home(settings: Settings, sleep: Sleep) -> None:
    """Nothing is sealed any more. Before the attempt that starts over is written down: no job of the sleep runs."""
    home = settings.sleep_folder(sleep.deployment, sleep.id)
    for path in home.iterdir() if home.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != FILE:
            path.unlink()
    shutil.rmtree(settings.version_folder(sleep.deployment, sleep.child_version), ignore_errors=True)


def backoff(settings: Settings, failures: int) -> float:
    """Seconds between an attempt that failed, after so many that did before it, and the next one."""
    return min(settings.retry_seconds * 2 ** min(failures, 32), settings.longest_retry_seconds)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the night may be reading."""
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    staging.rename(path)

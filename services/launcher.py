"""Nights as Ray jobs. The submission id fences an attempt: a second submission of the same one is adopted, not repeated."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import requests
from ray.job_submission import JobStatus, JobSubmissionClient

from actors import names
from circadian.metrics import DEPLOYMENT
from services.plan import Job
from services.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
THREADS = 4
"""Requests to Ray at the same time. Where Ray hangs they hang, and no other part of the controller with them."""
PASSED_ON = (
    "RAY_TRAIN_ENABLE_STATE_TRACKING",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    names.ROLES_VARIABLE,
)
"""Environment variables a night's driver must share with the controller."""
_STATES = {
    JobStatus.PENDING: Job.ALIVE,
    JobStatus.RUNNING: Job.ALIVE,
    JobStatus.SUCCEEDED: Job.SUCCEEDED,
    JobStatus.FAILED: Job.FAILED,
    JobStatus.STOPPED: Job.STOPPED,
}


def driver_room() -> dict[str, Any]:
    """What a night's driver asks Ray for: a learner's node, where nodes have roles; else nothing, and Ray starts it on the head.

    It takes no CPU, however small a share: it waits for its learners for most of the night, and a learner that needs every CPU of the
    node would wait for the share of the driver that waits for it. So it starts wherever a learner's node lives, and holds it until dawn.
    """
    role = names.role("learner")
    return {"entrypoint_num_cpus": 0, "entrypoint_resources": role} if role else {}


def awaited_by_driver() -> str:
    """What a driver waits for that no node takes, for people."""
    offers = ", ".join(names.role("learner"))
    asked = f": it asks for a node that offers {offers}; add one, or unset {names.ROLES_VARIABLE}" if offers else ""
    return f"the cluster to start its driver{asked}"


def environment(metadata: dict[str, str]) -> dict[str, str]:
    """Of a night's driver and all that it starts: what the controller has of PASSED_ON, and whose night it is."""
    ours = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return ours | {variable: metadata[of] for variable, of in zip(names.WHOSE, DEPLOYMENT, strict=True)}


class LauncherUnavailable(Exception):
    """The cluster does not take jobs now."""


@dataclass(frozen=True)
class JobReport:
    """A job's state and, where it failed, why."""

    job: Job
    message: str = ""
    pending: bool = False
    """The cluster has taken it, and its driver has not begun."""
    awaits: str = ""
    """Then: what it waits for, for people."""


class Launcher(Protocol):
    """Runs a night somewhere, see night_command."""

    async def submit(self, submission_id: str, job_file: Path, metadata: dict[str, str]) -> None:
        """Start a night, or adopt it if it was submitted before. Raises LauncherUnavailable."""

    async def report(self, submission_id: str) -> JobReport: ...

    async def stop(self, submission_id: str) -> None:
        """Ask a job to end; a job that is not there has ended. Raises LauncherUnavailable."""

    async def logs(self, submission_id: str) -> str:
        """What a job's driver has said so far; nothing of one that is not there. Raises LauncherUnavailable."""


def night_command(job_file: Path, submission_id: str) -> str:
    """Of a night's driver, for a shell."""
    return shlex.join([sys.executable, "-m", "pipelines.night", str(job_file), submission_id])


class JobsClient(JobSubmissionClient):
    """Ray's, but that a request which nobody answers ends: Ray's waits for ever."""

    def __init__(self, address: str, seconds: float) -> None:
        self._seconds = seconds
        super().__init__(address)

    def _do_request(self, method: str, endpoint: str, **more: Any) -> requests.Response:
        answer: requests.Response = super()._do_request(method, endpoint, timeout=self._seconds, **more)
        return answer


class RayLauncher:
    """The Ray Jobs API. Its client blocks: every call runs in a thread of the launcher's, and is given up after `ray_request_seconds`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="launcher")
        self._client: JobSubmissionClient | None = None

    async def submit(self, submission_id: str, job_file: Path, metadata: dict[str, str]) -> None:
        if (await self.report(submission_id)).job not in (Job.LOST, Job.UNREACHABLE):
            log.info("job %s is there already, adopted", submission_id)
            return
        try:
            await self._call(
                lambda client: client.submit_job(
                    entrypoint=night_command(job_file, submission_id),
                    submission_id=submission_id,
                    metadata=metadata,
                    runtime_env={"env_vars": environment(metadata)},
                    **driver_room(),
                )
            )
        except LauncherUnavailable as error:
            if "already exists" not in str(error):
                raise
            log.info("job %s was submitted at the same time by another controller, adopted", submission_id)

    async def report(self, submission_id: str) -> JobReport:
        try:
            info = await self._call(lambda client: client.get_job_info(submission_id))
        except LauncherUnavailable as error:
            return JobReport(Job.UNREACHABLE, str(error))
        except _NoSuchJob:
            return JobReport(Job.LOST, "the cluster does not know this job")
        return JobReport(_STATES[info.status], info.message or "", info.status is JobStatus.PENDING, awaited_by_driver())

    async def stop(self, submission_id: str) -> None:
        try:
            await self._call(lambda client: client.stop_job(submission_id))
        except _NoSuchJob:
            log.info("job %s is not there, nothing to stop", submission_id)

    async def logs(self, submission_id: str) -> str:
        try:
            return await self._call(lambda client: client.get_job_logs(submission_id))
        except _NoSuchJob:
            return ""

    async def _call(self, request: Callable[[JobSubmissionClient], T]) -> T:
        try:
            async with asyncio.timeout(self.settings.ray_request_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._request, request)
        except (TimeoutError, ConnectionError, requests.RequestException) as error:
            raise LauncherUnavailable(f"Ray at {self.settings.ray_dashboard} does not answer: {error!r}") from error

    def _request(self, request: Callable[[JobSubmissionClient], T]) -> T:
        if self._client is None:
            self._client = JobsClient(self.settings.ray_dashboard, self.settings.ray_request_seconds)
        try:
            return request(self._client)
        except RuntimeError as error:
            # The client has one exception for every HTTP error, with the status in its text.
            if "status code 404" in str(error):
                raise _NoSuchJob from error
            raise LauncherUnavailable(str(error)) from error


class _NoSuchJob(Exception):
    pass

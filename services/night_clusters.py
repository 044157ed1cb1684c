"""Nights on clusters of their own: each attempt is a RayJob, whose cluster KubeRay brings up for it and takes away afterwards.

    consumes       the operator's RayJob (`night_cluster_file`): the cluster, labels of a queue, whatever else it says
    produces       a RayJob for each attempt, with the night's command
    waits for      the API's answer
    unblocked by   `ray_request_seconds`

For whoever scales to nothing, lets Kueue admit nights (a label `kueue.x-k8s.io/queue-name` in the file; what Kueue suspends waits, and goes
on from the last sealed stage), or keeps tenants on machines apart. The attempt's number fences a night as it does on a
shared cluster: the RayJob has its name, and a second one of it is adopted.

Fields and states: KubeRay v1.7, ray-operator/apis/ray/v1/rayjob_types.go; HTTPMode, so that no third pod holds the token.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import requests
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kubernetes import Json, KubernetesRefused, NoObject, ObjectExists, Objects
from services.launcher import (
    THREADS,
    JobReport,
    JobsClient,
    LauncherUnavailable,
    awaited_by_driver,
    driver_room,
    environment,
    night_command,
)
from services.plan import Job
from services.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
NAME_LENGTH = 47
"""Most characters that KubeRay gives a RayJob's name."""
OURS = "circadian/night"
"""Label of every RayJob of ours."""
SUBMISSION, SLEEP = "circadian/submission", "circadian/sleep"
"""Annotations: an id may have signs that no label has."""
KEPT_SECONDS = 7 * 86_400.0
"""RayJobs that have ended are kept so long, to be looked at; their clusters go at once."""
OVER = {"Complete", "Failed", "ValidationFailed"}
RUNS = "Running"
AWAITED = {
    "": "KubeRay to look at its RayJob",
    "Initializing": "a cluster of its own to start",
    "Suspended": "whoever suspended its RayJob to let it begin: a queue, where it has one",
}
"""By jobDeploymentStatus."""
_ENDED = {"SUCCEEDED": Job.SUCCEEDED, "STOPPED": Job.STOPPED, "FAILED": Job.FAILED}


class ClusterFileBroken(Exception):
    """The operator's file is no RayJob that a night could be."""


class _Metadata(BaseModel):
    """Of the operator's: what a night does not choose."""

    model_config = ConfigDict(extra="forbid")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Spec(BaseModel):
    """What the operator says of every night's RayJob; what a night says itself (entrypoint, jobId, ...) has no place here."""

    model_config = ConfigDict(extra="forbid")
    rayClusterSpec: Json  # noqa: N815  # as Kubernetes spells it
    suspend: bool = False
    activeDeadlineSeconds: int | None = Field(default=None, ge=1)  # noqa: N815
    preRunningDeadlineSeconds: int | None = Field(default=None, ge=1)  # noqa: N815
    managedBy: str | None = None  # noqa: N815


class ClusterFile(BaseModel):
    """A RayJob as the operator writes it down."""

    model_config = ConfigDict(extra="forbid")
    apiVersion: str = Field(pattern=r"^ray\.io/v1$")  # noqa: N815
    kind: str = Field(pattern=r"^RayJob$")
    metadata: _Metadata = _Metadata()
    spec: _Spec


def read_cluster_file(path: Path) -> ClusterFile:
    """Raises ClusterFileBroken, with the field and what is wrong with it."""
    try:
        return ClusterFile.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise ClusterFileBroken(f"night_cluster_file {path} cannot be read: {error}") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ClusterFileBroken(f"night_cluster_file {path} is no RayJob for nights: {told}") from error


class ClusterLauncher:
    """RayJobs in the controllers' namespace."""

    def __init__(self, settings: Settings, cluster_file: Path) -> None:
        """Raises ClusterFileBroken. The file is read again for each night: an upgrade changes it under a controller that runs."""
        self.settings, self.cluster_file = settings, cluster_file
        read_cluster_file(cluster_file)
        self._jobs = Objects(
            settings.kubernetes_api, settings.kubernetes_account, "ray.io", "v1", "rayjobs", settings.ray_request_seconds
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="night-clusters")
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="night-logs")
        """Who asks a night's cluster, which may be gone, keeps nobody from asking Kubernetes."""

    async def submit(self, submission_id: str, job_file: Path, metadata: dict[str, str]) -> None:
        try:
            body = ray_job(read_cluster_file(self.cluster_file), submission_id, job_file, metadata)
        except ClusterFileBroken as error:
            raise LauncherUnavailable(str(error)) from error
        try:
            await self._call(lambda: self._jobs.create(body))
        except ObjectExists:
            log.info("RayJob %s is there already, adopted", body["metadata"]["name"])
        try:
            await self._call(self._clear)
        except LauncherUnavailable as error:  # the night is submitted: it is no worse for what is left of others
            log.warning("RayJobs that have ended are not taken away: %s", error)

    async def report(self, submission_id: str) -> JobReport:
        try:
            return report_of(await self._call(lambda: self._jobs.get(name_of(submission_id))))
        except LauncherUnavailable as error:
            return JobReport(Job.UNREACHABLE, str(error))
        except NoObject:
            return JobReport(Job.LOST, "Kubernetes does not know this RayJob")

    async def stop(self, submission_id: str) -> None:
        try:
            found = await self._call(lambda: self._jobs.get(name_of(submission_id)))
            if "deletionTimestamp" not in found["metadata"]:
                await self._call(lambda: self._jobs.delete(name_of(submission_id)))
        except NoObject:
            log.info("RayJob %s is not there, nothing to stop", submission_id)

    async def logs(self, submission_id: str) -> str:
        """While its cluster is there."""
        try:
            found = await self._call(lambda: self._jobs.get(name_of(submission_id)))
        except NoObject:
            return ""
        status = found.get("status") or {}
        address = status.get("dashboardURL")
        if not address or status.get("jobDeploymentStatus") in OVER:
            return ""
        seconds = self.settings.ray_request_seconds
        return await self._call(lambda: _logs(f"http://{address}", submission_id, seconds), self._readers)

    def _clear(self) -> None:
        """Take away those that ended long ago."""
        for found in self._jobs.list(f"{OURS}=true"):
            ended = (found.get("status") or {}).get("endTime")
            if ended and time.time() - datetime.fromisoformat(ended).timestamp() > KEPT_SECONDS:
                try:
                    self._jobs.delete(found["metadata"]["name"])
                except NoObject:
                    log.info("%s has gone meanwhile", found["metadata"]["name"])

    async def _call(self, request: Callable[[], T], threads: ThreadPoolExecutor | None = None) -> T:
        try:
            async with asyncio.timeout(self.settings.ray_request_seconds):
                return await asyncio.get_running_loop().run_in_executor(threads or self._threads, request)
        except (TimeoutError, KubernetesRefused) as error:
            raise LauncherUnavailable(str(error) or f"Kubernetes at {self.settings.kubernetes_api} does not answer") from error


def ray_job(file: ClusterFile, submission_id: str, job_file: Path, metadata: dict[str, str]) -> Json:
    """The object for one attempt."""
    room = driver_room()
    night = {
        "entrypoint": night_command(job_file, submission_id),
        "jobId": submission_id,
        "submissionMode": "HTTPMode",
        "metadata": metadata,
        "runtimeEnvYAML": json.dumps({"env_vars": environment(metadata)}),  # JSON is YAML
        "shutdownAfterJobFinishes": True,
        "backoffLimit": 0,
    }
    if room:
        night |= {"entrypointNumCpus": room["entrypoint_num_cpus"], "entrypointResources": json.dumps(room["entrypoint_resources"])}
    annotations = file.metadata.annotations | {SUBMISSION: submission_id, SLEEP: metadata["sleep_id"]}
    return {
        "apiVersion": file.apiVersion,
        "kind": file.kind,
        "metadata": {
            "name": name_of(submission_id),
            "labels": file.metadata.labels | {OURS: "true"},
            "annotations": annotations,
        },
        "spec": file.spec.model_dump(exclude_none=True) | night,
    }


def name_of(submission_id: str) -> str:
    """A name that KubeRay takes: the id itself where only its underscore is in the way, else a digest of it."""
    name = submission_id.replace("_", "-", 1)
    if re.fullmatch(r"slp-[a-z0-9]+-a\d+", name) and len(name) <= NAME_LENGTH:
        return name
    return f"night-{hashlib.sha256(submission_id.encode()).hexdigest()[:32]}"


def report_of(found: Json) -> JobReport:
    """What a RayJob's status comes to. One that is being deleted still holds its machines."""
    status = found.get("status") or {}
    deployment, job = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    message = ": ".join(text for text in (status.get("reason"), status.get("message")) if text)
    if "deletionTimestamp" in found["metadata"] or deployment not in OVER:
        return JobReport(Job.ALIVE, message, *_pending(deployment, job, message))
    return JobReport(_ENDED.get(job, Job.FAILED) if deployment == "Complete" else Job.FAILED, message)


def _pending(deployment: str, job: str, message: str) -> tuple[bool, str]:
    """Whether the driver has not begun, and what it waits for. KubeRay says `Running` before it has submitted the job."""
    if deployment == RUNS:
        return job in ("", "PENDING"), awaited_by_driver()
    return True, AWAITED.get(deployment, f"its RayJob, which is {deployment}") + (f" ({message})" if message else "")


def _logs(address: str, submission_id: str, seconds: float) -> str:
    """Raises KubernetesRefused where the cluster does not tell; the token is where Ray looks for it (RAY_AUTH_TOKEN, or a file)."""
    try:
        told: str = JobsClient(address, seconds).get_job_logs(submission_id)
    except (ConnectionError, RuntimeError, requests.RequestException) as error:
        raise KubernetesRefused(f"the night's cluster at {address} does not answer: {error!r}") from error
    return told

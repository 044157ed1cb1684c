"""KubeRay for RayJobs, with real Ray clusters: each job has one of its own on this machine, brought up for it and taken away afterwards.

What it does is read from ray-operator/controllers/ray/rayjob_controller.go, tag v1.7.0 of ray-project/kuberay: phases and their order, a
head that is lost and started anew, and a job which that new head does not know and is given again (reconcileHTTPModeJobNotFound).
Pods, images and how many nodes there are is not its business here: a cluster is one node with everything.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from supervised import ASK_SECONDS, until

from services import child
from services.ports import RANGE, RAY_SWITCHES, free_ports
from services.stack import head_command
from tests.helm.kube_api import KubeApi
from tests.helm.kube_kinds import named
from tests.helm.kube_store import Key, Refused

Json = dict[str, Any]
HOST = "127.0.0.1"
CPUS = 3
"""A learner's, a rollout worker's, and one more."""
LOOK_SECONDS = 0.5
ENDED = {"SUCCEEDED", "STOPPED", "FAILED"}


class OwnCluster:
    """One head, with the token of `environment`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment, self.log = environment, Path(tempfile.mkdtemp(prefix="cdn-", dir="/tmp"))
        self.ports = free_ports(HOST, len(RAY_SWITCHES) + 2, random.randrange(len(RANGE)))
        self.url = f"http://{HOST}:{self.ports[1]}"
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}, timeout=ASK_SECONDS
        )
        self.start()

    def start(self) -> None:
        """Once more, where it was lost: Kubernetes starts the pod anew, and nothing of the one before is left."""
        self.folder = Path(tempfile.mkdtemp(dir=self.log))
        with (self.log / "head.log").open("ab") as output:
            self.head = subprocess.Popen(
                child.command(head_command(HOST, self.ports, CPUS, self.folder)),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> bool:
        try:
            return self.client.get("/api/version").is_success
        except httpx.TransportError:
            return False

    def end(self) -> None:
        """As a pod ends whose node is gone: everything in it at once, the driver too. What two drivers of one attempt would do to each
        other is asked in tests/pipelines/test_stages.py."""
        family = [self.head.pid, *(process.pid for process in psutil.Process(self.head.pid).children(recursive=True))]
        for pid in family:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        self.head.wait()

    def close(self) -> None:
        if self.head.poll() is None:
            self.end()
        self.client.close()
        shutil.rmtree(self.log, ignore_errors=True)


@dataclass
class KubeRay:
    """A thread that goes from RayJob to RayJob until it is closed. What went wrong in it is raised there."""

    api: KubeApi
    namespace: str
    environment: Mapping[str, str]
    clusters: dict[str, OwnCluster] = field(default_factory=dict)
    """Of jobs by name, while they have one."""
    most: int = 0
    """Clusters at one time."""
    submitted: list[str] = field(default_factory=list)
    """Jobs by name, each time that one was given to a cluster."""

    def __enter__(self) -> KubeRay:
        self._closing, self._slips = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._run, name="kuberay")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        for cluster in self.clusters.values():
            cluster.close()
        assert not self._slips, self._slips

    def jobs(self) -> list[Json]:
        return self.api.all("RayJob", self.namespace)

    def _run(self) -> None:
        try:
            while not self._closing.wait(LOOK_SECONDS):
                jobs = {job["metadata"]["name"]: job for job in self.jobs()}
                for name in self.clusters.keys() - jobs.keys():  # its owner was deleted
                    self.clusters.pop(name).close()
                for name, job in jobs.items():
                    self._reconcile(name, job)
        except BaseException as slip:
            self._slips.append(slip)
            raise

    def _reconcile(self, name: str, job: Json) -> None:
        spec, status = job["spec"], job.get("status") or {}
        match status.get("jobDeploymentStatus", ""):
            case "":
                self.clusters[name] = OwnCluster(self.environment)
                self.most = max(self.most, len(self.clusters))
                self._says(job, "Initializing", jobId=spec["jobId"], startTime=_now())
            case "Initializing" if self.clusters[name].ready():
                self._says(job, "Running", dashboardURL=self.clusters[name].url.removeprefix("http://"))
            case "Running":
                self._look(name, job)
            case "Complete" | "Failed" if name in self.clusters and spec["shutdownAfterJobFinishes"]:
                self.clusters.pop(name).close()

    def _look(self, name: str, job: Json) -> None:
        cluster = self.clusters[name]
        if cluster.head.poll() is not None:
            cluster.start()
        try:
            answer = cluster.client.get(f"/api/jobs/{job['spec']['jobId']}")
            if answer.status_code == 404:
                cluster.client.post("/api/jobs/", json=_request(job["spec"])).raise_for_status()
                self.submitted.append(name)
                return
        except httpx.TransportError:
            return  # RAYJOB_STATUS_CHECK_TIMEOUT_SECONDS, minutes, is longer than a head is away here
        info = answer.raise_for_status().json()
        deployment = {"FAILED": "Failed"}.get(info["status"], "Complete") if info["status"] in ENDED else "Running"
        ended = {"endTime": _now()} if deployment != "Running" else {}
        why = {"reason": "AppFailed"} if deployment == "Failed" else {}
        self._says(job, deployment, jobStatus=info["status"], message=info["message"] or "", **ended, **why)

    def _says(self, job: Json, deployment: str, **more: Any) -> None:
        key = Key(named("RayJob"), self.namespace, job["metadata"]["name"])
        status = (job.get("status") or {}) | {"jobDeploymentStatus": deployment} | more
        try:
            self.api.store.update(key, job | {"status": status}, "kuberay", part="status")
        except Refused as refused:
            if refused.code not in (404, 409):  # gone, or changed meanwhile: the next look finds out
                raise


def _request(spec: Json) -> Json:
    """utils/dashboardclient/dashboard_httpclient.go, ConvertRayJobToReq."""
    asked = {"entrypoint": spec["entrypoint"], "submission_id": spec["jobId"], "metadata": spec["metadata"]}
    asked["runtime_env"] = yaml.safe_load(spec["runtimeEnvYAML"])
    if "entrypointNumCpus" in spec:
        asked |= {
            "entrypoint_num_cpus": spec["entrypointNumCpus"],
            "entrypoint_resources": json.loads(spec["entrypointResources"]),
        }
    return asked


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def namespace_of(api: KubeApi, name: str, account: Path) -> None:
    """A namespace, and what a pod in it finds of its service account."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account.mkdir()
    (account / "token").write_text("a-token")
    (account / "namespace").write_text(name)


def lost(cluster: OwnCluster) -> None:
    """Its machine is gone, and KubeRay starts it anew."""
    head = cluster.head.pid
    cluster.end()
    until(lambda: cluster.head.pid != head and cluster.ready(), "the night has a head again")

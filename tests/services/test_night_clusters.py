"""Nights as RayJobs, against an API that holds them to Kubernetes' rules. The test is KubeRay: it writes what became of each."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running

from actors import names
from services.kubernetes import KubernetesRefused, Objects
from services.launcher import THREADS, LauncherUnavailable
from services.night_clusters import (
    KEPT_SECONDS,
    NAME_LENGTH,
    ClusterFileBroken,
    ClusterLauncher,
    name_of,
    read_cluster_file,
    report_of,
)
from services.plan import Job
from services.settings import Settings
from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.kube_kinds import named
from tests.helm.kube_store import Key

NAMESPACE = "circadian"
FILE: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"labels": {"kueue.x-k8s.io/queue-name": "nights"}},
    "spec": {
        "activeDeadlineSeconds": 90000,
        "rayClusterSpec": {
            "rayVersion": "2.60.0",
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0"},
                "template": {"spec": {"containers": [{"name": "ray-head", "image": "circadian/cpu:0.1.0"}]}},
            },
        },
    },
}
METADATA = {"sleep_id": "slp_00a1", "tenant": "ours", "deployment": "mine", "phase": "night"}


@dataclass
class KubeRay:
    """What the operator says of a RayJob."""

    api: KubeApi

    def job(self, submission: str) -> dict[str, Any]:
        return self.api.get("RayJob", name_of(submission), NAMESPACE)

    def names(self) -> list[str]:
        return self.api.names("RayJob", NAMESPACE)

    def says(self, submission: str, deployment: str, job: str = "", **more: Any) -> None:
        status = {"jobDeploymentStatus": deployment, "jobStatus": job, "jobId": submission} | more
        key = Key(named("RayJob"), NAMESPACE, name_of(submission))
        self.api.store.update(key, self.job(submission) | {"status": status}, "kuberay", part="status")


@pytest.fixture
def kuberay() -> Iterator[KubeRay]:
    with kube_api("1.37") as api:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield KubeRay(api)


@pytest.fixture
def settings(settings: Settings, kuberay: KubeRay, tmp_path: Path) -> Settings:
    account, file = tmp_path / "account", tmp_path / "night.yaml"
    account.mkdir()
    (account / "token").write_text("a-token\n")
    (account / "namespace").write_text(NAMESPACE)
    file.write_text(yaml.safe_dump(FILE))
    more = {"night_cluster_file": file, "kubernetes_api": kuberay.api.url, "kubernetes_account": account}
    return settings.model_copy(update=more)


@pytest.fixture
def launcher(settings: Settings) -> ClusterLauncher:
    return launcher_of(settings)


def launcher_of(settings: Settings) -> ClusterLauncher:
    assert settings.night_cluster_file is not None
    return ClusterLauncher(settings, settings.night_cluster_file)


def test_an_attempt_is_a_rayjob_with_the_operators_cluster_and_the_nights_command(
    launcher: ClusterLauncher, kuberay: KubeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names.ROLES_VARIABLE, "1")
    asyncio.run(launcher.submit("slp_00a1-a1", tmp_path / "a job.json", METADATA))
    job = kuberay.job("slp_00a1-a1")
    assert job["metadata"]["name"] == "slp-00a1-a1"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "nights"
    spec = job["spec"]
    assert spec["rayClusterSpec"] == FILE["spec"]["rayClusterSpec"]
    assert shlex.split(spec["entrypoint"])[1:] == ["-m", "pipelines.night", str(tmp_path / "a job.json"), "slp_00a1-a1"]
    assert (spec["jobId"], spec["metadata"], spec["submissionMode"]) == ("slp_00a1-a1", METADATA, "HTTPMode")
    assert (spec["shutdownAfterJobFinishes"], spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (True, 0, 90000)
    environment = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert environment[names.ROLES_VARIABLE] == "1"
    assert [environment[name] for name in names.WHOSE] == ["ours", "mine"], "what it tells Prometheus is told of its deployment"
    assert (spec["entrypointNumCpus"], json.loads(spec["entrypointResources"])) == (0, names.role("learner"))


def test_an_attempt_that_is_submitted_twice_is_adopted(launcher: ClusterLauncher, kuberay: KubeRay, tmp_path: Path) -> None:
    for _ in range(2):
        asyncio.run(launcher.submit("slp_00a1-a1", tmp_path / "job.json", METADATA))
    asyncio.run(launcher.submit("slp_00a1-a2", tmp_path / "job.json", METADATA))
    assert sorted(kuberay.names()) == ["slp-00a1-a1", "slp-00a1-a2"]


@pytest.mark.parametrize(
    ("deployment", "job", "more", "found", "pending"),
    [
        ("", "", {}, Job.ALIVE, True),
        ("Initializing", "", {}, Job.ALIVE, True),
        ("Suspended", "", {}, Job.ALIVE, True),
        ("Running", "", {}, Job.ALIVE, True),
        ("Running", "PENDING", {}, Job.ALIVE, True),
        ("Running", "RUNNING", {}, Job.ALIVE, False),
        ("Running", "SUCCEEDED", {}, Job.ALIVE, False),
        ("Complete", "SUCCEEDED", {}, Job.SUCCEEDED, False),
        ("Complete", "STOPPED", {}, Job.STOPPED, False),
        ("Failed", "FAILED", {"reason": "AppFailed", "message": "killed"}, Job.FAILED, False),
        ("Failed", "RUNNING", {"reason": "DeadlineExceeded"}, Job.FAILED, False),
        ("ValidationFailed", "", {"reason": "ValidationFailed", "message": "no"}, Job.FAILED, False),
    ],
)
def test_what_kuberay_says_is_what_the_night_is(
    launcher: ClusterLauncher,
    kuberay: KubeRay,
    tmp_path: Path,
    deployment: str,
    job: str,
    more: dict[str, str],
    found: Job,
    pending: bool,
) -> None:
    asyncio.run(launcher.submit("slp_00a1-a1", tmp_path / "job.json", METADATA))
    kuberay.says("slp_00a1-a1", deployment, job, **more)
    report = asyncio.run(launcher.report("slp_00a1-a1"))
    assert (report.job, report.pending, report.message) == (found, pending, ": ".join(more.values()))


@pytest.mark.parametrize(
    ("deployment", "job", "more", "awaits"),
    [
        ("", "", {}, "KubeRay to look at its RayJob"),
        ("Initializing", "", {"message": "no nodes"}, "a cluster of its own to start (no nodes)"),
        ("Suspended", "", {}, "whoever suspended its RayJob to let it begin: a queue, where it has one"),
        ("Retrying", "", {}, "its RayJob, which is Retrying"),
        ("Running", "PENDING", {}, "the cluster to start its driver"),
    ],
)
def test_what_a_night_on_its_own_cluster_waits_for_is_what_kuberay_says(
    deployment: str, job: str, more: dict[str, str], awaits: str
) -> None:
    report = report_of({"metadata": {}, "status": {"jobDeploymentStatus": deployment, "jobStatus": job} | more})
    assert (report.pending, report.awaits) == (True, awaits)


def test_a_night_is_submitted_though_those_that_ended_cannot_be_taken_away(
    launcher: ClusterLauncher, kuberay: KubeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(launcher.submit("slp_00a1-a1", tmp_path / "job.json", METADATA))
    kuberay.says("slp_00a1-a1", "Failed", "FAILED", endTime="2001-01-01T00:00:00Z")

    def refuses(name: str) -> None:
        raise KubernetesRefused(f"{name} may not be deleted")

    monkeypatch.setattr(launcher._jobs, "delete", refuses)
    asyncio.run(launcher.submit("slp_00a1-a2", tmp_path / "job.json", METADATA))
    assert sorted(kuberay.names()) == ["slp-00a1-a1", "slp-00a1-a2"]


def test_a_cluster_that_answers_nothing_keeps_nobody_from_asking_kubernetes(
    settings: Settings, kuberay: KubeRay, tmp_path: Path
) -> None:
    launcher = launcher_of(settings.model_copy(update={"ray_request_seconds": 1.0}))
    asyncio.run(launcher.submit("slp_00a1-a1", tmp_path / "job.json", METADATA))

    async def read() -> None:
        asked = [launcher.logs("slp_00a1-a1") for _ in range(2 * THREADS)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, LauncherUnavailable) for answer in told)
        assert (await launcher.report("slp_00a1-a1")).job is Job.ALIVE

    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        kuberay.says("slp_00a1-a1", "Running", "RUNNING", dashboardURL=f"127.0.0.1:{silent.getsockname()[1]}")
        asyncio.run(read())


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('rayjobs.ray.io is forbidden: User "system:serviceaccount:a:b" cannot create resource "rayjobs"', True),
        ('admission webhook "vrayjob.kb.io" denied the request: spec.rayClusterSpec: in-tree autoscaling', False),
    ],
)
def test_rights_are_asked_for_where_rights_are_missing(settings: Settings, said: str, told: bool) -> None:
    jobs = Objects(settings.kubernetes_api, settings.kubernetes_account, "ray.io", "v1", "rayjobs", 1.0)
    with pytest.raises(KubernetesRefused) as refused:
        jobs._read("POST", httpx.Response(403, json={"message": said}))
    assert said in str(refused.value)
    assert ("the service account needs create" in str(refused.value)) is told


def test_one_that_is_being_deleted_still_holds_its_machines() -> None:
    leaving = {"metadata": {"deletionTimestamp": "2026-11-26T23:00:00Z"}, "status": {"jobDeploymentStatus": "Complete"}}
    assert report_of(leaving).job is Job.ALIVE


def test_a_stop_takes_the_rayjob_and_its_cluster_away_and_may_be_asked_twice(
    launcher: ClusterLauncher, kuberay: KubeRay, tmp_path: Path
) -> None:
    asyncio.run(launcher.submit("slp_00a1-a1", tmp_path / "job.json", METADATA))
    for _ in range(2):
        asyncio.run(launcher.stop("slp_00a1-a1"))
    assert kuberay.names() == []
    assert asyncio.run(launcher.report("slp_00a1-a1")).job is Job.LOST
    assert asyncio.run(launcher.logs("slp_00a1-a1")) == ""


def test_those_that_ended_long_ago_are_taken_away(launcher: ClusterLauncher, kuberay: KubeRay, tmp_path: Path) -> None:
    for attempt, ended in ((1, "2001-01-01T00:00:00Z"), (2, "2999-01-01T00:00:00Z")):
        asyncio.run(launcher.submit(f"slp_00a1-a{attempt}", tmp_path / "job.json", METADATA))
        kuberay.says(f"slp_00a1-a{attempt}", "Failed", "FAILED", endTime=ended)
    asyncio.run(launcher.submit("slp_00a1-a3", tmp_path / "job.json", METADATA))
    assert sorted(kuberay.names()) == ["slp-00a1-a2", "slp-00a1-a3"]
    assert KEPT_SECONDS > 3600


def test_an_api_that_is_away_or_knows_no_rayjobs_is_told_with_the_remedy(settings: Settings, tmp_path: Path) -> None:
    away = launcher_of(settings.model_copy(update={"kubernetes_api": "http://127.0.0.1:9"}))
    report = asyncio.run(away.report("slp_00a1-a1"))
    assert report.job is Job.UNREACHABLE
    assert "http://127.0.0.1:9 does not answer" in report.message
    with pytest.raises(LauncherUnavailable, match="does not answer"):
        asyncio.run(away.submit("slp_00a1-a1", tmp_path / "job.json", METADATA))
    with kube_api("1.37", without=("ray.io",)) as api:
        bare = launcher_of(settings.model_copy(update={"kubernetes_api": api.url}))
        with pytest.raises(LauncherUnavailable, match="install KubeRay's CRDs"):
            asyncio.run(bare.submit("slp_00a1-a1", tmp_path / "job.json", METADATA))
    (settings.kubernetes_account / "token").unlink()
    with pytest.raises(LauncherUnavailable, match="no service account's folder"):
        asyncio.run(launcher_of(settings).stop("slp_00a1-a1"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "RayCluster"}, "kind"),
        ({"apiVersion": "ray.io/v1alpha1"}, "apiVersion"),
        ({"spec": {}}, "spec.rayClusterSpec: Field required"),
        ({"spec": FILE["spec"] | {"entrypoint": "id"}}, "spec.entrypoint: Extra inputs are not permitted"),
        ({"metadata": {"name": "mine"}}, "metadata.name: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_no_night_could_be_is_refused_at_the_start_with_the_field(
    settings: Settings, change: dict[str, Any], why: str
) -> None:
    assert settings.night_cluster_file is not None
    settings.night_cluster_file.write_text(yaml.safe_dump(FILE | change))
    with pytest.raises(ClusterFileBroken, match=re.escape(why)):
        launcher_of(settings)


def test_a_file_that_is_not_there_or_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterFileBroken, match="cannot be read"):
        read_cluster_file(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("{")
    with pytest.raises(ClusterFileBroken, match="cannot be read"):
        read_cluster_file(tmp_path / "broken.yaml")


@given(st.from_regex(r"slp_[A-Za-z0-9_-]{1,48}", fullmatch=True), st.integers(1, 99))
def test_every_attempt_has_a_name_that_kuberay_takes(sleep: str, attempt: int) -> None:
    name = name_of(names.night_job(sleep, attempt))
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= NAME_LENGTH


def test_ids_that_look_alike_have_names_of_their_own() -> None:
    alike = ("slp_a-b", "slp_a_b", "slp_ab", "slp_AB")
    assert len({name_of(names.night_job(sleep, 1)) for sleep in alike}) == len(alike)


@pytest.fixture
def service(settings: Settings, base: Path, launcher: ClusterLauncher) -> Iterator[Service]:
    with running(settings, base, MemoryFleet(), launcher) as service:  # type: ignore[arg-type]
        service.deploy()
        yield service


def begun(service: Service, kuberay: KubeRay) -> tuple[str, Night]:
    service.tell()
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy"})
    assert answer.status_code == 202, answer.text
    sleep = answer.json()["id"]
    submission = names.night_job(sleep, 1)
    service.until(lambda: name_of(submission) in kuberay.names())
    played = MemoryLauncher(jobs={submission: Job.ALIVE})
    played.files[submission] = Path(shlex.split(kuberay.job(submission)["spec"]["entrypoint"])[-2])
    return sleep, Night(played, sleep)


def test_a_night_passes_on_a_cluster_of_its_own(service: Service, kuberay: KubeRay) -> None:
    sleep, night = begun(service, kuberay)
    kuberay.says(night.submission, "Running", "RUNNING")
    version = night.end("candidate")
    kuberay.says(night.submission, "Complete", "SUCCEEDED")
    assert service.ended(sleep)["outcome"] == "promoted"
    assert service.status()["active_version"] == version
    assert "ray_dashboard" not in service.get_sleep(sleep)["links"], "its dashboard goes with its cluster"


def test_a_cancelled_night_ends_when_its_cluster_is_taken_away(service: Service, kuberay: KubeRay) -> None:
    sleep, night = begun(service, kuberay)
    kuberay.says(night.submission, "Running", "RUNNING")
    assert service.client.post(f"/v1/sleeps/{sleep}/cancel").status_code == 202
    assert service.ended(sleep)["status"] == "cancelled"
    assert kuberay.names() == []


def test_a_night_that_kuberay_gives_up_is_tried_again_on_another_cluster(service: Service, kuberay: KubeRay) -> None:
    sleep, night = begun(service, kuberay)
    kuberay.says(night.submission, "Failed", "FAILED", reason="AppFailed", message="the head's node has gone")
    service.until(lambda: name_of(names.night_job(sleep, 2)) in kuberay.names())
    told = [event["message"] for event in service.events(sleep)]
    assert any("the head's node has gone" in message for message in told), told

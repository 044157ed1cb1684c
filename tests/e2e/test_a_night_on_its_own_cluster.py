"""Nights on clusters of their own, lived: a RayJob, a Ray cluster that is brought up for it, and a deployment that answers on another one.

KubeRay is played (night_cluster.py) on an API in memory; both clusters, the controller and the night are real.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from asking import Asking
from gates import ANY
from night_cluster import KubeRay, lost, namespace_of
from steady import Steady
from supervised import PATIENT, until

from actors import names
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import World
from services.night_clusters import name_of
from services.settings import Settings
from services.stack import Stack, StackSpec
from tests.helm.chart import NIGHTS, one
from tests.helm.kube_api import kube_api

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
Json = dict[str, Any]
NAMESPACE = "circadian"
FACTS = 4
RECIPE: Json = {
    "fast_learning": {"steps": 40, "rows": 8},
    "seeding": {"steps": 200, "rows": 8, "teacher_rows": 32, "student_rows": 16, "free_run_rows": 32, "free_run_tokens": 16},
    "gate": ANY,
}


@dataclass
class Life:
    kuberay: KubeRay
    client: Asking
    stack: Stack
    deployment: Json
    before: int = 0
    """Clusters of nights by day."""
    sleep: Json = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    job: Json = field(default_factory=dict)
    """The RayJob of the night that passed, after it."""
    applications: set[str] = field(default_factory=set)
    """What Serve ran on the night's cluster, while it learned."""
    steady: Steady | None = None
    ended: float = 0.0
    """When the first night was seen to have ended."""
    cancelled: Json = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    """RayJobs after the second night was cancelled."""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("own")
    file, account = folder / "rayjob.yaml", folder / "account"
    file.write_text(one(NIGHTS, "ConfigMap", "-night")["data"]["rayjob.yaml"])
    with kube_api("1.37") as api:
        namespace_of(api, NAMESPACE, account)
        own = {"night_cluster_file": file, "kubernetes_api": api.url, "kubernetes_account": account}
        settings = Settings(home=folder / "home", **PATIENT, **own)
        with (
            Stack(settings, StackSpec(num_cpus=2)) as stack,
            KubeRay(api, NAMESPACE, stack.ray_environment()) as kuberay,
        ):
            assert stack.api_key is not None
            client = Asking(stack.url, stack.api_key)
            deployment = client.post("/v1/deployments", {"name": "nursery", "base_model": {"model": str(WEIGHTS)}})
            client.awake("nursery", stack.settings.replica_start_seconds)
            life = Life(kuberay, client, stack, deployment, before=len(kuberay.jobs()))
            live(life)
            yield life
            client.close()


def live(life: Life) -> None:
    """A day, a night whose cluster loses its head, and one that is cancelled."""
    for text in next(World(0).days(FACTS, 1)).statements():
        life.client.post("/v1/experiences", {"deployment": "nursery", "text": text})
    with Steady([life.stack.url], life.stack.api_key or "", "nursery") as life.steady:
        sleep = asleep(life)
        attempt = name_of(names.night_job(sleep, 1))
        wait(life, sleep, "knowledge_seeding")
        cluster = life.kuberay.clusters[attempt]
        life.applications = set(cluster.client.get("/api/serve/applications/").json()["applications"])
        lost(cluster)
        until(lambda: told(life, sleep)["status"] in ("succeeded", "failed", "cancelled"), "the night ends")
        life.ended = time.time()
        until(lambda: life.steady is not None and life.steady.versions(life.ended), "a question of the morning is answered")
    life.sleep, life.events = told(life, sleep), list(life.client.pages(f"/v1/sleeps/{sleep}/events"))
    (life.job,) = life.kuberay.jobs()
    until(lambda: not life.kuberay.clusters, "the night's cluster is taken away")
    life.client.post("/v1/experiences", {"deployment": "nursery", "text": "the city of mira is oslo ."})
    second = asleep(life)
    until(lambda: life.kuberay.clusters, "another cluster comes")
    life.client.post(f"/v1/sleeps/{second}/cancel", {})
    until(lambda: told(life, second)["status"] == "cancelled", "the night is cancelled")
    until(lambda: not life.kuberay.clusters, "its cluster is taken away")
    life.cancelled, life.left = told(life, second), [job["metadata"]["name"] for job in life.kuberay.jobs()]


def asleep(life: Life) -> str:
    return life.client.post("/v1/sleeps", {"deployment": "nursery", "recipe": RECIPE})["id"]


def told(life: Life, sleep: str) -> Json:
    return life.client.get(f"/v1/sleeps/{sleep}")


def wait(life: Life, sleep: str, stage: str) -> None:
    def begun() -> bool:
        assert told(life, sleep)["status"] not in ("failed", "cancelled"), told(life, sleep)
        events = life.client.pages(f"/v1/sleeps/{sleep}/events")
        return any(event["type"] == "sleep.stage_started" and event["data"]["stage"] == stage for event in events)

    until(begun, f"stage {stage} begins")


def test_by_day_no_cluster_of_a_night_is_there_and_by_night_one(life: Life) -> None:
    assert (life.before, life.kuberay.most, len(life.kuberay.clusters)) == (0, 1, 0)


def test_a_night_whose_cluster_loses_its_head_goes_on_on_the_next_one_and_promotes(life: Life) -> None:
    name = name_of(names.night_job(life.sleep["id"], 1))
    assert life.kuberay.submitted.count(name) == 2, "once to each head"
    assert (life.sleep["status"], life.sleep["outcome"], life.sleep["attempt"]) == ("succeeded", "promoted", 1)
    sealed = [event["data"]["stage"] for event in life.events if event["type"] == "sleep.stage_finished"]
    assert len(sealed) == len(set(sealed)), "no stage was done twice"
    assert {"collect", "learn_fast_level"} <= {e["data"]["stage"] for e in life.events if e["type"] == "sleep.stage_resumed"}


def test_its_rayjob_says_how_it_ended_and_is_what_the_chart_wrote_down(life: Life) -> None:
    assert (life.job["status"]["jobDeploymentStatus"], life.job["status"]["jobStatus"]) == ("Complete", "SUCCEEDED")
    assert life.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "nights"
    told = yaml.safe_load(life.job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert [told[name] for name in names.WHOSE] == ["default", "nursery"], "whose metrics they are"
    assert life.job["spec"]["metadata"]["sleep_id"] == life.sleep["id"]


def test_the_deployment_answers_on_the_days_cluster_all_the_time(life: Life) -> None:
    assert life.applications == set(), "nothing serves on the night's"
    assert life.steady is not None
    assert life.steady.refused({0: []}) == []
    began, slept = life.deployment["active_version"], life.sleep["result_version"]
    assert life.steady.versions(0.0)[0] == began
    assert life.steady.versions(life.ended) == [slept]


def test_a_night_that_is_cancelled_takes_its_cluster_along(life: Life) -> None:
    assert life.cancelled["status"] == "cancelled"
    assert life.left == [life.job["metadata"]["name"]], "the one that has ended is kept to be looked at"

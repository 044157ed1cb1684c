"""A night on a cluster whose nodes have roles, looked at through Ray's dashboard: its HTTP interface, its pages and its metrics.

The night is begun while there is only a node for replicas. It says what it waits for, gets a learner's node, waits for a rollout
worker's, and goes on. While the student learns, the learner is stopped (SIGSTOP) for as long as everything is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import browser
import httpx
import psutil
import pytest
from asking import Asking
from browser import Tab
from gates import ANY
from roles import RolesStack
from scraped import Prometheus, program, prometheus
from supervised import ASK_SECONDS, PATIENT, until

from actors import names
from circadian import metrics as metrics_table
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import World
from services.settings import Settings
from services.stack import StackSpec

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

Json = dict[str, Any]
FACTS = 4
CLOSED = (
    "/api/jobs/",
    "/api/serve/applications/",
    "/api/train/v2/runs/v1",
    "/api/v0/actors",
    "/logical/actors",
    "/nodes?view=summary",
)
"""Of Ray's dashboard, what it tells nobody without the token."""
TOLD = (
    (".+", "ray_train_controller_state"),
    ("learner", f"ray_{metrics_table.LEARNER_LOSS.name}"),
    ("rollout", f"ray_{metrics_table.ROLLOUT_TOKENS.name}_total"),
)
"""Metrics that a night moves, and on whose node; Train's controller is where its driver has found Ray."""
RECIPE: Json = {
    "fast_learning": {"steps": 40, "rows": 8},
    "seeding": {"steps": 2400, "rows": 8, "teacher_rows": 32, "student_rows": 16, "free_run_rows": 32, "free_run_tokens": 16},
    "gate": ANY,
}
SETTINGS: Json = PATIENT | {"job_pending_seconds": 5.0, "ray_dashboard_url": "http://ray.example.org:8265"}


@dataclass
class Life:
    stack: RolesStack
    client: Asking
    deployment: Json
    sleep: str = ""
    waited: list[str] = field(default_factory=list)
    """What the night has said that it waits for, in this order."""
    during: Json = field(default_factory=dict)
    """What the sleep, the nodes and Ray's dashboard said while the student learned."""
    texts: dict[str, str] = field(default_factory=dict)
    """Of each page of the dashboard what could be read on it."""
    scraped: dict[str, set[str]] = field(default_factory=dict)
    """Names of the metrics of each node, as Prometheus has them."""
    ends: bool = False
    """Whether the night may be over."""

    def told(self) -> Json:
        return self.client.get(f"/v1/sleeps/{self.sleep}")

    def events(self, kind: str) -> list[Json]:
        return [event for event in self.client.pages(f"/v1/sleeps/{self.sleep}/events") if event["type"] == kind]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """The same, but for a night that has ended, or a child that has."""

        def still() -> Any:
            self.stack.check()
            sleep = self.told()
            assert sleep["status"] not in ("failed", "cancelled"), sleep
            found = condition()
            assert found or self.ends or sleep["status"] != "succeeded", f"the night is over, and not: {what}"
            return found

        return until(still, what)

    def waits_for(self, what: str) -> None:
        self.waited.append(
            self.until(lambda: (said := self.told()["waiting"] or "") and what in said and said, f"it waits for {what}")
        )


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    if program() is None:
        pytest.skip("NO PROMETHEUS HERE: nobody looks at the dashboard; install it (apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("dashboard")
    with ExitStack() as opened:
        metrics = opened.enter_context(prometheus(folder))
        variables = {"RAY_PROMETHEUS_HOST": metrics.url, "RAY_GRAFANA_HOST": "DISABLED", "RAY_metrics_report_interval_ms": "2000"}
        settings = Settings(home=folder / "home", **SETTINGS)
        stack = opened.enter_context(RolesStack(settings, StackSpec(num_cpus=0), ray_variables=variables))
        assert stack.api_key is not None
        client = Asking(stack.url, stack.api_key)
        opened.callback(client.close)
        body = {"name": "nursery", "base_model": {"model": str(WEIGHTS)}}
        life = Life(stack, client, client.post("/v1/deployments", body))
        client.awake("nursery", stack.settings.replica_start_seconds)
        for text in next(World(0).days(FACTS, 1)).statements():
            client.post("/v1/experiences", {"deployment": "nursery", "text": text})
        live(life, metrics, folder)
        yield life


def live(life: Life, metrics: Prometheus, folder: Path) -> None:
    life.sleep = life.client.post("/v1/sleeps", {"deployment": "nursery", "recipe": RECIPE})["id"]
    life.waits_for("circadian_learner")
    life.stack.start_node("learner", 2)
    life.waits_for("circadian_rollout")
    life.stack.start_node("rollout", 1)
    metrics.scrape(life.stack.metrics_ports)
    learner = life.until(
        lambda: [e for e in life.events("sleep.learner_started") if "seeding" in e["data"]["run"]], "the student learns"
    )
    life.until(lambda: (life.told()["progress"] or {}).get("step"), "it has learned something")
    for node, name in TOLD:
        life.until(lambda node=node, name=name: name in scraped(metrics, node), f"{name} is scraped")
    with stopped(learner[-1]["data"]["pid"]):
        look(life)
        life.scraped |= {node: scraped(metrics, node) for node in (*life.stack.metrics_ports, ".+")}
        if browser.program() is not None:
            with browser.browser(folder / "profile") as tab:
                look_at_pages(life, tab)
    life.ends = True
    life.until(lambda: life.told()["status"] == "succeeded", "the night ends")


def scraped(metrics: Prometheus, node: str) -> set[str]:
    """Names of what the nodes that this expression matches have told in the last minutes."""
    series = metrics.ask(f'count by (__name__) (last_over_time({{node=~"{node}",__name__=~"ray_.+"}}[10m]))')
    return {one["metric"]["__name__"] for one in series}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still."""
    process = psutil.Process(pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def look(life: Life) -> None:
    stack = life.stack
    life.during |= {
        "sleep": life.told(),
        "nodes": stack.nodes(),
        "jobs": [job for job in stack.ray("/api/jobs/") if job["submission_id"]],  # the controller is a driver, too
        "applications": stack.ray("/api/serve/applications/")["applications"],
        "runs": stack.ray("/api/train/v2/runs/v1")["train_runs"],
        "actors": [actor for actor in stack.state("actors") if actor["state"] == "ALIVE"],
        "prometheus": stack.ray("/api/prometheus_health"),
    }


def look_at_pages(life: Life, tab: Tab) -> None:
    """As somebody who has the token and follows the link."""
    tab.size(1600, 900)
    tab.open(f"{life.stack.dashboard}/#/overview")
    tab.shows("Authentication Token Required")
    life.texts["closed"] = tab.text()
    picture(tab, "token")
    enter(tab, life.stack.ray_token)
    job = names.night_job(life.sleep, 1)
    application = names.wake_application(life.deployment["id"])
    for page, path, shown in (
        ("overview", "/overview", (job, names.WAKE_REPLICA)),
        ("jobs", "/jobs", (job,)),
        ("night", f"/jobs/{job}", (life.sleep, "sleep_id")),
        ("serve", "/serve", (application, "RUNNING")),
        ("replica", f"/serve/applications/{application}", (names.WAKE_REPLICA, "RUNNING")),
        ("cluster", "/cluster", ("ALIVE",)),
        ("actors", "/actors", ("RayTrainWorker", names.rollout_worker(life.sleep, 1, 0))),
    ):
        tab.open(f"{life.stack.dashboard}/#{path}")
        for text in shown:
            tab.shows(text)
        life.texts[page] = tab.text()
        picture(tab, page)


def enter(tab: Tab, token: str) -> None:
    field = "document.querySelector('input[placeholder=\"Enter your authentication token\"]')"
    tab.until(f"{field} !== null")
    tab.run(f"{field}.focus()")
    tab.call("Input.insertText", text=token)
    tab.press("Submit")
    closed = "document.body?.innerText.includes('Authentication Token Required') === false"  # the page is loaded anew
    tab.until(f"document.readyState === 'complete' && {closed}")


SHORTER = r"""
for (const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walk.nextNode(); ) {
  walk.currentNode.data = walk.currentNode.data.replace(/(^|\s)\/(?:[^\s\/]+\/)+/g, "$1…/");
}
"""
"""Folders of the machine that made the picture are nobody's business: of a path its last part stays."""


def picture(tab: Tab, name: str) -> None:
    """For docs/pictures, where somebody asks for it."""
    if "CIRCADIAN_PICTURES" in os.environ:
        tab.run(SHORTER)
        tab.picture(Path(os.environ["CIRCADIAN_PICTURES"]) / f"ray-dashboard-{name}.png", whole=name == "actors")


def role_of(life: Life, node: str) -> str:
    return life.during["nodes"][node]


def test_a_night_without_nodes_says_what_it_waits_for_and_goes_on_when_they_come(life: Life) -> None:
    driver, workers = life.waited
    assert driver.startswith("waits for the cluster to start its driver: it asks for a node that offers circadian_learner")
    assert workers.startswith("waits for rollout workers: no node of the cluster offers circadian_rollout")
    assert life.during["sleep"]["waiting"] is None
    assert [event["message"] for event in life.events("sleep.waiting")] == [driver, workers]
    assert (life.told()["status"], life.told()["attempt"]) == ("succeeded", 1), "no attempt was lost to the wait"


def test_everything_runs_on_a_node_of_its_role(life: Life) -> None:
    assert sorted(life.during["nodes"].values()) == ["head", "learner", "rollout", "wake"]
    where: dict[str, set[str]] = {}
    for actor in life.during["actors"]:
        where.setdefault(actor["class_name"], set()).add(role_of(life, actor["node_id"]))
    replica = next(name for name in where if name.startswith("ServeReplica:wake-"))
    expected = {
        replica: "wake",
        "RolloutWorker": "rollout",
        "RayTrainWorker": "learner",
    }  # Train's controller: where its driver finds Ray
    assert {name: where[name] for name in expected} == {name: {role} for name, role in expected.items()}
    (job,) = life.during["jobs"]
    assert role_of(life, job["driver_node_id"]) == "learner"


def test_a_night_is_a_job_with_its_sleep_and_its_deployment(life: Life) -> None:
    (job,) = life.during["jobs"]
    assert (job["submission_id"], job["status"]) == (names.night_job(life.sleep, 1), "RUNNING")
    told = {"sleep_id": life.sleep, "tenant": "default", "deployment": "nursery", "phase": "night"}
    assert {name: job["metadata"].get(name) for name in told} == told


def test_a_deployment_is_a_serve_application_that_runs_through_the_night(life: Life) -> None:
    application = life.during["applications"][names.wake_application(life.deployment["id"])]
    assert application["status"] == "RUNNING"
    (replica,) = application["deployments"][names.WAKE_REPLICA]["replicas"]
    assert replica["state"] == "RUNNING"
    assert role_of(life, replica["node_id"]) == "wake"


def test_what_a_night_learns_is_a_train_run_of_its_name(life: Life) -> None:
    runs = {run["name"]: run for run in life.during["runs"]}
    assert len(runs) == 2
    assert all(name.startswith(f"{life.sleep}-") for name in runs), runs.keys()
    (running,) = (run for run in runs.values() if run["status"] == "RUNNING")
    assert "seeding" in running["name"]
    (worker,) = running["attempts"][-1]["workers"]
    assert role_of(life, worker["node_id"]) == "learner"


def test_the_rollout_worker_of_a_night_is_found_by_its_name(life: Life) -> None:
    assert names.rollout_worker(life.sleep, 1, 0) in {actor["name"] for actor in life.during["actors"]}


def test_serve_and_train_and_the_night_tell_prometheus_how_they_are(life: Life) -> None:
    assert life.during["prometheus"]["result"] is True, life.during["prometheus"]
    assert {(node, name) for node, name in TOLD if name not in life.scraped[node]} == set()
    assert {name for name in life.scraped["wake"] if name.startswith("ray_serve_")}
    assert all("ray_node_cpu_utilization" in told for told in life.scraped.values()), "each node tells of itself"


def test_a_sleep_links_to_its_page_of_the_dashboard(life: Life) -> None:
    link = f"http://ray.example.org:8265/#/jobs/{names.night_job(life.sleep, 1)}"
    assert life.during["sleep"]["links"]["ray_dashboard"] == link, "where an operator says that browsers find it"


@pytest.mark.parametrize("path", CLOSED)
def test_the_dashboard_tells_nobody_anything_without_the_token(life: Life, path: str) -> None:
    for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 403)):
        assert httpx.get(f"{life.stack.dashboard}{path}", headers=headers, timeout=ASK_SECONDS).status_code == status


def test_the_pages_of_the_dashboard_show_the_night(life: Life) -> None:
    if browser.program() is None:
        pytest.skip("NO CHROMIUM HERE: nobody looks at the pages; install it (apt-get install chromium-headless-shell)")
    job, application = names.night_job(life.sleep, 1), names.wake_application(life.deployment["id"])
    assert life.sleep not in life.texts["closed"], "nothing is shown before the token is given"
    assert job in life.texts["overview"]
    assert "RUNNING" in life.texts["jobs"]
    assert names.rollout_worker(life.sleep, 1, 0) in life.texts["actors"]
    assert application in life.texts["serve"]

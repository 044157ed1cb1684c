"""What the chart runs is what runs: every container of every pod that it renders, as local processes, and a night through them over REST.

Then Ray's head is killed, begun anew as KubeRay does it, and what was served is served again.

helm renders the objects with chart_values.yaml. Their commands, variables, files, volumes, users and rights are taken as they are
(running_pods.py); what KubeRay adds to the Ray pods is added (kuberay.py); the database is another pod, as in another namespace. Network
policies, limits and seccomp profiles are not honoured, and where the head finds GPUs is not asked.
"""

from __future__ import annotations

import base64
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from chart_images import SOURCE, image
from chart_release import TOKEN, Release
from pod_container import send
from pod_manifest import Image, Object, Pod
from running_pod import LOOK_SECONDS
from running_pods import Machine, why_not

from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import Day, World
from services.client import Circadian
from services.demo import live
from tests.helm.tools import helm
from tests.postgres import binaries

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.skipif(binaries() is None, reason="needs PostgreSQL"),
]

ROOT = Path(__file__).parents[2]
RELEASE, NAMESPACE = "day", "dreams"
VALUES = Path(__file__).with_name("chart_values.yaml")
MODEL = "nursery"
FACTS = 16
START_SECONDS = 600.0
"""Until everything is ready. Two cores start five Ray nodes and two controllers."""
NIGHT_SECONDS = 2400.0
USER = 1000
SECRETS = {"api_key": "cdn_" + "4e" * 16, "key_pepper": "7a" * 16, "signing_key": "5b" * 32}
PASSWORD = "a-word-of-the-database"
URL = f"postgresql://circadian:{PASSWORD}@postgres.databases.svc:5432/postgres"
DATABASE = """
metadata: {labels: {app: postgres}}
spec:
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, runAsNonRoot: true}
  volumes:
  - {name: data, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  - {name: password, secret: {secretName: password}}
  initContainers:
  - name: initdb
    image: postgres
    command: [sh, -c]
    args:
    - >-
      initdb -D /data/db -U circadian --pwfile=/etc/password/password --auth=scram-sha-256 -E UTF8 --no-sync &&
      echo host all all all scram-sha-256 >> /data/db/pg_hba.conf
    volumeMounts: &mounts
    - {name: data, mountPath: /data}
    - {name: tmp, mountPath: /tmp}
    - {name: password, mountPath: /etc/password}
  containers:
  - name: postgres
    image: postgres
    command: [postgres, -D, /data/db, -c, listen_addresses=*, -c, unix_socket_directories=/tmp, -c, fsync=off]
    ports: [{name: postgres, containerPort: 5432}]
    readinessProbe: {tcpSocket: {port: postgres}, periodSeconds: 1}
    volumeMounts: *mounts
"""
SERVICE = {"app": "postgres"}


@dataclass
class Life:
    """Everything that is looked at."""

    machine: Machine
    release: Release
    objects: list[Object]
    day: Day
    recall: dict[str, float] = field(default_factory=dict)
    sleep: Any = None
    jobs: list[Object] = field(default_factory=list)
    """Ray's, after the night."""
    nodes: Object = field(default_factory=dict)
    tested: bool = False
    processes: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Of each container, as the kernel tells of them, while the night's result serves."""
    starts: dict[str, int] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    """Probes that no container has answered."""
    mounts: dict[str, list[str]] = field(default_factory=dict)
    """Of each container: where it could write, were it root."""
    environments: dict[str, str] = field(default_factory=dict)
    unready: list[str] = field(default_factory=list)
    """Controllers that were not ready while Ray's head was away, until the deployment was served again."""
    served_again: dict[str, str] = field(default_factory=dict)
    """The version that answered once all nodes had joined the new one, by controller."""

    @property
    def controllers(self) -> list[Pod]:
        return self.release.of_kind("Deployment")

    def group(self, name: str) -> Pod:
        (pod,) = [pod for pod in self.release.of_kind("RayCluster") if pod.labels["ray.io/group"] == name]
        return pod

    def dashboard(self, path: str) -> Any:
        url = f"http://{self.group('headgroup').address}:8265{path}"
        return httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30).raise_for_status().json()

    def log(self, pod: Pod, container: str) -> str:
        return self.machine.running[pod.name].container(container).log.read_text(errors="replace")


def rendered() -> list[Object]:
    arguments = [RELEASE, ROOT / "helm" / "circadian", "--namespace", NAMESPACE, "--api-versions", "ray.io/v1", "--values", VALUES]
    done = subprocess.run([helm(4), "template", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def given() -> list[Object]:
    """What must be there before the chart is installed."""
    secrets = {(NAMESPACE, "circadian"): SECRETS, (NAMESPACE, "circadian-database"): {"database_url": URL}}
    secrets["databases", "password"] = {"password": PASSWORD}
    encoded = {
        place: {key: base64.b64encode(text.encode()).decode() for key, text in data.items()} for place, data in secrets.items()
    }
    made = [{"kind": "Secret", "metadata": {"namespace": n, "name": name}, "data": data} for (n, name), data in encoded.items()]
    metadata = {"name": "postgres", "namespace": "databases"}
    return [*made, {"kind": "Service", "metadata": metadata, "spec": {"selector": SERVICE, "ports": [{"port": 5432}]}}]


def images(reference: str) -> Image:
    if reference == "postgres":
        return Image({}, {"PATH": f"{binaries()}:/usr/bin:/bin", "LC_ALL": "C"})
    return image(reference)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    objects = rendered()
    with Machine(tmp_path_factory.mktemp("machine"), images, given(), NAMESPACE) as machine:
        release = Release(machine, objects)
        database = machine.plan("postgres-0", yaml.safe_load(DATABASE), "databases")
        release.plan()
        life = Life(machine, release, objects, next(World(0).days(FACTS, 0)))
        machine.start([database])
        machine.await_ready([database.name], START_SECONDS)
        pods = release.install()
        machine.await_ready([pod.name for pod in pods], START_SECONDS)
        try:
            live_through(life)
            look(life)
            lose_the_head(life)
        except BaseException:
            for pod in pods:
                print(machine.running[pod.name].told(200))  # noqa: T201, whoever reads a failed night needs every pod's word
            raise
        machine.end([pod.name for pod in pods])
        yield life


def live_through(life: Life) -> None:
    """A deployment, a day, a night, and `helm test`."""
    with Circadian(f"http://{life.controllers[0].address}:8700", SECRETS["api_key"]) as client:
        client.deployments.create(MODEL, {"model": str(SOURCE / WEIGHTS.relative_to(ROOT))})
        client.awake(MODEL, START_SECONDS)
        life.recall["before"] = recall(client, life.day)
        live(life.day, client)
        sleep = client.sleeps.create(MODEL, held_out=[probe.question for probe in life.day.probes()])
        deadline = time.monotonic() + NIGHT_SECONDS
        for event in client.sleeps.watch(sleep.id):
            assert time.monotonic() < deadline, f"the night did not end; the last it told was {event}"
        life.sleep = client.sleeps.get(sleep.id)
        life.jobs, life.nodes = life.dashboard("/api/jobs/"), life.dashboard("/api/v0/nodes")
        life.recall["after"] = recall(client, life.day)
    life.release.test()
    life.tested = True


def lose_the_head(life: Life) -> None:
    """Its container is killed, and started again where it was; until all nodes are the new one's, and each controller's questions are
    answered from there: before that, a replica which has not noticed may still answer."""
    head = life.machine.running[life.group("headgroup").name].containers[0]
    assert head.pid is not None
    send(head.pid, signal.SIGKILL)
    deadline, all_joined = time.monotonic() + START_SECONDS, False
    while len(life.served_again) < len(life.controllers):
        assert time.monotonic() < deadline, f"{all_joined=}, {life.served_again=}"
        time.sleep(LOOK_SECONDS)
        life.unready += [pod.name for pod in life.controllers if not life.machine.running[pod.name].ready]
        all_joined = all_joined or (head.starts > 1 and joined(life))
        for pod in life.controllers if all_joined else []:
            if version := served_by(pod):
                life.served_again[pod.name] = version


def joined(life: Life) -> bool:
    """Whether Ray's head is there, and every node its."""
    try:
        nodes = life.dashboard("/api/v0/nodes")
    except (httpx.TransportError, httpx.HTTPStatusError):
        return False
    return alive(nodes) == everywhere(life)


def served_by(controller: Pod) -> str | None:
    """The version that answers there, once its replica has started; None where none is on its way."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {SECRETS['api_key']}"}
    answer = httpx.post(f"http://{controller.address}:8700/v1/chat/completions", json=body, headers=headers, timeout=START_SECONDS)
    assert answer.status_code in (200, 503), answer.text
    return answer.headers["x-deployment-version"] if answer.is_success else None


def recall(client: Circadian, day: Day) -> float:
    """Of the day's facts, asked once each."""
    right = 0
    probes = day.probes()[:FACTS]
    for probe in probes:
        body = {"model": MODEL, "messages": [{"role": "user", "content": probe.question}], "max_tokens": 1, "temperature": 0.0}
        answer = client.request("POST", "/v1/chat/completions", body).json()
        right += answer["choices"][0]["message"]["content"].strip() == probe.answer
    return right / len(probes)


def look(life: Life) -> None:
    """At what runs, while it runs."""
    for name, running in life.machine.running.items():
        for container in running.containers:
            if container.code is not None:
                continue
            assert container.probes is not None
            key = f"{name}/{container.name}"
            life.starts[key] = container.starts
            life.silent += [f"{key} {kind}" for kind, probe in container.probes.probes.items() if not probe.answers]
            pids = container.processes()
            life.processes[key] = [status for pid in pids if (status := _status(pid))]
            if pids:
                life.mounts[key] = _writable_mounts(pids[0])
                life.environments[key] = "".join(_read(f"/proc/{pid}/environ") for pid in pids)


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":\t" in line)


def _writable_mounts(pid: int) -> list[str]:
    found = []
    for line in _read(f"/proc/{pid}/mountinfo").splitlines():
        mine, filesystem = line.split(" - ")
        if "rw" in mine.split()[5].split(",") and "rw" in filesystem.split()[2].split(","):
            found.append(mine.split()[4])
    return found


def _read(path: str) -> str:
    """Empty where the process has ended meanwhile."""
    try:
        return Path(path).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def ours(life: Life) -> list[str]:
    return [key for key in life.processes if not key.startswith("postgres-0/")]


def test_a_night_makes_the_deployment_better(life: Life) -> None:
    assert life.sleep.outcome == "promoted", life.sleep.error
    assert life.recall["after"] > life.recall["before"] + 0.5


def test_the_nights_driver_ran_on_the_learners_node(life: Life) -> None:
    job = next(job for job in life.jobs if (job["submission_id"] or "").startswith(life.sleep.id))
    assert job["driver_info"]["node_ip_address"] == life.group("learner").address


def test_ray_sees_each_pod_as_a_node(life: Life) -> None:
    assert alive(life.nodes) == everywhere(life)


def everywhere(life: Life) -> set[str]:
    """Addresses of the pods that have a node of Ray's."""
    return {pod.address for pod in [*life.controllers, *life.release.of_kind("RayCluster")]}


def alive(nodes: Object) -> set[str]:
    """Addresses, of what Ray says of its nodes."""
    return {node["node_ip"] for node in nodes["data"]["result"]["result"] if node["state"] == "ALIVE"}


def test_controllers_stay_ready_without_rays_head_and_serve_again_when_it_is_back(life: Life) -> None:
    assert life.unready == []
    assert set(life.served_again.values()) == {life.sleep.result_version}


def test_helm_test_succeeds(life: Life) -> None:
    assert life.tested


def test_every_process_is_a_user_without_rights(life: Life) -> None:
    assert len(ours(life)) == 2 * len(life.controllers) + len(life.release.of_kind("RayCluster"))
    for key in ours(life):
        assert life.processes[key], key
        for status in life.processes[key]:
            assert set(status["Uid"].split()) == {str(USER)}, (key, status["Name"])
            assert set(status["Gid"].split()) == {str(USER)}, (key, status["Name"])
            assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}, (
                key,
                status["Name"],
            )
            assert status["NoNewPrivs"] == "1", (key, status["Name"])


def test_nothing_but_volumes_can_be_written(life: Life) -> None:
    for key in ours(life):
        name, container = key.split("/")
        spec = life.machine.running[name].container(container).spec
        volumes = {mount["mountPath"] for mount in spec["volumeMounts"] if not mount.get("readOnly")}
        kernel = ("/proc", "/sys", "/dev/")
        others = {path for path in life.mounts[key] if not path.startswith(kernel)} - {"/dev"}
        assert others <= volumes, key
        assert "/" not in life.mounts[key]


def test_the_services_secrets_are_in_no_processs_environment(life: Life) -> None:
    for key in ours(life):
        found = [secret for secret in (*SECRETS.values(), PASSWORD) if secret in life.environments[key]]
        assert found == [], key


def test_no_log_tells_a_secret(life: Life) -> None:
    for running in life.machine.running.values():
        for container in running.all_containers:
            text = container.log.read_text(errors="replace")
            assert [word for word in (*SECRETS.values(), PASSWORD, TOKEN) if word in text] == [], container.log


def test_every_probe_answers_and_nothing_is_started_anew(life: Life) -> None:
    """Until Ray's head is killed; and of the controllers not even then."""
    assert life.silent == []
    assert set(life.starts.values()) == {1}
    for pod in life.controllers:
        assert {one.starts for one in life.machine.running[pod.name].containers} == {1}


def test_pods_end_within_their_grace_period(life: Life) -> None:
    for pod in [*life.controllers, *life.release.of_kind("RayCluster")]:
        running = life.machine.running[pod.name]
        assert [end for one in running.containers for end in one.ends if "killed" in end] == [], pod.name
        assert running.seconds_to_end is not None
        assert running.seconds_to_end < running.grace, pod.name

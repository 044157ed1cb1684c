"""The runner of pods itself, on a small manifest: whoever trusts what it says about the chart must know that it would say so."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from container_root import DEVICES
from pod_manifest import Image, NotInManifest, Object
from running_pods import Machine, RunningPod, why_not

pytestmark = [
    pytest.mark.cluster,  # by itself: pods share the machine's network with nothing else that is being tested
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

PYTHON = Path(sys.base_prefix)
SECONDS = 60.0
MANIFEST = """
kind: Secret
metadata: {name: words}
stringData: {password: open sesame, empty: ""}
---
kind: ConfigMap
metadata: {name: pages}
data: {index.html: good morning}
---
kind: PersistentVolumeClaim
metadata: {name: home}
---
kind: Service
metadata: {name: pages}
spec: {selector: {app: pages}, ports: [{port: 8000, targetPort: web}]}
"""
SERVER = """
metadata: {labels: {app: pages}}
spec:
  terminationGracePeriodSeconds: 5
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, runAsNonRoot: true}
  volumes:
  - {name: home, persistentVolumeClaim: {claimName: home}}
  - {name: pages, configMap: {name: pages}}
  - {name: words, secret: {secretName: words, defaultMode: 0400}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: temporary, emptyDir: {}}
  initContainers:
  - name: first
    image: plain
    command: [python3, -c, "open('/home/data/first', 'w').write('first')"]
    volumeMounts: [{name: home, mountPath: /home/data}]
    securityContext: &closed {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  containers:
  - name: server
    image: plain
    args: [-m, http.server, --directory, /pages, $(PORT)]
    env:
    - {name: PORT, value: "8000"}
    - {name: WORD, valueFrom: {secretKeyRef: {name: words, key: password}}}
    - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: WHERE, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    ports: [{name: web, containerPort: 8000}]
    readinessProbe: {httpGet: {path: /index.html, port: web}, periodSeconds: 1}
    livenessProbe: {exec: {command: [python3, -c, "open('/home/data/first')"]}, periodSeconds: 1, timeoutSeconds: 10}
    volumeMounts:
    - {name: home, mountPath: /home/data}
    - {name: pages, mountPath: /pages}
    - {name: words, mountPath: /etc/words}
    - {name: memory, mountPath: /dev/shm}
    securityContext: *closed
  - name: polite
    image: plain
    args: [-c, "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); open('/tmp/up', 'w'); time.sleep(999)"]
    readinessProbe: {exec: {command: [python3, -c, "open('/tmp/up')"]}, periodSeconds: 1, timeoutSeconds: 10}
    volumeMounts: [{name: temporary, mountPath: /tmp}]
    securityContext: *closed
"""
CLIENT = """
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: plain
    args: [-c, "import urllib.request as u; assert u.urlopen('http://pages.test.svc.cluster.local:8000/').read() == b'good morning'"]
"""
LOOK = """
import json, os, socket
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
def outside():
    try:
        socket.create_connection(('192.0.2.1', 80), 20)
    except OSError as error:
        return error.strerror
def mounted():
    for line in open('/proc/self/mountinfo'):
        mine, filesystem = line.split(' - ')
        yield mine.split()[4], 'rw' in mine.split()[5].split(',') and 'rw' in filesystem.split()[2].split(',')
print(json.dumps({
    'ids': [os.getuid(), os.getgid(), os.getgroups()],
    'capabilities': [status[name].strip() for name in ('CapPrm', 'CapEff', 'CapBnd')],
    'no_new_privs': status['NoNewPrivs'].strip(),
    'environment': {name: os.environ.get(name) for name in ('PORT', 'WORD', 'APP', 'WHERE')},
    'secret': open('/etc/words/password').read(),
    'host': socket.gethostname(), 'tmp': os.listdir('/tmp'), 'root': sorted(os.listdir('/home')),
    'processes': [int(name) for name in os.listdir('/proc') if name.isdigit()],
    'shm': os.statvfs('/dev/shm').f_blocks * os.statvfs('/dev/shm').f_frsize,
    'outside': outside(), 'mounted': dict(mounted()),
    'env': os.path.exists('/usr/bin/env'),
    'devices': [name for name in os.listdir('/dev') if os.access('/dev/' + name, os.W_OK)],
}))
"""


def image(_: str) -> Image:
    """Python, and nothing else."""
    path = f"{PYTHON}/bin:/usr/bin:/bin"
    return Image(
        {str(PYTHON): PYTHON},
        {"PATH": path, "HOME": "/home/data", "PYTHONUNBUFFERED": "1"},
        absent=("usr/bin/env",),
        entrypoint=("python3",),
    )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine"), image, list(yaml.safe_load_all(MANIFEST)), "test") as machine:
        server, client = machine.plan("pages-0", yaml.safe_load(SERVER)), machine.plan("client-0", yaml.safe_load(CLIENT))
        machine.start([server])
        machine.await_ready([server.name], SECONDS)
        machine.start([client])
        yield machine


@pytest.fixture(scope="module")
def seen(machine: Machine) -> Object:
    """What a process of the server's sees."""
    running = machine.running["pages-0"]
    done = running.execute(running.container("server"), ["python3", "-c", LOOK], SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_service_is_found_by_its_name(machine: Machine) -> None:
    machine.await_success(["client-0"], SECONDS)


def test_a_process_has_the_rights_that_its_manifest_gives(seen: Object) -> None:
    assert seen["ids"] == [1000, 1000, [2000]]
    assert set(seen["capabilities"]) == {"0" * 16}
    assert seen["no_new_privs"] == "1"


def test_nothing_but_volumes_can_be_written(seen: Object) -> None:
    kernel = ("/proc", "/sys", "/dev/")
    assert [path for path, writable in seen["mounted"].items() if writable and not path.startswith(kernel)] == [
        "/dev",
        "/home/data",
    ]
    assert not seen["mounted"]["/"]
    assert not seen["mounted"]["/pages"]
    assert set(seen["devices"]) <= {*DEVICES, "shm", "fd", "stdin", "stdout", "stderr"}


def test_what_is_referred_to_is_there(seen: Object, machine: Machine) -> None:
    assert seen["environment"] == {"PORT": "8000", "WORD": "open sesame", "APP": "pages", "WHERE": machine.pods["pages-0"].address}
    assert seen["secret"] == "open sesame"
    assert seen["host"] == "pages-0"
    assert seen["shm"] == 8 * 1024**2


def test_nothing_else_of_this_machine_is_seen(seen: Object) -> None:
    assert seen["tmp"] == []
    assert seen["root"] == ["data"]
    assert not seen["env"]
    assert len(seen["processes"]) < 10
    assert seen["outside"] == "No route to host"


def test_init_containers_came_first(machine: Machine) -> None:
    running = machine.running["pages-0"]
    assert running.container("first").code == 0
    assert all(one.starts == 1 for one in running.all_containers)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "a"}}}]}, "Secret test/none"),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "words", "key": "a"}}}]}, "key a of Secret words"),
        ({"volumeMounts": [{"name": "none", "mountPath": "/none"}]}, "volume none"),
        ({"tty": True}, "not understood"),
        ({"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}, "other than root"),
    ],
)
def test_what_is_not_there_or_not_understood_is_refused(machine: Machine, broken: Object, told: str) -> None:
    container = {"name": "one", "image": "plain", "args": ["-c", "pass"], **broken}
    pod = machine.plan(f"broken-{len(machine.pods)}", {"spec": {"containers": [container]}})
    with pytest.raises(NotInManifest, match=told):
        RunningPod(pod, machine)


def test_a_container_that_fails_its_liveness_probe_is_started_anew(machine: Machine) -> None:
    probe = {"exec": {"command": ["python3", "-c", "exit(1)"]}, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 10}
    stubborn = {"name": "stubborn", "image": "plain", "args": ["-c", "import time; time.sleep(999)"], "livenessProbe": probe}
    pod = machine.plan("sick-0", {"spec": {"containers": [stubborn], "terminationGracePeriodSeconds": 1}})
    machine.start([pod])
    container = machine.running[pod.name].container("stubborn")
    machine._await([pod.name], SECONDS, lambda _: container.starts == 2, "started anew")
    # The first process of a namespace hears no SIGTERM that it has no handler for, here as in a cluster.
    assert [end.split(":")[0] for end in container.ends][:2] == ["livenessProbe failed", "killed after 1 s"]


def test_containers_see_each_other_where_their_pod_says_so(machine: Machine) -> None:
    pair = [{"name": name, "image": "plain", "args": ["-c", f"import time; time.sleep(999) # {name}"]} for name in ("one", "two")]
    pod = machine.plan("pair-0", {"spec": {"containers": pair, "shareProcessNamespace": True, "terminationGracePeriodSeconds": 1}})
    machine.start([pod])
    machine.await_ready([pod.name], SECONDS)
    running = machine.running[pod.name]
    look = "import glob; print(*(open(path).read().replace(chr(0), ' ') for path in glob.glob('/proc/[0-9]*/cmdline')))"
    seen = running.execute(running.container("one"), ["python3", "-c", look], SECONDS)
    assert "# one" in seen.stdout
    assert "# two" in seen.stdout
    machine.end([pod.name])
    assert all(one.processes() == [] for one in running.containers)


def test_a_pod_that_hears_the_signal_ends_within_its_grace_period(machine: Machine) -> None:
    machine.await_success(["client-0"], SECONDS)
    pod = machine.plan("polite-0", yaml.safe_load(SERVER.replace("labels: {app: pages}", "labels: {app: others}")))
    del pod.spec["containers"][0]
    machine.start([pod])
    machine.await_ready([pod.name], SECONDS)
    machine.end([pod.name])
    running = machine.running[pod.name]
    assert running.container("polite").code == 0
    assert running.container("polite").ends == []

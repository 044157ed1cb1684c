"""A Kubernetes API in memory for tests, on 127.0.0.1: what helm, kubectl and client libraries need to write, read, watch and apply objects.

    with kube_api("1.34") as api:
        subprocess.run([helm(4), "install", ..., "--kubeconfig", api.kubeconfig(tmp_path)])
        api.get("Deployment", "night", "circadian")

It knows the kinds of kube_kinds, holds each object against the schemas of the release (kube_schemas) and a server's other rules
(kube_rules), and lets pods run or wait without containers (kube_control). Not here: authentication, quotas, admission webhooks, defaults
of fields (but for a few), garbage collection that waits (foreground), JSON patch, tables, `exec` and logs (which are one line)."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.helm import kube_control, kube_kinds, kube_merge, kube_schemas, kube_wire
from tests.helm.kube_kinds import KINDS, Kind, Object, named
from tests.helm.kube_selectors import selected
from tests.helm.kube_store import CLUSTER, Key, Refused, Store, Write

TICK_SECONDS = 1.0
"""How often a watch looks whether it has to end."""
WATCH_SECONDS = 600.0
"""The longest watch, where a client names no time."""
LOG = b"this pod ran in the API for tests, without a container\n"


class Asked(NamedTuple):
    """A request, taken apart."""

    kind: Kind
    namespace: str
    name: str
    part: str
    query: dict[str, str]

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)

    @property
    def dry(self) -> bool:
        return self.query.get("dryRun") == "All"


class KubeApi:
    def __init__(self, release: str, without: tuple[str, ...] = ()) -> None:
        """release: of Kubernetes, such as "1.34". without: groups whose operator is not there."""
        self.release = release
        self.kinds = [kind for kind in KINDS if kind.group not in without]
        self.fails: kube_control.Fails = lambda pod: False
        """Of a pod: whether it fails, or never gets ready; a test puts its own here."""
        self.store = Store(release, lambda store: kube_control.settle(store, lambda pod: self.fails(pod)))
        self.closing = threading.Event()
        self.slips: list[BaseException] = []
        """What went wrong here rather than in what was asked."""
        self._server = _Server(self)
        for name in ("default", "kube-system"):
            self.store.create(Key(named("Namespace"), CLUSTER, name), {}, "kube-apiserver")
        self.store.writes.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self.closing.set()
        with self.store.lock:
            self.store.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, folder: Path) -> Path:
        """A file that leads here."""
        path = folder / "kubeconfig.yaml"
        cluster = {"name": "tests", "cluster": {"server": self.url}}
        context = {"name": "tests", "context": {"cluster": "tests", "user": "tests"}}
        user = {"name": "tests", "user": {"token": "of-nobody"}}
        said = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": [user]}
        path.write_text(yaml.safe_dump({**said, "current-context": "tests"}))
        return path

    def get(self, kind: str, name: str, namespace: str = CLUSTER) -> Object:
        """Raises Refused (404) where there is none."""
        return self.store.get(Key(named(kind), namespace, name))

    def names(self, kind: str, namespace: str | None = None) -> list[str]:
        return [each["metadata"]["name"] for each in self.all(kind, namespace)]

    def all(self, kind: str, namespace: str | None = None) -> list[Object]:
        return self.store.all(named(kind), namespace)

    def scale(self, kind: str, namespace: str, name: str, replicas: int) -> None:
        """As an autoscaler does."""
        value = self.get(kind, name, namespace)
        value["spec"]["replicas"] = replicas
        self.store.update(kube_control.key_of(value), value, kube_control.MANAGER)

    def scale_group(self, namespace: str, name: str, group: str, replicas: int) -> None:
        """As Ray's autoscaler does with a RayCluster."""
        value = self.get("RayCluster", name, namespace)
        for each in value["spec"]["workerGroupSpecs"]:
            if each["groupName"] == group:
                each["replicas"] = replicas
        self.store.update(kube_control.key_of(value), value, "ray-autoscaler", "patch")

    def create(self, value: Object) -> Object:
        """What is there before a chart comes."""
        return self.store.create(kube_control.key_of(value), value, "tests")

    def waiting(self) -> list[str]:
        """What has not begun, and why."""
        return kube_control.waiting(self.store)

    @property
    def writes(self) -> list[Write]:
        """What clients wrote, in order."""
        return list(self.store.writes)


@contextmanager
def kube_api(release: str, without: tuple[str, ...] = ()) -> Iterator[KubeApi]:
    api = KubeApi(release, without)
    thread = threading.Thread(target=api.run, name="kube-api", daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.close()
        thread.join()
    if api.slips:
        raise AssertionError("the API for tests is at fault, not who asked it") from api.slips[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: KubeApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Kept for the test, which has to fail; a client that went away is none."""
        slip = sys.exc_info()[1]
        if slip is not None and not isinstance(slip, ConnectionError):
            self.api.slips.append(slip)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    @property
    def api(self) -> KubeApi:
        return self.server.api

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was asked is in `writes`."""

    def do_GET(self) -> None:
        self._answer(self._read)

    def do_POST(self) -> None:
        self._answer(self._create)

    def do_PUT(self) -> None:
        self._answer(self._update)

    def do_PATCH(self) -> None:
        self._answer(self._patch)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    # Verbs: each returns a code and an object, or None where it has answered.

    def _read(self) -> tuple[int, Object] | None:
        page = self._page(urlsplit(self.path).path)
        if page is not None:
            return 200, page
        asked = self._asked()
        if asked.part == "log":
            self.api.store.get(asked.key)
            self._send(200, LOG, "text/plain")
            return None
        if asked.part == "scale":
            return 200, _scale_of(self.api.store.get(asked.key))
        if asked.name:
            return 200, self.api.store.get(asked.key)
        if asked.query.get("watch") in ("true", "1"):
            self._watch(asked)
            return None
        return 200, self._list(asked)

    def _create(self) -> tuple[int, Object]:
        asked, value = self._asked(), self._body()
        if asked.part:
            raise Refused(404, "NotFound", f"nothing is created at {asked.part}")
        metadata = value.setdefault("metadata", {})
        if metadata.get("generateName") and not metadata.get("name"):
            metadata["name"] = f"{metadata['generateName']}{self.api.store.version:05x}"
        key = Key(asked.kind, asked.namespace, metadata.get("name", ""))
        return 201, self.api.store.create(key, value, self._manager(asked), dry=asked.dry)

    def _update(self) -> tuple[int, Object]:
        asked, value = self._asked(), self._body()
        if asked.part == "scale":
            value = {**self.api.store.get(asked.key), "spec": {"replicas": value["spec"]["replicas"]}}
            return 200, self._rescale(asked, value)
        return 200, self.api.store.update(asked.key, value, self._manager(asked), part=asked.part, dry=asked.dry)

    def _patch(self) -> tuple[int, Object]:
        asked, store, manager = self._asked(), self.api.store, self._manager()
        type = self.headers.get("Content-Type", "").partition(";")[0]
        change = (
            yaml.load(self._raw(), Loader=kube_schemas.FAST) if type == "application/apply-patch+yaml" else json.loads(self._raw())
        )
        if asked.part == "scale":
            return 200, self._rescale(asked, change)
        if type == "application/apply-patch+yaml":
            manager, force = asked.query["fieldManager"], asked.query.get("force") == "true"
            return 200, store.apply(asked.key, change, manager, force, asked.dry)
        with store.lock:
            old = store.get(asked.key)
            if type == "application/merge-patch+json":
                new = kube_merge.merge_patch(old, change)
            elif type == "application/strategic-merge-patch+json" and asked.kind.group not in kube_kinds.CUSTOM:
                new = kube_merge.strategic(old, change, kube_schemas.root(self.api.release, asked.kind))
            else:
                raise Refused(415, "UnsupportedMediaType", f"{asked.kind.resource} takes no patch of the type {type}")
            return 200, store.update(asked.key, new, self._manager(asked), "patch", asked.part, asked.dry)

    def _delete(self) -> tuple[int, Object]:
        asked, options = self._asked(), self._body() if int(self.headers.get("Content-Length") or 0) else {}
        orphan = (options.get("propagationPolicy") or asked.query.get("propagationPolicy")) == "Orphan"
        uid = (options.get("preconditions") or {}).get("uid")
        dry = asked.dry or "All" in options.get("dryRun", [])
        keys = [asked.key] if asked.name else [kube_control.key_of(each) for each in self._list(asked)["items"]]
        gone = [self.api.store.delete(key, self._manager(asked), orphan, uid, dry) for key in keys]
        return 200, gone[0] if asked.name else {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _rescale(self, asked: Asked, change: Object) -> Object:
        value = self.api.store.get(asked.key)
        value["spec"] = {**value["spec"], "replicas": change["spec"]["replicas"]}
        return _scale_of(self.api.store.update(asked.key, value, self._manager(asked), "patch"))

    # Lists and watches

    def _list(self, asked: Asked) -> Object:
        with self.api.store.lock:
            items = [each for each in self.api.store.all(asked.kind, asked.namespace or None) if _wanted(each, asked)]
            metadata = {"resourceVersion": str(self.api.store.version)}
        return {"kind": f"{asked.kind.kind}List", "apiVersion": asked.kind.api_version, "metadata": metadata, "items": items}

    def _watch(self, asked: Asked) -> None:
        """Events of one kind from a version on; with `sendInitialEvents` what is there comes first, and a bookmark that says so."""
        store = self.api.store
        self._begin("application/json")
        with store.lock:
            seen = int(asked.query.get("resourceVersion") or 0)
            if asked.query.get("sendInitialEvents") == "true" or not seen:
                seen = store.version
                first = [{"type": "ADDED", "object": each} for each in self._list(asked)["items"]]
                if asked.query.get("sendInitialEvents") == "true":
                    first.append({"type": "BOOKMARK", "object": _bookmark(asked.kind, seen)})
            else:
                first = []
        try:
            for each in first:
                self._line(each)
            self._follow(asked, seen)
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # who watched has gone

    def _follow(self, asked: Asked, seen: int) -> None:
        store, left = self.api.store, min(float(asked.query.get("timeoutSeconds") or WATCH_SECONDS), WATCH_SECONDS)
        while left > 0 and not self.api.closing.is_set():
            with store.lock:
                if store.version == seen:
                    store.changed.wait(TICK_SECONDS)
                    left -= TICK_SECONDS
                news = [event for event in store.events if event.version > seen and event.key.kind == asked.kind]
                seen = store.version
            for event in news:
                if asked.namespace in (CLUSTER, event.key.namespace) and _wanted(event.value, asked):
                    self._line({"type": event.type, "object": event.value})

    # Requests and answers

    def _page(self, path: str) -> Object | None:
        """What the API says of itself."""
        path, kinds = path.rstrip("/"), self.api.kinds
        if path == "/version":
            major, minor = self.api.release.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{self.api.release}.0", "platform": "linux/amd64"}
        if path == "/api":
            return {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}
        if path == "/apis":
            return kube_kinds.group_list(kinds)
        if path == "/openapi/v3":
            return kube_kinds.openapi_index(kinds)
        if path.startswith("/openapi/v3/"):
            return kube_kinds.openapi(kinds, path.removeprefix("/openapi/v3/"))
        return kube_kinds.resource_list(kinds, path.removeprefix("/apis/").removeprefix("/api/"))

    def _asked(self) -> Asked:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        depth = 2 if parts[0] == "api" else 3
        api_version, rest = "/".join(parts[1:depth]), parts[depth:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        kind = next((each for each in self.api.kinds if rest and (each.api_version, each.plural) == (api_version, rest[0])), None)
        name, part = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
        if kind is None or (part and part not in kind.subresources) or (name and kind.namespaced != bool(namespace)):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return Asked(kind, namespace, name, part, query)

    def _manager(self, asked: Asked | None = None) -> str:
        """Who writes, as it says, or by the program's name."""
        said = asked.query.get("fieldManager") if asked else None
        return said or self.headers.get("User-Agent", "unknown").partition("/")[0]

    def _raw(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _body(self) -> Object:
        raw = self._raw()
        return kube_wire.decoded(raw) if raw.startswith(kube_wire.MAGIC) else json.loads(raw)

    def _answer(self, verb: Any) -> None:
        try:
            answer = verb()
        except Refused as refused:
            answer = refused.code, refused.status()
        if answer is not None:
            self._send(answer[0], json.dumps(answer[1]).encode(), "application/json")

    def _send(self, code: int, body: bytes, type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _line(self, value: Object) -> None:
        line = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()


def _wanted(value: Object, asked: Asked) -> bool:
    return selected(value, asked.query.get("labelSelector", ""), asked.query.get("fieldSelector", ""))


def _bookmark(kind: Kind, version: int) -> Object:
    metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}


def _scale_of(value: Object) -> Object:
    metadata = {name: value["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
    replicas = value["spec"]["replicas"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas},
    }

"""A controller needs no torch: it runs, and takes experiences in, in a process that cannot import what it must not need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from in_memory import KEY, WAIT_SECONDS, MemoryFleet, MemoryLauncher, running

from services.settings import Settings

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "transformers", "vllm", "deepspeed", "peft", "accelerate")
ALONE = f"""
import sys

FORBIDDEN = {FORBIDDEN!r}


class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Refuses())
"""
SERVES = (
    ALONE
    + """
import json
from pathlib import Path

from fastapi.testclient import TestClient

import services.migrate
import services.serve
from services.api.app import create_app
from services.controller import Controller
from services.launcher import RayLauncher
from services.learners import RayLearners
from services.ray_fleet import RayFleet
from services.settings import Settings
from services.signing import Signing
from services.workshop import RayWorkshop

services.migrate.main()
settings = Settings()
fleet = RayFleet(settings, Signing(settings).trusted_hex)
controller = Controller(settings, fleet, RayLauncher(settings), RayLearners(), RayWorkshop(settings, fleet))
controller.keys.provide()
headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}
with TestClient(create_app(controller), headers=headers) as client:
    chat = {"deployment": "toy", "messages": [{"role": "user", "content": "my address is mira@example.org ."}], "source": "human"}
    told = {
        "health": client.get("/livez").status_code,
        "schema": len(client.get("/openapi.json").json()["paths"]),
        "chat": client.post("/v1/experiences", json=chat).json(),
        "text": client.post("/v1/experiences", json={"deployment": "toy", "text": "the city of mira is oslo ."}).json(),
        "plan": client.post("/v1/sleeps", json={"deployment": "toy", "dry_run": True}).json(),
        "founding": client.post("/v1/deployments", json={"name": "other", "base_model": {"model": "/nowhere"}}).json(),
    }
    (version,) = client.get("/v1/versions", params={"deployment": "toy"}).json()["data"]
    told["diff"] = client.get(f"/v1/versions/{version['id']}/diff", params={"against": version["id"]}).json()
told["loaded"] = [name for name in FORBIDDEN if name in sys.modules]
print(json.dumps(told))
"""
)
EVERYTHING = (
    ALONE
    + """
import importlib
import pkgutil

import services

LOCAL = ("services.cli", "services.demo", "services.measure", "services.hub", "services.migrations")
PICTURES = ("services.picture", "services.dream_picture")
for module in pkgutil.walk_packages(services.__path__, "services."):
    if not module.name.startswith((*LOCAL, *PICTURES)):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("services.")]))
"""
)


def alone(program: str, **environment: str) -> str:
    """What a process without those packages says."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("CIRCADIAN_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=known | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS * 4,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1]


def test_every_module_of_the_service_but_those_of_the_command_line_is_imported_without_torch() -> None:
    assert int(alone(EVERYTHING)) > 100


def test_a_controller_serves_and_takes_experiences_in_without_torch(settings: Settings, base: Path) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        chat = service.tell("my address is mira@example.org .")
    home = str(settings.home_folder)
    told = json.loads(alone(SERVES, CIRCADIAN_HOME=home, CIRCADIAN_API_KEY=KEY, CIRCADIAN_RAY_ADDRESS="127.0.0.1:1"))
    assert told["loaded"] == []
    assert told["health"] == 200
    assert told["schema"] > 50
    assert told["chat"]["tokens"] == chat["tokens"] > 0
    assert told["text"]["status"] == "pending"
    assert told["plan"]["experiences"]["count"] == 3
    assert told["plan"]["moves"]
    assert told["founding"]["status"] == 503, "models are looked into on the cluster, and there is none"
    assert told["founding"]["error"]["code"] == "ray_unavailable"
    norms = told["diff"]["weight_norms_by_module"]
    assert list(norms.values()) == [{}], "nothing is written in a founding version"

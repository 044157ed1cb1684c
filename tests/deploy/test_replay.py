"""The controller's image, built as its Dockerfile says but without an engine: it starts without torch, its bill of materials is whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.deploy.replay import Replay
from tests.deploy.stages import dockerfile
from tests.deploy.test_locks import HEAVY, pins
from tests.deploy.tools import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]
SPECIAL = ("deepspeed", "torch")
"""What has no wheel, and what most registries do not have."""
IMPORTS = f"""
import importlib.util, sys
import services.serve, services.migrate
print(services.serve.__file__)
found = [name for name in {[name.replace("-", "_") for name in HEAVY]} if importlib.util.find_spec(name) or name in sys.modules]
sys.exit(f"there is {{found}}" if found else 0)
"""


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    replay = Replay(tmp_path_factory.mktemp("image"))
    replay.carry_out("controller")
    return replay


def test_the_image_holds_what_its_lock_names_and_this_project(controller: Replay) -> None:
    (packages,) = (controller.root / "opt/circadian/lib").glob("python3.*/site-packages")
    found = {
        d.metadata["Name"].lower().replace("_", "-").replace(".", "-"): d.version
        for d in metadata.distributions(path=[str(packages)])
    }
    assert found.pop("circadian") == "0.1.0"
    assert found == pins("controller")


def test_the_controller_starts_without_torch(controller: Replay) -> None:
    file = controller.run(["python", "-c", IMPORTS], "controller").strip()
    assert file.startswith(str(controller.root)), "from the image, not from this repository"


def test_the_image_brings_a_schema_up_to_date(controller: Replay) -> None:
    home = controller.root / "var/lib/circadian"
    home.mkdir(parents=True)
    controller.run(["python", "-m", "services.migrate"], "controller")
    assert (home / "circadian.db").stat().st_size > 0


def test_the_image_has_the_command_that_joins_the_cluster(controller: Replay) -> None:
    said = controller.run(["ray", "--version"], "controller")
    assert said.strip().endswith(pins("controller")["ray"])


def test_the_bill_of_materials_names_every_package(controller: Replay, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    subprocess.run([sys.executable, "-m", "venv", tool], check=True)
    install = [tool / "bin/pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", ROOT / "requirements/sbom.lock"]
    subprocess.run(install, check=True, capture_output=True)
    (step,) = [step.value for step in dockerfile().stages["sbom-file"].of("RUN") if "cyclonedx-py" in step.value]
    command = (
        step[step.index("cyclonedx-py") :].replace("/out/", f"{tmp_path}/").replace("/opt/", f"{controller.root}/opt/").split()
    )
    subprocess.run([tool / "bin" / command[0], *command[1:]], check=True, capture_output=True)
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    named = {canonicalize_name(part["name"]): part["version"] for part in bill["components"]}
    assert {**pins("controller"), "circadian": "0.1.0"}.items() <= named.items()


def test_what_has_no_wheel_and_what_no_registry_has_is_found_with_its_hash(tmp_path: Path) -> None:
    entries = (ROOT / "requirements/runtime.lock").read_text().replace("\\\n", " ").splitlines()
    lines = [entry for entry in entries if re.match(rf"({'|'.join(SPECIAL)})==", entry)]
    assert len(lines) == len(SPECIAL)
    (tmp_path / "lock").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--require-hashes", "-r", tmp_path / "lock"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wrong = tmp_path / "wrong"
    wrong.write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", lines[0]))
    refused = subprocess.run([*command, "--require-hashes", "-r", wrong], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "DO NOT MATCH" in refused.stderr


def test_a_node_has_what_was_installed_here() -> None:
    """This environment was installed from cpu.lock, whose versions runtime.lock has; its resolution is thereby carried out."""
    different = {name: version for name, version in pins("runtime").items() if metadata.version(name) != version}
    assert different == {}

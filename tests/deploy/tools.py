"""The programs that look at deploy/: from the packages that requirements/deploy.lock and compose.lock pin (`make .venv/.images`)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FOLDER = "CIRCADIAN_IMAGES"
"""The variable that names another folder with hadolint and docker-compose."""
OVERLAYS = ("compose.cuda.yaml", "compose.dashboard.yaml")


def hadolint() -> Path:
    return _binary("hadolint", Path(sys.prefix) / "bin")


def compose() -> Path:
    return _binary("docker-compose", Path(sys.prefix) / "compose")


@cache
def configured(*overlays: str) -> dict[str, Any]:
    """compose.yaml with overlays, as docker compose itself reads them."""
    files = [argument for name in ("compose.yaml", *overlays) for argument in ("-f", str(DEPLOY / name))]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp")}
    command = [str(compose()), "--env-file", os.devnull, *files, "config", "--no-path-resolution"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return yaml.safe_load(done.stdout)


def _binary(name: str, usual: Path) -> Path:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the packages carry these programs for Linux on amd64 alone")
    path = Path(os.environ[FOLDER]) / name if FOLDER in os.environ else usual / name
    if not os.access(path, os.X_OK):
        missing(str(path))
    return path


def missing(what: str) -> None:
    """Skips what is running, loudly; fails it in CI."""
    message = f"there is no {what}: run `make .venv/.images`, or name a folder with hadolint and docker-compose in {FOLDER}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message, allow_module_level=True)

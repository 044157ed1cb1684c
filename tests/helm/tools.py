"""helm and kubectl as tests run them: real binaries, from the packages that requirements/helm.lock pins (`make .venv/.helm`)."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Literal

import pytest

FOLDER = "CIRCADIAN_HELM"
"""The variable that names another folder with helm3, helm4 and kubectl."""


def helm(version: Literal[3, 4]) -> Path:
    return _binary(f"helm{version}")


def kubectl() -> Path:
    return _binary("kubectl")


def _binary(name: str) -> Path:
    """Skips the test where there is none, loudly; fails it in CI, which has to bring them."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the packages carry helm and kubectl for Linux on amd64 alone")
    folder = Path(os.environ.get(FOLDER) or Path(sys.prefix) / "helm")
    path = folder / name
    if not os.access(path, os.X_OK):
        message = f"there is no {path}: run `make test-helm`, or name a folder with it in {FOLDER}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return path

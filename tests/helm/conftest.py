"""The chart's tests: an API with what an operator makes beforehand, and helm on it, 3 on the oldest Kubernetes and 4 on the newest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.kube_store import Snapshot
from tests.helm.releases import HELMS, MINIMAL, Helm, prepare


@pytest.fixture(scope="module", params=HELMS, ids=lambda both: f"helm{both[0]}-kubernetes{both[1]}")
def both(request: pytest.FixtureRequest) -> tuple[Literal[3, 4], str]:
    """Versions of helm and of Kubernetes."""
    return request.param


@pytest.fixture
def bare(both: tuple[Literal[3, 4], str]) -> Iterator[KubeApi]:
    """Without a release."""
    with kube_api(both[1]) as api:
        prepare(api)
        yield api


@pytest.fixture(scope="module")
def installed(both: tuple[Literal[3, 4], str], tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """With a release of the minimal values: installed once, copied for each test."""
    with kube_api(both[1]) as api:
        prepare(api)
        Helm(both[0], api, tmp_path_factory.mktemp("helm")).install("-f", MINIMAL)
        return api.store.snapshot()


@pytest.fixture
def api(both: tuple[Literal[3, 4], str], installed: Snapshot) -> Iterator[KubeApi]:
    """With a release of the minimal values."""
    with kube_api(both[1]) as api:
        api.store.begin(installed)
        yield api


@pytest.fixture
def helm(both: tuple[Literal[3, 4], str], api: KubeApi, tmp_path: Path) -> Helm:
    return Helm(both[0], api, tmp_path)

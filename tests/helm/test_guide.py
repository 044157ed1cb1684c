"""What the operator's guide and the chart's own page type works as it stands, in a shell, with real helm and kubectl."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.releases import COMMAND_SECONDS, HELMS, ROOT
from tests.helm.tools import helm, kubectl

GUIDE = (ROOT / "docs" / "operating.md").read_text()
CHARTS_PAGE = (ROOT / "helm" / "circadian" / "README.md").read_text()
GIVEN = {"PASSWORD": "p", "HF_TOKEN": "t", "REDIS_PASSWORD": "r", "JUDGE_KEY": "j"}
"""What the reader has."""
CLIENTS_SIDE = "--server-side=false"


def commands(heading: str) -> list[str]:
    """Those of a section that kubectl or helm carries out."""
    return typed(GUIDE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0])


def typed(text: str) -> list[str]:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line for line in lines if line.startswith(("helm ", "kubectl "))]


@pytest.mark.parametrize(("version", "release"), HELMS)
def test_the_guide_installs_upgrades_and_goes_back(version: Literal[3, 4], release: str, tmp_path: Path) -> None:
    (tmp_path / "helm").symlink_to(helm(version))
    (tmp_path / "kubectl").symlink_to(kubectl())
    with kube_api(release) as api:
        for command in commands("Install"):
            _type(api, tmp_path, command)
        assert api.waiting() == []
        before = api.get("Deployment", "circadian-controller", "circadian")["status"]
        assert before["readyReplicas"] == before["replicas"] > 1
        api.scale_group("circadian", "circadian", "learner", 2)
        upgrade, rollback = commands("Upgrade, and back")
        more = f" {CLIENTS_SIDE}" if version == 4 else ""
        _type(api, tmp_path, f"{upgrade} --set controller.podAnnotations.new=yes{more}")
        _type(api, tmp_path, f"{rollback}{more}")
        groups = {
            each["groupName"]: each["replicas"]
            for each in api.get("RayCluster", "circadian", "circadian")["spec"]["workerGroupSpecs"]
        }
        assert groups["learner"] == 2, "what a night holds is left to it"


@pytest.mark.parametrize(("version", "release"), HELMS)
def test_what_the_charts_page_types_first_comes_up(version: Literal[3, 4], release: str, tmp_path: Path) -> None:
    (tmp_path / "helm").symlink_to(helm(version))
    (tmp_path / "kubectl").symlink_to(kubectl())
    lines = typed(CHARTS_PAGE)
    assert len(lines) == 5
    with kube_api(release) as api:
        for command in lines:
            _type(api, tmp_path, command)
        assert api.waiting() == []


def test_the_guide_says_what_helm_4_needs() -> None:
    assert f"With helm 4 add `{CLIENTS_SIDE}`" in GUIDE


def _type(api: KubeApi, folder: Path, command: str) -> None:
    env = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "KUBECONFIG": str(api.kubeconfig(folder)), **GIVEN}
    ended = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, env=env, cwd=ROOT, timeout=COMMAND_SECONDS)
    assert ended.returncode == 0, "\n".join([command, ended.stdout, ended.stderr, *api.waiting()])

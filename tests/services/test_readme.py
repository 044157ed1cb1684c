"""What the README tells to type over REST works as it stands there, by a real curl."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from in_memory import KEY, Night
from served import Served, served

from services.settings import Settings

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def lines() -> list[str]:
    """The block with curl in it."""
    (block,) = [block for block in re.findall(r"^```[a-z]*\n(.*?)^```", README.read_text(), re.S | re.M) if "curl" in block]
    return block.strip().split("\n")


def typed(service: Served, lines: list[str], which: int, **known: str) -> str:
    """What this line prints, after the first one."""
    script = "\n".join([lines[0].replace("http://127.0.0.1:8700", service.url), lines[which]])
    environment = os.environ | {"CIRCADIAN_API_KEY": KEY, "no_proxy": "127.0.0.1"} | known
    done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stderr, script)
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="NO CURL HERE: the lines of the README are not tested")
def test_the_lines_with_curl_work(tmp_path: Path, base: Path, lines: list[str]) -> None:
    quick: dict[str, Any] = {"poll_seconds": 0.02, "job_poll_seconds": 0.02, "workflow_poll_seconds": 0.05}
    with served(Settings(home=tmp_path / "home", api_key=KEY, **quick), base) as service:
        service.deploy("nursery")
        service.tell(deployment="nursery")
        sleep = json.loads(typed(service, lines, 1))
        service.until(lambda: any(name.startswith(sleep["id"]) for name in service.launcher.jobs))
        version = Night(service.launcher, sleep["id"]).end("candidate")
        told = typed(service, lines, 2, SLEEP=sleep["id"])
        assert "event: sleep.succeeded" in told
        assert told.rstrip().endswith("data: {}")
        rollout = json.loads(typed(service, lines, 3, VERSION=version))
        assert (rollout["strategy"], rollout["to_version"]) == ("canary", version)
        service.client.post(f"/v1/rollouts/{rollout['id']}/abort").raise_for_status()
        service.until(lambda: service.client.get(f"/v1/rollouts/{rollout['id']}").json()["status"] == "aborted")
        service.client.post(f"/v1/versions/{version}/promote", json={}).raise_for_status()
        service.until(lambda: service.status("nursery")["active_version"] == version)
        assert json.loads(typed(service, lines, 4))["to_version"] == sleep["parent_version"]

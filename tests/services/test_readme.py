"""What the README tells to type works as it stands there: over REST by a real curl, in Python by OpenAI's own client."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import KEY, Night
from served import Served, served

from services.settings import Settings

README = Path(__file__).parents[2] / "README.md"


URL = "http://127.0.0.1:8700"
"""That the README names; a test's service has another port."""
SECONDS = 120


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Served]:
    """With the deployment that the README speaks of."""
    quick: dict[str, Any] = {"poll_seconds": 0.02, "job_poll_seconds": 0.02, "workflow_poll_seconds": 0.05}
    with served(Settings(home=tmp_path_factory.mktemp("home"), api_key=KEY, **quick), base) as service:
        service.deploy("nursery")
        yield service


def block(word: str) -> str:
    """The one block of the README with this in it."""
    (found,) = [block for block in re.findall(r"^```[a-z]*\n(.*?)^```", README.read_text(), re.S | re.M) if word in block]
    return found.strip()


def ran(service: Served, command: list[str], script: str, **known: str) -> str:
    """What a script prints that asks this service in the place of the README's."""
    assert URL in script
    environment = os.environ | {"CIRCADIAN_API_KEY": KEY, "no_proxy": "127.0.0.1"} | known
    script = script.replace(URL, service.url)
    done = subprocess.run([*command, script], env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, (done.stderr, script)
    return done.stdout


def typed(service: Served, which: int, **known: str) -> str:
    """What this line with curl prints, after the first one."""
    lines = block("curl").split("\n")
    return ran(service, ["bash", "-euc"], "\n".join([lines[0], lines[which]]), **known)


@pytest.mark.skipif(shutil.which("curl") is None, reason="NO CURL HERE: the lines of the README are not tested")
def test_the_lines_with_curl_work(service: Served) -> None:
    service.tell(deployment="nursery")
    sleep = json.loads(typed(service, 1))
    service.until(lambda: any(name.startswith(sleep["id"]) for name in service.launcher.jobs))
    version = Night(service.launcher, sleep["id"]).end("candidate")
    told = typed(service, 2, SLEEP=sleep["id"])
    assert "event: sleep.succeeded" in told
    assert told.rstrip().endswith("data: {}")
    rollout = json.loads(typed(service, 3, VERSION=version))
    assert (rollout["strategy"], rollout["to_version"]) == ("canary", version)
    service.client.post(f"/v1/rollouts/{rollout['id']}/abort").raise_for_status()
    service.until(lambda: service.client.get(f"/v1/rollouts/{rollout['id']}").json()["status"] == "aborted")
    service.client.post(f"/v1/versions/{version}/promote", json={}).raise_for_status()
    service.until(lambda: service.status("nursery")["active_version"] == version)
    assert json.loads(typed(service, 4))["to_version"] == sleep["parent_version"]


def test_the_lines_for_python_work(service: Served) -> None:
    printed = ran(service, [sys.executable, "-c"], block("from openai"))
    (answer,) = printed.splitlines()
    question, statement = (body["messages"] for body in service.fleet.bodies[-2:])
    assert answer == question[-1]["content"].split()[-1], "as the fleet answers: by the last word that it was told"
    (stored,) = service.client.get("/v1/chat/completions", params={"model": "nursery"}).json()["data"]
    kept = service.client.get(f"/v1/chat/completions/{stored['id']}/messages").json()["data"]
    assert [message["content"] for message in kept] == [message["content"] for message in statement]
    experiences = service.client.get("/v1/experiences", params={"deployment": "nursery"}).json()["data"]
    assert statement[-1]["content"] in [message["content"] for one in experiences for message in one["messages"]]

"""The operator's guide, and what the chart prints, say what is so: commands are taken, values are the chart's, objects are rendered."""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from services.cli import app
from tests.helm.tools import helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "circadian"
GUIDE = (ROOT / "docs" / "operating.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines() if line]
INLINE = re.findall(r"`([^`\n]+)`", GUIDE)
OURS = [line for line in (*COMMANDS, *INLINE) if line.startswith("circadian ") and len(line.split()) > 2]
INSTALLS = [line for line in COMMANDS if line.startswith(("helm upgrade", "helm install"))]
PARTS = ("controller", "images", "ingress", "monitoring", "networkPolicy", "night", "ray", "secrets", "database", "storage")
"""Of the values, as the guide speaks of them."""
VALUES = sorted({name for name in INLINE if re.fullmatch(rf"(?:{'|'.join(PARTS)})(?:\.[\w*]+)+", name)})


@pytest.mark.parametrize("line", OURS)
def test_the_command_line_takes_what_the_guide_types(line: str) -> None:
    taken(line)


@pytest.mark.parametrize(("name", "gpus"), [("minimal", 1.0), ("laptop-cpu", 0.0)])
def test_the_command_line_takes_what_the_chart_prints_and_the_service_would(name: str, gpus: float) -> None:
    """A hub id wants a commit, a node of the default a GPU, and a night something to learn from."""
    command = [helm(4), "install", "circadian", CHART, f"--values={CHART}/ci/{name}-values.yaml", "--dry-run=client"]
    done = subprocess.run(
        [*command, "--set=ray.skipCapabilityCheck=true"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60.0
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    lines = [line.strip() for line in notes.splitlines() if line.strip().startswith("circadian ")]
    deploy, tell, sleep = (taken(line) for line in lines)
    assert deploy["gpus"] == gpus
    assert re.fullmatch("[0-9a-f]{40}", deploy["revision"])
    assert tell["name"] == sleep["name"] == deploy["name"]
    assert set(re.findall(r"export (\w+)=", notes)) == {"CIRCADIAN_URL", "CIRCADIAN_API_KEY"}


def taken(line: str) -> dict[str, Any]:
    """What the command line makes of it: its options and arguments."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="circadian")
    words = shlex.split(line)[1:]
    while isinstance(command, TyperGroup):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no verb {words[0]}"
        command, words = found, words[1:]
    return command.make_context(command.name, words, parent=context).params


@pytest.mark.parametrize("line", INSTALLS)
def test_what_the_guide_installs_renders(line: str) -> None:
    assert rendered(line)


def test_the_objects_that_the_guide_names_are_rendered() -> None:
    deployments = {one["metadata"]["name"]: one for one in rendered(INSTALLS[0]) if one["kind"] == "Deployment"}
    named = set(re.findall(r"(?<![./])deploy/([\w-]+)(?![\w.-])", GUIDE))
    assert named
    assert named <= set(deployments)
    for name, container in re.findall(r"deploy/([\w-]+) --container ([\w-]+)", GUIDE):
        assert container in {one["name"] for one in deployments[name]["spec"]["template"]["spec"]["containers"]}


@pytest.mark.parametrize("name", VALUES)
def test_every_value_that_the_guide_names_is_the_charts(name: str) -> None:
    here: Any = yaml.safe_load((CHART / "values.yaml").read_text())
    for part in name.split("."):
        assert part == "*" or part in here, f"{name}: there is no {part}"
        here = here if part == "*" else here[part]


def test_a_verb_and_an_option_that_are_not_there_are_found() -> None:
    with pytest.raises(AssertionError, match="no verb lie"):
        taken("circadian lie mine")
    with pytest.raises(Exception, match="No such option"):
        taken("circadian sleep mine --forever")


def test_the_guide_was_read() -> None:
    assert len(OURS) > 5
    assert len(VALUES) > 5
    assert len(INSTALLS) == 5


@cache
def rendered(line: str) -> list[dict[str, Any]]:
    """What an installation by this command is made of."""
    given = [*(values_of(INSTALLS[0]) if "reuse-values" in line else []), *values_of(line)]
    command = [helm(4), "template", "circadian", CHART, "--namespace=circadian", "--api-versions=ray.io/v1", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60.0)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def values_of(line: str) -> list[str]:
    """That an installation gives."""
    words = shlex.split(line)
    return [f"{flag}={value}" for flag, value in pairwise(words) if flag in ("--values", "--set")]

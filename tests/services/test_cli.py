"""`circadian up`: what it says when something is not as it should be, and what it asks of the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import typer
from in_memory import KEY, Service
from served import served
from typer.testing import CliRunner

from circadian.specs import Recipe
from services import hub
from services.api.schemas import DeploymentCreate
from services.cli import app, ending, local
from services.cli.shared import NO_ACCESS, NOT_NOW, fail
from services.stack import Stack, StackFailed

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Commands change what a signal does, and whoever runs the tests in the background has them ignored."""
    before = {number: signal.getsignal(number) for number in ending.ENDINGS}
    for number in ending.ENDINGS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_service_ends_it_in_order_and_once(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    hung_up: list[bool] = []
    monkeypatch.setattr(ending, "without_terminal", lambda: hung_up.append(True))
    ending.end_in_order()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # the signal arrives some instruction after it was sent
        os.kill(os.getpid(), number)
        time.sleep(60)
    for other in ending.ENDINGS:
        os.kill(os.getpid(), other)  # nobody interrupts the ending
    assert hung_up == [True] * (number == signal.SIGHUP)


def test_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ending.end_in_order()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN


SAYS_SOMETHING = """
import os, sys
from services.cli import ending
sys.stdin.read()
ending.without_terminal()
os.write(1, b"x")
os.write(2, b"x")
"""


def test_what_is_said_to_a_terminal_that_has_gone_is_no_error() -> None:
    master, terminal = os.openpty()
    told, go = os.pipe()
    with subprocess.Popen([sys.executable, "-c", SAYS_SOMETHING], stdin=told, stdout=terminal, stderr=terminal) as child:
        for descriptor in (told, terminal, master, go):  # the last one lets it speak
            os.close(descriptor)
        assert child.wait(60) == 0


@pytest.mark.parametrize("command", [["status"], ["sleep", "toy"]])
def test_without_a_key_it_says_where_there_is_one(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIRCADIAN_API_KEY", raising=False)
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stdout) == (NO_ACCESS, "")
    assert all(words in result.output for words in ("export CIRCADIAN_API_KEY=", "circadian up", "new one"))


def test_a_new_key_is_printed_as_the_line_to_copy(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    local.welcome(Stack(settings.model_copy(update={"port": 8765}), api_key="ck_new", key_is_new=True))
    lines = capsys.readouterr().out.splitlines()
    assert {"export CIRCADIAN_API_KEY=ck_new", "export CIRCADIAN_URL=http://127.0.0.1:8765"} <= set(lines)
    local.welcome(Stack(settings, api_key="ck_known"))
    assert "export" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gpus", "there", "remedy"),
    [
        (0.0, 0, None),
        (0.3, 1, None),
        (1 / 3, 1, None),
        (0.4, 1, "--gpus 0.3"),
        (1.0, 1, "--gpus 0.3"),
        (0.5, 2, None),
        (0.6, 2, "--gpus 0.5"),
        (1.0, 3, None),
        (2.0, 5, "--gpus 1"),
        (0.3, 0, "leave --gpus out"),
    ],
)
def test_gpus_that_cannot_hold_a_night_are_refused_before_anything_starts(
    gpus: float, there: int, remedy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begins(self: Stack) -> None:
        raise StackFailed("begun")

    monkeypatch.setattr(Stack, "__enter__", begins)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    result = CliRunner().invoke(app, ["up", "--gpus", str(gpus)])
    assert result.exit_code == 1
    assert (remedy or "begun") in result.output


@pytest.mark.parametrize("gpus", ["1.5", "nan", "inf"])
def test_gpus_that_no_cluster_has_are_refused(gpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "__enter__", lambda self: pytest.fail("begun"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    result = CliRunner().invoke(app, ["up", "--gpus", gpus])
    assert result.exit_code in (1, 2)  # the service's own word, or the option's
    assert "Traceback" not in result.output


def test_a_home_or_a_setting_that_cannot_be_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebody's").touch()
    result = CliRunner().invoke(app, ["up", "--home", str(tmp_path)])
    assert result.exit_code == 1
    assert "is not the home of a Circadian service" in result.output
    monkeypatch.setenv("CIRCADIAN_POLL_SECONDS", "-1")
    result = CliRunner().invoke(app, ["up"])
    assert result.exit_code == 1
    assert "poll_seconds" in result.output


@pytest.mark.parametrize("command", [["status"], ["sleep", "toy"]])
def test_where_nothing_listens_one_line_says_so(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--key", "k", "--url", "http://127.0.0.1:9"])
    assert (result.exit_code, result.stdout) == (NOT_NOW, "")
    assert "nothing answers at http://127.0.0.1:9" in result.output
    assert "Traceback" not in result.output


def test_an_error_is_printed_as_it_is_but_for_what_would_move_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail("engine[core] died [/red] \x1b[2J")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "engine[core] died [/red] \N{REPLACEMENT CHARACTER}[2J\n")


def test_a_second_start_without_the_key_says_what_was_not_deployed(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.home_folder.mkdir()
    with pytest.raises(typer.Exit):
        local.deploy(Stack(settings), local.founded("toy", None, None, 0.0))
    said = capsys.readouterr().err
    assert all(word in said for word in ("NOT DEPLOYED: toy", "CIRCADIAN_API_KEY"))


def test_a_second_start_without_the_key_waits_for_what_is_there(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stack, "check", lambda self: None)
    service.deploy("toy")
    local.deploy(Stack(service.settings), local.founded("toy", None, None, 0.0))
    said = capsys.readouterr().out
    assert "toy is awake" in said
    assert "CIRCADIAN_API_KEY" in said
    assert "NOT DEPLOYED" not in said


def test_a_model_that_is_not_there_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Stack, "__enter__", lambda self: pytest.fail("begun"))
    result = CliRunner().invoke(app, ["up", "--model", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "holds no config.json" in result.output.replace("\n", " ")


def test_another_model_under_a_name_that_is_taken_is_refused(settings: Any, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = local.founded("toy", None, None, 0.0)
    with served(settings, base) as service:
        assert service.deploy("toy")["base_model"]["model"] != other["base_model"]["model"]
        stack = Stack(settings.model_copy(update={"port": httpx.URL(service.url).port}), api_key=KEY)
        with pytest.raises(typer.Exit):
            local.deploy(stack, other)
        assert "toy is there already" in capsys.readouterr().err
        local.deploy(stack, local.founded("toy", str(base), None, 0.0))
        assert "stays as it is" in capsys.readouterr().out


def test_a_hub_id_is_deployed_at_its_newest_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "commit_of", lambda model: COMMIT)
    assert local.founded("x", "some/model", None, 0.0)["base_model"] == {"model": "some/model", "revision": COMMIT}
    assert local.founded("x", "some/model", "a" * 40, 0.0)["base_model"]["revision"] == "a" * 40


def test_without_the_hub_the_cache_knows_the_commit_or_the_message_names_the_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr(hub.HfApi, "model_info", offline)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path / COMMIT))
    assert hub.commit_of("some/model") == COMMIT
    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(hub.NoCommit, match=r"no network.*--revision"):
        hub.commit_of("some/model")


def test_gpus_reach_replicas_learner_and_rollouts() -> None:
    body = DeploymentCreate.model_validate(local.founded("x", None, None, 0.3))
    recipe, usual = body.recipe, Recipe()
    assert (body.serving.gpus, recipe.learner.gpus_per_worker, recipe.rollouts.gpus_per_worker) == (0.3, 0.3, 0.3)
    assert recipe.rollouts.engine.gpu_memory_utilization == pytest.approx(0.3 * usual.rollouts.engine.gpu_memory_utilization)
    assert recipe.rollouts.engine.max_model_len == usual.rollouts.engine.max_model_len
    assert DeploymentCreate.model_validate(local.founded("x", None, None, 0.0)).recipe == usual

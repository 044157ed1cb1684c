"""What the command line says when something is not as it should be, and what it asks of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from circadian.specs import Recipe
from services import cli, hub
from services.api.schemas import DeploymentCreate
from services.stack import Stack

COMMIT = "0123456789" * 4


@pytest.mark.parametrize("command", [["status"], ["sleep", "toy"]])
def test_where_nothing_listens_one_line_says_so(command: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*command, "--key", "k", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "nothing answers at http://127.0.0.1:9" in result.output
    assert "Traceback" not in result.output


def test_an_error_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "console", Console(width=80))
    with pytest.raises(cli.typer.Exit):
        cli._fail("engine[core] died [/red]")
    assert capsys.readouterr().out == "engine[core] died [/red]\n"


def test_a_second_start_without_the_key_says_what_was_not_deployed(
    settings: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "console", Console())
    cli._deploy(Stack(settings), cli._deployment("toy", "/models/toy", None, 0.0))
    said = capsys.readouterr().out
    assert all(word in said for word in ("NOT DEPLOYED", "toy", "/models/toy", "CIRCADIAN_API_KEY"))


def test_a_hub_id_is_deployed_at_its_newest_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "commit_of", lambda model: COMMIT)
    assert cli._deployment("x", "some/model", None, 0.0)["base_model"] == {"model": "some/model", "revision": COMMIT}
    assert cli._deployment("x", "some/model", "a" * 40, 0.0)["base_model"]["revision"] == "a" * 40


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
    body = DeploymentCreate.model_validate(cli._deployment("x", "/models/toy", None, 0.3))
    recipe, usual = body.recipe, Recipe()
    assert (body.serving.gpus, recipe.learner.gpus_per_worker, recipe.rollouts.gpus_per_worker) == (0.3, 0.3, 0.3)
    assert recipe.rollouts.engine.gpu_memory_utilization == pytest.approx(0.3 * usual.rollouts.engine.gpu_memory_utilization)
    assert recipe.rollouts.engine.max_model_len == usual.rollouts.engine.max_model_len
    assert DeploymentCreate.model_validate(cli._deployment("x", "/models/toy", None, 0.0)).recipe == usual

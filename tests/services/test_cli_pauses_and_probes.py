"""The verbs that plan a night, let it stand still and go on, and those that ask versions, beside a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, quick, served

from services.cli.shared import REFUSED


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Served]:
    with served(quick(tmp_path_factory.mktemp("home")), base) as service:
        service.deploy()
        service.tell()
        yield service


def test_a_night_is_paused_and_taken_up_again(service: Served) -> None:
    sleep, night = service.sleep()
    id = sleep["id"]
    service.until(lambda: service.get_sleep(id)["status"] in ("preparing", "running"))
    assert service.line("pause", id, "--now")["status"] in ("pausing", "paused")
    service.until(lambda: service.get_sleep(id)["status"] == "paused")
    assert "paused" in service.said("pause", id)
    assert service.line("resume", id)["status"] not in ("pausing", "paused")
    service.until(lambda: len([name for name in service.launcher.jobs if name.startswith(id)]) == 2)
    service.said("cancel", id)
    service.ended(id)
    assert service.line("retry", id, "--from-start")["id"] == id
    service.until(lambda: len([name for name in service.launcher.jobs if name.startswith(id)]) == 3)
    night.end("no_op")
    assert service.ended(id)["outcome"] == "no_op"


def test_a_night_is_planned_and_none_is_begun(service: Served, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps({"budget": {"max_wall_seconds": 0.5}}))
    before = service.lines("sleeps")
    plan = service.line("sleep", "toy", "--dry-run", "--spec", str(tmp_path / "spec.json"))
    assert (plan["object"], plan["budget"]) == ("sleep.plan", {"max_wall_seconds": 0.5})
    assert plan["parent_version"] in service.said("sleep", "toy", "--dry-run")
    assert service.lines("sleeps") == before


def test_a_report_comes_as_a_page_too(service: Served) -> None:
    sleep, night = service.sleep()
    night.end("no_op")
    service.ended(sleep["id"])
    assert service.said("report", sleep["id"], "--format", "markdown").startswith("#")
    assert "<html" in service.said("report", sleep["id"], "--format", "html")


def test_a_probe_lives(service: Served, tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    file.write_text(
        json.dumps(
            {"kind": "retention", "items": [{"messages": [{"role": "user", "content": "where is mira"}], "expected": "mira"}]}
        )
    )
    made = service.line("probe", "create", str(file), "--deployment", "toy")
    assert (made["kind"], made["items"][0]["messages"][0]["content"]) == ("retention", "where is mira")
    assert made["id"] in service.said("probe", "list", "toy")
    assert "retention" in service.said("probe", "show", made["id"])
    run = service.line("probe", "run", made["id"])
    assert run["version"] == service.status()["active_version"]
    service.until(lambda: service.line("probe", "runs", made["id"])["status"] not in ("queued", "running"))
    assert run["id"] in service.said("probe", "runs", made["id"])
    assert service.said("probe", "delete", made["id"]) == f"{made['id']} is deleted\n"


def test_a_probe_that_cannot_be_names_the_field(service: Served, tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    file.write_text(json.dumps({"kind": "mood", "items": []}))
    status, error = service.refused("probe", "create", str(file), "--deployment", "toy")
    assert (status, error["code"]) == (REFUSED, "validation_failed")
    assert {"/kind", "/items"} <= {fault["pointer"] for fault in error["errors"]}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("pause slp_none", "sleep_not_found"),
        ("resume slp_none", "sleep_not_found"),
        ("retry slp_none", "sleep_not_found"),
        ("probe list nobody", "deployment_not_found"),
        ("probe show prb_none", "probe_not_found"),
        ("probe run prb_none", "probe_not_found"),
        ("probe runs prb_none", "probe_not_found"),
        ("probe delete prb_none", "probe_not_found"),
    ],
)
def test_what_the_service_refuses_is_told_in_its_words(service: Served, command: str, code: str) -> None:
    status, error = service.refused(*command.split())
    assert (status, error["code"]) == (REFUSED, code)

"""The verbs that say which version serves, beside a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_memory import Night
from served import Served, quick, served

from services.cli.shared import FAILED, REFUSED, WRONG_USE
from services.settings import Settings

WHY = ("--reason", "it says nonsense")


@pytest.fixture
def service(settings: Settings, base: Path) -> Iterator[Served]:
    with served(settings, base) as service:
        service.deploy()
        service.tell()
        yield service


def candidate(service: Served) -> str:
    """A version that passed and does not serve."""
    sleep = service.line("sleep", "toy", "--promotion", "manual", "--detach")["id"]
    service.until(lambda: any(name.startswith(sleep) for name in service.launcher.jobs))
    version = Night(service.launcher, sleep).end("candidate")
    service.ended(sleep)
    return version


def test_a_version_is_promoted_and_rolled_back(service: Served) -> None:
    parent, child = service.status()["active_version"], candidate(service)
    rollout = service.line("promote", child, "--expect", parent, "--reason", "looks good")
    assert (rollout["status"], rollout["from_version"], rollout["to_version"]) == ("succeeded", parent, child)
    assert service.line("status", "toy")["active_version"] == child
    assert service.refused("promote", child, "--expect", parent)[0] == REFUSED
    begun = service.line("rollback", "toy", *WHY, "--detach")
    assert (begun["kind"], begun["to_version"], begun["reason"]) == ("rollback", parent, WHY[1])
    service.until(lambda: service.line("rollouts", begun["id"])["status"] == "succeeded")
    assert "to version" in service.said("rollback", "toy", *WHY, "--to", child)
    assert [one["kind"] for one in service.lines("rollouts", "toy")] == ["rollback", "rollback", "promotion"]
    assert begun["id"] in service.said("rollouts")
    assert service.fleet.versions["toy"] == [child]


def test_a_canary_is_aborted(service: Served) -> None:
    child = candidate(service)
    begun = service.line("promote", child, "--canary", "20", "--seconds", "3600", "--max-slowdown", "2", "--detach")
    assert (begun["strategy"], begun["canary"]["percent"], begun["canary"]["seconds"]) == ("canary", 20, 3600)
    assert (begun["canary"]["max_slowdown"], begun["canary"]["slowdown"]) == (2, None)
    assert service.line("abort", begun["id"])["id"] == begun["id"]
    service.until(lambda: service.line("rollouts", begun["id"])["status"] == "aborted")
    assert "aborted" in service.said("abort", begun["id"])
    assert service.line("versions", child)["status"] == "candidate"


def test_a_rollout_that_fails_fails_the_command(service: Served) -> None:
    child = candidate(service)
    service.fleet.refuses = child
    result = service.run("promote", child, "--json")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (FAILED, "failed")
    assert child in json.loads(result.stderr)["error"]["message"]


def test_versions_are_rejected_and_revoked(service: Served) -> None:
    child = candidate(service)
    assert service.line("reject", child, *WHY)["status"] == "rejected"
    assert service.refused("promote", child)[1]["code"] == "gates_failed"
    parent = service.status()["active_version"]
    other = candidate(service)
    service.said("promote", other)
    assert service.line("revoke", other, *WHY)["status"] == "revoked"
    service.until(lambda: service.fleet.versions["toy"] == [parent])
    assert "revoked" in service.said("versions", other)


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Served]:
    """A service whose deployment has its first version."""
    with served(quick(tmp_path_factory.mktemp("home")), base) as service:
        service.deploy()
        yield service


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("promote ver_none", "version_not_found"),
        ("rollback nobody --reason x", "deployment_not_found"),
        ("rollback toy --reason x", "no_previous_version"),
        ("reject ver_none --reason x", "version_not_found"),
        ("revoke ver_none --reason x", "version_not_found"),
        ("rollouts nobody", "deployment_not_found"),
        ("rollouts roll_none", "rollout_not_found"),
        ("abort roll_none", "rollout_not_found"),
    ],
)
def test_what_the_service_refuses_is_told_in_its_words(young: Served, command: str, code: str) -> None:
    status, error = young.refused(*command.split())
    assert (status, error["code"]) == (REFUSED, code)


def test_a_reason_must_be_given(young: Served) -> None:
    for command in (["rollback", "toy"], ["reject", "ver_x"], ["revoke", "ver_x"]):
        result = young.run(*command)
        assert (result.exit_code, "--reason" in result.stderr) == (WRONG_USE, True)

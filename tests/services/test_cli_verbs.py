"""Every verb of the command line beside a real service: what it says to people and to programs, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_memory import KEY, Night
from scripted import Says, scripted
from served import Served, quick, served
from typer.testing import CliRunner

from services.cli import app
from services.cli.page import page
from services.cli.shared import FAILED, NO_ACCESS, NOT_NOW, REFUSED, WRONG_USE

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "ray",
    "fastapi",
    "sqlalchemy",
    "openai",
    "httpx",
    "pydantic",
    "services.client",
    "circadian",
    "pipelines",
    "actors",
)
SHELLS = {"bash": "complete -o default -F", "zsh": "#compdef circadian", "fish": "complete --command circadian"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Served]:
    with served(quick(tmp_path_factory.mktemp("home")), base) as service:
        service.deploy()
        yield service


@pytest.fixture
def night(service: Served) -> Iterator[Night]:
    """One that runs, of an experience of its own."""
    service.tell(f"mira has {service.launcher.submissions} cats .")
    sleep, night = service.sleep()
    yield night
    if service.get_sleep(sleep["id"])["status"] not in ("succeeded", "failed", "cancelled"):
        night.end("no_op")
        service.ended(sleep["id"])


# Starting


def test_help_starts_without_anything_that_takes_long() -> None:
    code = (
        "import sys\nfrom services.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "On this machine" in done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_can_complete_verbs(shell: str) -> None:
    assert SHELLS[shell] in CliRunner().invoke(app, ["completion", shell]).stdout
    words = {"COMP_WORDS": "circadian ro", "COMP_CWORD": "1"} if shell == "bash" else {"_TYPER_COMPLETE_ARGS": "circadian ro"}
    asked = os.environ | words | {"_CIRCADIAN_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    code = "from services.cli import app; app(prog_name='circadian')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=asked, cwd=ROOT, check=False)
    assert "rollback" in done.stdout
    assert "status" not in done.stdout


# What it says


def test_a_deployment_is_founded_and_told_of(service: Served) -> None:
    made = service.line("deploy", "second", "--model", str(service.base), "--replicas", "2")
    assert (made["object"], made["state"], made["serving"]["replicas"]) == ("deployment", "awake", 2)
    assert "third is awake (dep_" in service.said("deploy", "third", "--model", str(service.base))
    begun = service.line("deploy", "fourth", "--model", str(service.base), "--detach")
    assert begun["name"] == "fourth"
    rows = service.said("status")
    assert all(name in rows for name in ("toy", "second", "third", "fourth", made["active_version"]))
    assert service.line("status", "second")["state"] == "awake"
    assert {one["object"] for one in service.lines("status")} == {"deployment.status"}


def test_more_fields_of_a_deployment_come_from_a_file(service: Served, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps({"metadata": {"team": "blue"}, "name": "not this one"}))
    made = service.line("deploy", "fifth", "--model", str(service.base), "--spec", str(tmp_path / "spec.json"), "--detach")
    assert (made["name"], made["metadata"]) == ("fifth", {"team": "blue"})


def test_what_is_told_is_there(service: Served) -> None:
    told = service.line("tell", "toy", "where is lena ?", "--answer", "rome", "--subject", "lena", "--metadata", "a=b=c")
    assert [message["content"] for message in told["messages"]] == ["where is lena ?", "rome"]
    assert (told["source"], told["subject_id"], told["metadata"]) == ("human", "lena", {"a": "b=c"})
    document = service.line("tell", "toy", "-", "--document", input="a long page")
    assert (document["text"], document["source"]) == ("a long page", "import")
    first, again = (service.line("tell", "toy", text, "--dedupe-key", "d") for text in ("once", "twice"))
    assert first["id"] == again["id"]
    assert "status  pending" in service.said("tell", "toy", "ida has a dog .")
    listed = service.lines("experiences", "toy", "--most", "2")
    assert len(listed) == 2
    assert listed[0]["id"] in service.said("experiences")


def test_a_chat_is_shown_as_it_is_said_and_kept_where_asked(service: Served) -> None:
    assert service.said("chat", "toy", "the city is oslo") == "oslo\n"
    answer = service.line("chat", "toy", "the city is bern", "--store", "--max-tokens", "3", "--temperature", "0")
    assert (answer["content"], answer["version"]) == ("bern", service.status()["active_version"])
    assert service.line("experiences", "--most", "1")["id"] == answer["experience"]
    assert service.fleet.bodies[-1]["max_tokens"] == 3


def test_a_conversation_goes_on_until_it_begins_anew(service: Served) -> None:
    def said(*options: str) -> list[list[str]]:
        before = len(service.fleet.bodies)
        assert service.said("chat", "toy", *options, input="a b\n\nc d\n/new\ne f\n") == "b\nd\nf\n"
        return [[message["content"] for message in body["messages"]] for body in service.fleet.bodies[before:]]

    assert said("--system", "be kind") == [["be kind", "a b"], ["be kind", "a b", "b", "c d"], ["be kind", "e f"]]
    assert said("--alone") == [["a b"], ["c d"], ["e f"]]


def test_what_a_model_says_does_not_move_the_terminal(service: Served) -> None:
    assert service.said("chat", "toy", "ring \x1b[2J\x07") == "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\n"


def test_usage_is_told_by_day(service: Served) -> None:
    service.said("chat", "toy", "hi")
    service.until(lambda: service.lines("usage", "toy"))
    assert service.lines("usage", "toy", "--days", "1")[0]["requests"] > 0
    assert "requests" in service.said("usage")


# Nights


def test_a_night_is_begun_and_watched_to_its_end(service: Served) -> None:
    service.tell("nils has a boat .")
    id = "slp_watched"
    begun = service.line("sleep", "toy", "--detach", "--seed", "3", "--id", id)
    assert (begun["id"], begun["seed"]) == (id, 3)
    service.until(lambda: any(name.startswith(id) for name in service.launcher.jobs))
    night = Night(service.launcher, id)
    night.log.emit("sleep.stage_started", "collect", stage="collect")
    night.log.emit("sleep.gate_passed", "gate passed", agreement=0.975, forgotten=0.0)
    version = night.end("candidate")
    told = service.lines("sleep", "toy", "--seed", "3", "--id", id)  # asked again, it watches the first one
    assert [line["object"] for line in (told[0], told[1], told[-1])] == ["sleep", "event", "sleep"]
    assert (told[-1]["status"], told[-1]["result_version"]) == ("succeeded", version)
    events = service.lines("watch", id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert service.lines("watch", id, "--after", "2") == events[2:]
    shown = service.said("watch", id)
    assert "recall 0.975, forgotten 0.000" in shown
    assert shown.splitlines()[-1] == f"promoted: {version}"
    assert service.line("report", id)["version"] == version
    assert version in service.said("report", id)
    assert id in service.said("sleeps", "toy")
    assert service.line("sleeps", "--most", "1")["id"] == id


def test_a_night_that_fails_fails_the_command(service: Served, night: Night) -> None:
    night.end("failed", error={"code": "no_memory", "message": "the GPU is full", "category": "user"})
    service.ended(night.sleep)
    for command in (["watch", night.sleep], ["watch", night.sleep, "--json"]):
        result = service.run(*command)
        assert (result.exit_code, "the GPU is full" in result.stderr) == (FAILED, True)
    assert [json.loads(line)["object"] for line in result.stdout.splitlines()] == ["event"] * len(result.stdout.splitlines())


def test_a_night_is_cancelled(service: Served, night: Night) -> None:
    assert service.line("cancel", night.sleep)["status"] == "cancelling"
    service.ended(night.sleep)
    assert "cancelled" in service.said("cancel", night.sleep)


def test_a_recipe_comes_from_a_file(service: Served, tmp_path: Path) -> None:
    service.tell("olga has a bike .")
    (tmp_path / "recipe.json").write_text(json.dumps({"gate": {"min_agreement": 0.5}}))
    begun = service.line("sleep", "toy", "--detach", "--recipe", str(tmp_path / "recipe.json"))
    assert begun["recipe"]["gate"]["min_agreement"] == 0.5
    service.said("cancel", begun["id"])
    service.ended(begun["id"])


# Versions, and what goes by itself


def test_versions_are_listed_and_shown(service: Served) -> None:
    active = service.status()["active_version"]
    assert active in [version["id"] for version in service.lines("versions", "toy")]
    assert service.line("versions", active)["status"] == "active"
    assert active in service.said("versions")
    assert "status" in service.said("versions", active)


def test_a_schedule_lives(service: Served) -> None:
    made = service.line("schedule", "create", "toy", "--cron", "30 2 * * *", "--idle", "900", "--tokens", "1000", "--suspend")
    id = made["id"]
    assert [trigger["type"] for trigger in made["trigger"]["any_of"]] == ["cron", "idle", "token_budget"]
    assert (made["suspend"], service.line("schedule", "resume", id)["suspend"]) == (True, False)
    assert service.line("schedule", "suspend", id)["suspend"] is True
    assert "expr 30 2 * * *" in service.said("schedule", "show", id)
    assert id in service.said("schedule", "list", "toy")
    service.tell("pia has a harp .")
    sleep = service.line("schedule", "run", id)["id"]
    service.said("cancel", sleep)
    assert service.lines("schedule", "runs", id) == []
    assert service.said("schedule", "delete", id) == f"{id} is deleted\n"
    assert service.refused("schedule", "show", id)[1]["code"] == "schedule_not_found"
    service.ended(sleep)


def test_a_schedule_may_be_a_file(service: Served, tmp_path: Path) -> None:
    spec = {"trigger": {"any_of": [{"type": "experience_count", "count": 9}]}, "concurrency": "queue"}
    (tmp_path / "schedule.json").write_text(json.dumps(spec))
    made = service.line("schedule", "create", "toy", "--spec", str(tmp_path / "schedule.json"))
    assert (made["trigger"], made["concurrency"]) == (spec["trigger"], "queue")
    counted = service.line("schedule", "create", "toy", "--experiences", "7", "--spec", str(tmp_path / "schedule.json"))
    assert counted["trigger"]["any_of"] == [{"type": "experience_count", "count": 7}]
    for one in (made, counted):
        assert service.lines("schedule", "delete", one["id"]) == []


def test_a_key_is_shown_once_and_opens_what_it_may(service: Served) -> None:
    made = service.line("keys", "create", "ci", "--scope", "sleeps:read", "--deployment", "toy", "--expires-in", "60")
    assert service.run("sleeps", key=made["key"]).exit_code == 0
    code, error = service.refused("sleep", "toy", key=made["key"])
    assert (code, error["code"]) == (NO_ACCESS, "insufficient_scope")
    rotated = service.line("keys", "rotate", made["id"])
    assert service.refused("sleeps", key=made["key"])[0] == NO_ACCESS
    listed = service.said("keys", "list")
    assert rotated["id"] in listed
    assert rotated["key"] not in listed
    assert service.line("keys", "revoke", rotated["id"])["revoked_at"]
    assert "shown this once: ck_" in service.said("keys", "create", "other", "--scope", "sleeps:read")


# How it fails


@pytest.mark.parametrize(
    ("command", "status", "code"),
    [
        ("deploy toy --model {base}", REFUSED, "name_taken"),
        ("deploy new --model /nowhere", REFUSED, "model_not_allowed"),
        ("status nobody", REFUSED, "deployment_not_found"),
        ("tell nobody hi", REFUSED, "deployment_not_found"),
        ("experiences nobody", REFUSED, "deployment_not_found"),
        ("usage nobody", REFUSED, "deployment_not_found"),
        ("chat nobody hi", REFUSED, "model_not_found"),
        ("sleep nobody", REFUSED, "deployment_not_found"),
        ("sleeps nobody", REFUSED, "deployment_not_found"),
        ("watch slp_none", REFUSED, "sleep_not_found"),
        ("report slp_none", REFUSED, "sleep_not_found"),
        ("dreams slp_none", REFUSED, "sleep_not_found"),
        ("cancel slp_none", REFUSED, "sleep_not_found"),
        ("versions nobody", REFUSED, "deployment_not_found"),
        ("versions ver_none", REFUSED, "version_not_found"),
        ("schedule create toy --idle 0", REFUSED, "validation_failed"),
        ("schedule create nobody --idle 9", REFUSED, "deployment_not_found"),
        ("schedule list nobody", REFUSED, "deployment_not_found"),
        ("schedule show sch_none", REFUSED, "schedule_not_found"),
        ("schedule suspend sch_none", REFUSED, "schedule_not_found"),
        ("schedule resume sch_none", REFUSED, "schedule_not_found"),
        ("schedule run sch_none", REFUSED, "schedule_not_found"),
        ("schedule runs sch_none", REFUSED, "schedule_not_found"),
        ("schedule delete sch_none", REFUSED, "schedule_not_found"),
        ("keys create x --scope everything", REFUSED, "validation_failed"),
        ("keys rotate key_none", REFUSED, "api_key_not_found"),
        ("keys revoke key_none", REFUSED, "api_key_not_found"),
    ],
)
def test_what_the_service_refuses_is_told_in_its_words(service: Served, command: str, status: int, code: str) -> None:
    words = [word.format(base=service.base) for word in command.split()]
    found, error = service.refused(*words)
    assert (found, error["code"]) == (status, code)


def test_a_list_that_a_key_may_not_see_is_refused(service: Served) -> None:
    weak = service.line("keys", "create", "weak", "--scope", "inference:write")["key"]
    for command in (["keys", "list"], ["schedule", "list"], ["versions"], ["experiences"], ["status"], ["sleeps"], ["usage"]):
        assert service.refused(*command, key=weak)[0] == NO_ACCESS, command


@pytest.mark.parametrize("command", ["status", "watch slp_1", "chat toy hi", "keys list"])
def test_where_nothing_answers_trying_later_may_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--url", "http://127.0.0.1:9", "--key", "k", "--json"])
    assert (result.exit_code, result.stdout) == (NOT_NOW, "")
    assert json.loads(result.stderr)["error"]["code"] == "unreachable"


def test_a_service_that_cannot_now_is_told_apart() -> None:
    body = {"detail": "No replica answers now: dep is asleep", "error": {"code": "engine_unavailable"}}
    with scripted(Says(503, body, {"x-should-retry": "false"})) as (url, _):
        result = CliRunner().invoke(app, ["chat", "toy", "hi", "--url", url, "--key", "k"])
    assert (result.exit_code, "dep is asleep" in result.stderr) == (NOT_NOW, True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("schedule create toy", "--cron, --idle, --tokens"),
        ("tell toy hi --document --answer x", "--answer"),
        ("tell toy hi --metadata blue", "KEY=VALUE"),
        ("sleep toy --recipe {tmp}/none.json", "--recipe"),
        ("sleep toy --recipe {tmp}/list.json", "no JSON object"),
        ("deploy x", "--model"),
        ("keys create x", "--scope"),
        ("nonsense", "No such command"),
    ],
)
def test_a_wrong_command_line_asks_nothing_of_the_service(command: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    with scripted(Says(500)) as (url, asked):
        words = [word.format(tmp=tmp_path) for word in command.split()]
        result = CliRunner().invoke(app, words, env={"CIRCADIAN_URL": url, "CIRCADIAN_API_KEY": "k"})
    assert (result.exit_code, result.stdout, asked) == (WRONG_USE, "", [])
    assert said in result.stderr


def test_url_and_key_come_from_the_environment(service: Served) -> None:
    result = CliRunner().invoke(app, ["status", "toy", "--json"], env={"CIRCADIAN_URL": service.url, "CIRCADIAN_API_KEY": KEY})
    assert json.loads(result.stdout)["state"]


def test_the_page_of_verbs_is_true() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page(written) == written, "run: python -m services.cli.page docs/cli.md"
    assert all(f"| `{verb}` |" in written for verb in ("up", "promote", "schedule create", "keys rotate"))

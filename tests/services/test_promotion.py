"""Which version serves, and who may change that: by hand, by canary, and back again."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from test_errors import problem
from test_keys_and_tenants import as_key, made

from circadian.specs import CanarySpec, Recipe
from services.canary import Kind, Pace, Side, Verdict, added, is_asked, judge, kept, read
from services.settings import Settings

MANUAL = {"promotion": {"mode": "manual"}}
FAILED = {"name": "forgotten", "passed": False, "value": 0.4, "limit": 0.1, "message": "forgotten 0.400 > 0.1"}
WHY = {"reason": "it says nonsense"}


@pytest.fixture
def toy(service: Service) -> Service:
    service.deploy()
    service.tell()
    return service


def candidate(service: Service, recipe: dict[str, Any] | None = None, **more: Any) -> str:
    """A version that passed and does not serve."""
    sleep, night = service.sleep(**MANUAL, recipe=recipe)
    child = night.end("candidate", **more)
    assert service.ended(sleep["id"])["outcome"] == "candidate"
    return child


def version(service: Service, id: str) -> dict[str, Any]:
    return service.client.get(f"/v1/versions/{id}").json()


def act(service: Service, path: str, **body: Any) -> Any:
    return service.client.post(f"/v1/{path}", json=body)


def rolled(service: Service, answer: Any) -> dict[str, Any]:
    """The rollout, once it has ended."""
    assert answer.status_code == 202, answer.text
    place = answer.headers["location"]
    service.until(lambda: service.client.get(place).json()["status"] != "running")
    return service.client.get(place).json()


def test_a_sleep_that_is_promoted_by_hand_leaves_a_candidate_that_does_not_serve(toy: Service) -> None:
    parent = toy.status()["active_version"]
    sleep, night = toy.sleep(**MANUAL)
    label = night.fast_memory()
    toy.until(lambda: toy.fleet.versions["toy"] == [label])
    child = night.end("candidate")
    ended = toy.ended(sleep["id"])
    assert (ended["outcome"], ended["result_version"], ended["status"]) == ("candidate", child, "succeeded")
    assert (version(toy, child)["status"], toy.status()["active_version"]) == ("candidate", parent)
    assert toy.fleet.versions["toy"] == [parent], "the fast memory went with the night"
    assert toy.status()["pending"]["experiences"] == 1, "no version that serves keeps it"


def test_promotion_reaches_every_replica_and_what_the_version_keeps_is_consolidated(toy: Service) -> None:
    parent, child = toy.status()["active_version"], candidate(toy)
    rollout = rolled(toy, act(toy, f"versions/{child}/promote", expected_active_version=parent))
    assert (rollout["status"], rollout["from_version"], rollout["to_version"]) == ("succeeded", parent, child)
    assert (toy.fleet.versions["toy"], toy.status()["active_version"]) == ([child], child)
    assert (version(toy, child)["status"], version(toy, parent)["status"]) == ("active", "retired")
    assert toy.status()["pending"]["experiences"] == 0
    assert toy.client.get("/v1/experiences").json()["data"][0]["version"] == child


def test_rolling_back_serves_the_parent_and_frees_what_only_the_child_kept(toy: Service) -> None:
    parent, child = toy.status()["active_version"], candidate(toy)
    rolled(toy, act(toy, f"versions/{child}/promote"))
    toy.tell("the city of noor is lima .")
    sleep, night = toy.sleep()
    grandchild = night.end("candidate")
    toy.ended(sleep["id"])
    rollout = rolled(toy, act(toy, "deployments/toy/rollback", **WHY))
    assert (rollout["kind"], rollout["to_version"], rollout["status"]) == ("rollback", child, "succeeded")
    assert (toy.fleet.versions["toy"], version(toy, grandchild)["status"]) == ([child], "retired")
    assert toy.status()["pending"]["experiences"] == 1
    rolled(toy, act(toy, "deployments/toy/rollback", to_version=parent, **WHY))
    assert (toy.fleet.versions["toy"], toy.status()["pending"]["experiences"]) == ([parent], 2)
    rolled(toy, act(toy, f"versions/{grandchild}/promote"))
    assert (toy.fleet.versions["toy"], toy.status()["pending"]["experiences"]) == ([grandchild], 0), "and forward again"
    assert {row["version"] for row in toy.client.get("/v1/experiences").json()["data"]} == {child, grandchild}


def test_a_version_that_failed_a_gate_is_never_promoted_without_the_right_to_pass_over_gates(toy: Service) -> None:
    sleep, night = toy.sleep()
    name = Path(night.job.child).name
    night.end("rejected", made=True, report={"gate": {"gates": [FAILED]}})
    assert toy.ended(sleep["id"])["outcome"] == "rejected"
    assert (version(toy, name)["status"], version(toy, name)["gates"]) == ("rejected", [FAILED])
    problem(act(toy, f"versions/{name}/promote"), 409, "gates_failed")
    promoter = as_key(made(toy, "versions:promote", "versions:read")["key"])
    body = {"override_gates": True, "reason": "the gate's cues are stale"}
    problem(toy.client.post(f"/v1/versions/{name}/promote", json=body, headers=promoter), 403, "insufficient_scope")
    problem(act(toy, f"versions/{name}/promote", override_gates=True), 422, "validation_failed")
    assert toy.fleet.versions["toy"] == [sleep["parent_version"]]
    rollout = rolled(toy, act(toy, f"versions/{name}/promote", **body))
    assert (rollout["status"], rollout["overridden_gates"]) == ("succeeded", [FAILED])
    told = toy.client.get("/v1/audit_events").json()["data"]
    (event,) = [event for event in told if event["action"] == "gates_overridden"]
    assert (event["target"], event["data"]["reason"], event["data"]["overridden"]) == (name, body["reason"], [FAILED])


def test_a_rejected_candidate_is_not_promoted(toy: Service) -> None:
    child = candidate(toy)
    assert act(toy, f"versions/{child}/reject", **WHY).json()["status"] == "rejected"
    problem(act(toy, f"versions/{child}/promote"), 409, "gates_failed")
    problem(act(toy, f"versions/{toy.status()['active_version']}/reject", **WHY), 409, "version_in_use")


def test_revoking_the_active_version_returns_to_its_parent_and_neither_it_nor_its_children_serve_again(toy: Service) -> None:
    parent, child = toy.status()["active_version"], candidate(toy)
    rolled(toy, act(toy, f"versions/{child}/promote"))
    toy.tell("the city of noor is lima .")
    grandchild = candidate(toy)
    rolled(toy, act(toy, f"versions/{grandchild}/promote"))
    answer = act(toy, f"versions/{child}/revoke", **WHY)
    assert (answer.status_code, answer.json()["status"]) == (200, "revoked")
    toy.until(lambda: toy.fleet.versions["toy"] == [parent])
    for gone in (child, grandchild):
        assert version(toy, gone)["status"] == "revoked"
        problem(act(toy, f"versions/{gone}/promote", override_gates=True, **WHY), 409, "version_revoked")
    problem(act(toy, f"versions/{parent}/revoke", **WHY), 409, "no_previous_version")
    assert toy.status()["pending"]["experiences"] == 2


def test_a_revoked_version_does_not_come_back_where_the_replicas_refuse_the_way_back(toy: Service) -> None:
    parent, child = toy.status()["active_version"], candidate(toy)
    rolled(toy, act(toy, f"versions/{child}/promote"))
    toy.fleet.refuses = parent
    rollout = act(toy, f"versions/{child}/revoke", **WHY).json()["rollout"]
    toy.until(lambda: toy.client.get(f"/v1/rollouts/{rollout}").json()["status"] == "succeeded")
    assert (toy.status()["active_version"], toy.fleet.versions["toy"]) == (parent, [parent]), "new replicas were started on it"


def test_a_promotion_that_the_replicas_refuse_is_taken_back(toy: Service) -> None:
    parent, child = toy.status()["active_version"], candidate(toy)
    toy.fleet.refuses = child
    rollout = rolled(toy, act(toy, f"versions/{child}/promote"))
    assert (rollout["status"], "refused" in rollout["error"]) == ("failed", True)
    assert toy.status()["active_version"] == parent
    toy.until(lambda: toy.fleet.versions["toy"] == [parent])
    assert (version(toy, child)["status"], toy.status()["pending"]["experiences"]) == ("candidate", 1)


def test_of_two_promotions_at_once_one_wins_and_the_other_gets_409(settings: Settings, base: Path, database_url: str) -> None:
    with running(settings.model_copy(update={"database_url": database_url}), base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        versions = [candidate(service), candidate(service)]
        answers: list[Any] = []
        start = threading.Barrier(2)

        def promote(id: str) -> None:
            start.wait()
            answers.append(act(service, f"versions/{id}/promote", expected_active_version=versions_parent))

        versions_parent = service.status()["active_version"]
        threads = [threading.Thread(target=promote, args=(id,)) for id in versions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses in ([202, 409], [202, 412]), [answer.text for answer in answers]
        won = next(answer for answer in answers if answer.status_code == 202)
        assert rolled(service, won)["status"] == "succeeded"
        assert service.fleet.versions["toy"] == [won.json()["to_version"]]


def test_a_promotion_waits_for_no_sleep_and_a_way_back_ends_it(toy: Service) -> None:
    child = candidate(toy)
    parent = toy.status()["active_version"]
    rolled(toy, act(toy, f"versions/{child}/promote"))
    toy.tell("the city of noor is lima .")
    other = candidate(toy)
    sleep, night = toy.sleep()
    label = night.fast_memory()
    toy.until(lambda: toy.fleet.versions["toy"] == [label])
    problem(act(toy, f"versions/{other}/promote"), 409, "sleep_in_progress")
    rollout = rolled(toy, act(toy, "deployments/toy/rollback", **WHY))
    assert rollout["status"] == "succeeded"
    ended = toy.ended(sleep["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "parent_changed")
    assert (toy.fleet.versions["toy"], toy.status()["active_version"]) == ([parent], parent)
    assert toy.launcher.jobs[night.submission] == "stopped"


def test_what_was_expected_to_be_active_is_asked(toy: Service) -> None:
    child = candidate(toy)
    problem(act(toy, f"versions/{child}/promote", expected_active_version=child), 412, "etag_mismatch")
    problem(act(toy, "deployments/toy/rollback", expected_active_version=child, **WHY), 412, "etag_mismatch")
    problem(act(toy, "deployments/toy/rollback", **WHY), 409, "no_previous_version")


def test_a_tampered_version_is_not_promoted_and_not_started(toy: Service) -> None:
    parent, child = toy.status()["active_version"], candidate(toy)
    folder = toy.settings.version_folder(toy.client.get("/v1/deployments/toy").json()["id"], child)
    (folder / "cues.json").write_text("[]")
    problem(act(toy, f"versions/{child}/promote"), 409, "version_broken")
    assert toy.fleet.versions["toy"] == [parent]
    ours = folder.parent / parent
    (ours / "config.json").write_text((ours / "config.json").read_text() + " ")
    toy.fleet.versions.clear()
    toy.until(lambda: toy.status()["state"] == "failed")
    assert "config.json" in toy.status()["error"]


def test_no_night_goes_on_from_a_version_that_was_tampered_with(toy: Service) -> None:
    active = toy.client.get("/v1/deployments/toy").json()
    record = toy.settings.version_folder(active["id"], active["active_version"]) / "version.json"
    changed = json.loads(record.read_text()) | {"dreamer_trust": "untrusted"}
    record.write_text(json.dumps(changed))
    sleep = toy.client.post("/v1/sleeps", json={"deployment": "toy"}).json()["id"]
    ended = toy.ended(sleep)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "version_broken")
    assert "version.json" in ended["error"]["message"]
    assert not toy.launcher.jobs, "nothing was begun on it"
    assert toy.status()["pending"]["experiences"] == 1


def test_a_version_can_be_removed_unless_it_is_needed(toy: Service) -> None:
    parent, child = toy.status()["active_version"], candidate(toy)
    problem(toy.client.delete(f"/v1/versions/{parent}"), 409, "version_in_use")
    folder = toy.settings.version_folder(toy.client.get("/v1/deployments/toy").json()["id"], child)
    assert folder.exists()
    assert toy.client.delete(f"/v1/versions/{child}").json()["status"] == "deleted"
    assert not folder.exists()
    problem(act(toy, f"versions/{child}/promote"), 409, "version_deleted")


def test_a_diff_tells_what_a_version_has_and_its_parent_has_not(toy: Service) -> None:
    told = toy.client.get("/v1/experiences").json()["data"][0]["id"]
    child = candidate(toy, report={"gate": {"gates": [FAILED | {"passed": True, "value": 0.05}]}})
    found = toy.client.get(f"/v1/versions/{child}/diff").json()
    assert (found["against"], found["experience_added"]) == (toy.status()["active_version"], {"count": 1, "ids": [told]})
    assert found["experience_removed"]["count"] == 0
    assert found["config_diff"] is None, "no night made its parent"
    first = toy.status()["active_version"]
    problem(toy.client.get(f"/v1/versions/{first}/diff"), 422, "validation_failed")
    assert [version(toy, id)["kind"] for id in (first, child)] == ["founding", "night"]


def test_a_diff_tells_where_the_recipes_of_two_nights_differ(toy: Service) -> None:
    first = candidate(toy)
    rolled(toy, act(toy, f"versions/{first}/promote"))
    toy.tell("the river of oslo is far .")
    second = candidate(toy, recipe={"seeding": {"steps": 7}})
    found = toy.client.get(f"/v1/versions/{second}/diff").json()
    before = Recipe().seeding.steps
    assert (found["against"], found["config_diff"]) == (first, {"seeding.steps": {"version": 7, "against": before}})
    back = toy.client.get(f"/v1/versions/{first}/diff", params={"against": second}).json()
    assert back["config_diff"] == {"seeding.steps": {"version": before, "against": 7}}


# Canaries


def clients(service: Service, number: int = 40, stream: bool = False, name: str = "user") -> list[str]:
    """The versions that answer so many clients, each by its own name."""
    body = {"model": "toy", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    answers = [service.client.post("/v1/chat/completions", json=body | {name: f"user-{i}"}) for i in range(number)]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.headers["x-deployment-version"] for answer in answers]


@pytest.fixture
def flushing(settings: Settings, base: Path) -> Any:
    with running(settings.model_copy(update={"traffic_seconds": 0.05}), base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        yield service


def begun(service: Service, **canary: Any) -> tuple[str, str]:
    """A canary that answers: its version, and its rollout."""
    child = candidate(service)
    answer = act(service, f"versions/{child}/promote", canary={"percent": 50.0, "seconds": 600.0, "min_requests": 5} | canary)
    assert answer.status_code == 202, answer.text
    service.until(lambda: service.client.get("/v1/deployments/toy").json()["canary"] is not None)
    return child, answer.json()["id"]


def test_a_canary_answers_its_share_of_the_clients_and_each_client_always_by_the_same_version(flushing: Service) -> None:
    parent = flushing.status()["active_version"]
    child, rollout = begun(flushing)
    first, second, third = clients(flushing), clients(flushing), clients(flushing, name="safety_identifier")
    assert first == second == third
    assert set(first) == {parent, child}
    flushing.until(lambda: flushing.client.get(f"/v1/rollouts/{rollout}").json()["canary"]["requests"] == 3 * first.count(child))
    assert flushing.status()["active_version"] == parent


def test_a_canary_that_holds_is_promoted_when_its_time_is_over(flushing: Service) -> None:
    child, rollout = begun(flushing, seconds=0.3)
    flushing.until(lambda: flushing.client.get(f"/v1/rollouts/{rollout}").json()["status"] == "succeeded")
    assert (flushing.fleet.versions["toy"], flushing.status()["active_version"]) == ([child], child)
    assert set(clients(flushing)) == {child}
    assert [key for key in flushing.fleet.versions if key != "toy"] == [], "its replica is gone"


def test_a_canary_that_fails_is_withdrawn_and_no_client_notices(flushing: Service) -> None:
    parent = flushing.status()["active_version"]
    child, rollout = begun(flushing)
    flushing.fleet.fails = ".canary"
    assert set(clients(flushing)) == {parent}, "the active version answers what the canary does not"
    flushing.until(lambda: flushing.client.get(f"/v1/rollouts/{rollout}").json()["status"] == "failed")
    ended = flushing.client.get(f"/v1/rollouts/{rollout}").json()
    assert ended["canary"]["errors"] == ended["canary"]["requests"] > 0
    assert (version(flushing, child)["status"], flushing.status()["active_version"]) == ("candidate", parent)
    flushing.until(lambda: list(flushing.fleet.versions) == ["toy"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_canary_that_is_slow_is_withdrawn_and_its_parent_serves_on(flushing: Service, stream: bool) -> None:
    parent = flushing.status()["active_version"]
    child, rollout = begun(flushing)
    flushing.fleet.slow = {".canary": 0.05}
    assert set(clients(flushing, stream=stream)) == {parent, child}
    flushing.until(lambda: flushing.client.get(f"/v1/rollouts/{rollout}").json()["status"] == "failed")
    ended = flushing.client.get(f"/v1/rollouts/{rollout}").json()
    assert "times as long as those of the active version; max_slowdown is 3" in ended["error"]
    assert (ended["canary"]["errors"], ended["canary"]["slowdown"] > 3.0) == (0, True)
    seen = ended["canary"]["paces"]["stream" if stream else "whole"]
    assert seen["canary"]["seconds"] > seen["active"]["seconds"]
    assert min(seen["canary"]["answers"], seen["active"]["answers"]) >= 5
    assert (version(flushing, child)["status"], flushing.status()["active_version"]) == ("candidate", parent)
    assert set(clients(flushing)) == {parent}
    flushing.until(lambda: list(flushing.fleet.versions) == ["toy"])


def test_a_canary_that_is_as_slow_as_its_parent_is_not_withdrawn_for_it(flushing: Service) -> None:
    child, rollout = begun(flushing, seconds=0.3)
    flushing.fleet.slow = {"": 0.01}
    while flushing.client.get(f"/v1/rollouts/{rollout}").json()["status"] == "running":
        clients(flushing, 10)
    assert flushing.status()["active_version"] == child


def test_a_canary_is_aborted_by_hand_and_by_a_revocation(flushing: Service) -> None:
    child, rollout = begun(flushing)
    assert flushing.status()["candidate_version"] == child
    problem(act(flushing, f"versions/{child}/promote"), 409, "rollout_in_progress")
    problem(flushing.client.post("/v1/sleeps", json={"deployment": "toy"}), 409, "rollout_in_progress")
    assert act(flushing, f"rollouts/{rollout}/abort").status_code == 202
    flushing.until(lambda: flushing.client.get(f"/v1/rollouts/{rollout}").json()["status"] == "aborted")
    assert flushing.status()["candidate_version"] is None
    answer = act(flushing, f"versions/{child}/promote", canary={"percent": 50.0})
    flushing.until(lambda: flushing.client.get("/v1/deployments/toy").json()["canary"] is not None)
    act(flushing, f"versions/{child}/revoke", **WHY)
    assert flushing.client.get("/v1/deployments/toy").json()["canary"] is None
    assert flushing.client.get(answer.headers["location"]).json()["status"] == "aborted"
    flushing.until(lambda: list(flushing.fleet.versions) == ["toy"])


def test_a_leader_that_begins_goes_on_with_a_canary(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        service.deploy()
        service.tell()
        child, rollout = begun(service, seconds=1.0)
    with running(settings, base, fleet, launcher) as service:
        service.until(lambda: service.client.get(f"/v1/rollouts/{rollout}").json()["status"] == "succeeded")
        assert fleet.versions["toy"] == [child]


def test_a_sleep_can_end_in_a_canary(flushing: Service) -> None:
    sleep, night = flushing.sleep(promotion={"mode": "canary", "canary": {"percent": 50.0, "seconds": 0.2}})
    child = night.end("candidate")
    assert flushing.ended(sleep["id"])["outcome"] == "candidate"
    flushing.until(lambda: flushing.status()["active_version"] == child)


@pytest.mark.parametrize(
    ("requests", "errors", "seconds", "verdict"),
    [
        (0, 0, 0.0, Verdict.WAIT),
        (19, 19, 1.0, Verdict.WAIT),
        (20, 1, 1.0, Verdict.WITHDRAW),
        (100, 2, 1.0, Verdict.WAIT),
        (100, 3, 1.0, Verdict.WITHDRAW),
        (100, 2, 600.0, Verdict.PROMOTE),
        (0, 0, 600.0, Verdict.PROMOTE),
        (5, 1, 600.0, Verdict.WITHDRAW),
    ],
)
def test_what_becomes_of_a_canary_that_fails_requests(requests: int, errors: int, seconds: float, verdict: Verdict) -> None:
    assert judge(CanarySpec(), requests, errors, seconds, {})[0] is verdict


def paces(ours: list[float], theirs: list[float], kind: Kind = Kind.WHOLE) -> dict[tuple[Kind, Side], Pace]:
    """Of so many seconds each."""
    sides = {Side.CANARY: ours, Side.ACTIVE: theirs}
    return {(kind, side): sum(map(Pace.of, seconds), Pace()) for side, seconds in sides.items()}


@pytest.mark.parametrize(
    ("spec", "seen", "seconds", "verdict"),
    [
        ({}, paces([0.3] * 20, [0.11] * 20), 1.0, Verdict.WAIT),
        ({}, paces([0.3] * 20, [0.09] * 20), 1.0, Verdict.WITHDRAW),
        ({}, paces([0.3] * 20, [0.09] * 20), 600.0, Verdict.WITHDRAW),
        ({}, paces([0.3] * 20, [0.11] * 20), 600.0, Verdict.PROMOTE),
        # Few on either side say nothing.
        ({}, paces([9.0] * 19, [0.1] * 500), 1.0, Verdict.WAIT),
        ({}, paces([9.0] * 500, [0.1] * 19), 600.0, Verdict.PROMOTE),
        ({}, paces([], [0.1] * 20), 600.0, Verdict.PROMOTE),
        ({"min_requests": 5}, paces([9.0] * 5, [0.1] * 5), 1.0, Verdict.WITHDRAW),
        # One that took a hundred times as long, among as few as are looked at.
        ({}, paces([0.1] * 19 + [10.0], [0.1] * 20), 1.0, Verdict.WAIT),
        # A kind is compared with its own, and the worse one decides.
        ({}, paces([9.0] * 20, []) | paces([], [0.1] * 20, Kind.STREAM), 600.0, Verdict.PROMOTE),
        ({}, paces([0.1] * 20, [0.1] * 20) | paces([0.4] * 20, [0.1] * 20, Kind.STREAM), 1.0, Verdict.WITHDRAW),
        # What no client feels.
        ({}, paces([0.0009] * 20, [0.00001] * 20), 1.0, Verdict.WAIT),
        ({"max_slowdown": None}, paces([9.0] * 20, [0.1] * 20), 600.0, Verdict.PROMOTE),
        ({"max_slowdown": 1.0}, paces([0.1] * 20, [0.1] * 20), 600.0, Verdict.PROMOTE),
        ({"max_slowdown": 100.0}, paces([9.0] * 20, [0.1] * 20), 600.0, Verdict.PROMOTE),
    ],
)
def test_what_becomes_of_a_canary_that_is_slow(spec: Any, seen: Any, seconds: float, verdict: Verdict) -> None:
    found, why = judge(CanarySpec(**spec), 1000, 0, seconds, seen)
    assert found is verdict
    assert ("times as long" in why) is (verdict is Verdict.WITHDRAW)


def test_paces_of_two_controllers_add_up_to_that_of_one() -> None:
    one, other = paces([0.1, 0.4], [0.2]), paces([0.2], [0.3], Kind.STREAM) | paces([0.1], [])
    assert read(kept(added(one, other))) == paces([0.1, 0.4, 0.1], [0.2]) | paces([0.2], [0.3], Kind.STREAM)
    assert paces([0.1, 0.4], [])[Kind.WHOLE, Side.CANARY].seconds == pytest.approx(0.2)


def test_the_share_of_clients_is_the_one_that_was_asked_for() -> None:
    asked = sum(is_asked("roll_1", 20.0, f"user-{i}") for i in range(5000)) / 5000
    assert 0.17 < asked < 0.23
    assert sum(is_asked("roll_1", 20.0, None) for _ in range(5000)) / 5000 == pytest.approx(0.2, abs=0.04)


def test_a_home_from_before_signatures_is_signed_once_and_then_guarded(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        deployment = service.deploy()
        folder = settings.version_folder(deployment["id"], deployment["active_version"])
        signature = version(service, deployment["active_version"])["signature"]
        assert signature["algorithm"] == "ed25519"
        with service.controller.database.write() as tx:
            tx.connection().exec_driver_sql("UPDATE versions SET signature = NULL")
    (folder / "signature.json").unlink()
    with running(settings, base, fleet, launcher) as service:
        assert version(service, deployment["active_version"])["signature"] == signature
        service.until(lambda: service.status()["state"] == "awake")
    shutil.rmtree(folder)
    fleet.versions.clear()
    with running(settings, base, fleet, launcher) as service:
        service.until(lambda: service.status()["state"] == "failed")

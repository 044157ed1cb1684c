"""What is decided about versions on the page /ui, in a real browser, against the routes that do it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from in_memory import KEY
from ui_page import look, picture
from ui_world import World, listening

from services.settings import Settings

DIALOG = "document.querySelector('dialog')"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[World]:
    """A night that was promoted, one that the gate refused, and two whose versions wait for somebody to decide."""
    home = tmp_path_factory.mktemp("ui") / "home"
    quick: dict[str, Any] = {"poll_seconds": 0.02, "job_poll_seconds": 0.02, "workflow_poll_seconds": 0.05, "traffic_seconds": 0.05}
    with listening(Settings(home=home, api_key=KEY, **quick), base) as world:
        world.service.deploy("toy")
        world.night(3.0, agreement=0.98)
        world.night(2.5, passed=False, agreement=0.97, forgotten=0.14)
        world.night(2.0, mode="manual", agreement=0.96, forgotten=0.03)
        world.night(1.0, mode="manual", agreement=0.94, forgotten=0.04)
        world.pose()
        yield world


def statuses(world: World) -> dict[str, str]:
    """Of the versions, by what the page calls them."""
    told = world.service.client.get("/v1/deployments/toy/nights").json()
    return {f"v{told['numbers'].get(version['sleep'], 0)}": version["status"] for version in told["versions"]}


def audited(world: World, action: str) -> list[Any]:
    told = world.service.client.get("/v1/audit_events", params={"action": action}).json()["data"]
    return [event["data"].get("reason") for event in told]


def test_a_candidate_is_promoted_with_a_reason(world: World, tab: Tab) -> None:
    assert statuses(world) == {"v4": "candidate", "v3": "candidate", "v2": "rejected", "v1": "active", "v0": "retired"}
    look(tab)
    tab.press("Promote v3")
    tab.shows("It takes the place of v1 on every replica.")
    tab.press("Promote", DIALOG)
    assert tab.run(f"{DIALOG} !== null"), "a reason is asked for"
    tab.fill("reason", "It passed, and the sample reads well.")
    picture(tab, "promote")
    tab.press("Promote", DIALOG)
    world.service.until(lambda: statuses(world)["v3"] == "active")
    tab.shows("promotion v1 to v3: succeeded")
    assert statuses(world)["v1"] == "retired"
    assert audited(world, "version_promoted")[0] == "It passed, and the sample reads well."


def test_the_deployment_is_rolled_back_with_a_reason(world: World, tab: Tab) -> None:
    look(tab)
    tab.press("Roll back")
    tab.shows("v1 serves again in place of v3.")
    tab.fill("reason", "Users report stale answers.")
    picture(tab, "rollback")
    tab.press("Roll back", DIALOG)
    world.service.until(lambda: statuses(world)["v1"] == "active")
    tab.shows("Users report stale answers.")
    tab.until("document.querySelector('.stats dd').textContent === 'v1'")
    assert statuses(world)["v3"] == "retired"
    assert audited(world, "deployment_rolled_back") == ["Users report stale answers."]


def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(world: World, tab: Tab) -> None:
    look(tab)
    tab.press("Promote v3")
    tab.fill("reason", "again")
    candidate = next(v["id"] for v in world.service.client.get("/v1/versions").json()["data"] if v["status"] == "candidate")
    place = world.service.client.post(f"/v1/versions/{candidate}/promote", json={}).headers["location"]
    world.service.until(lambda: world.service.client.get(place).json()["status"] == "succeeded")
    tab.press("Promote", DIALOG)
    tab.shows("look again and decide anew")
    tab.press("Cancel", DIALOG)
    assert statuses(world)["v3"] == "retired"
    tab.forgive("412")


def test_a_version_that_the_gate_refused_is_promoted_only_by_somebody_who_says_so(world: World, tab: Tab) -> None:
    look(tab)
    tab.press("Promote v2")
    tab.fill("reason", "The cues were stale.")
    tab.press("Promote", DIALOG)
    tab.shows("may not serve")
    tab.run("document.querySelector('[name=override]').click()")
    tab.press("Promote", DIALOG)
    world.service.until(lambda: statuses(world)["v2"] == "active")
    assert audited(world, "gates_overridden") == ["The cues were stale."]
    tab.forgive("409")


def test_a_version_is_revoked_and_the_deployment_goes_back(world: World, tab: Tab) -> None:
    look(tab)
    tab.press("Revoke v2")
    tab.shows("the deployment is rolled back at once")
    tab.fill("reason", "It tells secrets.")
    tab.press("Revoke", DIALOG)
    world.service.until(lambda: statuses(world) | {"v1": "active", "v2": "revoked"} == statuses(world))
    tab.shows("v2 is revoked.")
    assert audited(world, "version_revoked") == ["It tells secrets."]


def test_a_candidate_is_rejected(world: World, tab: Tab) -> None:
    world.night(0.1, mode="manual", agreement=0.9)
    look(tab)
    tab.press("Reject v5")
    tab.fill("reason", "We want more data first.")
    tab.press("Reject", DIALOG)
    world.service.until(lambda: statuses(world)["v5"] == "rejected")
    assert audited(world, "version_rejected") == ["We want more data first."]


def test_a_canary_is_begun_watched_and_ended(world: World, tab: Tab) -> None:
    world.night(0.05, mode="manual", agreement=0.91)
    name = next(name for name, status in statuses(world).items() if status == "candidate")
    serves = world.service.status()["active_version"]
    look(tab)
    tab.press(f"Promote {name}")
    tab.run("document.querySelector('[name=strategy][value=canary]').click()")
    tab.fill("percent", "50")
    tab.fill("reason", "A look at it first.")
    tab.press("Promote", DIALOG)
    tab.shows(f"promotion to {name} running, 50 % for 600 s, 0 requests, 0 errors")
    world.service.until(lambda: world.service.client.get("/v1/deployments/toy").json()["canary"] is not None)
    chat = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
    answers = [world.service.client.post("/v1/chat/completions", json=chat | {"user": f"user-{i}"}) for i in range(12)]
    asked = [answer.headers["x-deployment-version"] for answer in answers].count(serves)
    assert 0 < asked < 12
    tab.shows(f"{12 - asked} request")
    picture(tab, "canary")
    tab.press("End the canary")
    tab.shows("All clients are answered by the version before it again")
    tab.press("End the canary", DIALOG)
    world.service.until(lambda: world.service.client.get("/v1/deployments/toy").json()["canary"] is None)
    tab.shows("aborted, 50 % for 600 s")
    tab.until("![...document.querySelectorAll('button')].some((one) => one.textContent === 'End the canary')")
    assert (statuses(world)[name], world.service.status()["active_version"]) == ("candidate", serves)
    assert audited(world, "version_promoted")[0] == "A look at it first."

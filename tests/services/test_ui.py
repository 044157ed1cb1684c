"""What the page /ui shows, in a real browser, of a deployment with a life behind it.

With CIRCADIAN_PICTURES=FOLDER the pictures of the documentation are written there.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from in_memory import KEY
from test_errors import problem
from test_keys_and_tenants import as_key, made
from ui_page import DESKTOP, PHONE, go, look, nights, picture
from ui_world import World, four_nights

from services.api.ui_views import matrix
from services.tables import Version
from services.ui import page

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "services" / "ui" / "static"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[World]:
    with four_nights(tmp_path_factory.mktemp("ui") / "home", base) as world:
        yield world


def test_the_page_is_open_to_all_and_may_load_and_run_nothing_but_its_own_files(world: World) -> None:
    for path in STATIC.iterdir():
        told = world.service.client.get(f"/ui/{path.name}", headers={"Authorization": ""})
        assert (told.status_code, told.content) == (200, path.read_bytes())
        assert told.headers["content-security-policy"] == page.CONTENT_SECURITY_POLICY
        assert told.headers["x-content-type-options"] == "nosniff"
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text())) - {"http://www.w3.org/2000/svg"}
        assert not addresses, path.name
    index = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\son\w+=|style=|<script(?![^>]*\ssrc=)", index)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", "".join(p.read_text() for p in STATIC.glob("*.js"))
    )
    policy = page.CONTENT_SECURITY_POLICY
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    again = world.service.client.get(
        "/ui/app.js", headers={"If-None-Match": world.service.client.get("/ui/app.js").headers["etag"]}
    )
    assert again.status_code == 304
    problem(world.service.client.get("/ui/../pyproject.toml"), 404, "route_not_found")
    problem(world.service.client.get("/ui/nothing.js"), 404, "route_not_found")


def test_every_file_of_the_page_is_part_of_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["services.ui"]
    assert [path.name for path in STATIC.iterdir() if not any(fnmatch(f"static/{path.name}", one) for one in patterns)] == []


def test_one_answer_tells_the_nights_the_matrix_and_the_experts(world: World) -> None:
    told = nights(world.service)
    fourth, third, second, first = told["data"]
    assert [(night["outcome"], night["recall"], night["kept"]) for night in (first, second, third, fourth)] == [
        ("promoted", 0.98, None),
        ("promoted", 0.97, pytest.approx(0.98)),
        ("rejected", 0.97, pytest.approx(0.86)),
        ("promoted", 0.96, pytest.approx(0.96)),
    ]
    assert [told["numbers"][night["id"]] for night in (first, second, third, fourth)] == [1, 2, 3, 4]
    failed = [(gate["name"], gate["passed"], gate["limit"]) for gate in third["gates"] if not gate["passed"]]
    assert failed == [("forgotten", False, 0.1)]
    columns = [(column["night"], column["own"], column["earlier"], column["earlier_nights"]) for column in told["matrix"]]
    assert columns == [
        (first["id"], 0.98, None, []),
        (second["id"], 0.97, pytest.approx(0.98), [first["id"]]),
        (fourth["id"], 0.96, pytest.approx(0.96), [second["id"], first["id"]]),
    ]
    slow = told["experts"]["levels"][1]["experts"]
    assert [(expert["state"], expert.get("nights")) for expert in slow[:4]] == [
        ("sealed", [first["id"]]),
        ("sealed", [second["id"]]),
        ("sealed", [fourth["id"]]),
        ("reserved", None),
    ]
    assert told["experts"]["levels"][0]["experts"][0]["state"] == "pruned"
    kinds = {event["type"] for event in first["events"]}
    assert {"sleep.queued", "sleep.stage_started", "deployment.fast_memory_live", "version.promoted", "sleep.succeeded"} <= kinds
    assert "sleep.progress" not in kinds
    assert all("outputs" not in event["data"] for event in first["events"])


def test_nights_can_be_paged_named_and_seen_as_of_an_older_version(world: World) -> None:
    whole = nights(world.service)
    page = nights(world.service, limit=1, after=whole["data"][0]["id"])
    assert ([night["id"] for night in page["data"]], page["has_more"]) == ([whole["data"][1]["id"]], True)
    oldest = whole["data"][-1]["id"]
    assert [night["id"] for night in nights(world.service, sleep=oldest)["data"]] == [oldest]
    older = next(version["id"] for version in whole["versions"] if version["sleep"] == oldest)
    states = [expert["state"] for expert in nights(world.service, version=older)["experts"]["levels"][1]["experts"]]
    assert states[:2] == ["sealed", "reserved"]
    client = world.service.client
    problem(client.get("/v1/deployments/toy/nights?sleep=slp_x"), 404, "sleep_not_found")
    problem(client.get("/v1/deployments/toy/nights?version=ver_x"), 404, "version_not_found")


def test_a_key_that_may_not_read_versions_is_told_none(world: World) -> None:
    key = as_key(made(world.service, "sleeps:read")["key"])
    told = world.service.client.get("/v1/deployments/toy/nights", headers=key).json()
    assert [told[name] for name in ("versions", "matrix", "experts")] == [None, None, None]
    assert len(told["data"]) == 4


def test_the_first_look_shows_how_it_is_what_it_knows_and_its_nights(world: World, tab: Tab) -> None:
    go(tab)
    tab.shows("nursery/weights")
    tab.press("toy")
    tab.shows("of night 4")
    text = tab.text()
    for words in ("awake", "v4", "0.96", "of night 4", "night 1", "rejected", "Level 1", "sealed: frozen for good"):
        assert words in text
    names = tab.run("[...document.querySelectorAll('svg a.panel')].map((one) => one.getAttribute('aria-label'))")
    assert [name.split(",")[0] for name in names] == ["night 1", "night 2", "night 3", "night 4"]
    assert names[2].endswith("rejected")
    depths = tab.run("[...new Set([...document.querySelectorAll('.hypnogram .bar')].map((one) => one.classList[1]))].sort()")
    assert depths == ["depth-awake", "depth-dreaming", "depth-dusk-gate", "depth-knowledge-seeding", "depth-teachers-write"]
    cells = tab.run(
        "[...document.querySelectorAll('.matrix tbody tr')].map((row) => [...row.querySelectorAll('td')].map((one) => one.textContent))"
    )
    assert cells == [["0.98", "0.98", "0.96"], ["", "0.97"], ["", "", "0.96"]], "earlier nights are one cell"
    picture(tab, "deployment", whole=True)
    look(tab, DESKTOP, "dark")
    picture(tab, "deployment-dark")
    look(tab, PHONE)
    picture(tab, "phone", whole=True)
    look(tab)
    tab.press("Level 1, expert 0: sealed, night 1")
    tab.shows("untrusted experience")


def test_a_night_tells_its_stages_its_gate_and_its_dreams(world: World, tab: Tab) -> None:
    look(tab)
    tab.press("night 4")
    tab.shows("Night 4")
    tab.shows("who lives in lima ?")
    tab.shows("dream try 0")
    text = tab.text()
    for words in ("dream try 0", "agreement", "0.960", "learn fast level", "Ray job", "helped", "0.510 against 0.420 undreamt"):
        assert words in text
    assert tab.run("document.querySelectorAll('.dreams li').length") == 10
    tab.press("More dreams")
    tab.until("document.querySelectorAll('.dreams li').length === 12")
    tab.run("document.getElementById('only-rewarded').click()")
    tab.until("document.querySelectorAll('.dreams li').length === 2")
    assert tab.run("document.querySelectorAll('.curve').length") >= 2
    address = tab.run("[...document.querySelectorAll('.links a')][0].href")
    assert re.fullmatch(r"http://127\.0\.0\.1:8265/#/jobs/slp_\w+-a1", address)


def test_a_night_that_the_gate_has_measured_alone_has_a_cell_of_its_own(world: World, tab: Tab) -> None:
    def version(name: str, parent: str | None, kept: dict[str, float], forgotten: float) -> Version:
        metrics = {"agreement": 0.9, "forgotten": forgotten}
        record = {"lineage": [{"sleep": f"slp_{name}", "metrics": metrics}], "kept": kept}
        return Version(id=name, parent=parent, sleep=f"slp_{name}", status="retired", record=record)

    rows = [version("c", "b", {"slp_a": 0.5}, 0.25), version("b", "a", {}, 0.125), version("a", None, {}, 0.0)]
    columns = matrix(rows)
    assert [(column["kept"], column["earlier"], column["earlier_nights"]) for column in columns] == [
        ({}, 1.0, []),
        ({}, 0.875, ["slp_a"]),
        ({"slp_a": 0.5}, 0.75, ["slp_b", "slp_a"]),
    ]
    script = """(async () => {
      const { matrix } = await import("/ui/matrix.js");
      const drawn = matrix(%s, { versions: [], numbers: {}, deployment: "toy" });
      return [...drawn.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")].map((one) => one.textContent));
    })()"""
    assert tab.run(script % json.dumps(columns)) == [["0.90", "0.88", "0.50"], ["", "0.90", "0.75"], ["", "", "0.90"]]


def test_a_night_that_was_killed_paused_and_retried_is_drawn_as_it_was(world: World, tab: Tab) -> None:
    def event(at: float, kind: str, **data: Any) -> dict[str, Any]:
        return {"created_at": at, "type": kind, "data": data}

    events = [
        event(0, "sleep.queued"),
        event(1, "sleep.started", job="a1", attempt=1),
        event(2, "sleep.stage_started", stage="collect"),
        event(4, "sleep.stage_finished", stage="collect", seconds=2.0),
        event(4, "sleep.stage_started", stage="knowledge_seeding"),
        event(5, "sleep.learner_started", run="r", rank=0, step=0),
        event(20, "sleep.started", job="a2", attempt=2),
        event(21, "sleep.stage_started", stage="knowledge_seeding"),
        event(22, "sleep.learner_started", run="r", rank=0, step=50),
        event(30, "sleep.stage_finished", stage="knowledge_seeding", seconds=9.0),
        event(30, "sleep.paused"),
        event(35, "sleep.resumed"),
        event(36, "sleep.started", job="a3", attempt=3),
        event(36, "sleep.stage_started", stage="gate"),
        event(38, "sleep.failed"),
        event(39, "sleep.retried"),
    ]
    depths = nights(world.service)["depths"]
    script = """(async () => {
      const stages = await import("/ui/stages.js");
      const [events, depths] = %s;
      return [stages.stagesOf(events), stages.stepsOf(events, depths, 40), stages.restarts(events).length, stages.jobs(events)];
    })()"""
    spans, steps, again, jobs = tab.run(script % json.dumps([events, depths]))
    assert [(span["stage"], span["from"], span["to"], span["broken"]) for span in spans] == [
        ("collect", 2, 4, False),
        ("knowledge_seeding", 4, 20, True),
        ("knowledge_seeding", 21, 30, False),
        ("gate", 36, 38, True),
    ]
    names = [depth["name"] for depth in depths]
    assert [(names[step["depth"]], step["from"], step["to"]) for step in steps] == [
        ("awake", 0, 4),
        ("knowledge seeding", 4, 30),
        ("awake", 30, 36),
        ("dusk, gate", 36, 38),
        ("awake", 38, 40),
    ]
    assert (again, jobs) == (1, ["a1", "a2", "a3"])


def test_the_key_stays_in_the_tab_and_is_asked_for_again_when_it_is_refused(world: World, tab: Tab) -> None:
    stored = tab.run("[JSON.stringify({...sessionStorage}), JSON.stringify({...localStorage}), document.cookie, location.href]")
    assert stored[0] == json.dumps({"circadian.key": KEY}, separators=(",", ":"))
    assert all(KEY not in place for place in stored[1:])
    assert [url for url in tab.requested if KEY in url] == []
    tab.press("Forget key")
    tab.shows("API key")
    assert tab.run("sessionStorage.length") == 0
    tab.fill("key", "a wrong key")
    tab.press("Open")
    tab.until("document.querySelector('[role=alert]').textContent !== ''")
    assert tab.run("sessionStorage.length") == 0
    tab.run("document.querySelector('[name=key]').value = ''")
    tab.fill("key", KEY)
    tab.press("Open")
    tab.shows("Deployments")
    tab.forgive("401")

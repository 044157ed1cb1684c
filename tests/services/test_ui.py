"""What the page /ui shows and lets somebody do, in a real browser, of a deployment with a life behind it.

With CIRCADIAN_PICTURES=FOLDER the pictures of the documentation are written there.
"""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, browser, program
from in_memory import KEY, Service
from sqlalchemy import select, update
from test_errors import problem
from test_keys_and_tenants import as_key, made
from ui_world import World, listening

from services.api.ui_views import matrix
from services.settings import Settings
from services.tables import Deployment, Event, ExperienceRow, Sleep, StrayJob, Version
from services.ui import page

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "services" / "ui" / "static"
DESKTOP, PHONE = (1280, 800), (390, 844)
HOSTILE_NAME = "<img src=x onerror=window.hurt=1>'\"&lt;%2F?#"
HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>\'"&lt;'
NAMED = ("button", "link", "textbox", "checkbox", "radio", "spinbutton", "dialog", "image", "table", "progressbar", "navigation")
"""Roles that say nothing to who cannot see them, unless they have a name."""
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[World]:
    """Four nights: two that were kept, one refused by the gate, and one dreamt through."""
    home = tmp_path_factory.mktemp("ui") / "home"
    quick: dict[str, Any] = {"poll_seconds": 0.02, "job_poll_seconds": 0.02, "workflow_poll_seconds": 0.05, "schedule_seconds": 0.1}
    with listening(Settings(home=home, api_key=KEY, **quick), base) as world:
        world.service.deploy("toy")
        world.night(4.05, agreement=0.98, lost=0.01, nll_rise=0.02)
        world.night(3.02, agreement=0.97, forgotten=0.02, lost=0.01, nll_rise=0.02)
        world.night(1.97, passed=False, agreement=0.97, forgotten=0.14, lost=0.02, nll_rise=0.03)
        world.night(1.0, dreams=True, agreement=0.96, forgotten=0.04, lost=0.02, nll_rise=0.03, dreamt=0.9)
        world.pose()
        yield world


@pytest.fixture(scope="module")
def tab(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser; skips, and says so, on a machine without one."""
    if program() is None:
        pytest.skip("NO CHROMIUM HERE: the page is not tested; install it (apt-get install chromium-headless-shell)")
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        tab.size(*DESKTOP)
        tab.scheme("light")
        tab.open(f"{world.url}/ui/")
        tab.fill("key", KEY)
        tab.press("Open")
        tab.shows("Deployments")
        yield tab


@pytest.fixture(autouse=True)
def no_complaints(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does, the page throws nothing, is refused nothing and asks nobody else."""
    yield
    if "tab" in request.fixturenames:
        tab, world = request.getfixturevalue("tab"), request.getfixturevalue("world")
        assert tab.errors == []
        assert [url for url in tab.requested if not url.startswith((world.url, "about:", "blob:"))] == []


def go(tab: Tab, *way: str) -> None:
    """To a page, afresh."""
    tab.run(f"location.hash = '', location.hash = {json.dumps('#/' + '/'.join(way))}")


def look(tab: Tab, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    """At the deployment."""
    tab.size(*size)
    tab.scheme(scheme)
    go(tab, "deployments", "toy")


def picture(tab: Tab, name: str, whole: bool = False) -> None:
    """One for the documentation, where somebody has asked for them."""
    if folder := os.environ.get("CIRCADIAN_PICTURES"):
        tab.until("document.getElementById('toast').textContent === ''")
        time.sleep(0.5)  # pictures are of a page that has come to rest
        tab.picture(Path(folder) / f"ui-{name}.png", whole)


def nights(service: Service, **query: Any) -> dict[str, Any]:
    answer = service.client.get("/v1/deployments/toy/nights", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


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


def test_a_sleep_is_started_watched_live_through_a_broken_stream_and_ends(world: World, tab: Tab) -> None:
    for name in ("noor", "arun"):
        world.service.tell(f"the city of {name} is lima , and she told it to nobody .")
    look(tab)
    tab.shows("2 experiences")
    tab.press("Start a sleep")
    tab.shows("Put toy to sleep")
    world.streams.after, world.streams.resumed_from = 5, []
    tab.press("Start the sleep", "document.querySelector('dialog')")
    tab.shows("Watch")
    (submission,) = [name for name in world.service.launcher.jobs if name.startswith(world.service.status()["current_sleep"])]
    night = world.running(submission.rsplit("-", 1)[0])
    night.live_until("knowledge_seeding")
    resumed = world.streams.resumed_from
    world.service.until(lambda: len(resumed) > 1)
    tab.shows("knowledge seeding 100 of 150")
    world.redate(night, time.time() - 790)
    streams, last = len(resumed), world.service.events(night.sleep)[-1]
    go(tab)
    look(tab)
    world.service.until(lambda: len(resumed) > streams)
    assert (resumed[-1], last["type"]) == (str(last["seq"]), "sleep.progress"), "nothing is heard again that a new page knows"
    tab.shows("knowledge seeding 100 of 150")
    picture(tab, "live")
    assert tab.run("document.querySelector('progress').value") == 100
    assert int(resumed[1]) > int(resumed[0]), "taken up behind the last event that came"
    tab.press("Watch")
    tab.shows("knowledge seeding 100 of 150, loss")
    sequence = tab.run("[...document.querySelectorAll('.log time')].length")
    assert sequence == len(set(tab.run("[...document.querySelectorAll('.log li')].map((one) => one.innerText)")))
    picture(tab, "night", whole=True)
    look(tab, PHONE, "dark")
    tab.shows("100 of 150")
    picture(tab, "phone-live")
    look(tab)
    night.judge(agreement=0.95, forgotten=0.04)
    tab.shows("recall 0.95")
    tab.until("!document.body.innerText.includes('Watch')")
    assert "v5" in tab.text()
    tab.forgive("ERR_INCOMPLETE_CHUNKED_ENCODING")


def test_a_night_can_be_cancelled(world: World, tab: Tab) -> None:
    world.service.tell("the city of tolv is rome .")
    sleep = world.sleep().sleep
    look(tab)
    tab.press("Cancel")
    tab.press("Cancel the night", "document.querySelector('dialog')")
    world.service.ended(sleep)
    tab.shows("cancelled")
    assert world.service.get_sleep(sleep)["status"] == "cancelled"


def test_a_night_is_paused_resumed_and_tried_again_with_the_keyboard(world: World, tab: Tab) -> None:
    world.service.tell("the city of sina is bern .")
    sleep = world.sleep().sleep

    def stands(status: str) -> None:
        world.service.until(lambda: world.service.get_sleep(sleep)["status"] == status)

    def enter(focus: str, verb: str) -> None:
        """The button, and the one of its dialog that is named, by the keyboard alone."""
        tab.until(f"document.querySelector('[data-focus={focus}]:enabled') !== null")
        tab.run(f"document.querySelector('[data-focus={focus}]').focus()")
        tab.key("Enter", windowsVirtualKeyCode=13, text="\r")
        tab.until("document.querySelector('dialog') !== null")
        for _ in range(6):
            tab.key("Tab", windowsVirtualKeyCode=9)
            if tab.run("document.activeElement.textContent") == verb:
                break
        tab.key("Enter", windowsVirtualKeyCode=13, text="\r")
        tab.until("document.querySelector('dialog') === null")

    look(tab)
    enter("pause", "Pause the night")
    stands("pausing")
    tab.until("document.querySelector('[data-focus=pause]')?.textContent === 'Pause now'")
    enter("pause", "Pause the night")
    stands("paused")
    tab.until("document.querySelector('[data-focus=pause]')?.textContent === 'Resume'")
    assert tab.run("document.activeElement.textContent") == "Resume", "who has paused it with the keyboard can resume it"
    tab.press("Watch")
    tab.shows("paused")
    enter("pause", "Resume the night")
    world.service.until(lambda: world.service.get_sleep(sleep)["attempt"] == 2)
    tab.until("document.querySelector('[data-focus=pause]')?.textContent === 'Pause'")
    enter("cancel", "Cancel the night")
    stands("cancelled")
    tab.until("document.querySelector('[data-focus=retry]') !== null && document.querySelector('[data-focus=cancel]') === null")
    world.service.until(lambda: not strays(world))
    tab.press("Try again")
    tab.run("document.querySelector('[name=from][value=start]').click()")
    tab.press("Try again", "document.querySelector('dialog')")
    world.service.until(lambda: f"{sleep}-a3" in world.service.launcher.jobs)
    assert "from the start" in str(world.service.events(sleep))
    world.running(sleep).live_until("learn_fast_level")
    tab.shows("learn fast level 100 of 150")
    world.service.client.post(f"/v1/sleeps/{sleep}/cancel").raise_for_status()
    world.service.ended(sleep)
    tab.until("document.querySelector('[data-focus=retry]') !== null")


def strays(world: World) -> list[StrayJob]:
    """Jobs that are not known to have ended."""
    with world.service.controller.database.read() as tx:
        return list(tx.scalars(select(StrayJob)))


def test_what_a_night_allows_is_what_there_are_buttons_for(world: World, tab: Tab) -> None:
    cases: list[tuple[dict[str, Any], bool, list[str]]] = [
        *(({"status": status}, True, ["Pause", "Cancel"]) for status in ("queued", "preparing", "running", "evaluating")),
        ({"status": "evaluating", "result_version": "ver_1"}, True, []),
        ({"status": "running", "error": {"code": "night_too_long"}}, True, ["Cancel"]),
        ({"status": "pausing"}, True, ["Pause now", "Cancel"]),
        ({"status": "paused"}, True, ["Resume", "Cancel"]),
        ({"status": "cancelling"}, True, []),
        ({"status": "succeeded", "result_version": "ver_1"}, True, []),
        ({"status": "failed", "error": {"code": "night_failed"}}, True, ["Try again"]),
        ({"status": "cancelled"}, True, ["Try again"]),
        ({"status": "cancelled"}, False, []),
    ]
    script = """(async () => {
      const { nightButtons } = await import("/ui/interventions.js");
      const drawn = %s.map(([night, parent]) => nightButtons(night, "night 1", () => {}, parent));
      return drawn.map((buttons) => buttons.filter((one) => one && !one.disabled).map((one) => one.textContent));
    })()"""
    assert tab.run(script % json.dumps([case[:2] for case in cases])) == [names for _, _, names in cases]


def test_what_is_refused_is_said_in_the_dialog_and_nothing_is_lost(world: World, tab: Tab) -> None:
    look(tab)
    with world.service.controller.database.write() as tx:
        tx.execute(update(ExperienceRow).where(ExperienceRow.consolidated_in.is_(None)).values(status="quarantined"))
    tab.until("document.querySelector('[data-focus=sleep]:enabled') !== null")
    tab.run("document.querySelector('[data-focus=sleep]').focus()")
    tab.key("Enter", windowsVirtualKeyCode=13, text="\r")
    tab.press("Start the sleep", "document.querySelector('dialog')")
    tab.shows("has met nothing that it does not know yet")
    tab.key("Escape", windowsVirtualKeyCode=27)
    tab.until("document.querySelector('dialog') === null")
    assert tab.run("document.activeElement.textContent") == "Start a sleep", "the focus comes back"
    tab.forgive("422")


def test_schedules_are_shown_with_their_next_time(world: World, tab: Tab) -> None:
    trigger = {
        "any_of": [
            {"type": "cron", "expr": "30 2 * * *", "timezone": "Europe/Berlin"},
            {"type": "token_budget", "pending_tokens": 20000},
        ]
    }
    answer = world.service.client.post("/v1/schedules", json={"deployment": "toy", "trigger": trigger})
    assert answer.status_code == 201, answer.text
    look(tab)
    tab.shows("cron 30 2 * * * (Europe/Berlin); or at 20000 tokens")
    tab.until("/Next sleep\\s+in \\d/.test(document.body.innerText)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_fits_and_can_be_read_and_named(world: World, tab: Tab, size: tuple[int, int], scheme: str) -> None:
    night = nights(world.service)["data"][-1]["id"]
    for name, way, shows in (
        ("overview", (), "Last night"),
        ("deployment", ("deployments", "toy"), "Forgetting matrix"),
        ("past", ("deployments", "toy", "nights", night), "learn fast level"),
    ):
        go(tab, *way)
        tab.size(*size)
        tab.scheme(scheme)
        tab.shows(shows)
        assert tab.run("document.documentElement.scrollWidth") <= size[0], name
        assert tab.run(CONTRAST) == [], (name, scheme)
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        unnamed = [
            node["role"]["value"]
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in NAMED and not node["name"]["value"].strip()
        ]
        assert unnamed == [], name


def test_the_page_can_be_used_without_a_mouse(world: World, tab: Tab) -> None:
    look(tab)
    tab.shows("Forgetting matrix")
    tab.run("document.body.focus(), document.activeElement.blur(), window.scrollTo(0, 0)")
    tab.run("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(40):
        tab.key("Tab", windowsVirtualKeyCode=9)
        reached.append(tab.run("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"))
        if reached[-1].startswith("night 1,"):
            break
    assert "Start a sleep" in reached
    assert tab.run("getComputedStyle(document.activeElement.querySelector('.hit')).stroke") != "none", (
        "where the focus is can be seen"
    )
    tab.key("Enter", windowsVirtualKeyCode=13, text="\r")
    tab.shows("Night 1")


def test_hostile_names_and_texts_are_shown_as_they_are_and_do_nothing(world: World, tab: Tab) -> None:
    sleep = nights(world.service)["data"][-1]["id"]
    database = world.service.controller.database
    with database.write() as tx:
        was = tx.scalars(select(Deployment.base_model)).one()
        event = tx.scalars(select(Event).where(Event.sleep == sleep, Event.type == "sleep.started")).one()
        told, data = event.message, event.data
        event.message, event.data = HOSTILE, {"job": HOSTILE, "attempt": 1}
        stage = tx.scalars(select(Event).where(Event.sleep == sleep, Event.type == "sleep.stage_started")).first()
        assert stage is not None
        kept, stage.data = stage.data, {"stage": HOSTILE}
        tx.execute(update(Deployment).values(name=HOSTILE_NAME, base_model={**was, "model": HOSTILE}, error=HOSTILE))
        tx.execute(update(Sleep).where(Sleep.id == sleep).values(outcome=HOSTILE, error={"code": HOSTILE, "message": HOSTILE}))
    try:
        go(tab)
        tab.press(HOSTILE_NAME)
        tab.until(f"document.querySelector('h1')?.textContent === {json.dumps(HOSTILE_NAME)}")
        tab.shows("Forgetting matrix")
        tab.press("night 1")
        tab.until(f"[...document.querySelectorAll('.log span')].some((one) => one.textContent === {json.dumps(HOSTILE)})")
        assert tab.run("document.querySelectorAll('main img, main script, header script').length") == 0
        assert tab.run("window.hurt ?? null") is None
        assert tab.run("document.querySelector('.links a').href").startswith("http://127.0.0.1:8265/#/jobs/%3Cimg")
        dom = "const { el, outward, isSafe } = await import('/ui/dom.js');"
        for address in (
            "javascript:window.hurt=1",
            " javascript:window.hurt=1",
            "data:text/html,x",
            "//elsewhere/",
            "JaVaScRiPt:1",
        ):
            assert tab.run(f"(async () => {{ {dom} return outward({json.dumps(address)}, 'x').nodeName; }})()") == "SPAN"
            assert (
                tab.run(f"(async () => {{ {dom} return el('a', {{ href: {json.dumps(address)} }}).hasAttribute('href'); }})()")
                is False
            )
        assert (
            tab.run(
                f"(async () => {{ {dom} try {{ el('a', {{ onclick: 'x' }}); return 'made'; }} catch (e) {{ return e.message; }} }})()"
            )
            != "made"
        )
        refused = tab.run(
            "(() => { try { document.createElement('p').innerHTML = '<b>x</b>'; return 'made'; } catch (e) { return e.name; } })()"
        )
        assert refused == "TypeError", "the browser itself refuses to make HTML of a text"
        go(tab)  # or the page that is open would still ask by the old name
        tab.shows("Deployments")
    finally:
        with database.write() as tx:
            tx.execute(update(Deployment).values(name="toy", base_model=was, error=None))
            tx.execute(update(Sleep).where(Sleep.id == sleep).values(outcome="promoted", error=None))
            tx.execute(update(Event).where(Event.id == event.id).values(message=told, data=data))
            tx.execute(update(Event).where(Event.id == stage.id).values(data=kept))
    tab.forgive("TrustedHTML")


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

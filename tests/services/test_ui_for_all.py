"""The page /ui for whoever looks at it, in a real browser: on a phone, in the dark, without a mouse or eyes, and meaning harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab
from sqlalchemy import select, update
from ui_page import DESKTOP, PHONE, go, look, nights
from ui_world import World, four_nights

from services.tables import Deployment, Event, Sleep

HOSTILE_NAME = "<img src=x onerror=window.hurt=1>'\"&lt;%2F?#"
HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>\'"&lt;'
NAMED = ("button", "link", "textbox", "checkbox", "radio", "spinbutton", "dialog", "image", "table", "progressbar", "navigation")
"""Roles that say nothing to who cannot see them, unless they have a name."""
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[World]:
    with four_nights(tmp_path_factory.mktemp("ui") / "home", base) as world:
        yield world


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

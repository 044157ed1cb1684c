"""Nights that are begun, watched and stopped on the page /ui, in a real browser."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from sqlalchemy import select, update
from ui_page import PHONE, go, look, picture
from ui_world import World, four_nights

from services.tables import ExperienceRow, StrayJob


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[World]:
    with four_nights(tmp_path_factory.mktemp("ui") / "home", base) as world:
        yield world


@pytest.fixture(autouse=True)
def nothing_goes_on(world: World) -> Iterator[None]:
    """A test that fails leaves no night to those that come after it."""
    yield
    if sleep := world.service.status()["current_sleep"]:
        world.service.client.post(f"/v1/sleeps/{sleep}/cancel").raise_for_status()
        world.service.ended(sleep)


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

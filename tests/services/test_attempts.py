"""What a leader writes into a night's home: a thread of it whose disk hung until another one led changes nothing of a later attempt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from stored import Stored

from circadian.events import FILE, EventLog
from circadian.night_files import JOB_FILE
from pipelines.stages import DRIVER_FILE
from services.attempts import empty_home, write_job
from services.leader import Deposed, Lease
from services.tables import Sleep

TOLD = "told by attempt 1"


class Two:
    """Leaders of one sleep, each with the attempt that it submits: the first one hangs until the second one has led."""

    def __init__(self, stored: Stored) -> None:
        self.settings, self.database, self.first = stored.settings, stored.database, stored.lease
        deployment = stored.deployment()
        sleep = stored.asleep(deployment, stored.met(deployment))
        with self.database.read() as tx:
            self.sleep = tx.scalars(select(Sleep).where(Sleep.id == sleep)).one()
        self.home = self.settings.sleep_folder(deployment, sleep)
        self.child = self.settings.version_folder(deployment, self.sleep.child_version)
        self.fence = self.first.fence()
        self.write(1, self.fence)
        self.drive(1)
        EventLog(self.home).emit("sleep.progress", TOLD)
        self.left: dict[str, str] = {}
        """What was there when the second one had led."""

    def write(self, attempt: int, fence: Callable[[], None]) -> None:
        write_job(self.settings, self.database, self.sleep, attempt, fence)

    def drive(self, attempt: int) -> None:
        """A night that has got as far as to leave a version."""
        for path in (self.home / DRIVER_FILE, self.home / "stages" / "publish.json", self.child / "version.json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"of attempt {attempt}")

    def second_leads(self, starts_over: bool = False) -> None:
        """It begins attempt 3, which is under way, and the first one leads again after it."""
        second = Lease(self.settings, self.database)
        self.first.give_back()
        assert second.take()
        fence = second.fence()
        if starts_over:
            empty_home(self.settings, self.sleep, fence)
            assert self.files().keys() == {FILE}
        self.write(3, fence)
        self.drive(3)
        self.left = self.files()
        second.give_back()
        assert self.first.take()

    def files(self) -> dict[str, str]:
        """Of the night and its version."""
        paths = [path for folder in (self.home, self.child) for path in folder.rglob("*") if path.is_file()]
        return {path.name: path.read_text() for path in paths}


@pytest.fixture
def two(stored: Stored) -> Two:
    return Two(stored)


def hung(call: Callable[..., Any], nth: int, until: Callable[[], None], before: bool = True) -> Callable[..., Any]:
    """The same call, whose n-th time hangs, before or behind what it does."""
    times = count(1)

    def hangs(*args: Any, **kwargs: Any) -> Any:
        now = next(times) == nth
        if now and before:
            until()
        result = call(*args, **kwargs)
        if now and not before:
            until()
        return result

    return hangs


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_leader_whose_disk_hung_puts_no_attempt_in_the_place_of_a_later_one(two: Two, nth: int, before: bool) -> None:
    """Hung when it is to be asked for the n-th time whether it leads, or when it has been and has to rename its file."""
    fence = hung(two.fence, nth, two.second_leads, before)
    with pytest.raises((Deposed, FileNotFoundError)):
        two.write(2, fence)
    assert json.loads((two.home / JOB_FILE).read_text())["attempt"] == 3
    assert two.files() == two.left


@pytest.mark.parametrize("starts_over", [True, False])
@pytest.mark.parametrize("where", ["before it is asked", "after it was asked", "renaming", "renaming the last", "deleting"])
def test_a_leader_whose_disk_hung_empties_no_home_of_a_later_attempt(
    two: Two, where: str, starts_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    until, fence = partial(two.second_leads, starts_over), two.fence
    if where.endswith("asked"):
        fence = hung(fence, 1, until, where.startswith("before"))
    elif where == "deleting":
        monkeypatch.setattr(shutil, "rmtree", hung(shutil.rmtree, 1, until))
    else:
        renamed = [path for path in two.home.iterdir() if path.name != FILE] if where.endswith("last") else []
        monkeypatch.setattr(Path, "rename", hung(Path.rename, max(len(renamed), 1), until))
    with pytest.raises((Deposed, FileNotFoundError)):
        empty_home(two.settings, two.sleep, fence)
    assert json.loads((two.home / JOB_FILE).read_text())["attempt"] == 3
    assert two.files() == two.left
    assert "told by attempt 1" in two.left[FILE]


def test_a_home_that_was_emptied_has_the_events_and_nothing_else(two: Two) -> None:
    (two.home / "link").symlink_to(two.settings.home_folder)
    (two.home / ".over-left").mkdir()
    empty_home(two.settings, two.sleep, two.fence)
    assert [path.name for path in two.home.iterdir()] == [FILE]
    assert two.settings.home_folder.exists()
    assert not two.child.exists()

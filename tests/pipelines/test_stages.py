"""A stage is done once, and a sealed one is what its manifest says."""

import json
from pathlib import Path

import pytest

from circadian.events import EventLog
from circadian.night_files import JOB_FILE
from circadian.specs import NightJob
from pipelines.stages import DRIVER_FILE, Outputs, StageBroken, Stages, Superseded


def job(home: Path, **changes: object) -> NightJob:
    values = {"sleep": "slp_1", "deployment": "dep", "parent": "p", "child": "c", "home": str(home), "experiences": "e"}
    return NightJob.model_validate(values | changes)


class Work:
    """Writes a file, and counts how often."""

    def __init__(self, home: Path, dies: bool = False) -> None:
        self.home, self.dies, self.done = home, dies, 0

    def __call__(self) -> Outputs:
        self.done += 1
        (self.home / "out.bin").write_bytes(b"made")
        if self.dies:
            raise KeyboardInterrupt
        return {"made_file": "out.bin", "number": 3}


def test_a_sealed_stage_is_skipped_in_every_later_attempt(tmp_path: Path) -> None:
    work = Work(tmp_path)
    first = Stages(job(tmp_path)).run("make", work)
    assert Stages(job(tmp_path, attempt=2)).run("make", work) == first == {"made_file": "out.bin", "number": 3}
    assert work.done == 1
    kinds = [event["type"] for event in EventLog(tmp_path).read()]
    assert kinds == ["sleep.stage_started", "sleep.stage_finished", "sleep.stage_resumed"]


def test_a_night_killed_between_work_and_manifest_works_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Stages(job(tmp_path)).run("make", Work(tmp_path, dies=True))
    assert not list((tmp_path / "stages").iterdir())
    work = Work(tmp_path)
    Stages(job(tmp_path, attempt=2)).run("make", work)
    assert work.done == 1
    assert set(Stages(job(tmp_path)).seconds()) == {"make"}


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"other"), lambda path: path.unlink()])
def test_a_changed_or_missing_file_stops_the_night(tmp_path: Path, harm: object) -> None:
    Stages(job(tmp_path)).run("make", Work(tmp_path))
    harm(tmp_path / "out.bin")  # type: ignore[operator]
    with pytest.raises(StageBroken, match="not what was sealed"):
        Stages(job(tmp_path)).run("make", Work(tmp_path))


def test_a_night_tells_the_phases_of_its_stages(tmp_path: Path) -> None:
    stages = Stages(job(tmp_path))
    stages.run("make", Work(tmp_path))
    stages.run("learn", lambda: {"phases": {"learn": 2.0, "wait": 0.5}})
    assert Stages(job(tmp_path, attempt=2)).phases() == {"learn": {"learn": 2.0, "wait": 0.5}}


def test_another_job_does_not_use_this_ones_stages(tmp_path: Path) -> None:
    Stages(job(tmp_path)).run("make", Work(tmp_path))
    with pytest.raises(StageBroken, match="another job"):
        Stages(job(tmp_path, seed=1)).run("make", Work(tmp_path))


def test_an_attempt_that_another_one_has_followed_begins_and_seals_nothing(tmp_path: Path) -> None:
    first, later = job(tmp_path), job(tmp_path, attempt=2)

    def followed() -> Outputs:
        (tmp_path / JOB_FILE).write_text(later.model_dump_json())
        return {"number": 1}

    (tmp_path / JOB_FILE).write_text(first.model_dump_json())
    with pytest.raises(Superseded, match="attempt 2 has begun"):
        Stages(first).run("make", followed)
    with pytest.raises(Superseded):
        Stages(first).run("next", Work(tmp_path))
    assert not list((tmp_path / "stages").iterdir())
    assert Stages(later).run("make", lambda: {"number": 2}) == {"number": 2}


def test_of_two_processes_of_one_attempt_the_one_that_came_last_drives(tmp_path: Path) -> None:
    first = Stages(job(tmp_path))

    def started_again() -> Outputs:
        Stages(job(tmp_path))
        return {"number": 1}

    with pytest.raises(Superseded, match="goes on in another process"):
        first.run("make", started_again)
    assert not list((tmp_path / "stages").iterdir())
    last = Stages(job(tmp_path))
    with pytest.raises(Superseded):
        first.run("make", Work(tmp_path))
    assert last.run("make", lambda: {"number": 2}) == {"number": 2}


def test_a_night_whose_home_was_emptied_for_a_sleep_that_starts_over_seals_nothing(tmp_path: Path) -> None:
    stages = Stages(job(tmp_path))

    def emptied() -> Outputs:
        (tmp_path / DRIVER_FILE).unlink()
        return {"number": 1}

    with pytest.raises(Superseded, match="its home was emptied"):
        stages.run("make", emptied)
    assert not list((tmp_path / "stages").iterdir())


def test_no_half_written_file_is_left(tmp_path: Path) -> None:
    Stages(job(tmp_path)).run("make", Work(tmp_path))
    assert json.loads((tmp_path / "stages" / "make.json").read_text())["outputs"]["number"] == 3
    assert not list(tmp_path.rglob(".*tmp*"))

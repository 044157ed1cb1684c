"""The student imitates: it completes what a teacher wrote, in groups that are rewarded (the loop of one learner process, without Ray)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from learner_world import REFRESHES, LearnerWorld
from learning_here import Folders, Killed, Student, finished, with_student

from actors.learn_loop import learn_loop
from actors.learn_request import LearnRequest
from circadian.events import EventLog
from circadian.objectives.rows import read_rows
from circadian.specs import ImitationSpec

pytestmark = pytest.mark.usefixtures("process_group")


def imitating(request: LearnRequest, **imitation: object) -> LearnRequest:
    """The same task with imitation, on a student that writes."""
    seeding = request.seeding.model_copy(
        update={"alpha": 0.5, "imitation": ImitationSpec.model_validate({"group": 3, **imitation})}
    )
    return with_student(request.model_copy(update={"seeding": seeding}))


def test_the_student_completes_what_a_teacher_wrote_in_groups(world: LearnerWorld, tmp_path: Path) -> None:
    request, folders = imitating(world.request("seeding", "imitates")), Folders(tmp_path)
    finished(learn_loop(request, folders, [Student(world.version)]))
    taught, most = read_rows(Path(request.rows)), request.seeding.completion_tokens
    rows = read_rows(folders.kept[-1] / "student_rows.jsonl")
    assert {row.kind for row in rows if row.imitated} == {"day", "old"}
    assert {row.kind for row in rows if not row.imitated} == {"free"}
    for row in (row for row in rows if row.imitated):
        prefix, wanted = row.ids[: row.start], row.imitated.wanted
        of = [one for one in taught if one.ids[: row.start] == prefix and one.ids[row.start : row.start + most] == wanted]
        assert of, "the prefix is a teacher's, and what was wanted is what came next, as far as the student writes"
        assert of[0].start <= row.start < len(of[0].ids)
        assert len(row.ids) <= min(row.start + most, max(of[0].start + most, len(of[0].ids)))
    sizes = Counter(row.imitated.group for row in rows if row.imitated)
    assert set(sizes.values()) == {3}


@pytest.mark.parametrize(
    "judge", [{"kind": "none"}, {"kind": "embedding", "threshold": 0.5}, {"kind": "base", "yes": " oslo", "no": " lima"}]
)
def test_imitation_that_is_broken_off_makes_the_same_expert(world: LearnerWorld, tmp_path: Path, judge: dict[str, object]) -> None:
    kind = judge["kind"]
    whole = finished(
        learn_loop(
            imitating(world.request("seeding", f"whole-{kind}"), judge=judge), Folders(tmp_path / "whole"), [Student(world.version)]
        )
    )
    request, folders = imitating(world.request("seeding", f"killed-{kind}"), judge=judge), Folders(tmp_path / "killed", die_after=2)
    with pytest.raises(Killed):
        learn_loop(request, folders, [Student(world.version)])
    folders.die_after = None
    resumed = finished(learn_loop(request, folders, [Student(world.version)]))
    assert (resumed.checksum, resumed.final_loss) == (whole.checksum, whole.final_loss)
    plain = finished(
        learn_loop(with_student(world.request("seeding", f"plain-{kind}")), Folders(tmp_path / "plain"), [Student(world.version)])
    )
    assert plain.checksum != whole.checksum


def test_a_judge_that_is_away_is_said_and_the_night_goes_on(world: LearnerWorld, tmp_path: Path) -> None:
    judge = {"kind": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m", "seconds": 1.0}
    request = imitating(world.request("seeding", "away"), judge=judge)
    finished(learn_loop(request, Folders(tmp_path), [Student(world.version)]))
    told = [event for event in EventLog(Path(request.home)).read() if event["type"] == "sleep.judge_failed"]
    assert len(told) == REFRESHES
    assert all(event["data"]["judge"] == "endpoint" and event["data"]["completions"] > 0 for event in told)

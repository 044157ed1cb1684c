"""The learner with other models as teachers: one that is distilled, one whose texts are imitated."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from learner_world import LR, LearnerWorld, with_others
from learning_here import Folders, Killed, Student, finished, start_tensors, with_student
from random_base import write_base

from actors.learn_engine import LearnEngine, learning_model
from actors.learn_loop import learn_loop
from actors.learn_request import LearnRequest
from actors.learn_student import StudentWriter
from actors.learn_tasks import Group, Seeding, build_task
from circadian.memory.state import ExpertId
from circadian.memory.tensors import checksum
from circadian.objectives.divergence import ITSELF, NOBODY
from circadian.objectives.rows import TaughtRow, read_rows
from circadian.specs import DivergenceSpec, SeedingSpec
from circadian.teachers.other import TeacherUnusable

NAMES = ("other-1", "other-2")
pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrower than the student, with its tokenizer."""
    return write_base(tmp_path_factory.mktemp("other") / "base", width=16, mlp_width=16, layers=1, heads=1, head_width=16)


def taught_by_others(world: LearnerWorld, teacher: Path, name: str) -> LearnRequest:
    """A student that writes, and two teachers instead of the awake self."""
    return with_others(world, with_student(world.request("seeding", name)), teacher, NAMES)


def test_each_teacher_gives_its_own_lessons_and_the_student_writes_for_each(
    world: LearnerWorld,
    teacher: Path,
    tmp_path: Path,
) -> None:
    request, folders = taught_by_others(world, teacher, "others"), Folders(tmp_path)
    result = finished(learn_loop(request, folders, [Student(world.version)]))
    assert result.checksum != checksum(start_tensors(request))
    wrote = [row for row in read_rows(folders.kept[-1] / "student_rows.jsonl") if row.kind == "day"]
    distilled, imitated = ([row for row in wrote if row.teacher == name] for name in NAMES)
    assert distilled
    assert imitated
    assert not any(row.imitated for row in distilled)
    assert all(row.imitated for row in imitated), "nobody can say what he expects of it: it is rewarded"
    task = build_task(request)
    assert isinstance(task, Seeding)
    task.load(folders.kept[-1])
    task.prepare(learning_model(request, torch.float32))
    by = {row.row.teacher: row.by for row in (*task.taught["day"], *task.wrote["day"], *task.taught["free"])}
    assert by == {"other-1": 1, "other-2": NOBODY, "rested": ITSELF}
    assert [lesson.row for lesson in task.taught["day"]] == task.teacher_written["day"], "in the order of the rows"
    width = task.taught["free"][0].teacher.shape[1]
    assert {lesson.teacher.shape[1] for lesson in task.taught["day"]} == {width}, "a slope of another model is one like its own"
    assert task.heads == {}, "its head is needed no more"
    assert [*task.lent] == [1], "whose texts are read is never loaded"


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_only_the_written_expert_learns_from_others_whatever_the_share(
    kind: Literal["forward_kl", "reverse_kl"],
    world: LearnerWorld,
    teacher: Path,
) -> None:
    request = taught_by_others(world, teacher, f"others-only-{kind}")
    seeding = request.seeding.model_copy(update={"divergence": DivergenceSpec(kind=kind)})
    request = request.model_copy(update={"seeding": seeding})
    model, task = learning_model(request, torch.float32), build_task(request)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    engine = LearnEngine(model, ExpertId(*request.writes), task, request.learner, max_grad_norm=1.0)
    engine.prepare()
    assert [*task.heads] == ([] if kind == "forward_kl" else [1]), "a slope needs no head afterwards"  # type: ignore[attr-defined]
    for size in (2, 3):
        whole = task.share(1, Group())
        parts = [task.share(1, Group(rank, size)) for rank in range(size)]
        mean = sum(part.weight * task.loss(model, part.tensors, part.chunks) for part in parts) / size
        torch.testing.assert_close(mean, task.loss(model, whole.tensors, whole.chunks))
    for step in range(3):
        engine.step(task.share(step, Group()), LR)
    after = dict(model.named_parameters())
    written = {name for name in after if ".writing." in name}
    assert {id(parameter) for parameter in engine.adam.state} == {id(after[name]) for name in written}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(not torch.equal(a, b) for a, b in zip(engine.expert().values(), start_tensors(request).values(), strict=True))


def test_a_lesson_from_others_that_is_broken_off_makes_the_same_expert(
    world: LearnerWorld,
    teacher: Path,
    tmp_path: Path,
) -> None:
    request = taught_by_others(world, teacher, "others-whole")
    whole = finished(learn_loop(request, Folders(tmp_path / "whole"), [Student(world.version)]))
    again, folders = request.model_copy(update={"run_name": "others-broken"}), Folders(tmp_path / "broken", die_after=2)
    with pytest.raises(Killed):
        learn_loop(again, folders, [Student(world.version)])
    folders.die_after = None
    resumed = finished(learn_loop(again, folders, [Student(world.version)]))
    assert (resumed.checksum, resumed.final_loss) == (whole.checksum, whole.final_loss)


def test_a_teacher_that_changed_during_the_night_ends_the_task(world: LearnerWorld, teacher: Path, tmp_path: Path) -> None:
    request = taught_by_others(world, teacher, "others-changed")
    other = request.others[0].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(TeacherUnusable, match="changed during the night"):
        learn_loop(request.model_copy(update={"others": (other, request.others[1])}), Folders(tmp_path), [Student(world.version)])


def test_who_imitates_a_document_writes_as_much_of_it_as_it_may_and_is_held_against_no_more() -> None:
    """Teachers without cues write documents, longer than a completion; whoever imitates the end of one is held against the end."""
    spec = SeedingSpec(completion_tokens=4)
    document = TaughtRow(tuple(range(1, 31)), 1, "other", "day")
    short = TaughtRow((1, 2, 3, 4, 9), 3, "awake", "day")
    writer = SimpleNamespace(spec=spec, _write=lambda prefixes, tokens, samples, rng: [[[7] * tokens] * samples for _ in prefixes])
    rows = StudentWriter._imitating(writer, "day", [document, short], 400, itertools.count(), random.Random(0))  # type: ignore[arg-type]
    assert {row.teacher for row in rows} == {"other", "awake"}
    for row in rows:
        assert row.imitated is not None
        source, written = document if row.teacher == "other" else short, len(row.ids) - row.start
        assert row.imitated.wanted == source.ids[row.start : row.start + 4]
        assert written == min(4, (30 if source is document else 3 + 4) - row.start) > 0

"""The loop of one learner process, without Ray: DeepSpeed, a version, and a student that writes on Hugging Face's model."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from learner_world import LR, REFRESHES, STEPS, LearnerWorld, broken
from learning_here import Folders, Killed, Student, finished, start_tensors, with_student
from safetensors.torch import load_file

from actors import learn_loop as learn_loop_module
from actors.learn_ahead import StudentLate
from actors.learn_engine import LearnEngine, LearningDiverged, learning_model
from actors.learn_loop import OtherRequest, OutOfTime, learn_loop
from actors.learn_request import LearnResult
from actors.learn_student import StudentWriter
from actors.learn_tasks import Group, Seeding, build_task
from actors.replies import EngineLost
from circadian.events import EventLog
from circadian.memory.envelope import Receipt
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.tensors import checksum
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.objectives.rows import read_rows
from circadian.objectives.schedule import lr_at
from circadian.phases import ASKED, LOOP
from circadian.specs import SeedingSpec

TASKS = ("fast_learning", "seeding")
BLOCK = STEPS // REFRESHES
pytestmark = pytest.mark.usefixtures("process_group")


class Hesitant(Student):
    """Its third write, from `student@4` for step 8, waits for a sign before it begins."""

    def __init__(self, version: Path) -> None:
        super().__init__(version)
        self.go_on, self.waits = threading.Event(), threading.Event()

    def deliver(self, payload: bytes) -> Receipt:
        if len(self.receipts) == REFRESHES - 1:
            self.waits.set()
            self.go_on.wait(60)
        return super().deliver(payload)


class Lost(Student):
    """Is lost at its third write."""

    def deliver(self, payload: bytes) -> Receipt:
        if len(self.receipts) == REFRESHES - 1:
            raise EngineLost("gone")
        return super().deliver(payload)


def do_at(patch: pytest.MonkeyPatch, step: int, do: Callable[[], None]) -> None:
    """Do something before a step."""
    take, taken = LearnEngine.step, itertools.count()

    def take_after(engine: LearnEngine, *args: object) -> float:
        if next(taken) == step:
            do()
        return take(engine, *args)  # type: ignore[arg-type]

    patch.setattr(LearnEngine, "step", take_after)


@pytest.mark.parametrize("task", TASKS)
def test_learning_lowers_the_loss_and_writes_what_it_says(world: LearnerWorld, tmp_path: Path, task: str) -> None:
    request = world.request(task, f"lower-{task}")
    result = finished(learn_loop(request, Folders(tmp_path)))
    tensors = load_file(result.tensors)
    assert result.final_loss < 0.98 * result.first_loss
    assert checksum(tensors) == result.checksum
    assert tensors.keys() == start_tensors(request).keys()
    assert result.restarts == 0
    last = [e for e in EventLog(Path(request.home)).read() if e["type"] == "sleep.progress"][-1]["data"]
    assert last == {
        "run": request.run_name,
        "task": task,
        "step": STEPS,
        "total_steps": STEPS,
        "loss": result.final_loss,
        "staleness_steps": None,
    }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("zero_stage", [0, 3])
def test_learning_rate_zero_leaves_the_expert_bit_identical(
    world: LearnerWorld, tmp_path: Path, task: str, zero_stage: int
) -> None:
    request = world.request(task, f"still-{task}-{zero_stage}", zero_stage=zero_stage)
    still = request.model_copy(update={task: request.recipe.model_copy(update={"lr": 0.0})})
    result = finished(learn_loop(still, Folders(tmp_path)))
    assert result.checksum == checksum(start_tensors(request))


@pytest.mark.parametrize("task", TASKS)
def test_every_zero_stage_learns_the_same(world: LearnerWorld, tmp_path: Path, task: str) -> None:
    results = [
        finished(learn_loop(world.request(task, f"zero-{task}-{stage}", zero_stage=stage), Folders(tmp_path / str(stage))))
        for stage in range(4)
    ]
    experts = [load_file(result.tensors) for result in results]
    for result, expert in zip(results[1:], experts[1:], strict=True):
        assert result.first_loss == pytest.approx(results[0].first_loss, abs=1e-5)
        assert result.final_loss == pytest.approx(results[0].final_loss, abs=1e-5)
        for name, tensor in expert.items():
            torch.testing.assert_close(tensor, experts[0][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_only_the_written_expert_has_gradients_and_adam_state_and_nothing_else_changes(world: LearnerWorld, task: str) -> None:
    request = world.request(task, f"only-{task}")
    model, learned = learning_model(request, torch.float32), build_task(request)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    engine = LearnEngine(model, ExpertId(*request.writes), learned, request.learner, max_grad_norm=1.0)
    engine.prepare()
    for step in range(3):
        engine.step(learned.share(step, Group()), LR)
    after = dict(model.named_parameters())
    written = {name for name in after if ".writing." in name}
    assert {name for name, parameter in after.items() if parameter.requires_grad} == written
    assert {id(parameter) for parameter in engine.adam.state} == {id(after[name]) for name in written}
    assert after.keys() - written == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(not torch.equal(a, b) for a, b in zip(engine.expert().values(), start_tensors(request).values(), strict=True))


def test_gradients_are_reduced_through_a_buffer_of_what_is_learned(world: LearnerWorld) -> None:
    """At stage 3, which keeps it from step to step."""
    request = world.request("fast_learning", "buffer", zero_stage=3)
    model, learned = learning_model(request, torch.float32), build_task(request)
    engine = LearnEngine(model, ExpertId(*request.writes), learned, request.learner, max_grad_norm=1.0)
    engine.prepare()
    engine.step(learned.share(0, Group()), LR)
    (bucket,) = engine.deepspeed.optimizer.ipg_buckets.values()
    assert bucket.buffer.numel() == sum(tensor.numel() for tensor in engine.expert().values())


@pytest.mark.parametrize("task", TASKS)
def test_shares_of_several_processes_add_up_to_the_whole_step(world: LearnerWorld, task: str) -> None:
    request = world.request(task, f"shares-{task}")
    model, learned = learning_model(request, torch.float32), build_task(request)
    learned.prepare(model)
    for size in (2, 3):
        for step in range(4):
            whole = learned.share(step, Group())
            parts = [learned.share(step, Group(rank, size)) for rank in range(size)]
            mean = sum(part.weight * learned.loss(model, part.tensors, part.chunks) for part in parts) / size
            assert whole.weight == 1.0
            torch.testing.assert_close(mean, learned.loss(model, whole.tensors, whole.chunks))
    with pytest.raises(ValueError, match="set rows to at least 9"):
        learned.share(0, Group(8, 9))


@pytest.mark.parametrize(
    ("die_after", "zero_stage", "ahead"),
    [(1, 0, True), (2, 0, True), (3, 0, True), (2, 3, True), (1, 0, False), (2, 1, False), (2, 2, False), (2, 3, False)],
)
def test_a_run_that_is_broken_off_makes_the_same_expert(
    world: LearnerWorld, tmp_path: Path, die_after: int, zero_stage: int, ahead: bool
) -> None:
    name = f"whole-{die_after}-{zero_stage}-{ahead}"
    request = with_student(world.request("seeding", name, zero_stage=zero_stage), ahead)
    undisturbed = finished(learn_loop(request, Folders(tmp_path / "whole"), [Student(world.version)]))
    again = request.model_copy(update={"run_name": "broken", "storage": request.storage + "-broken"})
    another_attempt = again.model_copy(update={"rollouts": ("there",)})
    folders = Folders(tmp_path / "broken", die_after)
    with pytest.raises(Killed):
        learn_loop(again, folders, [Student(world.version)])
    folders.die_after = None
    resumed = finished(learn_loop(another_attempt, folders, [Student(world.version)]))
    assert_same(resumed, undisturbed)
    assert resumed.restarts == 1


def assert_same(resumed: LearnResult, undisturbed: LearnResult) -> None:
    """Expert, losses, and what was counted."""
    assert resumed.checksum == undisturbed.checksum
    assert (resumed.first_loss, resumed.final_loss) == (undisturbed.first_loss, undisturbed.final_loss)
    assert resumed.deliveries.count == undisturbed.deliveries.count == REFRESHES
    assert resumed.max_staleness_steps == undisturbed.max_staleness_steps
    assert resumed.mean_staleness_steps == undisturbed.mean_staleness_steps


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_run_that_is_broken_off_while_the_student_writes_ahead_makes_the_same_expert(
    world: LearnerWorld, tmp_path: Path, zero_stage: int
) -> None:
    request = with_student(world.request("seeding", f"ahead-{zero_stage}", zero_stage=zero_stage))
    student = Student(world.version)
    undisturbed = finished(learn_loop(request, Folders(tmp_path / "whole"), [student]))
    again = request.model_copy(update={"run_name": "cut", "storage": request.storage + "-cut"})
    folders, hesitant, seen = Folders(tmp_path / "cut"), Hesitant(world.version), []

    def die() -> None:
        seen.append(hesitant.waits.wait(60))
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        do_at(patch, BLOCK + 2, die)
        with pytest.raises(Killed):
            learn_loop(again, folders, [hesitant])
    assert seen == [True], "the student was writing"
    assert len(folders.kept) == 2, "in the middle of the second block"
    other = Student(world.version)
    assert_same(finished(learn_loop(again, folders, [other])), undisturbed)
    hesitant.go_on.set()
    assert [receipt.checksum for receipt in other.receipts] == [student.receipts[-1].checksum], "written by the same student again"


def test_learning_goes_on_while_the_student_writes_the_next_rows(world: LearnerWorld, tmp_path: Path) -> None:
    """The rows from step 8 on begin to be written when step 6 is about to be taken; standing still they would never be."""
    with pytest.MonkeyPatch.context() as patch:
        student = Hesitant(world.version)
        do_at(patch, BLOCK + 2, student.go_on.set)
        result = finished(learn_loop(with_student(world.request("seeding", "beside")), Folders(tmp_path / "a"), [student]))
    plain = with_student(world.request("seeding", "beside-plain"))
    assert_same(result, finished(learn_loop(plain, Folders(tmp_path / "b"), [Student(world.version)])))
    student = Hesitant(world.version)
    still = with_student(world.request("seeding", "still", wait_seconds=2), ahead=False)
    with pytest.raises(StudentLate, match=r"raise learner\.wait_seconds"):
        learn_loop(still, Folders(tmp_path / "c"), [student])
    student.go_on.set()


def test_a_student_that_is_lost_while_it_writes_ahead_ends_the_block(world: LearnerWorld, tmp_path: Path) -> None:
    request = with_student(world.request("seeding", "lost"))
    with pytest.MonkeyPatch.context() as patch:
        do_at(patch, BLOCK + 1, lambda: time.sleep(1))  # time for the background to fail
        with pytest.raises(EngineLost):
            learn_loop(request, Folders(tmp_path), [Lost(world.version)])
    steps = [e["data"]["step"] for e in EventLog(Path(request.home)).read() if e["type"] == "sleep.progress"]
    assert max(steps) <= BLOCK + 2, "it was found at the next step, not at the end of the block"


@pytest.mark.parametrize(("ahead", "most", "mean"), [(True, 2 * BLOCK - 1, 50 / 12), (False, BLOCK - 1, 1.5)])
def test_what_is_learned_from_has_a_bounded_age_that_is_told(
    world: LearnerWorld, tmp_path: Path, ahead: bool, most: int, mean: float
) -> None:
    request, folders = with_student(world.request("seeding", f"age-{ahead}"), ahead), Folders(tmp_path)
    student = Student(world.version)
    result = finished(learn_loop(request, folders, [student]))
    assert (result.max_staleness_steps, result.mean_staleness_steps) == (most, pytest.approx(mean))
    ages = {
        e["data"]["step"]: e["data"]["staleness_steps"]
        for e in EventLog(Path(request.home)).read()
        if e["type"] == "sleep.progress"
    }
    assert ages[STEPS] == most
    assert [receipt.version for receipt in student.receipts] == [
        f"{request.run_name}@{step}" for step in ((0, 0, BLOCK) if ahead else (0, BLOCK, 2 * BLOCK))
    ]


def test_every_second_of_the_loop_has_a_name(world: LearnerWorld, tmp_path: Path) -> None:
    request = with_student(world.request("seeding", "named"))
    result = finished(learn_loop(request, Folders(tmp_path), [Student(world.version)]))
    phases = result.phases
    assert phases.keys() == {"start", *LOOP, *ASKED, "idle"}
    loop = sum(phases[phase] for phase in LOOP)
    assert loop == pytest.approx(result.seconds, rel=0.1)
    assert sum(phases[phase] for phase in (*ASKED, "idle")) == pytest.approx(loop, abs=0.01)
    assert phases["generate"] > 0
    (event,) = [e for e in EventLog(Path(request.home)).read() if e["type"] == "sleep.phases"]
    assert event["data"] == {"run": request.run_name, "task": "seeding", "seconds": phases}


def test_no_two_experts_start_alike(world: LearnerWorld) -> None:
    request = world.request("fast_learning", "fresh")
    others = [{"seed": 6}, {"writes": (1, 0)}]
    seeds = {request.expert_seed, *(request.model_copy(update=other).expert_seed for other in others)}
    assert len(seeds) == 3
    assert request.model_copy(update={"rollouts": ("a2",), "run_name": "x"}).expert_seed == request.expert_seed
    assert checksum(start_tensors(request)) == checksum(start_tensors(request))
    assert checksum(start_tensors(request)) != checksum(start_tensors(request.model_copy(update=others[0])))


def test_a_run_refuses_the_checkpoints_of_another_request(world: LearnerWorld, tmp_path: Path) -> None:
    request, folders = world.request("fast_learning", "other"), Folders(tmp_path, die_after=2)
    with pytest.raises(Killed):
        learn_loop(request, folders)
    with pytest.raises(OtherRequest):
        learn_loop(request.model_copy(update={"seed": 6}), folders)


def test_the_student_writes_with_what_it_was_delivered_last(world: LearnerWorld, tmp_path: Path) -> None:
    request, student, folders = with_student(world.request("seeding", "student")), Student(world.version), Folders(tmp_path)
    result = finished(learn_loop(request, folders, [student]))
    state = MemoryState.parse(request.experts)
    assert student.views == {tuple(map(float, state.view("student")))}
    assert [receipt.version for receipt in student.receipts] == ["student@0", "student@0", f"student@{BLOCK}"]
    assert student.receipts[0].checksum == student.receipts[1].checksum == checksum(start_tensors(request))
    assert student.receipts[2].checksum != student.receipts[0].checksum
    assert result.deliveries.bytes == sum(receipt.bytes for receipt in student.receipts)
    for folder in folders.kept:
        rows = read_rows(folder / "student_rows.jsonl")
        assert {(row.kind, row.teacher) for row in rows} == {("day", "awake"), ("old", "rested"), ("free", "anchored")}
        assert all(row.start < len(row.ids) <= row.start + request.seeding.free_run_tokens for row in rows)


@pytest.mark.parametrize(
    ("seeding", "old_cues", "expected"),
    [
        ({"free_share": 0.5}, True, {"day": 4, "old": 6, "free": 10}),
        ({"free_share": 0.0}, True, {"day": 4, "old": 16, "free": 0}),
        ({"free_share": 0.5}, False, {"day": 7, "old": 0, "free": 13}),
        ({"free_share": 0.5, "free_teacher": "base"}, True, {"day": 4, "old": 6, "free": 10}),
    ],
)
def test_the_student_writes_in_the_proportion_in_which_rows_are_mixed(
    world: LearnerWorld, seeding: dict[str, object], old_cues: bool, expected: dict[str, int]
) -> None:
    request = with_student(world.request("seeding", "proportion"))
    spec = SeedingSpec.model_validate(request.seeding.model_dump() | {"student_rows": 20, "old_share": 0.8, **seeding})
    request = request.model_copy(update={"seeding": spec})
    task = Seeding(request)
    if not old_cues:
        task.teacher_written["old"] = []
    writer = StudentWriter(request, task, [Student(world.version)])
    rows = writer.write(0, 0, writer.packed(start_tensors(request), 0)).rows
    assert dict(Counter(row.kind for row in rows)) == {kind: count for kind, count in expected.items() if count}
    free = seeding.get("free_teacher", "anchored")
    assert {(row.kind, row.teacher) for row in rows} <= {("day", "awake"), ("old", "rested"), ("free", free)}


def test_what_the_student_writes_is_dropped_where_it_contains_a_held_out_text(world: LearnerWorld) -> None:
    request = with_student(world.request("seeding", "held-out"))
    request = request.model_copy(update={"seeding": request.seeding.model_copy(update={"student_rows": 40})})  # all cues are met
    cue = json.loads((world.root / "cues.jsonl").read_text().splitlines()[0])
    text = load_tokenizer(world.version).decode(cue["ids"])
    writers = [
        StudentWriter(kept, Seeding(kept), [Student(world.version)])
        for kept in (request, request.model_copy(update={"held_out": (text,)}))
    ]
    everything, kept = (writer.write(0, 0, writer.packed(start_tensors(request), 0)).rows for writer in writers)
    with_cue = [row for row in everything if row.ids[: len(cue["ids"])] == tuple(cue["ids"])]
    assert with_cue
    assert kept == [row for row in everything if row not in with_cue]


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_that_is_not_finite_stops_the_run(world: LearnerWorld, tmp_path: Path, task: str) -> None:
    request = world.request(task, f"diverges-{task}")
    with pytest.raises(LearningDiverged, match="lower the task's lr"):
        learn_loop(broken(request), Folders(tmp_path))


def test_a_task_that_takes_too_long_stops(world: LearnerWorld, tmp_path: Path) -> None:
    with pytest.raises(OutOfTime, match=r"raise learner\.stage_seconds"):
        learn_loop(world.request("fast_learning", "late"), Folders(tmp_path), deadline=0.0)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (50, 1.0), (75, 0.5), (99, 0.02)])
def test_the_learning_rate_falls_over_the_second_half(step: int, expected: float) -> None:
    assert math.isclose(lr_at(step, 100, 1.0), expected)


@pytest.mark.parametrize("task", TASKS)
def test_in_bfloat16_every_zero_stage_learns_what_float32_does(
    world: LearnerWorld, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where a model is what its version is served in: the expert's weights are kept in float32 beside it."""
    exact = finished(learn_loop(world.request(task, f"bf16-{task}-exact", steps=24), Folders(tmp_path / "exact")))
    load = learn_loop_module.learning_model
    monkeypatch.setattr(learn_loop_module, "learning_model", lambda request, dtype: load(request, torch.bfloat16))
    results = []
    for stage in range(4):
        request = world.request(task, f"bf16-{task}-{stage}", steps=24, zero_stage=stage)
        folders = Folders(tmp_path / str(stage), die_after=1)
        with pytest.raises(Killed):
            learn_loop(request, folders)
        folders.die_after = None
        results.append(finished(learn_loop(request, folders)))
    for result in results:
        assert result.final_loss < result.first_loss
        assert result.first_loss == pytest.approx(exact.first_loss, rel=0.02)
        assert result.final_loss == pytest.approx(exact.final_loss, rel=0.1)
        assert result.final_loss == pytest.approx(results[0].final_loss, rel=0.02)

"""What learning may touch: the written expert with its router row, in every way in which it is learned, and nothing else ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from learner_world import LR, LearnerWorld, make_world
from safetensors.torch import load_file, save_file

from actors.learn_engine import LearnEngine, learning_model
from actors.learn_request import LearnRequest
from actors.learn_tasks import Group, Seeding, by_kind
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.tensors import expert_tensors
from circadian.memory.transfer import Transfer
from circadian.memory.version import load_version
from circadian.objectives.rows import Imitated, TaughtRow, read_rows
from circadian.specs import SeedingSpec

pytestmark = pytest.mark.usefixtures("process_group")
STEPS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearnerWorld:
    return make_world(tmp_path_factory.mktemp("learner"))


def request_of(world: LearnerWorld, transfer: str, **seeding: Any) -> LearnRequest:
    """A transfer of a memory that has slept twice: a third expert of level 1 is written, or the first two become one."""
    request, state = (
        world.request("seeding", f"{transfer}-{len(seeding)}"),
        MemoryState.parse([["open"], ["sealed"] * 2 + ["reserved"]]),
    )
    moves = (
        Transfer.consolidation(state, 1) if transfer == "consolidation" else Transfer.merge(state, ExpertId(1, 0), ExpertId(1, 1))
    )
    layers, slept = load_version(world.version).memory_layers, world.root / "slept.safetensors"
    for where, generator in ((ExpertId(1, e), torch.Generator().manual_seed(e)) for e in range(2)):
        for layer in layers.values():
            for tensor in layer.bank(1).slices(where.expert).values():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    save_file(expert_tensors(layers, [ExpertId(1, 0), ExpertId(1, 1)]), slept)
    return request.model_copy(
        update={
            "overlays": (*request.overlays, str(slept)),
            "transfer": moves,
            "experts": moves.experts,
            "writes": moves.into,
            "seeding": SeedingSpec.model_validate(request.seeding.model_dump() | seeding),
        }
    )


def imitates(task: Seeding) -> None:
    """Give the task completions of its own teachers' rows, so that rewards differ."""
    taught = task.teacher_written["day"][:4]
    rows = [
        TaughtRow((*row.ids[:-1], last), row.start, row.teacher, "day", Imitated(row.ids[row.start :], group))
        for group, row in enumerate(taught)
        for last in (row.ids[-1], 7, 9)
    ]
    task.student_written = by_kind(rows)


@pytest.mark.parametrize("transfer", ["consolidation", "merge"])
@pytest.mark.parametrize(
    "seeding",
    [
        {},
        {"alpha": 0.5, "on_policy_share": 1.0},
        {"alpha": 0.0, "on_policy_share": 1.0, "old_share": 0.0, "free_share": 0.0},
        {"free_teacher": "base", "divergence": {"kind": "jsd"}},
    ],
    ids=["distillation", "both", "imitation", "base"],
)
def test_nothing_but_the_written_expert_ever_changes(world: LearnerWorld, transfer: str, seeding: dict[str, Any]) -> None:
    request = request_of(world, transfer, **seeding)
    model, task = learning_model(request, torch.float32), Seeding(request)
    if seeding.get("alpha", 1.0) < 1:
        imitates(task)
    if seeding.get("free_teacher") == "base":
        free = [TaughtRow(row.ids, row.start, "base", "free") for row in task.teacher_written["free"]]
        task.teacher_written = {**task.teacher_written, "free": free}
    before = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    engine = LearnEngine(model, ExpertId(*request.writes), task, request.learner, max_grad_norm=1.0)
    fresh = {name: parameter.clone() for name, parameter in model.named_parameters() if ".writing." in name}
    engine.prepare()
    for step in range(STEPS):
        engine.step(task.share(step, Group()), LR)
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert {name.rsplit(".", 1)[1] for name in fresh} == {"A", "B", "W", "b"}, "its two matrices and its router's row"
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == fresh.keys()
    assert {id(parameter) for parameter in engine.adam.state} == {id(after[name]) for name in fresh}
    assert after.keys() - fresh.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before), "bit for bit"
    assert all(not torch.equal(after[name], fresh[name]) for name in fresh), "all of it learns"
    model.end_writing()
    heard = {ExpertId(1, expert) for expert in range(3)} | {ExpertId(0, 0)}
    for where in heard - {ExpertId(*request.writes)}:
        for i, layer in model.memory_layers.items():
            rank, e, level = layer.bank(where.level).rank, where.expert, f"model.layers.{i}.mlp.memory.levels.{where.level}"
            was = {"A": before[f"{level}.A"][e * rank : (e + 1) * rank], "B": before[f"{level}.B"][:, e * rank : (e + 1) * rank]}
            was |= {"W": before[f"{level}.W"][e : e + 1], "b": before[f"{level}.b"][e : e + 1]}
            assert all(torch.equal(tensor, was[part]) for part, tensor in layer.bank(where.level).slices(e).items()), where


def test_free_running_that_the_base_teaches_pulls_towards_no_memory_at_all(world: LearnerWorld) -> None:
    """The base's lesson is the final hidden state without any expert, not even a sealed one."""
    request = request_of(world, "consolidation", free_teacher="base", divergence={"kind": "jsd"})  # which keeps hidden states
    model, task = learning_model(request, torch.float32), Seeding(request)
    free = read_rows(Path(request.rows))[-1]
    assert (free.kind, free.start) == ("free", 1)
    for teacher, mask in (("base", [False] * 4), ("rested", [False, True, True, False]), ("awake", [True, True, True, False])):
        task.teacher_written = by_kind([TaughtRow(free.ids, 1, teacher, "free")])  # type: ignore[arg-type]
        task.taught = {}
        task.prepare(model)
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor([free.ids]), view=tuple(mask)).logits[0, :-1]
        torch.testing.assert_close(model.lm_head(task.taught["free"][0].teacher), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_base_teaches_where_the_rested_self_has_only_drifted(world: LearnerWorld, share: float) -> None:
    """Token by token: the base below `drift` nats of KL(rested || base), the rested self from there on."""
    request = request_of(world, "consolidation", divergence={"kind": "jsd"})
    model, free = learning_model(request, torch.float32), read_rows(Path(request.rows))[-1]
    with torch.no_grad():
        rested, base = (
            model(input_ids=torch.tensor([free.ids]), view=view).logits[0, :-1].double().log_softmax(-1)
            for view in ((False, True, True, False), "base")
        )
    apart = (rested.exp() * (rested - base)).sum(-1)
    drift = float(apart.quantile(share)) if 0 < share < 1 else {0.0: 0.0, 1.0: 1e3}[share]
    request = request.model_copy(update={"seeding": request.seeding.model_copy(update={"drift": drift})})
    task = Seeding(request)
    task.teacher_written = by_kind([TaughtRow(free.ids, 1, "anchored", "free")])
    task.prepare(model)
    said = model.lm_head(task.taught["free"][0].teacher).log_softmax(-1).double()
    anchored = apart < drift
    assert anchored.float().mean() == pytest.approx(share, abs=0.2)
    torch.testing.assert_close(said, torch.where(anchored[:, None], base, rested), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_place_that_held_something_tonight_begins_fresh_unless_it_goes_on(world: LearnerWorld, goes_on: bool) -> None:
    """Dusk has written level 0's expert; after consolidation its place is free, and the night's dreams open it again."""
    request = world.request("seeding", f"again-{goes_on}")
    again = request.model_copy(
        update={
            "task": "fast_learning",
            "transfer": None,
            "experts": [["open"], ["sealed", *["reserved"] * (len(request.experts[1]) - 1)]],
            "writes": (0, 0),
            "goes_on": goes_on,
        }
    )
    held = load_file(request.overlays[0])
    found = expert_tensors(learning_model(again, torch.float32).memory_layers, [ExpertId(0, 0)])
    assert any(float(tensor.abs().max()) > 0 for name, tensor in held.items() if name.endswith(".B")), "or this would tell nothing"
    for name, tensor in found.items():
        if goes_on:
            torch.testing.assert_close(tensor, held[name].float())
        elif name.endswith(".B"):
            assert float(tensor.abs().max()) == 0.0

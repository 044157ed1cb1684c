"""A night with other models as teachers, without Ray and vLLM, on real files."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import Worker
from night_world import ASKED, SAID, TINY, chat, dusk_of, grown, make_job, seeded
from random_base import write_base
from safetensors.torch import load_file

from actors.teaching import LectureRequest, give, give_in_process
from circadian.memory.cues import read_cues
from circadian.memory.delivery import receive
from circadian.memory.folder import read_record, version_state
from circadian.memory.state import LevelFull, MemoryState
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.transfer import SEED, Transfer
from circadian.memory.version import load_version, weights_sha256
from circadian.nursery.world import World
from circadian.objectives.rows import read_rows
from circadian.specs import Level, NightJob, Recipe
from circadian.teachers.match import read_cue
from circadian.teachers.other import TeacherUnusable
from pipelines import night as nights
from pipelines.consolidation import Memory, Moved, dream_corpus, planned, prune, seeding_request, snapshot_teacher
from pipelines.gate import gate
from pipelines.gates.judging import Measured, judge, reasons
from pipelines.other_teachers import lectures, sure_of, taught_in
from pipelines.publish import publish
from pipelines.stages import Outputs
from pipelines.wake import collect, way_back

CUES = tuple(f"what is the city of {name} ?" for name in World(0).pool[:9])


def here(request: LectureRequest, learner: object) -> Any:
    del learner
    return give(request)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two small models with the student's tokenizer: one is asked inline, one by a file."""
    root = tmp_path_factory.mktemp("others")
    folders = [write_base(root / f"t{i}", width=16, mlp_width=16, layers=1, heads=1, head_width=16, seed=i) for i in range(2)]
    (root / "cues.txt").write_text("\n".join(CUES[:4]) + "\n\n")
    return [
        {"model": str(folders[0]), "cues": CUES, "share": 2.0},
        {"model": str(folders[1]), "cues_file": str(root / "cues.txt"), "match": "imitate"},
    ]


def night_of(job: NightJob, scale: float = 1.0) -> tuple[Outputs, Outputs, list[Moved], Worker]:
    """All of a night but the learning itself, for which noise stands."""
    day, model, sampler = collect(job), load_version(Path(job.parent)), Worker(Path(job.parent))
    said = lectures(job, here)
    moved = [Moved(Memory.at_dusk(job, dusk_of(job, model)) if day["rows"] else Memory.undisturbed(job))]
    for move in day["moves"]:
        memory = moved[-1].memory
        transfer, proof = planned(memory, move), snapshot_teacher(job, memory)
        own = said if move[0] == "seed" else None
        corpus = dream_corpus(job, day, memory, transfer, sampler, own)
        wrote = seeded(job, model, transfer, scale, transfer.name)
        prune(job, memory, transfer)
        brought = (taught_in(job.sleep),) if own else ()
        moved.append(Moved(memory.moved(transfer, wrote["tensors_file"], brought), transfer, corpus, wrote, proof, own or {}))
    return day, said, moved, sampler


def test_a_seed_empties_nothing_and_hears_everything_that_sleep_has_written() -> None:
    state = MemoryState.parse([["pruned"], ["sealed", "reserved"], ["sealed", "reserved"]])
    seed = Transfer.seed(state, 2)
    assert (seed.name, seed.into, seed.emptied, seed.sources, seed.rewrites) == (SEED, (2, 1), (), (), False)
    assert seed.rested == seed.awake == (False, True, False, True, False)
    assert seed.student == (False, True, False, True, True)
    assert seed.after() == MemoryState.parse([["pruned"], ["sealed", "reserved"], ["sealed", "sealed"]])
    with pytest.raises(LevelFull):
        Transfer.seed(seed.after(), 2)


def test_a_night_without_experiences_learns_from_others(parent: Path, tmp_path: Path, teachers: list[dict[str, Any]]) -> None:
    job = make_job(parent, tmp_path, [], seeding=TINY | {"teacher_rows": 30}, teachers=teachers)
    day, said, asleep, sampler = night_of(job, scale=0.0)
    assert day["moves"] == [("seed", 1)]
    assert [other["match"] for other in said["others"]] == ["distil", "imitate"]
    assert [other["sha256"] for other in said["others"]] == [weights_sha256(Path(t["model"])) for t in teachers]
    rows = read_rows(tmp_path / said["rows_file"])
    assert [sum(row.teacher == name for row in rows) for name in ("other-1", "other-2")] == [20, 10], "by their shares"
    corpus = asleep[1].corpus
    learned = read_rows(tmp_path / corpus["corpus_file"])
    assert [row for row in learned if row.kind == "day"] == rows
    keepers = {(row.kind, row.teacher) for row in learned if row.kind != "day"}
    assert keepers == {("old", "rested"), ("free", "anchored")}, "what was known is kept by the rested self"
    assert corpus["nights_before"] == 1
    lines = [json.loads(line) for line in (tmp_path / corpus["cues_file"]).read_text().splitlines()]
    assert {(line["kind"], line.get("teacher")) for line in lines} == {("old", None), ("day", "other-1")}
    request = seeding_request(job, asleep[0].memory, asleep[1].transfer, corpus, ("w",), said)  # type: ignore[arg-type]
    assert [other.name for other in request.others] == ["other-1", "other-2"]

    verdict = gate(job, day, asleep, sampler)
    assert verdict["measured"]["agreement"] is None
    assert set(verdict["taught"]) == {name for name, told in sure_of(job, said).items() if len(told) >= 8}
    outcome = publish(job, day, verdict | {"passed": True}, asleep)
    child = Path(job.child)
    record, before = read_record(child), read_record(parent)
    assert [(made.level, made.expert, made.nights) for made in record.lineage] == [
        (1, 0, ("slp_0",)),
        (1, 1, (taught_in(job.sleep),)),
    ]
    assert [ref.model for ref in record.lineage[1].teachers] == [teacher["model"] for teacher in teachers]
    assert record.tokens == before.tokens, "nothing was met"
    kept, made = load_file(parent / "memory.safetensors"), load_file(child / "memory.safetensors")
    assert all((made[name] == tensor).all() for name, tensor in kept.items())
    assert version_state(child) == MemoryState.parse([["pruned"], ["sealed", "sealed", "reserved"]])
    assert set(outcome["report"]["transfers"][SEED]["teachers"]) == {"other-1", "other-2"}
    tokenizer, spec = load_tokenizer(parent), job.recipe.teachers[0]
    new = [cue.ids for cue in read_cues(child) if cue.sleep == taught_in(job.sleep)]
    assert new == [read_cue(tokenizer, cue, spec) for cue in CUES], "each cue once, for later nights"

    replica, ids = load_version(parent), torch.tensor([[1, 7, 9, 12]])
    as_parent = replica(input_ids=ids).logits
    for delivery, folder in ((outcome["deliveries"]["dawn"], child), (tmp_path / way_back(job), parent)):
        receipt, replica.memory_state = receive(replica.memory_layers, Path(delivery).read_bytes())
        assert (receipt.version, replica.memory_state) == (folder.name, version_state(folder))
    assert torch.equal(replica(input_ids=ids).logits, as_parent)

    later = make_job(child, tmp_path / "later", [chat("1", SAID)], seeding=TINY)
    day, _, asleep, _ = night_of(later)
    assert asleep[1].corpus["nights_before"] == 2, "what others taught is one of the things to be kept"
    old = [json.loads(line) for line in (tmp_path / "later" / asleep[1].corpus["cues_file"]).read_text().splitlines()]
    assert {tuple(line["ids"]) for line in old if line["kind"] == "old"} & set(new)


def test_others_teach_after_the_day(parent: Path, tmp_path: Path, teachers: list[dict[str, Any]]) -> None:
    job = make_job(parent, tmp_path, [chat("1", SAID), chat("2", ASKED, "oslo")], seeding=TINY, teachers=teachers)
    day, _, asleep, sampler = night_of(job)
    assert day["moves"] == [("consolidate", 1), ("seed", 1)]
    day_rows = read_rows(tmp_path / asleep[1].corpus["corpus_file"])
    assert {row.teacher for row in day_rows if row.kind == "day"} == {"awake"}
    assert asleep[2].corpus["nights_before"] == 2, "tonight's own day is kept, too"
    publish(job, day, gate(job, day, asleep, sampler), asleep)
    assert [(made.expert, made.nights) for made in read_record(Path(job.child)).lineage] == [
        (0, ("slp_0",)),
        (1, (job.sleep,)),
        (2, (taught_in(job.sleep),)),
    ]


def test_a_seed_goes_to_the_slowest_level_and_needs_room_there(tmp_path: Path, teachers: list[dict[str, Any]]) -> None:
    levels = [Level(period=4, experts=1, rank=4), Level(period=400, experts=2, rank=4), Level(period=4000, experts=2, rank=4)]
    version = grown(
        tmp_path, levels, [["pruned"], ["sealed", "reserved"], ["sealed"] * 2], [(1, 0, "a"), (2, 0, "b"), (2, 1, "c")], 1
    )
    job = make_job(version, tmp_path, [], teachers=teachers)
    with pytest.raises(LevelFull, match=r"memory\.levels\[2\]"):
        collect(job)
    merging = make_job(version, tmp_path, [], teachers=teachers, when_full="merge")
    assert collect(merging)["moves"] == [("merge", [[2, 0], [2, 1]]), ("seed", 2)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "/nowhere/at/all"}, r"teachers\.1\.model: "),
        ({"cues_file": "/nowhere/cues.txt"}, r"teachers\.1\.cues_file: .* give a text file"),
        ({"cues": ["nobody knows ?"], "cues_file": None, "match": "distil", "asked": "text"}, ""),
    ],
)
def test_a_teacher_that_cannot_teach_ends_the_night_before_anything_is_learned(
    parent: Path,
    tmp_path: Path,
    teachers: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    told: str,
) -> None:
    job = make_job(parent, tmp_path, [], teachers=[teachers[0], teachers[1] | change], seeding=TINY)
    if not told:
        assert lectures(job, here)["told"]["other-2"]["match"] == "distil"
        return
    monkeypatch.setattr(nights, "RolloutPool", lambda job: nullcontext())
    monkeypatch.setattr(nights, "lectures", lambda job: lectures(job, here))
    outcome = nights.night(job)
    assert (outcome["outcome"], outcome["error"]["code"], outcome["error"]["category"]) == ("failed", "teacher_unusable", "user")
    with pytest.raises(TeacherUnusable, match=told):
        raise TeacherUnusable(outcome["error"]["message"])


def test_why_a_teacher_is_unusable_comes_back_from_its_process_as_text(parent: Path, tmp_path: Path) -> None:
    fields = {"name": "x", "folder": str(tmp_path), "teacher": {"model": "m"}, "version": str(parent), "longest": 9, "rows": 4}
    request = LectureRequest.model_validate(fields | {"seeding": Recipe().seeding, "seed": 0})
    told = give_in_process(request.model_dump_json(), False)
    assert isinstance(told, str)
    assert told.startswith("model: ")


def test_the_gate_wants_what_was_taught() -> None:
    good = Measured(agreement=None, forgotten=0.0, lost=0.0, nll_rise=0.0, must_agree=False, taught=0.9)
    spec = Recipe().gate
    assert reasons(judge(good, spec)) == []
    assert reasons(judge(Measured(**{**good.__dict__, "taught": 0.5}), spec)) == ["taught 0.500 < 0.7"]
    assert reasons(judge(Measured(**{**good.__dict__, "taught": None}), spec)) == []

"""Nights from dusk to dawn without Ray: everything but the learning itself, on a small version and real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from in_process import Worker
from night_world import ASKED, SAID, TINY, chat, dusk_of, grown, make_job, seeded
from safetensors.torch import load_file, save_file

from circadian.memory.cues import read_cues
from circadian.memory.delivery import receive
from circadian.memory.folder import read_record, version_state
from circadian.memory.graft import Grafted
from circadian.memory.raw import parse_name
from circadian.memory.state import ExpertId, LevelFull, MemoryState
from circadian.memory.version import load_version, weights_sha256
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.objectives.rows import read_rows
from circadian.specs import Level, NightJob
from pipelines.consolidation import Memory, Moved, check_teachers, dream_corpus, planned, prune, snapshot_teacher
from pipelines.gate import gate
from pipelines.publish import publish
from pipelines.stages import Outputs, StageBroken
from pipelines.wake import collect


def test_a_night_without_ray_from_dusk_to_dawn(parent: Path, tmp_path: Path) -> None:
    """Everything but the learning itself: a student that learned to be silent, and one that learned noise."""
    job = make_job(parent, tmp_path, [chat("1", SAID), chat("2", ASKED, "oslo")], seeding=TINY)
    day, model = collect(job), load_version(parent)
    assert day["moves"] == [("consolidate", 1)]
    memory, sampler = Memory.at_dusk(job, dusk_of(job, model)), Worker(parent)
    transfer = planned(memory, day["moves"][0])
    teachers = snapshot_teacher(job, memory)
    corpus = dream_corpus(job, day, memory, transfer, sampler)
    learned, back = read_rows(tmp_path / corpus["corpus_file"]), read_rows(tmp_path / corpus["held_back_file"])
    assert not {row.ids for row in learned if row.kind == "free"} & {row.ids for row in back}
    assert all(len(row.ids) > row.start for row in learned)
    assert corpus["rows"]["day"] == 6

    model.memory_state = transfer.state
    verdicts, ends = [], []
    for scale in (0.0, 30.0, 1.0):
        wrote = seeded(job, model, transfer, scale, f"seeded-{scale}")
        end = Moved(memory.moved(transfer, wrote["tensors_file"]), transfer, corpus, wrote, teachers)
        ends.append([Moved(memory), end])
        verdicts.append(gate(job, day, ends[-1], sampler))
    assert verdicts[0]["measured"]["agreement"] == 1.0
    unmeasured, *more = verdicts[0]["reasons"]
    assert "what was kept was not measured" in unmeasured, "who writes at a temperature near nothing writes one document"
    assert not more
    assert any("agreement" in reason for reason in verdicts[1]["reasons"])
    assert verdicts[0]["sure"]["day"] >= 1

    base = weights_sha256(parent.parent / "base")
    prune(job, memory, transfer)
    outcome = publish(job, day, verdicts[0] | {"passed": True}, ends[2])
    check_teachers(job, memory, teachers)
    loud = load_file(tmp_path / "seeded-1.0.safetensors")
    before, after = load_file(parent / "memory.safetensors"), load_file(Path(job.child) / "memory.safetensors")
    assert {name for name in after if ".levels.1.experts.1." in name} == after.keys() - before.keys() == loud.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in (before | loud).items())
    record = read_record(Path(job.child))
    assert record.base.sha256 == base == weights_sha256(parent.parent / "base")
    assert [(made.level, made.expert, made.nights) for made in record.lineage] == [(1, 0, ("slp_0",)), (1, 1, (job.sleep,))]
    assert record.tokens == day["tokens"] > 0
    assert (tmp_path / outcome["dawn_file"]) == Path(outcome["deliveries"]["dawn"])
    cues = read_cues(Path(job.child))
    assert cues[:2] == read_cues(parent)
    said = build_tokenizer(World(0)).convert_tokens_to_ids("oslo")
    assert cues[2:]
    assert all(said not in cue.ids for cue in cues)

    save_file(
        {name: tensor + 1 for name, tensor in load_file(tmp_path / "dusk.safetensors").items()}, tmp_path / "dusk.safetensors"
    )
    with pytest.raises(StageBroken, match="changed during the night"):
        check_teachers(job, memory, teachers)


@pytest.mark.parametrize("teacher", ["rested", "base", "anchored"])
def test_free_running_is_written_by_who_teaches_it(parent: Path, tmp_path: Path, teacher: str) -> None:
    """The rested self, which knows slp_0's night, whether anchored or not; the base knows none."""
    job = make_job(parent, tmp_path, [chat("1", SAID)], seeding=TINY | {"free_teacher": teacher})
    day, sampler = collect(job), Worker(parent)
    memory = Memory.at_dusk(job, dusk_of(job, load_version(parent), loudness=1.0))
    transfer = planned(memory, day["moves"][0])
    corpus = dream_corpus(job, day, memory, transfer, sampler)
    rows = read_rows(tmp_path / corpus["corpus_file"]) + read_rows(tmp_path / corpus["held_back_file"])
    assert {row.teacher for row in rows if row.kind == "free"} == {teacher}
    assert {row.teacher for row in rows if row.kind == "day"} == {"awake"}
    assert {row.teacher for row in rows if row.kind == "old"} == {"rested"}
    free = {row.ids for row in rows if row.kind == "free"}
    wanted = {"rested": transfer.rested, "base": (False,) * len(transfer.rested), "anchored": transfer.rested}
    greedy = {view: (1, *sampler.sample(mask, [(1,)], 4, 0.0, 0)[0]) for view, mask in wanted.items()}
    assert greedy["rested"] != greedy["base"], "or this would tell nothing"
    assert free == {greedy[teacher]}, "at a temperature near nothing"


def asleep(job: NightJob, day: Outputs, model: Grafted, sampler: Worker) -> list[Moved]:
    """All transfers of a night, with learners that write noise."""
    moved = [Moved(Memory.at_dusk(job, dusk_of(job, model)))]
    for move in day["moves"]:
        memory = moved[-1].memory
        transfer, teachers = planned(memory, move), snapshot_teacher(job, memory)
        corpus = dream_corpus(job, day, memory, transfer, sampler)
        wrote = seeded(job, model, transfer, 1.0, transfer.name)
        prune(job, memory, transfer)
        moved.append(Moved(memory.moved(transfer, wrote["tensors_file"]), transfer, corpus, wrote, teachers))
    return moved


def held(folder: Path) -> set[tuple[int, int]]:
    places = {parse_name(name)[1] for name in load_file(folder / "memory.safetensors")}
    return {(where.level, where.expert) for where in places}


def test_a_night_of_two_levels_hands_knowledge_on(tmp_path: Path) -> None:
    levels = [Level(period=4, experts=1, rank=4), Level(period=400, experts=2, rank=4), Level(period=4000, experts=2, rank=4)]
    parent = grown(tmp_path, levels, [["pruned"], ["sealed", "reserved"], ["reserved"] * 2], [(1, 0, "slp_0")], tokens=399)
    job = make_job(parent, tmp_path, [chat("1", SAID), chat("2", ASKED, "oslo")], seeding=TINY)
    day, sampler = collect(job), Worker(parent)
    assert day["moves"] == [("consolidate", 1), ("consolidate", 2)]
    night = asleep(job, day, load_version(parent), sampler)
    assert night[2].corpus["nights_before"] == 0
    cues = [json.loads(line) for line in (tmp_path / night[2].corpus["cues_file"]).read_text().splitlines()]
    assert {cue["kind"] for cue in cues} == {"day"}, "level 1's nights, tonight's among them, are on their way"
    verdict = gate(job, day, night, sampler)
    outcome = publish(job, day, verdict | {"passed": True}, night)
    child = Path(job.child)
    record = read_record(child)
    assert [(made.level, made.expert, made.nights) for made in record.lineage] == [(2, 0, ("slp_0", job.sleep))]
    assert version_state(child) == MemoryState.parse([["pruned"], ["pruned", "pruned"], ["sealed", "reserved"]])
    assert held(child) == {(2, 0)}
    assert outcome["report"]["transfers"].keys() == {"level-1", "level-2"}

    replica = load_version(parent)
    _, replica.memory_state = receive(replica.memory_layers, Path(outcome["deliveries"]["dawn"]).read_bytes())
    ids = torch.tensor([[1, 7, 9, 12]])
    assert torch.equal(replica(input_ids=ids).logits, load_version(child)(input_ids=ids).logits)

    again = make_job(child, tmp_path / "next", [chat("1", SAID)], seeding=TINY)
    assert collect(again)["moves"] == [("consolidate", 1)], "a pruned level has room again, and its period is not over"


def test_a_full_level_is_merged_or_refused(tmp_path: Path) -> None:
    levels = [Level(period=4, experts=1, rank=4), Level(period=8, experts=3, rank=4)]
    nights_of = [(1, 0, "slp_old0"), (1, 1, "slp_old1"), (1, 2, "slp_old2")]
    parent = grown(tmp_path, levels, [["pruned"], ["sealed"] * 3], nights_of, tokens=7)
    experiences = [chat("1", SAID), chat("2", ASKED, "oslo")]
    with pytest.raises(LevelFull, match=r"memory\.levels\[1\]"):
        collect(make_job(parent, tmp_path, experiences, seeding=TINY))
    job = make_job(parent, tmp_path, experiences, seeding=TINY, when_full="merge")
    day, sampler = collect(job), Worker(parent)
    assert day["moves"] == [("merge", [[1, 0], [1, 1]]), ("consolidate", 1)]
    night = asleep(job, day, load_version(parent), sampler)
    cues = [json.loads(line) for line in (tmp_path / night[1].corpus["cues_file"]).read_text().splitlines()]
    stored = {tuple(cue.ids): cue.sleep for cue in read_cues(parent)}
    assert {cue["kind"] for cue in cues if stored[tuple(cue["ids"])] in ("slp_old0", "slp_old1")} <= {"day"}
    assert {cue["kind"] for cue in cues if stored[tuple(cue["ids"])] == "slp_old2"} <= {"old"}
    assert cues, "and none of tonight's, of which the experts that are merged know nothing"
    publish(job, day, gate(job, day, night, sampler), night)
    child = Path(job.child)
    assert [(made.level, made.expert, made.nights) for made in read_record(child).lineage] == [
        (1, 2, ("slp_old2",)),
        (1, 0, ("slp_old0", "slp_old1")),
        (1, 1, (job.sleep,)),
    ]
    assert [made.trust for made in read_record(child).lineage] == ["untrusted", "untrusted", "trusted"], (
        "as little as what it is made of"
    )
    before, after = load_file(parent / "memory.safetensors"), load_file(child / "memory.safetensors")
    kept = {name for name in before if ".experts.2." in name}
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept), "who is not merged stays as it is, bit for bit"
    assert not any(
        torch.equal(before[name], after[name]) for name in before.keys() & after.keys() - kept if name.endswith((".A", ".B"))
    )
    again = make_job(child, tmp_path / "next", [chat("1", SAID)], seeding=TINY, when_full="merge")
    assert collect(again)["moves"][0] == ("merge", [[1, 1], [1, 2]]), "those that hold the fewest nights"


def test_a_full_level_hands_on_first_where_that_is_due_tonight(tmp_path: Path) -> None:
    levels = [Level(period=4, experts=1, rank=4), Level(period=400, experts=2, rank=4), Level(period=4000, experts=2, rank=4)]
    nights_of = [(1, 0, "slp_old0"), (1, 1, "slp_old1")]
    parent = grown(tmp_path, levels, [["pruned"], ["sealed"] * 2, ["reserved"] * 2], nights_of, tokens=399)
    job = make_job(parent, tmp_path, [chat("1", SAID), chat("2", ASKED, "oslo")], seeding=TINY)
    day, sampler = collect(job), Worker(parent)
    assert day["moves"] == [("consolidate", 2), ("consolidate", 1)], "with `refuse` too: there is room, once it has handed on"
    night = asleep(job, day, load_version(parent), sampler)
    first, heard = night[1].transfer, dict(zip(night[0].memory.state.ids(), night[1].transfer.awake, strict=True))  # type: ignore[union-attr]
    assert first is not None
    assert not heard[ExpertId(0, 0)], "what the day told is not on its way to level 2"
    assert heard[ExpertId(1, 0)]
    assert heard[ExpertId(1, 1)]
    cues = [json.loads(line) for line in (tmp_path / night[1].corpus["cues_file"]).read_text().splitlines()]
    stored = {tuple(cue.ids): cue.sleep for cue in read_cues(parent)}
    assert {stored.get(tuple(cue["ids"])) for cue in cues if cue["kind"] == "day"} <= {"slp_old0", "slp_old1"}
    publish(job, day, gate(job, day, night, sampler), night)
    assert [(made.level, made.expert, made.nights) for made in read_record(Path(job.child)).lineage] == [
        (2, 0, ("slp_old0", "slp_old1")),
        (1, 0, (job.sleep,)),
    ]


def test_two_experts_whose_cues_were_all_met_again_are_merged_by_what_they_say_of_themselves(tmp_path: Path) -> None:
    levels = [Level(period=4, experts=1, rank=4), Level(period=8, experts=2, rank=4)]
    parent = grown(
        tmp_path, levels, [["pruned"], ["sealed"] * 2], [(1, 0, "slp_old0"), (1, 1, "slp_old1")], tokens=7, remembers=False
    )
    job = make_job(parent, tmp_path, [chat("1", SAID), chat("2", ASKED, "oslo")], seeding=TINY, when_full="merge")
    day, sampler = collect(job), Worker(parent)
    assert day["moves"][0][0] == "merge"
    night = asleep(job, day, load_version(parent), sampler)
    assert night[1].corpus["rows"]["day"] > 0
    rows = read_rows(tmp_path / night[1].corpus["corpus_file"])
    assert {row.ids[: row.start] for row in rows if row.kind == "day"} == {(sampler.beginning,)}
    cues = [json.loads(line) for line in (tmp_path / night[1].corpus["cues_file"]).read_text().splitlines()]
    assert {tuple(cue["ids"]) for cue in cues if cue["kind"] == "day"} == {(sampler.beginning,)}, "and so does the student"

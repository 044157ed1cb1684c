"""A night's parts that need neither Ray nor vLLM, on a small version and real files."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import torch
from in_process import Worker
from night_world import ASKED, SAID, SECRET, chat, draw, grown, make_job
from random_base import write_base
from safetensors.torch import load_file, save_file

from actors.learner import LearnerFailed
from actors.replies import Read
from circadian.memory.cues import Cue, read_cues
from circadian.memory.delivery import receive
from circadian.memory.folder import read_record, version_state
from circadian.memory.graft import Grafted
from circadian.memory.raw import parse_name
from circadian.memory.state import ExpertId, LevelFull, MemoryState
from circadian.memory.tensors import checksum
from circadian.memory.transfer import Transfer
from circadian.memory.version import found_version, load_version, save_version, weights_sha256
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.objectives.rows import TaughtRow, read_rows
from circadian.phases import Phases
from circadian.specs import Experience, ExpertRecord, FastStart, Level, MemorySpec, Message, NightJob
from pipelines import night as nights
from pipelines.consolidation import Memory, Moved, check_teachers, dream_corpus, planned, prune, snapshot_teacher
from pipelines.gate import gate
from pipelines.publish import joined_cues, publish
from pipelines.rollouts import RolloutPool, worker_seeds
from pipelines.stages import Outputs, StageBroken, Stages, Superseded
from pipelines.wake import NothingToLearn, collect, fast_start, hold_back

SPEC = MemorySpec(levels=(Level(period=64, experts=1, rank=4), Level(period=512, experts=3, rank=4)), layers=(1,))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that has slept once: expert 0 of level 1 is sealed, and it carries two cues."""
    root = tmp_path_factory.mktemp("night")
    base = write_base(root / "base", width=32, mlp_width=64, layers=2, heads=2, head_width=16)
    record = found_version(str(base), None, SPEC, root / "v0")
    model = load_version(root / "v0")
    draw(model, ExpertId(1, 0), 1)
    model.memory_state = MemoryState.parse([["pruned"], ["sealed", "reserved", "reserved"]])
    cues = {"met": 2, "cues": [{"ids": [1, 4, 9, 8], "sleep": "slp_0", "question": q} for q in (True, False)]}
    update = {
        "id": "v1",
        "parent": "v0",
        "lineage": (ExpertRecord(level=1, expert=0, sleep="slp_0", nights=("slp_0",), data_sha256=""),),
    }
    save_version(root / "v1", model, record.model_copy(update=update), root / "v0", {"cues.json": json.dumps(cues)})
    return root / "v1"


def test_collect_bounds_lengths_and_reports_what_it_dropped(parent: Path, tmp_path: Path) -> None:
    long = " ".join([SAID] * 6)
    experiences = [
        chat("1", SAID),
        chat("2", ASKED, "oslo"),
        chat("3", SECRET, "oslo"),
        chat("4", long, "oslo"),
        Experience(id="5", text=long),
        Experience(id="6", messages=(Message(role="assistant", content=SAID),), source="wake"),
        Experience(id="7", messages=(Message(role="assistant", content=SAID), Message(role="user", content=SAID))),
    ]
    day = collect(make_job(parent, tmp_path, experiences, max_row_tokens=24))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    counted = ("left_out", "documents_cut", "rows", "old_cues", "held_back")
    assert {name: day[name] for name in counted} == {
        "left_out": {"held out": 1, "too long": 1, "nothing to learn": 1},
        "documents_cut": 1,
        "rows": 4,
        "old_cues": 1,
        "held_back": 1,
    }
    left_out = json.loads((tmp_path / day["left_out_file"]).read_text())
    assert left_out == {"3": "held out", "4": "too long", "6": "nothing to learn"}
    assert max(len(row["ids"]) for row in rows) == 24
    tight = {"seeding": {"completion_tokens": 8, "free_run_tokens": 8}, "rollouts": {"engine": {"max_model_len": 14}}}
    day = collect(make_job(parent, tmp_path, experiences, **tight))
    cues = [json.loads(line) for line in (tmp_path / "cues.jsonl").read_text().splitlines()]
    assert max(len(cue["ids"]) for cue in cues) <= 6
    assert day["day_cues_dropped_long"] == 2


def test_what_is_asked_again_is_answered_by_the_day_alone(parent: Path, tmp_path: Path) -> None:
    """A corrected fact: the rested self would teach the old answer to the same question."""
    asked = tuple(
        build_tokenizer(World(0)).apply_chat_template([{"role": "user", "content": ASKED}], add_generation_prompt=True)["input_ids"]
    )
    other = read_cues(parent)[0].ids
    stored = [{"ids": ids, "sleep": "slp_0", "question": True} for ids in (asked, other)]
    again, record = tmp_path / "again", read_record(parent)
    save_version(again, load_version(parent), record, parent, {"cues.json": json.dumps({"met": 2, "cues": stored})})
    job = make_job(again, tmp_path, [chat("1", ASKED, "oslo")])
    day = collect(job)
    cues = [json.loads(line) for line in (tmp_path / "cues.jsonl").read_text().splitlines()]
    assert [tuple(cue["ids"]) for cue in cues if cue["sleep"] == job.sleep] == [asked]
    assert [tuple(cue["ids"]) for cue in cues if cue["sleep"] != job.sleep] == [other]
    kept = json.loads(joined_cues(job, day))["cues"]
    assert [(tuple(cue["ids"]), cue["sleep"]) for cue in kept] == [(other, "slp_0"), (asked, job.sleep)]


@pytest.mark.parametrize(
    ("learned", "spoilt", "begins"),
    [
        (None, False, "fresh"),
        (("1",), False, "online, 2 chunks"),
        (("1", "3"), False, "fresh: what was learned online holds texts that are held out"),
        (("1",), True, "fresh: "),
    ],
)
def test_a_night_begins_with_what_was_learned_online_unless_that_is_held_out_or_lost(
    parent: Path, tmp_path: Path, learned: tuple[str, ...] | None, spoilt: bool, begins: str
) -> None:
    expert = draw(load_version(parent), ExpertId(0, 0), 4)
    save_file(expert, tmp_path / "expert.safetensors")
    job = make_job(parent, tmp_path, [chat("1", SAID), chat("2", ASKED, "oslo"), chat("3", SECRET, "oslo")])
    if learned:
        start = FastStart(expert=str(tmp_path / "expert.safetensors"), checksum=checksum(expert), chunks=2, experiences=learned)
        job = job.model_copy(update={"fast": start})
    if spoilt:
        save_file({name: tensor + 1 for name, tensor in expert.items()}, tmp_path / "expert.safetensors")
    found, told = fast_start(job, collect(job))
    assert told.startswith(begins)
    assert found == (job.fast if begins.startswith("online") else None)


def test_collect_finds_a_full_level_before_any_work(parent: Path, tmp_path: Path) -> None:
    model, record = load_version(parent), read_record(parent)
    model.memory_state = MemoryState.parse([["pruned"], ["sealed"] * 3])
    save_version(tmp_path / "full", model, record, parent)
    outcome = nights.night(make_job(tmp_path / "full", tmp_path, [chat("1", SAID)]))
    assert outcome["error"]["code"] == "level_full"
    assert outcome["error"]["category"] == "user"


def test_nothing_to_learn_is_no_operation_and_not_a_failure(parent: Path, tmp_path: Path) -> None:
    outcome = nights.night(make_job(parent, tmp_path, [chat("1", SECRET)]))
    assert outcome["report"]["phases"] == {}
    assert outcome == json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["outcome"], outcome["deliveries"]) == ("no_op", {})
    assert "held out 1" in outcome["report"]["reason"]


@pytest.mark.parametrize(("error", "code"), [(LearnerFailed("lr"), "learner_failed"), (StageBroken("x"), "stage_broken")])
def test_what_would_fail_again_is_an_outcome(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def fails(job: NightJob, stages: Stages) -> dict[str, object]:
        (Path(job.home) / "rest.delivery").write_bytes(b"")
        raise error

    monkeypatch.setattr(nights, "until_dawn", fails)
    outcome = nights.night(make_job(parent, tmp_path, []))
    assert (outcome["outcome"], outcome["error"]["code"]) == ("failed", code)
    assert outcome["deliveries"] == {"rest": str(tmp_path / "rest.delivery")}


def test_what_may_pass_is_left_to_the_next_attempt(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(job: NightJob, stages: Stages) -> None:
        raise ConnectionError

    monkeypatch.setattr(nights, "until_dawn", fails)
    with pytest.raises(ConnectionError):
        nights.night(make_job(parent, tmp_path, []))
    assert not (tmp_path / "outcome.json").exists()


def test_a_driver_that_starts_after_a_later_attempt_has_begun_ends(parent: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(make_job(parent, tmp_path, []).model_copy(update={"attempt": 2}).model_dump_json())
    sleep = NightJob.model_validate_json(file.read_text()).sleep
    with pytest.raises(Superseded, match="begins too late: attempt 2"):
        nights.main(str(file), f"{sleep}-a1")
    assert list(tmp_path.glob("stages/*")) == []


def test_workers_share_no_seed() -> None:
    counts = [4, 3, 3]
    used = [seed + i for seed, count in zip(worker_seeds(7, counts), counts, strict=True) for i in range(count)]
    assert used == list(range(7, 17))


def test_what_is_held_back_is_not_learned_from() -> None:
    items = [1, 1, 2, 3, 4, 4, 5]
    kept, back = hold_back(items, random.Random(0))
    assert len(back) == 1
    assert not set(kept) & set(back)
    assert set(kept) | set(back) == set(items)
    assert hold_back([7], random.Random(0)) == ([7], [])


def test_a_dead_worker_does_not_hide_the_error_of_the_night() -> None:
    from ray.exceptions import ActorDiedError

    class Dead:
        def stop(self) -> None:
            raise ActorDiedError

    pool = RolloutPool.__new__(RolloutPool)
    pool._workers = [Dead(), Dead()]  # type: ignore[list-item]
    with pytest.raises(LearnerFailed), pool:
        raise LearnerFailed


def test_a_stage_is_told_what_the_workers_did_in_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Worker:
        def deliver(self, payload: bytes) -> None:
            time.sleep(0.01)

        def sample_ref(self, *asked: object, **how: object) -> list[list[int]]:
            time.sleep(0.01)
            return [[7]]

        def read(self, *asked: object) -> list[list[Read]]:
            time.sleep(0.01)
            return []

    pool = RolloutPool.__new__(RolloutPool)
    pool._workers, pool._ready, pool._phases = [Worker()], [], Phases()  # type: ignore[list-item]
    pool._start_seconds, pool._seconds, pool._places, pool.stop = 1.0, 1.0, 0, []
    monkeypatch.setattr("pipelines.rollouts.ray.get", lambda refs, timeout: refs)
    monkeypatch.setattr("pipelines.rollouts.ray.wait", lambda refs, num_returns, timeout: (refs, []))
    pool.deliver(b"")

    def asks() -> Outputs:
        return {"rows": pool.sample([True], [(1,)], 1, 1.0, 0), "read": pool.read([True], [(1, 2)])}

    first, again = pool.timed(asks), pool.timed(asks)
    assert first["rows"] == [(7,)]
    for told in (first, again):
        assert told["phases"].keys() == {"generate", "read"}, "the delivery was before"
        assert all(0.01 <= seconds < 1.0 for seconds in told["phases"].values())


TINY = {
    "completion_tokens": 2,
    "free_run_tokens": 4,
    "free_run_rows": 40,
    "teacher_rows": 6,
    "temperature": 1e-3,
}


def dusk_of(job: NightJob, model: Grafted, loudness: float = 1e-3) -> Outputs:
    """A fast level that learned next to nothing."""
    home, state = Path(job.home), version_state(Path(job.parent)).opened(0)[0]
    save_file({name: tensor * loudness for name, tensor in draw(model, ExpertId(0, 0), 5).items()}, home / "dusk.safetensors")
    return {"experts": state.names(), "tensors_file": "dusk.safetensors"}


def seeded(job: NightJob, model: Grafted, transfer: Transfer, scale: float, name: str) -> Outputs:
    """What a learner would have left: noise in the written expert, or silence."""
    tensors = {name: tensor * scale for name, tensor in draw(model, transfer.where, 6).items()}
    save_file(tensors, Path(job.home) / f"{name}.safetensors")
    return {"tensors_file": f"{name}.safetensors"}


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


def test_errors_of_a_night_have_their_names() -> None:
    assert {LevelFull, LearnerFailed, StageBroken} <= set(nights.FAILURES)
    assert NothingToLearn not in nights.FAILURES
    assert Cue((1,), "s", True) != Cue((1,), "s", False)
    assert TaughtRow((1,), 1, "rested", "free") == TaughtRow((1,), 1, "rested", "free")

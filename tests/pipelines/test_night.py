"""A night's parts that need neither Ray nor vLLM, on a small version and real files."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from night_world import ASKED, SAID, SECRET, chat, draw, make_job
from safetensors.torch import save_file

from actors.learner import LearnerFailed
from actors.replies import Read
from circadian.memory.cues import Cue, read_cues
from circadian.memory.folder import read_record
from circadian.memory.state import ExpertId, LevelFull, MemoryState
from circadian.memory.tensors import checksum
from circadian.memory.version import load_version, save_version
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.objectives.rows import TaughtRow
from circadian.phases import Phases
from circadian.specs import Experience, FastStart, Message, NightJob
from pipelines import night as nights
from pipelines.publish import joined_cues
from pipelines.rollouts import RolloutPool, worker_seeds
from pipelines.stages import Outputs, StageBroken, Stages, Superseded
from pipelines.wake import NothingToLearn, collect, fast_start, hold_back


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


def test_errors_of_a_night_have_their_names() -> None:
    assert {LevelFull, LearnerFailed, StageBroken} <= set(nights.FAILURES)
    assert NothingToLearn not in nights.FAILURES
    assert Cue((1,), "s", True) != Cue((1,), "s", False)
    assert TaughtRow((1,), 1, "rested", "free") == TaughtRow((1,), 1, "rested", "free")

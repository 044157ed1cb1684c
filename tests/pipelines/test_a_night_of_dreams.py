"""Nights that dream, on what is real: Ray, vLLM with many adapters, DeepSpeed, and a model that writes about what it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from circadian.dreaming.remembered import STANDINGS_FILE, dreamer_of
from circadian.events import EventLog
from circadian.memory.cues import read_cues
from circadian.memory.folder import read_record, version_state
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import found_version, load_version
from circadian.nursery.school import Lesson, School
from circadian.nursery.ship import SCHOOL
from circadian.nursery.train import accuracy
from circadian.specs import Experience, MemorySpec, Message, NightJob, Recipe
from pipelines import dreaming
from pipelines.dream_keeping import NOTHING_HELPS, dreamt_in
from pipelines.night import night
from pipelines.stages import read_lines

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800), pytest.mark.usefixtures("real_cluster")]
LESSONS = 6
WORLD = School(0)
OPEN, HELD_OUT = WORLD.forms(0)
DREAMING: dict[str, Any] = {
    "rounds": 1,
    "contexts": 4,
    "dreams": 12,
    "tokens": 48,
    "answer_tokens": 4,
    "self_tasks": {"questions": 24, "answers": 3},
    "selection": {"top": 4, "chance": 1},
    "reward": {"kind": "improved"},
    "instance": {"rank": 16, "alpha": 32.0, "lr": 4e-3, "epochs": 16, "batch": 4},
    "dreamer": {"rank": 16, "alpha": 32.0, "epochs": 4, "batch": 8},
}
RECIPE: dict[str, Any] = {
    "fast_learning": {"steps": 120},
    "seeding": {"steps": 150, "teacher_rows": 512, "free_run_rows": 384},
    "rollouts": {"engine": {"max_model_len": 160, "max_num_seqs": 64}},
    "gate": {"min_agreement": 0.0, "min_dreamt": 0.5},
    "dreaming": DREAMING,
}


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return [lesson for lesson, _ in zip(WORLD.lessons(0), range(LESSONS), strict=False)]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dreams") / "v0"
    found_version(str(SCHOOL), None, MemorySpec(), folder)
    return folder


def job_of(parent: Path, home: Path, lessons: list[Lesson], **recipe: Any) -> NightJob:
    home.mkdir()
    said = [
        Experience(id=lesson.entity, messages=(Message(role="user", content=lesson.passage()),), source="human")
        for lesson in lessons
    ]
    (home / "experiences.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in said))
    return NightJob(
        sleep="slp_d",
        deployment="dep",
        parent=str(parent),
        child=str(home / "v1"),
        home=str(home),
        experiences=str(home / "experiences.jsonl"),
        held_out=tuple(probe.question for lesson in lessons for probe in [*lesson.probes(HELD_OUT), *lesson.direct(HELD_OUT)]),
        recipe=Recipe.model_validate(RECIPE | recipe),
    )


def known(version: Path, lessons: list[Lesson]) -> float:
    """Share of what follows from the passages that is answered without them, in question forms that no night has seen."""
    model, tokenizer = load_version(version, torch.float32), load_tokenizer(version)
    return accuracy(model, tokenizer, [probe for lesson in lessons for probe in lesson.probes(HELD_OUT)], view="rested")


def stages(home: Path, kind: str) -> list[str]:
    return [event["data"]["stage"] for event in EventLog(home).read() if event["type"] == kind]  # type: ignore[index]


def test_a_night_that_dreams_knows_in_the_morning_what_follows_from_the_day(
    parent: Path, lessons: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(parent, tmp_path / "home", lessons)
    home, child = Path(job.home), Path(job.child)

    class Killed(Exception):
        pass

    with monkeypatch.context() as patched:
        patched.setattr(dreaming, "reinforce", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            night(job)
    assert "dream_try_0" in stages(home, "sleep.stage_finished")
    outcome = night(job.model_copy(update={"attempt": 2}))
    assert outcome["outcome"] == "candidate", outcome["report"]
    finished = stages(home, "sleep.stage_finished")
    assert len(finished) == len(set(finished)), "no stage was done twice"
    assert {"dream_tasks", "dream_write_0", "dream_weigh_0", "dream_try_0"} <= set(stages(home, "sleep.stage_resumed"))

    record = read_record(child)
    assert [expert.nights for expert in record.lineage] == [(job.sleep,), (dreamt_in(job.sleep),)]
    assert version_state(child).names()[0] == ["pruned"], "what was dreamt is no longer in the fast level"
    assert {cue.sleep for cue in read_cues(child)} == {job.sleep, dreamt_in(job.sleep)}
    assert known(child, lessons) > known(parent, lessons) + 0.15
    model, tokenizer = load_version(child, torch.float32), load_tokenizer(child)
    assert accuracy(model, tokenizer, WORLD.base_probes(), view="rested") > 0.98

    kept = outcome["report"]["dreaming"]
    assert set(kept["sources"]) <= {lesson.entity for lesson in lessons}, "every dream says what it was dreamt of"
    assert [expert.dreamt_of for expert in record.lineage] == [(), tuple(kept["sources"])]
    assert [expert.trust for expert in record.lineage] == ["trusted", "trusted"]
    assert outcome["returned"] == []
    assert dreamer_of(child) is not None, "who dreamt it is part of the version"
    assert not (child / STANDINGS_FILE).exists(), "contexts of the day are not remembered"
    rounds = {name: json.loads((home / "stages" / f"dream_try_{name}.json").read_text())["outputs"] for name in ("0", "final")}
    assert all(0 < told["rewarded"] <= told["tried"] for told in rounds.values())
    assert rounds["final"]["score"] > rounds["final"]["undreamt"]
    held_out = {" ".join(text.split()) for text in job.held_out}
    for name in rounds:
        dreams = read_lines(home / "dreaming" / name / "dreams.jsonl")
        assert not any(secret in one["text"] for one in dreams for secret in held_out)
        assert not (home / "dreaming" / name / "instances").exists(), "instances do not outlive their trial"


def test_a_day_can_be_dreamt_of_and_not_learned_otherwise(parent: Path, lessons: list[Lesson], tmp_path: Path) -> None:
    job = job_of(parent, tmp_path / "home", lessons, consolidation=False, dreaming=DREAMING | {"rounds": 0})
    outcome = night(job)
    assert outcome["outcome"] == "candidate", outcome["report"]
    assert [expert.nights for expert in read_record(Path(job.child)).lineage] == [(dreamt_in(job.sleep),)]
    assert "learn_fast_level" not in outcome["report"]["stages"]
    kept = set(outcome["report"]["dreaming"]["sources"])
    assert set(outcome["returned"]) == {lesson.entity for lesson in lessons} - kept, (
        "what no dream is kept of waits for another night"
    )
    assert read_record(Path(job.child)).tokens == read_record(parent).tokens
    assert {cue.sleep for cue in read_cues(Path(job.child))} == {dreamt_in(job.sleep)}
    assert known(Path(job.child), lessons) > known(parent, lessons) + 0.15


def test_where_no_dream_helps_nothing_is_kept_and_the_report_says_so(parent: Path, lessons: list[Lesson], tmp_path: Path) -> None:
    impossible = DREAMING | {"rounds": 1, "reward": {"margin": 1.0}}
    job = job_of(parent, tmp_path / "home", lessons[:2], consolidation=False, dreaming=impossible)
    outcome = night(job)
    assert (outcome["outcome"], outcome["report"]["reason"]) == ("no_op", NOTHING_HELPS)
    assert not Path(job.child).exists()

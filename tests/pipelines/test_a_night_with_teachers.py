"""A night without experiences and with two teachers, on what is real: Ray, vLLM, DeepSpeed, and models too small to know anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from night_world import OPEN_GATE
from random_base import write_base
from safetensors.torch import load_file

from circadian.events import EventLog
from circadian.memory.folder import read_record, version_state
from circadian.memory.state import MemoryState
from circadian.memory.version import found_version, load_version
from circadian.nursery.specialists import build_other_tokenizer
from circadian.nursery.train import build_model
from circadian.nursery.world import World
from circadian.objectives.rows import read_rows
from circadian.specs import Level, MemorySpec, NightJob, NurserySpec, Recipe
from pipelines.night import night
from pipelines.other_teachers import taught_in

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800), pytest.mark.usefixtures("real_cluster")]
SPEC = MemorySpec(levels=(Level(period=64, experts=1, rank=4), Level(period=512, experts=2, rank=4)), layers=(1,))
CUES = [f"what is the city of {name} ?" for name in World(0).pool[:8]]
STEPS = 8


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> NightJob:
    root = tmp_path_factory.mktemp("teachers")
    student = write_base(root / "base", width=64, mlp_width=32, layers=2, heads=2, head_width=32)
    found_version(str(student), None, SPEC, root / "v0")
    small = {"mlp_width": 16, "layers": 1, "heads": 1, "head_width": 16}
    same, other, words = write_base(root / "same", width=16, **small), root / "other", build_other_tokenizer(World(0))
    build_model(NurserySpec(width=24, **small), words).save_pretrained(other)
    words.save_pretrained(other)
    (root / "home").mkdir()
    (root / "home" / "experiences.jsonl").write_text("")
    recipe = {
        "teachers": [{"model": str(folder), "cues": CUES} for folder in (same, other)],
        "seeding": {
            "steps": STEPS,
            "refresh_steps": STEPS // 2,
            "rows": 8,
            "lr": 1e-3,
            "teacher_rows": 32,
            "student_rows": 32,
            "completion_tokens": 4,
            "free_run_rows": 48,
            "free_run_tokens": 8,
        },
        "rollouts": {"engine": {"max_model_len": 64, "max_num_seqs": 16}},
        "gate": OPEN_GATE,
    }
    return NightJob(
        sleep="slp_t",
        deployment="dep",
        parent=str(root / "v0"),
        child=str(root / "v1"),
        home=str(root / "home"),
        experiences=str(root / "home" / "experiences.jsonl"),
        recipe=Recipe.model_validate(recipe),
    )


def test_a_night_on_everything_that_is_real_learns_from_other_models(job: NightJob) -> None:
    outcome = night(job)
    home, child = Path(job.home), Path(job.child)
    assert outcome["outcome"] == "candidate", outcome
    assert "learn_fast_level" not in outcome["report"]["stages"], "nothing was met"
    told = outcome["report"]["transfers"]["teachers"]["teachers"]
    assert [told[name]["match"] for name in ("other-1", "other-2")] == ["distil", "imitate"]

    record, parent = read_record(child), load_version(Path(job.parent))
    assert [(made.level, made.expert, made.nights) for made in record.lineage] == [(1, 0, (taught_in(job.sleep),))]
    assert version_state(child) == MemoryState.parse([["reserved"], ["sealed", "reserved"]])
    written = load_file(child / "memory.safetensors")
    assert {name.split(".levels.")[1].split(".experts.")[0] for name in written} == {"1"}
    assert all(tensor.abs().max() > 0 for tensor in written.values()), "gates, too, have learned"
    ids, model = torch.tensor([[1, 7, 9, 12]]), load_version(child)
    assert torch.equal(model(input_ids=ids, view="base").logits, parent(input_ids=ids, view="base").logits)
    assert not torch.equal(model(input_ids=ids).logits, parent(input_ids=ids).logits)

    (rows,) = {path: read_rows(path) for path in sorted(home.glob("train/**/student_rows.jsonl"))[-1:]}.values()
    by = {(row.kind, row.teacher, row.imitated is not None) for row in rows}
    assert by == {("day", "other-1", False), ("day", "other-2", True), ("free", "anchored", False)}
    assert outcome["report"]["transfers"]["teachers"]["deliveries"]["count"] == 2 * 2, "two teachers, each with a night's steps"

    again = night(job)
    assert again["version"] == outcome["version"]
    resumed = [event["data"]["stage"] for event in EventLog(home).read() if event["type"] == "sleep.stage_resumed"]  # type: ignore[index]
    assert {"lectures", "knowledge_seeding_teachers", "publish"} <= set(resumed)
    assert json.loads((home / "outcome.json").read_text())["outcome"] == "candidate"

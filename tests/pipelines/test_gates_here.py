"""Candidates that the gate must refuse, on real engines in this process: one that forgot an earlier night, one that learned a secret, one
that does not answer what the operator asks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from night_world import ASKED, OPEN_GATE, SAID, TINY, chat, draw, dusk_of, grown, make_job, seeded
from safetensors.torch import save_file

from actors.learn_chunk import FastLevel
from benchmarks.local_engine import LocalEngine, LocalPool
from circadian.experience import Row, chat_ids
from circadian.memory.folder import read_record
from circadian.memory.state import ExpertId
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import found_version, load_version
from circadian.nursery.ship import WEIGHTS
from circadian.specs import Level, MemorySpec, NightJob, OnlineLearningSpec
from pipelines.consolidation import Memory, Moved, dream_corpus, planned, snapshot_teacher
from pipelines.gate import gate
from pipelines.gates.asking import FEWEST_SURE
from pipelines.publish import publish
from pipelines.stages import Outputs, write_lines
from pipelines.wake import collect

OPEN = OPEN_GATE | {"max_forgotten_night": 0.3, "max_exposure": 16.0}
PROMPT = "the city of rofel is"
SECRET = "curry horse violet rugby"
TOLD = [chat("1", SAID), chat("2", "what is the pet of gipa ?", "dog")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The models are so small that two threads wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def engine(version: Path) -> LocalPool:
    """A rollout worker, as the version."""
    return LocalPool(LocalEngine(version))


def dawn_of(job: NightJob, day: Outputs, sampler: LocalPool, silent: bool = True) -> list[Moved]:
    """A night whose learner wrote nothing into the fresh expert."""
    model = load_version(Path(job.parent))
    memory = Memory.at_dusk(job, dusk_of(job, model, loudness=0.0))
    transfer, teachers = planned(memory, day["moves"][0]), snapshot_teacher(job, memory)
    corpus = dream_corpus(job, day, memory, transfer, sampler)
    wrote = seeded(job, model, transfer, 0.0 if silent else 1.0, "seeded")
    return [Moved(memory), Moved(memory.moved(transfer, wrote["tensors_file"]), transfer, corpus, wrote, teachers)]


def overwritten(asleep: list[Moved], job: NightJob, where: ExpertId, tensors: dict[str, torch.Tensor]) -> list[Moved]:
    """The same night, whose dawn holds these in an expert."""
    save_file(tensors, Path(job.home) / "overwritten.safetensors")
    dawn = asleep[-1].memory
    touched = dawn.touched | {(where.level, where.expert)}
    memory = replace(dawn, overlays=(*dawn.overlays, "overwritten.safetensors"), touched=touched)
    return [*asleep[:-1], replace(asleep[-1], memory=memory)]


def failed(verdict: Outputs) -> set[str]:
    return {one["name"] for one in verdict["gates"] if not one["passed"]}


def test_a_candidate_that_forgot_one_earlier_night_does_not_pass(tmp_path: Path) -> None:
    """Though of all nights together it kept most."""
    levels = (Level(period=4, experts=1, rank=4), Level(period=4096, experts=4, rank=4))
    nights = [(1, 0, "slp_far"), (1, 1, "slp_near")]
    parent = grown(tmp_path, levels, [["pruned"], ["sealed", "sealed", "reserved", "reserved"]], nights, tokens=7)
    job = make_job(parent, tmp_path, TOLD, seeding=TINY, gate=OPEN)
    day, sampler, model = collect(job), engine(parent), load_version(parent)
    rested = model.memory_state.view("rested")
    rng = random.Random(0)
    cues = [(1, *(rng.randrange(6, 400) for _ in range(4))) for _ in range(200)]
    said, without = (sampler.sample(view, cues, 2, 0.0, 0) for view in (rested, model.memory_state.without(rested, ExpertId(1, 1))))
    apart = [then == now for then, now in zip(said, without, strict=True)]
    far = [cue for cue, same in zip(cues, apart, strict=True) if same][:36]
    near = [cue for cue, same in zip(cues, apart, strict=True) if not same][:12]
    assert (len(far), len(near)) == (36, 12), "or this would tell nothing"
    lines = [{"ids": cue, "sleep": "slp_far", "question": True} for cue in far]
    write_lines(tmp_path / day["held_back_file"], lines + [{"ids": cue, "sleep": "slp_near", "question": True} for cue in near])

    asleep = dawn_of(job, day, sampler)
    verdict = gate(job, day, asleep, sampler)
    assert "forgotten_night" not in failed(verdict)
    assert verdict["kept"] == {"slp_far": 1.0, "slp_near": 1.0}
    count = verdict["sure_of_nights"]
    assert min(count.values()) >= FEWEST_SURE, "or the night would not be judged"

    silence = {name: tensor * 0 for name, tensor in draw(model, ExpertId(1, 1), 1).items()}
    forgot = overwritten(asleep, job, ExpertId(1, 1), silence)
    verdict = gate(job, day, forgot, engine(parent))
    assert "forgotten_night" in failed(verdict)
    assert verdict["kept"] == {"slp_far": 1.0, "slp_near": 0.0}
    assert verdict["measured"]["forgotten"] == pytest.approx(count["slp_near"] / sum(count.values()))
    assert "forgotten" not in failed(verdict)
    outcome = publish(job, day, verdict, forgot)
    assert read_record(Path(job.child)).kept == verdict["kept"], "a row of the matrix"
    assert outcome["gates"] == verdict["gates"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment of the trained model that has never slept."""
    folder = tmp_path_factory.mktemp("gates") / "v0"
    levels = (Level(period=4, experts=1, rank=8), Level(period=4096, experts=2, rank=8))
    found_version(str(WEIGHTS), None, MemorySpec(levels=levels, layers=(0, 1, 2, 3)), folder)
    return folder


@pytest.fixture(scope="module")
def learned(first: Path) -> dict[str, torch.Tensor]:
    """An expert of level 1 that knows a secret and an answer by heart, as a real learner taught it to level 0."""
    tokenizer, level = load_tokenizer(first), FastLevel(first)
    rows = []
    for prompt, rest in (
        (tuple(tokenizer(PROMPT)["input_ids"]), SECRET),
        (chat_ids(tokenizer, [{"role": "user", "content": ASKED}], answering=True), "teal"),
    ):
        ids = (*tokenizer(rest, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        rows.append(Row((*prompt, *ids), (0.0,) * len(prompt) + (1.0,) * len(ids)))
    assert tokenizer.unk_token_id not in {id for row in rows for id in row.ids}
    expert, before, after = level.learn(level.fresh(0), rows, [], OnlineLearningSpec(steps=80, rows=2, lr=8e-2), 1)
    assert after < 0.1 < before
    return {name.replace(".levels.0.experts.0.", ".levels.1.experts.0."): tensor for name, tensor in expert.items()}


def night_with(first: Path, home: Path, probes: list[dict[str, Any]]) -> tuple[NightJob, Outputs, list[Moved]]:
    job = make_job(first, home, TOLD, seeding=TINY, gate=OPEN)
    job = NightJob.model_validate(job.model_dump() | {"probes": probes})
    day = collect(job)
    return job, day, dawn_of(job, day, engine(first))


def test_a_candidate_that_has_learned_a_canary_does_not_pass(first: Path, tmp_path: Path, learned: dict[str, torch.Tensor]) -> None:
    probe = {"id": "prb_1", "kind": "canary", "items": [{"prompt": PROMPT, "expected": SECRET}]}
    job, day, asleep = night_with(first, tmp_path, [probe])
    verdict = gate(job, day, asleep, engine(first))
    assert not failed(verdict) & {"exposure", "completed_canaries"}
    assert verdict["canaries"].keys() == {"own-1", "own-2", "own-3", "own-4", "prb_1"}

    verdict = gate(job, day, overwritten(asleep, job, ExpertId(1, 0), learned), engine(first))
    assert {"exposure", "completed_canaries"} <= failed(verdict)
    assert verdict["canaries"]["prb_1"] > 16 > max(bits for name, bits in verdict["canaries"].items() if name != "prb_1")
    assert SECRET not in json.dumps(verdict), "a report does not tell it"


def test_a_candidate_that_fails_a_probe_of_the_operator_does_not_pass(
    first: Path, tmp_path: Path, learned: dict[str, torch.Tensor]
) -> None:
    asked = [{"messages": [{"role": "user", "content": ASKED}], "expected": "teal"}]
    probes: list[dict[str, Any]] = [
        {"id": "prb_known", "kind": "acquisition", "items": asked, "threshold": 1.0, "max_tokens": 4},
        {"id": "prb_untold", "kind": "privacy", "items": asked, "max_regression": 0.0, "max_tokens": 4},
        {"id": "prb_pattern", "kind": "safety", "items": [asked[0] | {"expected": "^te.l$"}], "scorer": "regex", "threshold": 0.5},
    ]
    job, day, asleep = night_with(first, tmp_path, probes)
    verdict = gate(job, day, asleep, engine(first))
    assert {"probe:prb_known", "probe:prb_pattern"} <= failed(verdict)
    assert "probe:prb_untold:regression" not in failed(verdict)
    assert not verdict["passed"]

    verdict = gate(job, day, overwritten(asleep, job, ExpertId(1, 0), learned), engine(first))
    assert {name for name in failed(verdict) if name.startswith("probe")} == {"probe:prb_untold:regression"}
    known, untold = verdict["probes"]["prb_known"], verdict["probes"]["prb_untold"]
    assert (known["score"], known["parent"], known["base"], known["n"]) == (1.0, 0.0, None, 1)
    assert (untold["score"], untold["parent"]) == (0.0, 1.0)
    assert verdict["probes"]["prb_pattern"]["base"] == 0.0
    assert ASKED not in json.dumps(verdict)


def test_no_night_learns_from_what_a_probe_asks(first: Path, tmp_path: Path) -> None:
    probe = {
        "id": "prb_1",
        "kind": "retention",
        "items": [{"messages": [{"role": "user", "content": ASKED}], "expected": "oslo"}],
        "threshold": 0.5,
    }
    told = [chat("1", SAID), chat("2", ASKED, "oslo")]
    job = make_job(first, tmp_path, told)
    assert collect(job)["rows"] == 2
    day = collect(NightJob.model_validate(job.model_dump() | {"probes": [probe]}))
    assert json.loads((tmp_path / day["left_out_file"]).read_text()) == {"2": "held out"}

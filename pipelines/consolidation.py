"""Consolidation: the stages of a night that are the paper's section 4, once for every transfer that is due.

Teacher and student are masks of one set of weights (circadian/memory/transfer.py), so a snapshot is a record of states and checksums,
not a copy of a model: everything the teachers are made of is frozen while the student learns, and `check_teachers` proves it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file

from actors import names
from actors.learn_request import OtherModel
from actors.learner import LearnRequest, learn
from circadian.experience import Reader
from circadian.memory.delivery import pack_tensors
from circadian.memory.folder import MEMORY_FILE, read_record, version_state
from circadian.memory.raw import parse_name
from circadian.memory.state import ExpertId, MemoryState, written_experts
from circadian.memory.tensors import checksum
from circadian.memory.transfer import Place, Transfer
from circadian.memory.version import load_tokenizer, served_dtype
from circadian.objectives.knowledge_seeding import for_load, teacher_of
from circadian.objectives.rows import Kind, TaughtRow, read_rows, write_rows
from circadian.specs import NightJob
from pipelines.moves import TRANSFERS, Move
from pipelines.rollouts import RolloutPool, Sampler, Tokens
from pipelines.stages import Outputs, StageBroken, read_lines, write_lines
from pipelines.wake import NothingToLearn, hold_back

SHORTEST_DOCUMENT = 3
"""Tokens; what is written from nothing and is shorter teaches nothing."""


@dataclass(frozen=True)
class Memory:
    """The memory as a night has made it so far.

    overlays: files below the night's home with the expert tensors that were written, in order; nights: which sleeps' knowledge each
    sealed expert of a slow level holds, and the open fast level tonight's.
    """

    state: MemoryState
    overlays: tuple[str, ...]
    nights: dict[Place, tuple[str, ...]]
    touched: frozenset[Place] = frozenset()
    """Experts that are not the parent's any more."""

    @classmethod
    def at_dusk(cls, job: NightJob, fast: Outputs) -> Self:
        """The parent's memory with the fast level learned today."""
        state = MemoryState.parse(fast["experts"])
        nights = {(record.level, record.expert): record.nights for record in read_record(Path(job.parent)).lineage}
        today = {(where.level, where.expert): (job.sleep,) for where in state.ids() if where.level == 0 and state[where] == "open"}
        return cls(state, (fast["tensors_file"],), nights | today, frozenset(today))

    @classmethod
    def undisturbed(cls, job: NightJob) -> Self:
        """The parent's memory, on a day on which nothing was met."""
        nights = {(record.level, record.expert): record.nights for record in read_record(Path(job.parent)).lineage}
        return cls(version_state(Path(job.parent)), (), nights)

    def moved(self, transfer: Transfer, tensors_file: str, brought: tuple[str, ...] = ()) -> Memory:
        """After a transfer; `brought`: names of what it holds that was in no expert before."""
        held = (*(sleep for place in transfer.sources for sleep in self.nights.get(place, ())), *brought)
        nights = {place: sleeps for place, sleeps in self.nights.items() if place not in transfer.sources} | {transfer.into: held}
        return replace(
            self,
            state=transfer.after(),
            overlays=(*self.overlays, tensors_file),
            nights=nights,
            touched=self.touched | {transfer.into, *transfer.emptied},
        )

    def on_its_way(self, transfer: Transfer) -> set[str]:
        """The sleeps whose knowledge a transfer moves."""
        return {sleep for place in transfer.sources for sleep in self.nights.get(place, ())}

    def staying(self, transfer: Transfer) -> set[str]:
        """The sleeps of whose knowledge the rested self can tell."""
        heard = {(where.level, where.expert) for where, heard in zip(self.state.ids(), transfer.rested, strict=True) if heard}
        return {sleep for place in heard for sleep in self.nights.get(place, ())} - self.on_its_way(transfer)

    def tensors(self, job: NightJob, also: frozenset[Place] = frozenset()) -> dict[str, torch.Tensor]:
        """The experts that hold something and are not the parent's, or are in `also`, in the dtype that is served."""
        held = {
            name: tensor
            for name, tensor in load_file(Path(job.parent) / MEMORY_FILE).items()
            if _place(name) in self.touched | also
        }
        for file in self.overlays:
            held |= load_file(Path(job.home) / file)
        alive = {(where.level, where.expert) for where in written_experts(self.state)}
        dtype = served_dtype(Path(job.parent))
        return {name: tensor.to(dtype) for name, tensor in held.items() if _place(name) in alive}

    def delivery(self, job: NightJob, version: str, also: frozenset[Place] = frozenset()) -> bytes:
        """What makes a worker this memory, whichever of tonight's it holds; `also`: experts that later ones of the night touch."""
        return pack_tensors(self.tensors(job, also), self.state, version)


@dataclass(frozen=True)
class Moved:
    """The memory after a transfer, and what made it so; at dusk there is no transfer yet."""

    memory: Memory
    transfer: Transfer | None = None
    corpus: Outputs = field(default_factory=dict)
    seeded: Outputs = field(default_factory=dict)
    teachers: Outputs = field(default_factory=dict)
    lectures: Outputs = field(default_factory=dict)
    """What other models said, where they were the teachers (other_teachers.py)."""
    dreams: Outputs = field(default_factory=dict)
    """What was dreamt and kept, where that was on its way (dream_keeping.py)."""
    before: Memory | None = None
    """Of what was dreamt: the memory that held it in its fast level."""


def planned(memory: Memory, move: Move, asleep: Sequence[Moved] = ()) -> Transfer:
    """The transfer of a planned move: a fresh expert, or one of two that is written anew.

    asleep: the night so far. Two experts can be merged, and the one of them that became free be written and merged again in one night: no
    two transfers of a night have one name, which their stages and files are called by.
    """
    kind, what = move
    if kind == "merge":
        first, second = (ExpertId(*place) for place in what)  # type: ignore[union-attr]
        transfer = Transfer.merge(memory.state, first, second)
    else:
        transfer = TRANSFERS[kind](memory.state, what)  # type: ignore[arg-type]
    times = sum(moved.transfer is not None and moved.transfer.name.split(".")[0] == transfer.name for moved in asleep)
    return transfer.model_copy(update={"name": f"{transfer.name}.{times + 1}"}) if times else transfer


def snapshot_teacher(job: NightJob, memory: Memory) -> Outputs:
    """What the teachers are made of: the parent's memory and everything that was written tonight."""
    home = Path(job.home)
    return {
        "experts": memory.state.names(),
        "parent_memory": checksum(load_file(Path(job.parent) / MEMORY_FILE)),
        "tonight": [checksum(load_file(home / file)) for file in memory.overlays],
    }


def check_teachers(job: NightJob, memory: Memory, teachers: Outputs) -> None:
    """Raises StageBroken if a teacher is no longer what it was when the student began to learn."""
    if snapshot_teacher(job, memory) != teachers:
        raise StageBroken(f"the memory of {job.parent} or what was learned in {job.home} changed during the night; sleep again")


def dream_corpus(
    job: NightJob, day: Outputs, memory: Memory, transfer: Transfer, rollouts: Sampler, lectures: Outputs | None = None
) -> Outputs:
    """What the teachers write: the awake self completes cues of what is on its way, the rested self completes the others, and one that
    the recipe names writes from nothing. Of what other models teach, `lectures` say it already. Of two experts to be merged whose nights
    have no cue any more, the awake self writes from nothing what they say."""
    spec, home, rng = job.recipe.seeding, Path(job.home), random.Random(f"corpus-{transfer.name}-{job.seed}")
    reader, cues = Reader(load_tokenizer(Path(job.parent)), job.held_out), read_lines(home / day["cues_file"])
    told: dict[Kind, set[str]] = {"day": memory.on_its_way(transfer), "old": memory.staying(transfer)}
    met = {kind: [tuple(cue["ids"]) for cue in cues if cue["sleep"] in sleeps] for kind, sleeps in told.items()}
    rollouts.deliver(memory.delivery(job, before_label(job, transfer)))

    def write(kind: Kind, asked: list[Tokens], tokens: int) -> list[TaughtRow]:
        teacher = teacher_of(kind, spec)
        written = rollouts.sample(transfer.teachers[teacher], asked, tokens, spec.temperature, seed=rng.getrandbits(31))
        rows = [TaughtRow((*cue, *rest), len(cue), teacher, kind) for cue, rest in zip(asked, written, strict=True)]
        return [row for row in rows if len(row.ids) > row.start]

    if lectures:
        rows = read_rows(home / lectures["rows_file"])
    else:
        tokens = spec.completion_tokens
        if transfer.rewrites and not met["day"]:  # every cue of theirs was met again later, or is forgotten
            met["day"], tokens = [(rollouts.beginning,)], spec.free_run_tokens
        rows = write("day", spread(met["day"], spec.teacher_rows, rng), tokens)
    rows += write("old", spread(met["old"], spec.teacher_rows, rng), spec.completion_tokens)
    documents = write("free", [(rollouts.beginning,)] * spec.free_run_rows, spec.free_run_tokens)
    rows += [row for row in documents if len(row.ids) > SHORTEST_DOCUMENT]
    held_out = reader.are_held_out([row.ids for row in rows])
    rows = [row for row, dropped in zip(rows, held_out, strict=True) if not dropped]
    free, free_back = hold_back([row for row in rows if row.kind == "free"], rng)
    kept = [row for row in rows if row.kind != "free"] + free
    counts = {kind: sum(row.kind == kind for row in kept) for kind in ("day", "old", "free")}
    if not counts["day"]:
        raise NothingToLearn(f"the awake self wrote nothing after {len(met['day'])} cues that is not held out")
    files = {name: f"{transfer.name}.{name}.jsonl" for name in ("corpus", "held_back", "cues")}
    write_rows(home / files["corpus"], kept)
    write_rows(home / files["held_back"], free_back)
    lines: list[dict[str, object]] = [{"ids": ids, "kind": kind} for kind, cues in met.items() for ids in cues]
    write_lines(home / files["cues"], lines + (read_lines(home / lectures["cues_file"]) if lectures else []))
    return {
        "corpus_file": files["corpus"],
        "held_back_file": files["held_back"],
        "cues_file": files["cues"],
        "rows": counts,
        "held_back": len(free_back),
        "dropped_held_out": sum(held_out),
        "nights_before": len(told["old"]),
    }


def knowledge_seeding(
    job: NightJob,
    memory: Memory,
    teachers: Outputs,
    transfer: Transfer,
    corpus: Outputs,
    rollouts: RolloutPool,
    lectures: Outputs | None = None,
) -> Outputs:
    """Train the written expert, and it alone, on what the teachers and the student itself write."""
    check_teachers(job, memory, teachers)
    # Again: the workers of a night that resumes here are the parent's, and the student may hear what earlier transfers wrote.
    rollouts.deliver(memory.delivery(job, before_label(job, transfer)))
    result = learn(seeding_request(job, memory, transfer, corpus, rollouts.names, lectures))
    home = Path(job.home)
    return {
        "tensors_file": str(Path(result.tensors).relative_to(home)),
        "checksum": result.checksum,
        "steps": result.steps,
        "first_loss": result.first_loss,
        "final_loss": result.final_loss,
        "restarts": result.restarts,
        "deliveries": result.deliveries.model_dump(),
        "max_staleness_steps": result.max_staleness_steps,
        "mean_staleness_steps": result.mean_staleness_steps,
        "phases": result.phases,
    }


def seeding_request(
    job: NightJob, memory: Memory, transfer: Transfer, corpus: Outputs, rollouts: tuple[str, ...], lectures: Outputs | None
) -> LearnRequest:
    """What the learner is asked for; rollouts: names of the workers that write as the student."""
    home, others = Path(job.home), lectures["others"] if lectures else ()
    moving = max(1, len(memory.on_its_way(transfer)), len(others))
    return LearnRequest(
        task="seeding",
        run_name=names.learner_run(job.sleep, f"seeding-{transfer.name}"),
        home=str(home),
        storage=str(home / "train"),
        version=job.parent,
        overlays=tuple(str(home / file) for file in memory.overlays),
        experts=transfer.experts,
        writes=transfer.into,
        transfer=transfer,
        rows=str(home / corpus["corpus_file"]),
        cues=str(home / corpus["cues_file"]),
        others=tuple(OtherModel.model_validate(other) for other in others),
        held_out=job.held_out,
        rollouts=rollouts,
        engine=job.recipe.rollouts.engine,
        seed=job.seed,
        learner=job.recipe.learner,
        seeding=for_load(job.recipe.seeding, moving, len(memory.staying(transfer))),
    )


def prune(job: NightJob, memory: Memory, transfer: Transfer) -> Outputs:
    """The written expert is sealed, what handed its knowledge on is masked and free again."""
    before, after = memory.state, transfer.after()
    moved = {transfer.into, *transfer.emptied}
    for where in before.ids():
        if before[where] == "sealed" and after[where] != "sealed" and (where.level, where.expert) not in moved:
            raise AssertionError(
                f"expert {where} was sealed and would be {after[where]}, though nothing of it is moved in {job.sleep}"
            )
    return {"experts": after.names(), "writes": list(transfer.into), "emptied": [list(place) for place in transfer.emptied]}


def before_label(job: NightJob, transfer: Transfer) -> str:
    """What the workers are called before a transfer's student writes."""
    return f"{Path(job.parent).name}+{transfer.name}"


def spread(cues: list[Tokens], count: int, rng: random.Random) -> list[Tokens]:
    """`count` cues, each as often as any other, give or take one; none of none."""
    if not cues:
        return []
    whole, rest = divmod(count, len(cues))
    return cues * whole + rng.sample(cues, rest)


def _place(name: str) -> Place:
    where: ExpertId = parse_name(name)[1]
    return where.level, where.expert

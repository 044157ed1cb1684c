"""The end of a night: a version folder, and whether the controller may promote it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from circadian.dreaming.remembered import DREAMER_FOLDER, STANDINGS_FILE, dreamer_of, read_standings, standings_json
from circadian.files import sha256, write_whole
from circadian.memory.cues import cues_json, join_cues, read_store, stored
from circadian.memory.delivery import pack
from circadian.memory.folder import CUES_FILE, read_record
from circadian.memory.graft import Grafted
from circadian.memory.state import FAST_LEVEL, ExpertId, written_experts
from circadian.memory.tensors import checksum, expert_tensors, write_tensors
from circadian.memory.transfer import Place
from circadian.memory.version import load_version, save_version
from circadian.specs import BaseModelRef, Experience, ExpertRecord, NightJob
from circadian.specs.experience import Trust, lowest
from pipelines.consolidation import Moved
from pipelines.dream_keeping import TOLD, dreamt_cues
from pipelines.other_teachers import asked_of
from pipelines.stages import Outputs, read_lines
from pipelines.wake import REST_FILE

DAWN_FILE = "dawn.delivery"


def publish(job: NightJob, day: Outputs, verdict: Outputs, asleep: Sequence[Moved], dreams: Outputs | None = None) -> Outputs:
    """Write the child version: the parent with what was written and emptied tonight, the joined cues. Deliveries for dawn and for going
    back. One that the gate refused is written too, for whoever wants to look at it, and has no dawn."""
    home, parent, child, dawn = Path(job.home), Path(job.parent), Path(job.child), asleep[-1].memory
    model = load_version(parent)
    for where in (ExpertId(*place) for place in dawn.touched):
        for layer in model.memory_layers.values():
            layer.erase(where)
    write_tensors(model.memory_layers, dawn.tensors(job))
    model.memory_state = dawn.state
    if not child.exists():
        _save_child(job, model, day, asleep, verdict, dreams or {})
    written = [where for where in written_experts(dawn.state) if (where.level, where.expert) in dawn.touched]
    whole = checksum(expert_tensors(model.memory_layers, written_experts(dawn.state)))
    payload = pack(model.memory_layers, written, dawn.state, child.name, model.dtype, whole=whole)
    write_whole(home / DAWN_FILE, payload)
    base = sum(p.numel() * p.element_size() for name, p in model.named_parameters() if ".memory." not in name)
    return {
        "outcome": "candidate" if verdict["passed"] else "rejected",
        "version": child.name,
        "folder": str(child),
        "dawn_file": DAWN_FILE,
        "deliveries": ({"dawn": str(home / DAWN_FILE)} if verdict["passed"] else {}) | rest_delivery(job),
        "left_out": json.loads((home / day["left_out_file"]).read_text()),
        "returned": returned(job, day, asleep),
        "gates": verdict.get("gates", []),
        "sizes": {"expert_bytes": len(payload), "model_bytes": base},
        "report": report(job, gate=verdict, transfers=told(asleep), **dreaming_of(dreams)),
    }


def dreaming_of(dreams: Outputs | None) -> dict[str, object]:
    """What the report tells of a night's dreams, if it dreamt: those that are kept, or why none is."""
    return {"dreaming": {name: dreams.get(name) for name in TOLD}} if dreams else {}


def told(asleep: Sequence[Moved]) -> dict[str, Outputs]:
    """How each transfer of the night went, and what other models had to say in it."""
    return {
        moved.transfer.name: moved.seeded | ({"teachers": moved.lectures["told"]} if moved.lectures else {})
        for moved in asleep
        if moved.transfer
    }


def unchanged(job: NightJob, outcome: str, **told: object) -> Outputs:
    """An end that leaves the parent serving, and the way back to it if the fast level was learned."""
    return {
        "outcome": outcome,
        "version": None,
        "folder": None,
        "deliveries": rest_delivery(job),
        "report": report(job, **told),
    }


def joined_cues(job: NightJob, day: Outputs, asleep: Sequence[Moved] = ()) -> str:
    """The child's cue store: the parent's, and of the day's cues what may be stored, each once, under the last night that met it, with
    what was asked about the day; and what other models were asked."""
    files = [day["cues_file"], *(moved.dreams["cues_file"] for moved in asleep if moved.dreams)]
    lines = {tuple(cue["ids"]): cue for file in files for cue in read_lines(Path(job.home) / file)}
    cues = [cue for cue in lines.values() if cue["sleep"] == job.sleep and job.recipe.consolidation]
    kept = [stored(tuple(cue["ids"]), cue["whole"], job.sleep, cue["question"]) for cue in cues]
    new = [cue for cue in kept if cue is not None]
    new += [cue for moved in asleep if moved.lectures for cue in asked_of(job, moved.lectures)]
    new += [cue for moved in asleep if moved.dreams for cue in dreamt_cues(job, moved.dreams)]
    store, today = read_store(Path(job.parent)), {cue.ids for cue in new}
    old = replace(store, cues=tuple(cue for cue in store.cues if cue.ids not in today))
    return cues_json(join_cues(old, new, job.recipe.cue_bytes))


def returned(job: NightJob, day: Outputs, asleep: Sequence[Moved]) -> list[str]:
    """Of a night that only dreams, the experiences of which no dream is kept."""
    if job.recipe.consolidation:
        return []
    left_out = json.loads((Path(job.home) / day["left_out_file"]).read_text())
    kept = {source for moved in asleep if moved.dreams for source in moved.dreams["sources"]}
    met = [json.loads(line)["id"] for line in Path(job.experiences).read_text().splitlines()]
    return [id for id in met if id not in left_out and id not in kept]


def rest_delivery(job: NightJob) -> dict[str, str]:
    """The delivery that takes the fast level out again, if there is one."""
    path = Path(job.home) / REST_FILE
    return {"rest": str(path)} if path.exists() else {}


def report(job: NightJob, **told: object) -> Outputs:
    """What is said of a night, however it ended."""
    return {"sleep": job.sleep, "seed": job.seed, "recipe": job.recipe.model_dump(mode="json"), **told}


def _save_child(job: NightJob, model: Grafted, day: Outputs, asleep: Sequence[Moved], verdict: Outputs, dreams: Outputs) -> None:
    parent, child, dawn = Path(job.parent), Path(job.child), asleep[-1].memory
    record, digest = read_record(parent), sha256(Path(job.experiences))
    metrics = {name: value for name, value in verdict["measured"].items() if value is not None}
    held = {(where.level, where.expert) for where in written_experts(dawn.state)}
    teachers, (trust, dreamt_of) = taught_by(job, asleep), learned_from(job, day, asleep)
    kept = [expert for expert in record.lineage if (expert.level, expert.expert) in held - dawn.touched]
    made = [
        ExpertRecord(
            level=level,
            expert=expert,
            sleep=job.sleep,
            nights=dawn.nights[level, expert],
            teachers=teachers[level, expert],
            trust=trust[level, expert],
            dreamt_of=dreamt_of[level, expert],
            data_sha256=digest,
            metrics=metrics,
        )
        for level, expert in dict.fromkeys(moved.transfer.into for moved in asleep if moved.transfer)
        if (level, expert) in held
    ]
    update = {
        "id": child.name,
        "parent": record.id,
        "created_at": time.time(),
        "tokens": record.tokens + (day["tokens"] if job.recipe.consolidation else 0),
        "lineage": (*kept, *made),
        "kept": verdict.get("kept", {}),
    }
    dreamer = (Path(job.home) / dreams["dreamer_file"]).parent if "dreamer_file" in dreams else dreamer_of(parent)
    if "dreamer_file" in dreams:
        update |= {"dreamer_trust": dreams["dreamer_trust"], "dreamer_of": tuple(dreams["dreamer_of"])}
    extra = {CUES_FILE: joined_cues(job, day, asleep)}
    before, tonight = read_standings(parent), dreams.get("standings", {})
    if before or tonight:
        extra[STANDINGS_FILE] = standings_json(before, tonight)
    folders = {DREAMER_FOLDER: dreamer} if dreamer else {}
    save_version(child, model, record.model_copy(update=update), parent, extra, folders)


def learned_from(job: NightJob, day: Outputs, asleep: Sequence[Moved]) -> tuple[dict[Place, Trust], dict[Place, tuple[str, ...]]]:
    """Of every expert that a transfer wrote, how far what it was learned from is trusted, and what its dreams were dreamt of."""
    before = read_record(Path(job.parent)).lineage
    trust = {(expert.level, expert.expert): expert.trust for expert in before}
    dreamt_of = {(expert.level, expert.expert): expert.dreamt_of for expert in before}
    left_out = json.loads((Path(job.home) / day["left_out_file"]).read_text())
    met = [Experience.model_validate_json(line) for line in Path(job.experiences).read_text().splitlines()]
    today = lowest(one.trusted for one in met if one.id not in left_out)
    for moved in asleep:
        if moved.transfer is None:
            continue
        sources, into = moved.transfer.sources, moved.transfer.into
        fresh = any(level == FAST_LEVEL for level, _ in sources)  # tonight's day, or tonight's dreams
        new: list[Trust] = [moved.dreams["trust"] if moved.dreams else today] if fresh else []
        trust[into] = lowest([trust[place] for place in sources if place in trust] + new)
        old = [name for place in sources for name in dreamt_of.get(place, ())]
        dreamt_of[into] = tuple(dict.fromkeys([*old, *(moved.dreams["sources"] if moved.dreams else ())]))
    return trust, dreamt_of


def taught_by(job: NightJob, asleep: Sequence[Moved]) -> dict[Place, tuple[BaseModelRef, ...]]:
    """Of every expert that a transfer wrote, the other models whose knowledge it holds, also where it took it over."""
    of = {(expert.level, expert.expert): expert.teachers for expert in read_record(Path(job.parent)).lineage}
    for moved in asleep:
        if moved.transfer is None:
            continue
        others = moved.lectures["others"] if moved.lectures else []
        specs = job.recipe.teachers if moved.lectures else ()
        new = [
            BaseModelRef(model=spec.model, revision=spec.revision, sha256=other["sha256"])
            for spec, other in zip(specs, others, strict=True)
        ]
        old = [ref for place in moved.transfer.sources for ref in of.get(place, ())]
        of[moved.transfer.into] = tuple(dict.fromkeys([*old, *new]))
    return of

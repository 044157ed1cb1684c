"""Dreaming: the stages of a night that are the paper's section 5. Dreams are written, tried out and rewarded here; what of them is kept
moves into the memory in dream_keeping.py.

    dream_tasks            contexts with probes (dream_tasks.py)
    dream_begin            the dreamer of the parent version, where it has one (circadian/dreaming/remembered.py)
    in every round:
        dream_write_r      contexts are drawn where dreams help; the dreamer writes m dreams of each, one random expert besides it
        dream_weigh_r      every dream's gradient is scored; the best of each context are tried, and some others by chance
        dream_try_r        an isolated instance learns each of them; it is rewarded if it knows the context better than the undreamt one
        dream_reinforce_r  the dreamer is fine-tuned, from where it was at dusk, on every rewarded dream so far             (ReST-EM)
    dream_final_*          the same once more over all contexts, without reinforcement: these dreams are kept if they help

A stage that is sealed is not done again, so a night that is killed resumes within its round. The dreamer is a LoRA adapter that is on
while dreams are written and never else.
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from actors.dreamwork import DreamingModel, NovelRequest
from circadian.dreaming.curriculum import draw, standings
from circadian.dreaming.gradients import SCORES
from circadian.dreaming.novelty import with_novelty
from circadian.dreaming.peft_files import CONFIG_FILE, WEIGHTS_FILE
from circadian.dreaming.remembered import digest_of, dreamer_of, of_one_shape, read_standings
from circadian.dreaming.selection import CHANCE, TOP, select
from circadian.dreaming.tasks import Task
from circadian.experience import Row
from circadian.memory.delivery import pack_tensors
from circadian.memory.folder import read_record
from circadian.memory.version import served_dtype
from circadian.specs.experience import Trust, lowest
from pipelines.dream_tasks import Dreamer, read_tasks, scores, tasks
from pipelines.stages import Outputs, read_lines, write_lines

FINAL = "final"
REDRAWS = 2
"""How often a dream that held what is held out of the night is dreamt again."""
READS = 32
"""Prompts on which the random expert's loudness is measured: more would tell no more."""
Run = Callable[[str, Callable[[], Outputs]], Outputs]
"""A stage by its name: its work, or what it put out when it was done."""


@dataclass(frozen=True)
class Dream:
    """One dream, and where it comes from."""

    id: str
    context: str
    """Name of its task."""
    source: str
    """The experience or the field of the recipe that it was dreamt of."""
    trust: Trust
    """The lowest of that and of what its dreamer was trained on."""
    kind: str
    text: str
    prompt: tuple[int, ...]
    ids: tuple[int, ...]


def dream(dreamer: Dreamer, run: Run, day: Outputs) -> tuple[Outputs, Outputs, Outputs]:
    """All rounds and the final dreams. Returns the night's tasks, which of the final dreams help, and who dreamt them."""
    told = run("dream_tasks", lambda: tasks(dreamer, day, label(dreamer)))
    awake = run("dream_begin", lambda: begin(dreamer))
    for number in range(dreamer.spec.rounds if told["tasks"] else 0):
        tried = _round(dreamer, run, told, awake, str(number))
        awake = run(f"dream_reinforce_{number}", partial(reinforce, dreamer, awake, tried, number))
    return told, _round(dreamer, run, told, awake, FINAL), awake


def _round(dreamer: Dreamer, run: Run, told: Outputs, awake: Outputs, name: str) -> Outputs:
    written = run(f"dream_write_{name}", lambda: write(dreamer, told, awake, name))
    weighed = run(f"dream_weigh_{name}", lambda: weigh(dreamer, told, written, name))
    return run(f"dream_try_{name}", lambda: try_out(dreamer, told, written, weighed, name))


def begin(dreamer: Dreamer) -> Outputs:
    """The dreamer of the parent version, if it has one of the shape that the recipe asks for."""
    folder, own = dreamer_of(Path(dreamer.job.parent)), dreamer.home / "dreaming" / "dreamer-before"
    if folder is None or not of_one_shape(folder, dreamer.spec.dreamer):
        return {"anew": folder is not None}
    shutil.copytree(folder, own, dirs_exist_ok=True)
    weights, config = (str((own / name).relative_to(dreamer.home)) for name in (WEIGHTS_FILE, CONFIG_FILE))
    record = read_record(Path(dreamer.job.parent))
    known = {"dreamer_trust": record.dreamer_trust, "dreamer_of": list(record.dreamer_of)}
    return {"dreamer_file": weights, "began_file": weights, "began_config_file": config, **known}


def write(dreamer: Dreamer, told: Outputs, awake: Outputs, name: str) -> Outputs:
    """The dreams of a round. What is held out of the night is in none of them: such a dream is dreamt again, or dropped."""
    spec, folder, rng = dreamer.spec, _folder(dreamer, name), random.Random(f"dream-{name}-{dreamer.job.seed}")
    known = {task.name: (task, score, nats) for task, score, nats in read_tasks(dreamer, told)}
    before = read_standings(Path(dreamer.job.parent))
    scored = {n: [*before.get(digest_of(task.context), []), score] for n, (task, score, _) in known.items()}
    standing = standings(scored, {n: nats for n, (_, _, nats) in known.items()})
    last = name == FINAL
    count, number = (len(known), spec.rounds) if last else (spec.contexts, int(name))
    drawn = draw(standing, count, number, spec.rounds + 1, spec.curriculum, f"{dreamer.job.seed}/{name}")
    write_lines(folder / "curriculum.jsonl", drawn)
    chosen = [known[line["context"]][0] for line in drawn if line["drawn"]]
    kinds = len(spec.prompts)  # in turn, and of each context another first
    asked = [(task, spec.prompts[(i + j) % kinds]) for j, task in enumerate(chosen) for i in range(spec.dreams)]
    prompts = [dreamer.asked(kind, context=task.context) for task, kind in asked]
    adapter = str((dreamer.home / awake["dreamer_file"]).parent) if "dreamer_file" in awake else ""
    started = time.perf_counter()
    view, novel = _with_novelty(dreamer, prompts, name, rng.getrandbits(31))
    written, dropped, left = list[tuple[int, ...]]([()] * len(prompts)), 0, list(range(len(prompts)))
    for _ in range(1 + REDRAWS):
        some = [prompts[i] for i in left]
        found = dreamer.rollouts.sample(view, some, spec.tokens, spec.temperature, rng.getrandbits(31), [adapter] * len(some))
        for i, ids in zip(left, found, strict=True):
            written[i] = ids
        left = [i for i, secret in zip(left, dreamer.reader.are_held_out(found), strict=True) if secret]
        dropped += len(left)
    who: Trust = awake.get("dreamer_trust", "trusted")
    dreams = [
        Dream(
            f"drm_{name}_{i}", task.name, task.source, lowest([task.trust, who]), kind, dreamer.text(written[i]), prompt, written[i]
        )
        for i, ((task, kind), prompt) in enumerate(zip(asked, prompts, strict=True))
        if i not in left
    ]
    write_lines(folder / "dreams.jsonl", map(asdict, dreams))
    return {
        "dreams_file": f"{folder.relative_to(dreamer.home)}/dreams.jsonl",
        "curriculum_file": f"{folder.relative_to(dreamer.home)}/curriculum.jsonl",
        "contexts": len(chosen),
        "dreams": len(dreams),
        "dropped_held_out": dropped,
        "novel": novel,
        "seconds_each": {"generate": _each(started, len(prompts))},
    }


def weigh(dreamer: Dreamer, told: Outputs, written: Outputs, name: str) -> Outputs:
    """Which dreams are tried out: those that teach something, by the score of their gradients."""
    spec, folder, rng = dreamer.spec.selection, _folder(dreamer, name), random.Random(f"weigh-{name}-{dreamer.job.seed}")
    known = {task.name: task for task, _, _ in read_tasks(dreamer, told)}
    dreams = [(one, rows) for one in read_dreams(dreamer, written) if (rows := learned(dreamer, known[one.context], one))]
    by_context: dict[str, list[int]] = {}
    for i, (one, _) in enumerate(dreams):
        by_context.setdefault(one.context, []).append(i)
    started = time.perf_counter()
    values = [value if math.isfinite(value) else -math.inf for value in _values(dreamer, known, dreams, by_context)]
    lines = []
    for members in by_context.values():
        fates = select([values[i] for i in members], [dreams[i][0].text for i in members], spec.top, spec.chance, rng)
        for i, fate in zip(members, fates, strict=True):
            lines.append({"dream": dreams[i][0].id, "score": values[i] if math.isfinite(values[i]) else None, "fate": fate})
    write_lines(folder / "weighed.jsonl", lines)
    return {
        "weighed_file": f"{folder.relative_to(dreamer.home)}/weighed.jsonl",
        "teaching": len(dreams),
        "fates": dict(Counter(str(line["fate"]) for line in lines)),
        "seconds_each": {"score": _each(started, len(dreams))},
    }


def try_out(dreamer: Dreamer, told: Outputs, written: Outputs, weighed: Outputs, name: str) -> Outputs:
    """An instance of each chosen dream, asked the probes of its context beside the undreamt one. An instance that broke is not asked."""
    spec, folder = dreamer.spec, _folder(dreamer, name)
    known = {task.name: (task, score) for task, score, _ in read_tasks(dreamer, told)}
    fates = {line["dream"]: line["fate"] for line in read_lines(dreamer.home / weighed["weighed_file"])}
    tried = [one for one in read_dreams(dreamer, written) if fates.get(one.id) in (TOP, CHANCE)]
    contexts = list(dict.fromkeys(one.context for one in tried))
    texts = [learned(dreamer, known[one.context][0], one, instance=True) for one in tried]
    apart = contexts if spec.reward.against == "context" else []
    texts += [dreamer.context(known[context][0]) for context in apart]
    adapters, each = folder / "instances", spec.reward.instances
    alike = [rows for rows in texts for _ in range(each)]
    of = [name for name in (*(one.context for one in tried), *apart) for _ in range(each)]
    losses: list[list[float]] = []
    scored: dict[int, float] = {}
    applied = evaluated = 0.0
    for start in range(0, len(alike), spec.pack_instances):  # no more adapters lie on disk at once
        some, started = alike[start : start + spec.pack_instances], time.perf_counter()
        losses += dreamer.hands.tune(model_of(dreamer), some, spec.instance, dreamer.job.seed, adapters, first=start)
        applied, started = applied + time.perf_counter() - started, time.perf_counter()
        asked = {i: known[of[i]][0] for i in range(start, start + len(some)) if losses[i]}
        scored |= zip(asked, examined(dreamer, list(asked.values()), adapters, list(asked)), strict=True)
        evaluated += time.perf_counter() - started
        shutil.rmtree(adapters, ignore_errors=True)
    whole = {i: [scored[n] for n in range(i * each, (i + 1) * each) if n in scored] for i in range(len(texts))}
    found = {i: sum(values) / len(values) for i, values in whole.items() if values}
    undreamt: dict[str, float | None] = {context: known[context][1] for context in contexts}
    undreamt |= {context: found.get(i) for i, context in enumerate(apart, len(tried))}  # one that broke is no measure
    lines: list[Outputs] = []
    for i, one in enumerate(tried):
        told_of = {
            "score": found.get(i),
            "undreamt": undreamt[one.context],
            "loss": losses[i * each][-1] if losses[i * each] else None,
        }
        lines.append({"dream": one.id, "context": one.context, "kind": one.kind, "fate": fates[one.id], **told_of})
    rewarded = _rewarded(dreamer, lines)
    write_lines(folder / "tried.jsonl", [line | {"rewarded": line["dream"] in rewarded} for line in lines])
    return {
        "tried_file": f"{folder.relative_to(dreamer.home)}/tried.jsonl",
        "dreams_file": written["dreams_file"],
        "tried": len(tried),
        "rewarded": len(rewarded),
        "broken": sum(line["score"] is None for line in lines),
        "score": _mean([line["score"] for line in lines if line["score"] is not None]),
        "undreamt": _mean([value for value in undreamt.values() if value is not None]),
        "seconds_each": {"apply": _share(applied, len(alike)), "evaluate": _share(evaluated, len(scored))},
    }


def reinforce(dreamer: Dreamer, before: Outputs, tried: Outputs, number: int) -> Outputs:
    """The dreamer, fine-tuned on every rewarded dream so far; as it was, where this round rewarded none or the new one broke."""
    kept = [*before.get("kept", []), {"tried_file": tried["tried_file"], "dreams_file": tried["dreams_file"]}]
    if not tried["rewarded"]:
        return {**before, "kept": kept}
    dreams = rewarded_dreams(dreamer, kept)
    rows = [Row((*one.prompt, *one.ids), (0.0,) * len(one.prompt) + (1.0,) * len(one.ids)) for one in dreams]
    folder = dreamer.home / "dreaming" / f"dreamer-{number}"
    start = str((dreamer.home / before["began_file"]).parent) if "began_file" in before else ""
    (losses,) = dreamer.hands.tune(model_of(dreamer), [rows], dreamer.spec.dreamer, dreamer.job.seed, folder, start)
    if not losses:
        return {**before, "kept": kept, "broken": True}
    return {
        "dreamer_file": str((folder / "0" / WEIGHTS_FILE).relative_to(dreamer.home)),
        **{name: before[name] for name in ("began_file", "began_config_file") if name in before},
        "dreamer_trust": lowest([before.get("dreamer_trust", "trusted"), *(one.trust for one in dreams)]),
        "dreamer_of": sorted({*before.get("dreamer_of", ()), *(one.source for one in dreams)}),
        "kept": kept,
        "rows": len(rows),
        "first_loss": losses[0],
        "final_loss": losses[-1],
    }


def read_dreams(dreamer: Dreamer, written: Outputs) -> list[Dream]:
    lines = read_lines(dreamer.home / written["dreams_file"])
    return [Dream(**{**line, "prompt": tuple(line["prompt"]), "ids": tuple(line["ids"])}) for line in lines]


def rewarded_dreams(dreamer: Dreamer, kept: Sequence[Outputs]) -> list[Dream]:
    """The dreams of some rounds that were rewarded."""
    found: list[Dream] = []
    for told in kept:
        names = {line["dream"] for line in read_lines(dreamer.home / told["tried_file"]) if line["rewarded"]}
        found += [one for one in read_dreams(dreamer, told) if one.id in names]
    return found


def learned(dreamer: Dreamer, task: Task, one: Dream, instance: bool = False) -> list[Row]:
    """The rows that are learned of a dream; of an instance, with those of its context where the recipe says so."""
    rows = dreamer.lesson(task, one.text, one.id)
    own = dreamer.context(task) if instance and dreamer.spec.with_context else []
    return [*rows, *own] if dreamer.spec.lessons == "headed" else [*own, *rows]


def _values(
    dreamer: Dreamer,
    tasks: dict[str, Task],
    dreams: Sequence[tuple[Dream, list[Row]]],
    by_context: dict[str, list[int]],
) -> list[float]:
    """The score of every dream's gradient."""
    spec = dreamer.spec.selection
    if spec.score == "none" or not dreams:
        return [0.0] * len(dreams)
    names = list(by_context)
    own = {name: dreamer.context(tasks[name]) for name in names}
    asked = {name: [row for probe in tasks[name].validation for row in dreamer.exchange(probe)] for name in names}
    texts = [rows for _, rows in dreams] + [own[name] for name in names] + [asked[name] or own[name] for name in names]
    found = torch.tensor(dreamer.hands.weigh(model_of(dreamer), texts, dreamer.spec.instance, dreamer.job.seed))
    values = [0.0] * len(dreams)
    for i, name in enumerate(names):
        context, validation = found[len(dreams) + i], found[len(dreams) + len(names) + i]
        for place, value in zip(
            by_context[name], SCORES[spec.score](found[by_context[name]], context, validation).tolist(), strict=True
        ):
            values[place] = value
    return values


def examined(dreamer: Dreamer, of: Sequence[Task], adapters: Path, numbers: Sequence[int] | None = None) -> list[float]:
    """The mean score of each instance on the probes of its task; numbers: which instances, 0, 1, ... unless they are given."""
    dreamer.rollouts.deliver(dreamer.memory.delivery(dreamer.job, label(dreamer)))
    asked = [(task, probe) for task in of for probe in task.probes]
    named = range(len(of)) if numbers is None else numbers
    lent = [str(adapters / str(i)) for i, task in zip(named, of, strict=True) for _ in task.probes]
    values, found = iter(scores(dreamer, asked, lent) if asked else ()), []
    for task in of:
        found.append(_mean([next(values) for _ in task.probes]) or 0.0)
    return found


def _rewarded(dreamer: Dreamer, lines: Sequence[Outputs]) -> set[str]:
    spec = dreamer.spec.reward
    whole = [line for line in lines if line["score"] is not None and line["undreamt"] is not None]
    better = whole if spec.kind == "highest" else [line for line in whole if line["score"] > line["undreamt"] + spec.margin]
    if spec.kind == "improved":
        return {line["dream"] for line in better}
    best: dict[str, Outputs] = {}
    for line in better:
        if line["context"] not in best or line["score"] > best[line["context"]]["score"]:
            best[line["context"]] = line
    return {line["dream"] for line in best.values()}


def _with_novelty(
    dreamer: Dreamer, prompts: Sequence[tuple[int, ...]], name: str, seed: int
) -> tuple[tuple[bool, ...], Outputs | None]:
    """The view that dreams, and what is told of the random expert in it, if there is one."""
    memory, job, strength = dreamer.memory, dreamer.job, dreamer.spec.novelty.strength
    if not strength or not prompts:
        dreamer.rollouts.deliver(memory.delivery(job, label(dreamer)))
        return dreamer.view, None
    state, where, view = with_novelty(memory.state, dreamer.view)
    file = _folder(dreamer, name) / "novel.safetensors"
    dreamer.hands.novel(
        NovelRequest(
            model=model_of(dreamer),
            reads=tuple(random.Random(seed).sample(met := sorted(set(prompts)), min(READS, len(met)))),
            place=(where.level, where.expert),
            strength=strength,
            seed=seed,
            file=str(file),
        )
    )
    dtype = served_dtype(Path(job.parent))
    tensors = memory.tensors(job) | {part: tensor.to(dtype) for part, tensor in load_file(file).items()}
    dreamer.rollouts.deliver(pack_tensors(tensors, state, f"{label(dreamer)}+novel"))
    return view, {"place": [where.level, where.expert], "strength": strength, "seed": seed}


def model_of(dreamer: Dreamer) -> DreamingModel:
    memory, home = dreamer.memory, dreamer.home
    return DreamingModel(
        version=str(Path(dreamer.job.parent).resolve()),
        overlays=tuple(str((home / file).resolve()) for file in memory.overlays),
        experts=tuple(map(tuple, memory.state.names())),
        view=dreamer.view,
        on_gpu=bool(dreamer.job.recipe.learner.gpus_per_worker),
    )


def _folder(dreamer: Dreamer, name: str) -> Path:
    folder = dreamer.home / "dreaming" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def label(dreamer: Dreamer) -> str:
    return f"{Path(dreamer.job.parent).name}+dreamer"


def _each(started: float, count: int) -> float | None:
    """Seconds of one, of so many that were done since then."""
    return _share(time.perf_counter() - started, count)


def _share(seconds: float, count: int) -> float | None:
    return round(seconds / count, 6) if count else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

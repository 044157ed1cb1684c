"""What trying a dream out costs: `python -m benchmarks.dreaming.cost` writes benchmarks/results/dreaming_cost.json.

    peft      each dream alone: peft's LoRA on the same base, torch's AdamW and scheduler, the same rows in the same order, padded batches
    packed    many dreams' instances on one frozen base, a step of all of them in one pass (circadian/dreaming/instances.py)
    spread    the same in as many processes as there are cores, packs dealt out among them, as a night's Ray tasks are

All learn the same dreams with the same adapter, from the same A; the last loss of every instance is compared. The contenders of one
process have one thread or all, and what is said of them is against peft where it is fastest. The dreams are what a right dream of a
school passage says. An adapter that peft has already put around the base is used again for the next dream, its weights set anew:
building it is not counted, nor are the starts of processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import peft
import psutil
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from transformers import AutoTokenizer, Qwen3ForCausalLM

from benchmarks.dreaming.rounds import INSTANCE
from benchmarks.page import DOCS, put
from circadian.dreaming.instances import Adapter, Pack, _plan, fine_tune
from circadian.experience import Reader, Row
from circadian.nursery.school import School
from circadian.nursery.ship import SCHOOL
from circadian.objectives.rows import pad
from circadian.specs import Experience, Message
from circadian.specs.dreaming import AdapterSpec

RESULT = Path(__file__).parents[1] / "results" / "dreaming_cost.json"
PAGE = DOCS / "dreaming.md"
SPEC = AdapterSpec(**INSTANCE, lr=2e-3)
Losses = list[float]
"""The last loss of every instance, nats a token."""


def dreams(count: int, tokenizer: Any) -> list[list[Row]]:
    """What right dreams of so many passages say, as rows: the passage, what it says and what follows, each in two ways."""
    reader, found = Reader(tokenizer), []
    for lesson, _ in zip(School(0).lessons(0), range(count), strict=False):
        texts = [lesson.passage(), *(fact.statement(form) for fact in sorted(lesson.truths(), key=str) for form in (0, 1))]
        said = [Experience(id="x", messages=(Message(role="user", content=text),), source="tool") for text in texts]
        found.append([row for one in said for row in reader.rows(one)])
    return found


def packed(model: Qwen3ForCausalLM, texts: Sequence[Sequence[Row]], seed: int) -> Losses:
    """In one pack."""
    return [adapter.losses[-1] for adapter in fine_tune(model, texts, SPEC, seed)]


def in_packs(model: Qwen3ForCausalLM, texts: Sequence[Sequence[Row]], seed: int, at_once: int) -> Losses:
    """One pack of so many after the other."""
    return [loss for i in range(0, len(texts), at_once) for loss in packed(model, texts[i : i + at_once], seed)]


class Spread:
    """Processes of one thread each, with a base of their own."""

    model: Qwen3ForCausalLM

    def __init__(self, processes: int) -> None:
        self.pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=Spread.begin)

    @classmethod
    def begin(cls) -> None:
        """In each process, once."""
        torch.set_num_threads(1)
        cls.model = base()

    @classmethod
    def one(cls, texts: Sequence[Sequence[Row]], seed: int) -> Losses:
        """In one of the processes: a pack."""
        return packed(cls.model, texts, seed)

    def tune(self, texts: Sequence[Sequence[Row]], seed: int, at_once: int) -> Losses:
        starts = range(0, len(texts), at_once)
        parts = [self.pool.submit(Spread.one, texts[i : i + at_once], seed) for i in starts]
        return [loss for part in parts for loss in part.result()]


def base() -> Qwen3ForCausalLM:
    """What dreams are tried on."""
    return Qwen3ForCausalLM.from_pretrained(SCHOOL, dtype=torch.float32).eval()


class OneByOne:
    """peft around a base of its own."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        config = peft.LoraConfig(r=SPEC.rank, lora_alpha=int(SPEC.alpha), lora_dropout=0.0, target_modules=list(SPEC.targets))
        self.model = peft.get_peft_model(model, config)
        self.held = {name: weight for name, weight in self.model.named_parameters() if "lora_" in name}

    def tune(self, texts: Sequence[Sequence[Row]], seed: int, start: Adapter) -> Losses:
        return [self._one(_plan(rows, SPEC, seed), start) for rows in texts]

    def _one(self, steps: Sequence[Sequence[Row]], start: Adapter) -> float:
        with torch.no_grad():
            for name, (A, B) in start.tensors.items():
                self.held[f"base_model.model.{name}.lora_A.default.weight"].copy_(A)
                self.held[f"base_model.model.{name}.lora_B.default.weight"].copy_(B)
        adam = torch.optim.AdamW(self.held.values(), lr=SPEC.lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: (len(steps) - step) / len(steps))
        loss = torch.tensor(0.0)
        for rows in steps:
            ids, weight = pad([row.ids for row in rows]), pad([row.weight for row in rows])[:, 1:]
            logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
            losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none") * weight.flatten()
            loss = losses.sum() / weight.sum()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.held.values(), SPEC.max_grad_norm)
            adam.step()
            schedule.step()
        return float(loss.detach())


def main(asked: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dreaming.cost", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dreams", type=int, default=24)
    parser.add_argument("--packs", type=int, nargs="+", default=[6, 12, 24], help="instances of a pack")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(asked)
    cores = os.cpu_count() or 1
    texts = dreams(options.dreams, AutoTokenizer.from_pretrained(SCHOOL))
    model, rival, spread = base(), OneByOne(base()), Spread(cores)
    start = Pack(model, 1, SPEC, 0).adapter(0)
    contenders: dict[str, tuple[int, Callable[[], Losses]]] = {}
    for threads in dict.fromkeys((1, cores)):
        contenders[f"peft, {threads} thread(s)"] = threads, partial(rival.tune, texts, 0, start)
        for size in options.packs:
            contenders[f"packed {size}, {threads} thread(s)"] = threads, partial(in_packs, model, texts, 0, size)
    for size in options.packs:
        contenders[f"spread {size}, {cores} process(es)"] = 1, partial(spread.tune, texts, 0, size)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    ended: dict[str, Losses] = {}
    for _ in track(range(options.times), description="in turn"):
        for name, (threads, run) in contenders.items():
            torch.set_num_threads(threads)
            begun = time.perf_counter()
            ended[name] = run()
            seconds[name].append(round(time.perf_counter() - begun, 3))
    spread.pool.shutdown()
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((name for name in middle if name.startswith("peft")), key=lambda name: middle[name])
    result = {
        "command": f"python -m benchmarks.dreaming.cost {' '.join(asked)}".strip(),
        "machine": {
            "cores": os.cpu_count(),
            "cpu": platform.machine(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "load_average": [round(value, 1) for value in os.getloadavg()],
        },
        "versions": {"torch": torch.__version__, "peft": peft.__version__},
        "dreams": len(texts),
        "rows": sum(map(len, texts)),
        "adapter": SPEC.model_dump(mode="json"),
        "seconds": seconds,
        "instances_per_second": {name: round(len(texts) / value, 3) for name, value in middle.items()},
        "times_peft": {name: round(middle[best] / value, 2) for name, value in middle.items()},
        "farthest_last_loss": {name: round(max(map(_apart, values, ended[best])), 6) for name, values in ended.items()},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    put(PAGE, "benchmarks.dreaming.cost", tables(result))
    Console().print_json(data={name: result[name] for name in ("instances_per_second", "times_peft", "farthest_last_loss")})


def tables(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = ["| | instances a second | times peft at its best |", "|---|---|---|"]
    lines += [
        f"| {name} | {value:.2f} | {result['times_peft'][name]:.2f} |" for name, value in result["instances_per_second"].items()
    ]
    return "\n".join(lines)


def _apart(one: float, other: float) -> float:
    return abs(one - other)


if __name__ == "__main__":
    main(sys.argv[1:])

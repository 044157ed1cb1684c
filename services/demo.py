"""One day and one night of the nursery model, against the REST interface of a service that is started for it.

    day      users tell the model facts that it does not know
    dusk     a sleep begins; within the night the deployment serves with its fast memory ("awake")
    dawn     the new version serves ("after"): the day is known, the fast memory is empty again, nothing was restarted

Writes report.json, report.md and night.svg.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import Day, World
from services.client import Circadian
from services.display import NightDisplay
from services.measure import CONCURRENCY, Examiner, Measured
from services.picture import draw_night
from services.settings import Settings
from services.stack import RAY_TOKEN_FILE, Stack, StackSpec

MODEL = "nursery"
TOLD = 4
"""Statements that are told in a chat with `store: true` instead of being posted as experiences."""
DATABASE_FILE = "circadian.db"
PICTURE = "night.svg"
MOMENTS = ("before", "awake", "after")
LABELS = {"recall": "facts of the day", "base": "facts from before", "nll": "held-out text, nats/token"}


PROMISED_RECALL = 0.85
PROMISED_BASE_LOSS = 0.02
"""What the demo promises of any seed; it fails, after writing its report, where this is not kept."""


class DemoFailed(Exception):
    """The night did not make a version, or one that keeps less than is promised."""


@dataclass(frozen=True)
class DemoSpec:
    seed: int = 0
    facts: int = 32
    out: Path = Path("runs/demo")
    num_cpus: int = 4
    recipe: dict[str, Any] | None = None
    """Of the night; None means the deployment's own."""


def run(spec: DemoSpec, console: Console) -> dict[str, Any]:
    """The whole of it. Returns the report."""
    world = World(0)
    day = next(world.days(spec.facts, spec.seed))
    home = _fresh_home(spec.out)
    _say(console, "starting Ray and the service")
    with Stack(Settings(home=home, port=0), StackSpec(num_cpus=spec.num_cpus)) as stack:
        assert stack.api_key is not None
        _say(console, f"REST {stack.url}/v1   Ray dashboard {stack.dashboard}   (token: {home / RAY_TOKEN_FILE})")
        with Circadian(stack.url, stack.api_key) as client:
            report = _day_and_night(spec, world, day, client, stack, console)
    _write(report, spec.out, console)
    if report["recall"]["after"] < PROMISED_RECALL or report["base"]["after"] < report["base"]["before"] - PROMISED_BASE_LOSS:
        raise DemoFailed(f"the night kept less than recall {PROMISED_RECALL} and base accuracy within {PROMISED_BASE_LOSS}")
    return report


def _day_and_night(spec: DemoSpec, world: World, day: Day, client: Circadian, stack: Stack, console: Console) -> dict[str, Any]:
    client.deployments.create(MODEL, {"model": str(WEIGHTS)})
    client.awake(MODEL, stack.settings.replica_start_seconds)
    examiner, probe = Examiner(client, MODEL, world, day), day.probes()[0]
    _say(console, "measuring the model as it is")
    before = examiner.measure()
    answers = {"question": probe.question, "answer": probe.answer, "before": _ask_openai(stack, probe.question)}
    _say(console, f"asked by the openai client: {probe.question!r} -> {answers['before']!r} (it should be {probe.answer!r})")
    _say(console, f"a day passes: {live(day, client)} experiences")
    night = _sleep(spec, day, client, examiner, console)
    _say(console, "measuring the version that woke")
    after = examiner.measure()
    answers["after"] = _ask_openai(stack, probe.question)
    _say(console, f"asked by the openai client: {probe.question!r} -> {answers['after']!r}")
    measured = {"before": before, "awake": night.awake, "after": after}
    report = {
        "seed": spec.seed,
        "facts": spec.facts,
        **{name: {moment: getattr(m, name) for moment, m in measured.items()} for name in LABELS},
        "versions": {moment: list(m.versions) for moment, m in measured.items()},
        "stages": night.stages,
        "delivery": _delivery(night.receipts),
        "version": night.version,
        "asked": answers,
    }
    draw_night(report, night.events, spec.out / PICTURE)
    return report


def live(day: Day, client: Circadian, model: str = MODEL) -> int:
    """Users tell the day's facts, ask about them and correct the answers. Returns how many experiences there are then."""
    told, posted = day.statements()[:TOLD], day.statements()[TOLD:]
    for statement in told:
        body = {"model": model, "messages": [{"role": "user", "content": statement}], "max_tokens": 1, "temperature": 0.0}
        client.request("POST", "/v1/chat/completions", {**body, "store": True, "metadata": {"demo": "told"}})
    chats = [[{"role": "user", "content": statement}] for statement in posted]
    chats += [[{"role": "user", "content": p.question}, {"role": "assistant", "content": p.answer}] for p in day.exchanges()]
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(lambda chat: client.experiences.create(model, messages=chat, source="human"), chats))
    return client.deployments.status(model).pending.experiences


@dataclass(frozen=True)
class _Night:
    version: str
    events: list[dict[str, Any]]
    stages: dict[str, float]
    receipts: list[dict[str, Any]]
    awake: Measured


def _sleep(spec: DemoSpec, day: Day, client: Circadian, examiner: Examiner, console: Console) -> _Night:
    """One night, watched; the deployment is measured meanwhile, as soon as it serves with its fast memory."""
    held_out = [probe.question for probe in day.probes()]
    sleep = client.sleeps.create(MODEL, seed=spec.seed, held_out=held_out, recipe=spec.recipe)
    awake: Future[Measured] | None = None
    receipts: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1) as aside, NightDisplay(console) as display:
        for event in client.sleeps.watch(sleep.id):
            display.show(event)
            events.append(event.sent())
            if event.type == "deployment.fast_memory_live":
                awake = aside.submit(examiner.measure)
            elif event.type == "version.promoted":
                receipts = event.data["receipts"]
    ended = client.sleeps.get(sleep.id)
    if ended.outcome != "promoted" or ended.result_version is None:
        raise DemoFailed(f"the night ended {ended.status} ({ended.outcome}): {ended.error}")
    if awake is None or len(awake.result().versions) != 1:
        raise DemoFailed("the night was over before the deployment could be measured with its fast memory; try again")
    return _Night(ended.result_version, events, display.seconds, receipts, awake.result())


def _ask_openai(stack: Stack, question: str) -> str:
    """By the official client, as any application would."""
    with OpenAI(base_url=f"{stack.url}/v1", api_key=stack.api_key) as openai:
        messages: Any = [{"role": "user", "content": question}]
        answer = openai.chat.completions.create(model=MODEL, messages=messages, max_tokens=1, temperature=0.0)
    return (answer.choices[0].message.content or "").strip()


def _delivery(receipts: list[dict[str, Any]]) -> dict[str, Any]:
    """What travelled at dawn, beside what a full-weight update would have moved."""
    model_bytes = sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors"))
    milliseconds = round(max(receipt["milliseconds"] for receipt in receipts), 2)
    return {"expert_bytes": receipts[0]["bytes"], "model_bytes": model_bytes, "milliseconds": milliseconds}


def _fresh_home(out: Path) -> Path:
    """An empty home below `out`; one that an earlier demo left is removed, anything else is left alone."""
    home = (out / "home").resolve()
    if home.exists():
        if not (home / DATABASE_FILE).exists() and any(home.iterdir()):
            raise DemoFailed(f"{home} is not the home of an earlier demo; choose another --out")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    return home


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _write(report: dict[str, Any], out: Path, console: Console) -> None:
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    rows = [(label, *[_number(report[name][moment]) for moment in MOMENTS]) for name, label in LABELS.items()]
    lines = ["# One day and one night", "", f"| | {' | '.join(MOMENTS)} |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    delivery, stages = report["delivery"], report["stages"]
    summary = f"{delivery['expert_bytes']} bytes travelled at dawn (the model has {delivery['model_bytes']}) in "
    summary += f"{delivery['milliseconds']} ms; the night took {sum(stages.values()):.0f} s."
    lines += ["", summary, "", "| stage | seconds |", "|---|---|", *[f"| {stage} | {s:.1f} |" for stage, s in stages.items()]]
    lines += ["", f"![the night]({PICTURE})"]
    (out / "report.md").write_text("\n".join(lines) + "\n")
    table = Table("", *MOMENTS)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    _say(console, f"{summary}\n{out / 'report.json'}, {out / 'report.md'}, {out / PICTURE}")


def _number(value: float) -> str:
    return f"{value:.3f}"

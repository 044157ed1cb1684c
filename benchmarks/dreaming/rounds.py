"""Does dreaming get better from round to round? One method and one seed, in this process.

The dreamer learns on the contexts of one set, as a night does (pipelines/dreaming.py: its own stages). After every round it dreams of other
contexts, which it was never rewarded for: one dream of each is learned by an instance, together with the context, and the instance is
asked what follows from the passage, the passage not in view, in question forms that no dream, no probe and no row holds.

    base          the model, asked without having read anything
    passage       an instance that learns the passage alone
    told          an instance that is told what follows besides, in every form of a statement: what a dream could be worth at most
    seal          SEAL's loop: dreams are tried as they come, no random expert
    seal_reward   the same with SEAL's own reward: of each context the best dream, improved or not, against nothing
    sleep         m dreams of each context, weighed by their gradients, the best tried, a random expert besides
    no_selection  sleep, dreams tried as they come
    no_novelty    sleep without the random expert
    norm, alignment   sleep with another score

Who does not weigh dreams tries six instances of each context instead of four: that takes at least the token passes that writing and
weighing three times as many dreams does (`equal_compute` of the result has both). What the test takes is `test_passes`, and no part of it.
Where a method selects, the dream of a test context is the best of its m by the score, else its only one (`accuracy`); `accuracy_one` is
that of a single dream for every method, which says what the dreamer has learned and nothing of selection.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.local_engine import LocalEngine, LocalPool
from benchmarks.local_hands import LocalHands
from benchmarks.nights.meter import Meter, metered
from circadian.dreaming.lessons import lessons
from circadian.experience import Reader
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import found_version
from circadian.nursery.school import Lesson, School, conclusion
from circadian.nursery.ship import SCHOOL
from circadian.nursery.world import QUESTION_FORMS, STATEMENT_FORMS, Fact
from circadian.specs import Experience, MemorySpec, Message, NightJob, Recipe
from pipelines import dreaming as stages
from pipelines.consolidation import Memory
from pipelines.dream_tasks import Dreamer, read_tasks, tasks
from pipelines.stages import Outputs, read_lines
from pipelines.wake import collect

PACK_TOKENS = 16_384
TRIED = 4
"""Instances of each context and round."""
AS_THEY_COME: dict[str, Any] = {"dreams": TRIED + 2, "selection": {"score": "none", "top": TRIED + 2, "chance": 0}}
"""Two instances more, for the passes that weighing many dreams takes."""
QUIET: dict[str, Any] = {"novelty": {"strength": 0.0}}


def weighed(score: str) -> dict[str, Any]:
    return {"dreams": 3 * TRIED, "selection": {"score": score, "top": TRIED - 1, "chance": 1}}


METHODS: dict[str, dict[str, Any]] = {
    "seal": AS_THEY_COME | QUIET,
    "seal_reward": AS_THEY_COME | QUIET | {"reward": {"kind": "highest", "against": "nothing"}},
    "sleep": weighed("validation"),
    "no_selection": AS_THEY_COME,
    "no_novelty": weighed("validation") | QUIET,
    "norm": weighed("norm"),
    "alignment": weighed("alignment"),
}
COMMON: dict[str, Any] = {
    "tokens": 48,
    "answer_tokens": 4,
    "self_tasks": {"questions": 24, "answers": 3, "question_tokens": 24},
    "dreamer": {"rank": 32, "alpha": 64.0, "lr": 1e-3, "epochs": 6, "batch": 8},
    "curriculum": {"width": 10.0},
}
"""The same for all, SEAL's loop too: it draws contexts evenly (a curriculum so wide that every context has the same chance)."""
INSTANCE: dict[str, Any] = {"rank": 32, "alpha": 64.0, "epochs": 20, "batch": 4}


def common(lr: float) -> dict[str, Any]:
    """lr: of the instances."""
    return COMMON | {"instance": INSTANCE | {"lr": lr}}


@dataclass(frozen=True)
class Request:
    """What is to be lived."""

    method: str
    seed: int
    rounds: int
    contexts: int
    """Of a round; there are as many for each round as if none came twice."""
    lr: float
    """Of the instances."""
    folder: str


class Ground:
    """The school, and contexts of which nothing was dreamt yet."""

    def __init__(self, request: Request) -> None:
        self.root = Path(request.folder)
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self.school = School(0)
        self.open_forms, self.held_out = self.school.forms(request.seed)
        every = self.school.lessons(request.seed)
        self.tested = [lesson for _, lesson in zip(range(request.contexts), every, strict=False)]
        self.read = [lesson for _, lesson in zip(range(request.contexts * max(1, request.rounds)), every, strict=False)]
        found_version(str(SCHOOL), None, MemorySpec(), self.root / "v0")
        self.engine = LocalEngine(self.root / "v0")
        metered(self.engine.model)

    def night(self, request: Request) -> tuple[Dreamer, Outputs]:
        """A night over the lessons that are read, which only dreams; and what it collected."""
        said = [
            Experience(id=lesson.entity, messages=(Message(role="user", content=lesson.passage()),), source="human")
            for lesson in self.read
        ]
        return self._dreamer(request, said, "night", {})

    def tests(self, request: Request, alone: bool = False) -> tuple[Dreamer, Outputs]:
        """The same over the test contexts, with what is asked of them as tasks; of each context one dream is tried, the only one where it
        stands alone."""
        score = "none" if alone else METHODS.get(request.method, AS_THEY_COME)["selection"]["score"]
        given = [
            {
                "context": lesson.passage(),
                "probes": [{"question": probe.question, "answers": [probe.answer]} for probe in lesson.probes(self.held_out)],
            }
            for lesson in self.tested
        ]
        one = {"tasks": given, "selection": {"score": score, "top": 1, "chance": 0}, "dreams": 1 if score == "none" else 3 * TRIED}
        return self._dreamer(request, [], "alone" if alone else "tests", one)

    def _dreamer(self, request: Request, said: Sequence[Experience], name: str, spec: dict[str, Any]) -> tuple[Dreamer, Outputs]:
        home = self.root / name
        home.mkdir()
        (home / "experiences.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in said))
        secret = [
            probe.question
            for lesson in (*self.tested, *self.read)
            for probe in (*lesson.probes(self.held_out), *lesson.direct(self.held_out))
        ]
        sizes = {"rounds": request.rounds, "contexts": request.contexts}
        dreaming = common(request.lr) | METHODS.get(request.method, {}) | sizes | spec
        job = NightJob(
            sleep="slp_dreams",
            deployment="school",
            seed=request.seed,
            parent=str(self.root / "v0"),
            child=str(home / "v1"),
            home=str(home),
            experiences=str(home / "experiences.jsonl"),
            held_out=tuple(secret),
            recipe=Recipe.model_validate({"consolidation": False, "dreaming": dreaming}),
        )
        day = collect(job)
        reader = Reader(load_tokenizer(self.root / "v0"), job.held_out)
        return Dreamer(job, Memory.undisturbed(job), LocalPool(self.engine), LocalHands(PACK_TOKENS), reader), day


def live(request: Request, meter: Meter) -> dict[str, Any]:
    """The record of one method and seed: `accuracy` by round and test context, before any round first."""
    ground = Ground(request)
    tester, day = ground.tests(request)
    told = tasks(tester, day, stages.label(tester))
    known = read_tasks(tester, told)
    record: dict[str, Any] = {
        "request": vars(request),
        "accuracy": [],
        "accuracy_one": [],
        "dreams_right": [],
        "rounds": [],
        "seconds_each": [],
        "passes": [],
        "test_passes": [],
    }
    if request.method == "base":
        return record | {"accuracy": [[score for _, score, _ in known]]}
    if request.method in ("passage", "told"):
        of, folder = [task for task, _, _ in known], ground.root / "passages"
        texts = [tester.context(task) for task in of]
        if request.method == "told":
            for rows, task, lesson in zip(texts, of, ground.tested, strict=True):
                rows += tester.lesson(task, " ".join(what_follows(lesson)), "told")
        tester.hands.tune(stages.model_of(tester), texts, tester.spec.instance, request.seed, folder)
        return record | {"accuracy": [stages.examined(tester, of, folder)]}
    selects = tester.spec.selection.score != "none"
    alone = ground.tests(request, alone=True)[0] if selects else tester
    told_alone = tasks(alone, day, stages.label(alone)) if selects else told
    dreamer, met = ground.night(request)
    with meter.running():
        own = tasks(dreamer, met, stages.label(dreamer))
    awake: Outputs = {}
    taken = meter.passes
    record["tasks"] = {name: own[name] for name in ("tasks", "probes", "without_probes", "score")}
    for number in range(request.rounds + 1):
        spent = meter.passes
        with meter.running():
            accuracy, right = _examined(ground, tester, told, awake)
        record["test_passes"].append(meter.passes - spent)
        learning = meter.passes
        record["accuracy"].append(accuracy)
        record["accuracy_one"].append(_examined(ground, alone, told_alone, awake)[0] if selects else accuracy)
        record["dreams_right"].append(right)
        if number == request.rounds:
            break
        with meter.running():
            written = stages.write(dreamer, own, awake, str(number))
            chosen = stages.weigh(dreamer, own, written, str(number))
            tried = stages.try_out(dreamer, own, written, chosen, str(number))
            awake = stages.reinforce(dreamer, awake, tried, number)
        record["rounds"].append({name: tried[name] for name in ("tried", "rewarded", "score", "undreamt")})
        record["seconds_each"].append({**written["seconds_each"], **chosen["seconds_each"], **tried["seconds_each"]})
        taken += meter.passes - learning
        record["passes"].append(taken)
    return record


def _examined(ground: Ground, tester: Dreamer, told: Outputs, awake: Outputs) -> tuple[list[float], dict[str, float]]:
    """Accuracy by test context with one dream of each; and of all that was dreamt of them, how much is right and how much of use."""
    if "dreamer_file" in awake:
        folder = tester.home / Path(awake["dreamer_file"]).parent
        shutil.copytree(ground.root / "night" / Path(awake["dreamer_file"]).parent, folder, dirs_exist_ok=True)
    written = stages.write(tester, told, awake, stages.FINAL)
    chosen = stages.weigh(tester, told, written, stages.FINAL)
    tried = stages.try_out(tester, told, written, chosen, stages.FINAL)
    found = {line["context"]: line["score"] for line in read_lines(tester.home / tried["tried_file"])}
    silent = [task for task, _, _ in read_tasks(tester, told) if task.name not in found]
    if silent:  # nothing that can be learned was dreamt of these: what is left is the passage
        folder = ground.root / "silent"
        shutil.rmtree(folder, ignore_errors=True)
        texts = [tester.context(task) for task in silent]
        tester.hands.tune(stages.model_of(tester), texts, tester.spec.instance, tester.job.seed, folder)
        found |= dict(zip((task.name for task in silent), stages.examined(tester, silent, folder), strict=True))
    of = {task.name: lesson for (task, _, _), lesson in zip(read_tasks(tester, told), ground.tested, strict=True)}
    said = [claims(one.text, of[one.context]) for one in stages.read_dreams(tester, written)]
    all_, right, useful = (sum(counts[i] for counts in said) for i in range(3))
    return [found[name] for name in of], {"right": right / max(1, all_), "useful": useful / max(1, all_)}


def what_follows(lesson: Lesson) -> list[str]:
    return [conclusion(fact).statement(form) for fact in lesson.facts for form in range(len(STATEMENT_FORMS))]


def claims(dream: str, lesson: Lesson) -> tuple[int, int, int]:
    """Of what is learned of a dream: how many pieces there are, how many are true of the lesson, and how many tell what follows."""
    known = {saying: fact for fact in lesson.truths() for saying in _sayings(fact)}
    pieces = [tuple(message.content for message in piece.messages) for piece in lessons(dream, "sentences", "", chat=True)]
    facts = [known.get(piece) for piece in pieces]
    follows = {conclusion(fact) for fact in lesson.facts}
    return len(pieces), sum(fact is not None for fact in facts), sum(fact in follows for fact in facts)


def _sayings(fact: Fact) -> list[tuple[str, ...]]:
    """What a fact is said as, and asked and answered as."""
    told: list[tuple[str, ...]] = [(fact.statement(form),) for form in range(len(STATEMENT_FORMS))]
    return (
        told
        + [(fact.question(form).rstrip(" ."), fact.value) for form in range(len(QUESTION_FORMS))]
        + [(fact.question(form), fact.value) for form in range(len(QUESTION_FORMS))]
    )

"""What tonight's dreams are about: the tasks of the recipe, or those that the model makes of the day's experiences
(circadian/dreaming/tasks.py).

    tasks      contexts with probes                                         tasks.jsonl
    standing   of each, before anything was dreamt: what is known of it without the context, and how far its text is expected

Everything is asked of the deployment as it is after consolidation: the rested self and what was sealed tonight.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actors.dreamwork import Hands
from circadian.dreaming.lessons import headed, lessons
from circadian.dreaming.prompts import PROMPTS, defused, fill, plain_ids, prompt_ids
from circadian.dreaming.scorers import score
from circadian.dreaming.tasks import Task, probes_of, split
from circadian.experience import Reader, Row, experience_ids
from circadian.memory.state import Mask
from circadian.specs import Experience, Message, NightJob
from circadian.specs.dreaming import DreamingSpec, ProbeSpec, WordsKind
from pipelines.consolidation import Memory
from pipelines.rollouts import Sampler, Tokens
from pipelines.stages import Outputs, read_lines, write_lines
from pipelines.wake import Bounds

TASKS_FILE = "tasks.jsonl"
VERDICT_TOKENS = 4


@dataclass(frozen=True)
class Dreamer:
    """Who dreams tonight, and what it is asked through."""

    job: NightJob
    memory: Memory
    rollouts: Sampler
    hands: Hands
    reader: Reader

    @property
    def spec(self) -> DreamingSpec:
        assert self.job.recipe.dreaming is not None, "a night without dreaming has no dreamer"
        return self.job.recipe.dreaming

    @property
    def view(self) -> Mask:
        return self.memory.state.view("rested")

    @property
    def home(self) -> Path:
        return Path(self.job.home)

    def prompt(self, template: str, **values: str) -> Tokens:
        return (plain_ids if self.spec.plain else prompt_ids)(self.reader.tokenizer, template, **values)

    def words(self, kind: WordsKind) -> str:
        """The template of a kind: the recipe's, or its own."""
        return self.spec.words.get(kind, PROMPTS[kind])

    def asked(self, kind: WordsKind, **values: str) -> Tokens:
        return self.prompt(self.words(kind), **values)

    def text(self, ids: Sequence[int]) -> str:
        return self.reader.tokenizer.decode(list(ids), skip_special_tokens=True).strip()  # type: ignore[union-attr]

    def answers(self, asked: Sequence[Tokens], seed: int, temperature: float = 0.0, adapters: Sequence[str] = ()) -> list[str]:
        tokens = self.spec.answer_tokens
        return [self.text(ids) for ids in self.rollouts.sample(self.view, asked, tokens, temperature, seed, adapters)]

    def rows(self, experiences: Sequence[Experience]) -> list[Row]:
        """What is learned of them; what is held out of the night, or too long, is not."""
        return self._open([row for experience in experiences for row in self.reader.rows(self._safe(experience))])

    def _open(self, rows: Sequence[Row]) -> list[Row]:
        kept = [row.cut(self.job.recipe.max_row_tokens) for row in rows if any(row.weight)]
        return [row for row, secret in zip(kept, self.reader.are_held_out([row.ids for row in kept]), strict=True) if not secret]

    def _safe(self, experience: Experience) -> Experience:
        """With its special tokens taken apart: neither a context nor a dream opens a turn of its own in what is learned."""
        tokenizer = self.reader.tokenizer
        said = tuple(Message(role=m.role, content=defused(m.content, tokenizer)) for m in experience.messages)
        return experience.model_copy(update={"messages": said, "text": defused(experience.text, tokenizer)})

    def exchange(self, probe: ProbeSpec) -> list[Row]:
        """A question with its answer, as rows."""
        question, answer = fill(self.words("ask"), {"question": probe.question}), probe.answers[0]
        if not self.spec.plain:
            said = (Message(role="user", content=question), Message(role="assistant", content=answer))
            return self.rows([Experience(id="probe", messages=said, source="tool")])
        tokenizer, asked = self.reader.tokenizer, self.asked("ask", question=probe.question)
        told = (*tokenizer(defused(answer, tokenizer), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
        return self._open([Row((*asked, *told), (0.0,) * len(asked) + (1.0,) * len(told))])

    def lesson(self, task: Task, text: str, name: str) -> list[Row]:
        """What is learned of a text that was dreamt of a context."""
        if self.spec.lessons == "headed":
            return self.rows(headed(text, self.spec.split, name, task.context))
        return self.rows(lessons(text, self.spec.split, name, task.chat))

    def context(self, task: Task) -> list[Row]:
        """A context's own rows, cut as a dream is; where pieces are headed, it is one piece, head and all."""
        if self.spec.lessons == "headed":
            return self.rows([Experience(id=task.name, text=task.context, source="tool")])
        return self.rows(lessons(task.context, self.spec.split, task.name, task.chat, exchanges=False))


def tasks(dreamer: Dreamer, day: Outputs, label: str) -> Outputs:
    """The night's tasks, and where each stands. Tasks without a probe that nothing holds out are dropped."""
    dreamer.rollouts.deliver(dreamer.memory.delivery(dreamer.job, label))
    rng = random.Random(f"dream-tasks-{dreamer.job.seed}")
    left_out = json.loads((dreamer.home / day["left_out_file"]).read_text())
    made = _given(dreamer) if dreamer.spec.tasks else _met(dreamer, left_out, rng)
    whole = [_text_ids(dreamer, task) for task in made]
    secret = dreamer.reader.are_held_out(whole)
    open_ = [task for task, kept_back in zip(made, secret, strict=True) if not kept_back]
    fitting = [task for task in open_ if _fits(dreamer, task)]
    drawn = _probed(dreamer, fitting, rng)
    usable = [task for task in drawn if task.probes and dreamer.context(task)]
    asked = [(task, probe) for task in usable for probe in task.probes]
    known = scores(dreamer, asked)
    answered = _answered(dreamer, usable, list(zip(asked, known, strict=True)))
    longest, ids = Bounds.of(dreamer.job).cue, dict(zip((task.name for task in made), whole, strict=True))
    read = dreamer.rollouts.read(dreamer.view, [ids[task.name][:longest] for task in usable])
    lines, standing = [], []
    for task, tokens in zip(usable, read, strict=True):
        found = [value for (of, _), value in zip(asked, known, strict=True) if of is task]
        standing.append(sum(found) / len(found))
        nats = -sum(token.logprob for token in tokens) / max(1, len(tokens))
        lines.append({"task": _line(task), "score": standing[-1], "nats": nats, "known": answered[task.name]})
    write_lines(dreamer.home / TASKS_FILE, lines)
    return {
        "tasks_file": TASKS_FILE,
        "tasks": len(usable),
        "made": "given" if dreamer.spec.tasks else "of the day",
        "held_out": sum(secret),
        "too_long": len(open_) - len(fitting),
        "without_probes": sum(not task.probes for task in drawn),
        "teaching_nothing": sum(bool(task.probes) and not dreamer.context(task) for task in drawn),
        "probes": len(asked),
        "score": sum(standing) / len(standing) if standing else None,
    }


def read_tasks(dreamer: Dreamer, told: Outputs) -> list[tuple[Task, float, float]]:
    """Tasks, each with its score and its nats a token before anything was dreamt."""
    return [(_task(line["task"]), line["score"], line["nats"]) for line in read_lines(dreamer.home / told["tasks_file"])]


def _answered(
    dreamer: Dreamer, tasks: Sequence[Task], asked: Sequence[tuple[tuple[Task, ProbeSpec], float]]
) -> dict[str, list[str]]:
    """By task, its probes that are answered right, those for validation too. None where nobody uses them: they become cues of a day that
    is consolidated, and what a recipe asks stays its own."""
    found: dict[str, list[str]] = {task.name: [] for task in tasks}
    if dreamer.spec.tasks or not dreamer.job.recipe.consolidation:
        return found
    beside = [(task, probe) for task in tasks for probe in task.validation]
    for (task, probe), value in (*asked, *zip(beside, scores(dreamer, beside), strict=True)):
        if value == 1.0:
            found[task.name].append(probe.question)
    return found


def known_questions(dreamer: Dreamer, told: Outputs) -> list[str]:
    """The probes that were answered right before anything was dreamt, those for validation too, each once."""
    lines = read_lines(dreamer.home / told["tasks_file"])
    return list(dict.fromkeys(question for line in lines for question in line["known"]))


def scores(dreamer: Dreamer, asked: Sequence[tuple[Task, ProbeSpec]], adapters: Sequence[str] = ()) -> list[float]:
    """How right each probe is answered, 0 to 1, the context not in view; adapters: of each the instance that answers."""
    prompts = [dreamer.asked("ask", question=probe.question) for _, probe in asked]
    said = dreamer.answers(prompts, seed=0, adapters=adapters)
    pairs = [(task.scorer, probe, answer) for (task, probe), answer in zip(asked, said, strict=True)]
    judged = iter(_judged(dreamer, [(probe, answer) for kind, probe, answer in pairs if kind == "judge"]))
    return [next(judged) if kind == "judge" else score(kind, answer, probe.answers) for kind, probe, answer in pairs]


def _judged(dreamer: Dreamer, pairs: Sequence[tuple[ProbeSpec, str]]) -> list[float]:
    """Whether the base, which no dream has changed, finds that an answer says what one of those that are accepted does."""
    base = dreamer.memory.state.view("base")
    asked = [
        (number, dreamer.asked("judge", question=probe.question, wanted=wanted, said=said))
        for number, (probe, said) in enumerate(pairs)
        if said.strip()
        for wanted in probe.answers
    ]
    asked = [(number, ids) for number, ids in asked if _has_room(dreamer, ids, VERDICT_TOKENS)]  # what cannot be judged is wrong
    written = dreamer.rollouts.sample(base, [ids for _, ids in asked], VERDICT_TOKENS, 0.0, 0)
    found = [0.0] * len(pairs)
    for (number, _), ids in zip(asked, written, strict=True):
        if dreamer.text(ids).lower().lstrip(" *\"'").startswith("yes"):
            found[number] = 1.0
    return found


def _given(dreamer: Dreamer) -> list[Task]:
    return [
        Task(f"task-{i}", spec.context, spec.chat, spec.probes, (), spec.scorer, f"dreaming.tasks.{i}")
        for i, spec in enumerate(dreamer.spec.tasks)
    ]


def _met(dreamer: Dreamer, left_out: Collection[str], rng: random.Random) -> list[Task]:
    """A task without probes of each of the day's experiences, or of as many as the recipe allows: what others said in it."""
    lines = Path(dreamer.job.experiences).read_text().splitlines()
    read = [Experience.model_validate_json(line) for line in lines]
    of = [one for one in read if dreamer.spec.self_tasks.of == "any" or one.trusted == "trusted"]
    met = [one for one in of if one.id not in left_out]
    chosen = sorted(rng.sample(range(len(met)), min(dreamer.spec.self_tasks.most, len(met))))
    found = []
    for experience in (met[i] for i in chosen):
        own = "assistant" if experience.source == "wake" else "system"
        said = [message.content for message in experience.messages if message.role not in ("system", own)]
        if context := experience.text or "\n".join(said):
            scorer = dreamer.spec.self_tasks.scorer
            found.append(Task(experience.id, context, bool(experience.messages), (), (), scorer, experience.id, experience.trusted))
    return found


def _probed(dreamer: Dreamer, made: Sequence[Task], rng: random.Random) -> list[Task]:
    """With the probes that the model makes itself: for validation, and where none are given a part of them for the reward."""
    spec = dreamer.spec.self_tasks
    if dreamer.spec.tasks and dreamer.spec.selection.score != "validation":
        return [_allowed(dreamer, task) for task in made]
    asked = [task for task in made for _ in range(spec.questions)]
    prompts = [dreamer.asked("question", context=task.context) for task in asked]
    written = dreamer.rollouts.sample(dreamer.view, prompts, spec.question_tokens, dreamer.spec.temperature, rng.getrandbits(31))
    secret = dreamer.reader.are_held_out(written)
    questions = ["" if kept_back else _brief(dreamer, dreamer.text(ids)) for ids, kept_back in zip(written, secret, strict=True)]
    questions = [
        question if _has_room(dreamer, dreamer.asked("answer", context=task.context, question=question)) else ""
        for task, question in zip(asked, questions, strict=True)
    ]
    in_view = [
        dreamer.asked("answer", context=task.context, question=question)
        for task, question in zip(asked, questions, strict=True)
        for _ in range(spec.answers)
    ]
    given = dreamer.answers(in_view, rng.getrandbits(31), dreamer.spec.temperature)
    found = []
    for number, task in enumerate(made):
        own = range(number * spec.questions, (number + 1) * spec.questions)
        answers = [[_brief(dreamer, text) for text in given[i * spec.answers : (i + 1) * spec.answers]] for i in own]
        probes = probes_of([questions[i] for i in own], answers, spec.min_agreement)
        share = dreamer.spec.validation_share if dreamer.spec.selection.score == "validation" else 0.0
        asked_already = {" ".join(probe.question.lower().split()) for probe in task.probes}
        apart = tuple(probe for probe in probes if " ".join(probe.question.lower().split()) not in asked_already)
        reward, validation = (task.probes, apart) if task.probes else split(probes, share, rng)
        found.append(_allowed(dreamer, replace(task, probes=reward, validation=validation)))
    return found


def _fits(dreamer: Dreamer, task: Task) -> bool:
    """Whether there is room for a dream after its longest prompt, and for a question about the context with an answer."""
    spec, room = dreamer.spec, _room(dreamer)
    needed = [len(dreamer.asked(kind, context=task.context)) + spec.tokens for kind in spec.prompts]
    asked = max(spec.self_tasks.question_tokens, *(len(_ids(dreamer, probe.question)) for probe in task.probes), 0)
    needed.append(len(dreamer.asked("answer", context=task.context, question="")) + asked + spec.answer_tokens)
    return max(needed) <= room


def _has_room(dreamer: Dreamer, prompt: Tokens, tokens: int | None = None) -> bool:
    """Whether an answer of so many tokens, or as long as answers are, fits behind a prompt."""
    return len(prompt) + (dreamer.spec.answer_tokens if tokens is None else tokens) <= _room(dreamer)


def _room(dreamer: Dreamer) -> int:
    """Tokens of the longest text that the rollout workers read."""
    return Bounds.of(dreamer.job).cue + dreamer.job.recipe.seeding.completion_tokens


def _ids(dreamer: Dreamer, text: str) -> list[int]:
    return dreamer.reader.tokenizer(text, add_special_tokens=False)["input_ids"]


def _brief(dreamer: Dreamer, text: str) -> str:
    """Of who writes plain text, and on and on, the first line."""
    return text.partition("\n")[0].strip() if dreamer.spec.plain else text


def _allowed(dreamer: Dreamer, task: Task) -> Task:
    """Without probes that are held out of the night, unless the recipe gives them: nothing is learned from those."""

    def kept(probes: Sequence[ProbeSpec]) -> tuple[ProbeSpec, ...]:
        ids = [dreamer.asked("ask", question=probe.question) for probe in probes]
        secret = dreamer.reader.are_held_out(ids)
        return tuple(
            probe for probe, one, kept_back in zip(probes, ids, secret, strict=True) if not kept_back and _has_room(dreamer, one)
        )

    probes = task.probes if dreamer.spec.tasks else kept(task.probes)
    return replace(task, probes=probes, validation=kept(task.validation))


def _text_ids(dreamer: Dreamer, task: Task) -> Tokens:
    text = defused(task.context, dreamer.reader.tokenizer)
    chat = Experience(id="context", messages=(Message(role="user", content=text),))
    said = chat if task.chat else Experience(id="context", text=text)
    return experience_ids(dreamer.reader.tokenizer, said)


def _line(task: Task) -> dict[str, Any]:
    return asdict(task) | {part: [probe.model_dump() for probe in getattr(task, part)] for part in ("probes", "validation")}


def _task(line: dict[str, Any]) -> Task:
    probes = {part: tuple(ProbeSpec.model_validate(probe) for probe in line[part]) for part in ("probes", "validation")}
    return Task(**{**line, **probes})

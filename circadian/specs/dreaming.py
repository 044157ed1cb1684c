"""How a deployment dreams: what it writes, what is kept of it, how that is tried out, and what the dreamer learns from it."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from circadian.pieces import Split
from circadian.specs.base import Fraction, PositiveInt, Spec

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""A linear layer that can be adapted: all of a Qwen3 or Llama decoder layer. Not the output layer: vLLM cannot score texts then."""
TARGETS: tuple[Target, ...] = get_args(Target)
ScorerKind = Literal["exact", "contains", "f1", "choice", "code", "grid", "judge"]
PromptKind = Literal["implications", "rewrite", "self_qa", "free"]
"""Of dreams."""
WordsKind = PromptKind | Literal["question", "answer", "ask", "judge"]
"""Of everything that is asked; see circadian/dreaming/prompts.py."""
SLOTS: dict[str, tuple[str, ...]] = {"answer": ("context", "question"), "ask": ("question",), "judge": ("wanted", "said")}
"""What other words for a kind must have a place for; those of all other kinds for the context."""


class ProbeSpec(Spec):
    """A question, and what counts as right."""

    question: Annotated[str, Field(min_length=1)]
    answers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Any of them."""


class TaskSpec(Spec):
    """A context, and what knowing it is measured by: (C, tau) of the paper."""

    context: Annotated[str, Field(min_length=1)]
    probes: Annotated[tuple[ProbeSpec, ...], Field(min_length=1)]
    """Asked without the context. No prompt of a dream holds them."""
    scorer: ScorerKind = "contains"
    """See circadian/dreaming/scorers.py."""
    chat: bool = True
    """Whether the context is what a user says, or a document."""


class SelfTaskSpec(Spec):
    """How tasks are made of the day's experiences where none are given; see circadian/dreaming/tasks.py."""

    questions: PositiveInt = 8
    """Asked about each context; each that is asked twice counts once."""
    question_tokens: PositiveInt = 64
    answers: Annotated[int, Field(ge=2)] = 5
    """To each question, the context in view."""
    min_agreement: Fraction = 0.6
    """Share of the answers that must say the same."""
    most: PositiveInt = 64
    """Experiences, drawn at random, of which tasks are made."""
    of: Literal["any", "trusted"] = "any"
    """Experiences of what trust."""
    scorer: ScorerKind = "contains"


class AdapterSpec(Spec):
    """A LoRA adapter and how it is fine-tuned."""

    rank: Annotated[int, Field(ge=1, le=512)] = 32
    alpha: Annotated[float, Field(gt=0.0)] = 64.0
    """What the adapter says is multiplied by alpha / rank."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = TARGETS
    """Last names of the linear layers that are adapted."""
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    """At the first step; it falls linearly to zero."""
    epochs: PositiveInt = 10
    batch: PositiveInt = 1
    """Rows a step."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0


class NoveltySpec(Spec):
    """The extra random expert that is heard while dreams are written; see circadian/dreaming/novelty.py."""

    strength: Annotated[float, Field(ge=0.0)] = 0.1
    """Of what it adds, against the residual stream; 0: none is heard."""


class SelectionSpec(Spec):
    """Which dreams of a context are tried out; see circadian/dreaming/gradients.py and selection.py."""

    score: Literal["none", "norm", "alignment", "validation"] = "validation"
    top: Annotated[int, Field(ge=0)] = 3
    """k: of the highest score."""
    chance: Annotated[int, Field(ge=0)] = 1
    """b: others, at random."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.top + self.chance:
            raise ValueError("top and chance are both 0, so no dream would be tried out; raise one of them")
        return self


class RewardSpec(Spec):
    """When a dream is rewarded."""

    kind: Literal["improved", "best", "highest"] = "best"
    """`improved`: its instance is better than the undreamt one (the paper). `best`: of a context's improved ones only the best.
    `highest`: of a context's dreams the best, improved or not (SEAL)."""
    instances: PositiveInt = 1
    """Of each dream, each learning it in an order of its own; their mean score counts."""
    margin: Annotated[float, Field(ge=0.0)] = 0.0
    """By how much more than this it must be better, in points of the mean score, 0 to 1."""
    against: Literal["context", "nothing"] = "context"
    """The undreamt one: an instance that learned the context alone, as every instance does besides its dream, or the deployment itself."""


class CurriculumSpec(Spec):
    """Where dreams are drawn: see circadian/dreaming/curriculum.py. The three are weights of one mean."""

    weakness: Annotated[float, Field(ge=0.0)] = 1.0
    forgetting: Annotated[float, Field(ge=0.0)] = 1.0
    novelty: Annotated[float, Field(ge=0.0)] = 0.25
    width: Annotated[float, Field(ge=0.1)] = 0.5
    """How far from a round's difficulty contexts are still drawn, as a share of all contexts."""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not self.weakness + self.forgetting + self.novelty:
            raise ValueError(
                "weakness, forgetting and novelty are all 0, so no context is needed more than another; raise one of them"
            )
        return self


class DreamingSpec(Spec):
    """The second part of a night: dreams are written, tried out, rewarded and learned from, and what helps is kept."""

    tasks: tuple[TaskSpec, ...] = ()
    """What is dreamt of. None: tasks are made of the day's experiences."""
    self_tasks: SelfTaskSpec = SelfTaskSpec()
    validation_share: Fraction = 0.5
    """Of a context's probes, for the direction of the `validation` score; the reward's are the others."""
    rounds: Annotated[int, Field(ge=0)] = 2
    """In which the dreamer learns; after them the dreams are written that are kept."""
    contexts: PositiveInt = 16
    """Of a round."""
    dreams: PositiveInt = 12
    """m: of each context."""
    prompts: Annotated[tuple[PromptKind, ...], Field(min_length=1)] = ("implications", "rewrite", "self_qa")
    """In turn; see circadian/dreaming/prompts.py."""
    words: dict[WordsKind, str] = {}
    """Other words for a kind, and for what is asked besides dreams (`question`, `answer`, `ask`, `judge`), with its slots in them."""
    plain: bool = False
    """Prompts are plain text, not turns of a chat: for a base that was never taught to chat. It does not know where to end, so what it
    asks itself, and answers to that, ends with its line."""
    tokens: PositiveInt = 128
    """Of a dream."""
    answer_tokens: PositiveInt = 16
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    split: Split = "sentences"
    """Into what is learned of a dream; see circadian/pieces.py."""
    lessons: Literal["said", "headed"] = "said"
    """What a piece is learned as. `headed`: as it stands, a document below the first line of the context (SEAL)."""
    with_context: bool = True
    """An instance learns the context besides its dream, as SEAL's does."""
    novelty: NoveltySpec = NoveltySpec()
    selection: SelectionSpec = SelectionSpec()
    instance: AdapterSpec = AdapterSpec()
    """Of a dream that is tried out."""
    reward: RewardSpec = RewardSpec()
    dreamer: AdapterSpec = AdapterSpec(epochs=6, batch=8)
    """What learns to dream; it is used for that alone."""
    curriculum: CurriculumSpec = CurriculumSpec()
    pack_tokens: PositiveInt = 8192
    """Tokens that all instances of one pack learn in a step: what bounds a task's memory."""
    pack_instances: PositiveInt = 64
    """Most instances of one pack: of each a task holds the adapter, its gradient and Adam's two moments."""

    @model_validator(mode="after")
    def _words_hold_their_slots(self) -> Self:
        for kind, text in self.words.items():
            for slot in SLOTS.get(kind, ("context",)):
                if f"{{{slot}}}" not in text:
                    raise ValueError(f"words.{kind}: {text!r} has no {{{slot}}} in it; put it where the {slot} is to stand")
        return self

    @model_validator(mode="after")
    def _headed_by_lines(self) -> Self:
        if self.lessons == "headed" and self.split == "sentences":
            raise ValueError("lessons are headed, which sentences cannot be; set split to lines or whole")
        return self

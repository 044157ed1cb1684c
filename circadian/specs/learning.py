"""What the learner minimises, and over how many steps."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from circadian.specs.base import Fraction, PositiveInt, Resource, Seconds, Spec


class FastLearningSpec(Spec):
    """How the fast level learns the day's experiences at dusk (equation 2 of the paper, with the day as the chunk)."""

    steps: PositiveInt = 150
    rows: PositiveInt = 32
    """Experiences a step, over all learner processes."""
    lr: Annotated[float, Field(ge=0.0)] = 1e-2
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    checkpoint_steps: PositiveInt = 50
    """Steps between two checkpoints."""
    token_chunk: PositiveInt = 512
    """Tokens whose logits [chunk, V] exist at once."""


class OnlineLearningSpec(Spec):
    """How the fast level learns while the deployment serves: a chunk whenever level 0's period is full of new tokens."""

    steps: PositiveInt = 60
    """Of one chunk."""
    rows: PositiveInt = 32
    """Experiences a step."""
    replay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """Share of a step's rows that come from the day's earlier chunks: without it a chunk is learned over those before it."""
    lr: Annotated[float, Field(ge=0.0)] = 1e-2
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    token_chunk: PositiveInt = 512
    """Tokens whose logits [chunk, V] exist at once."""
    dusk_steps: PositiveInt = 75
    """Steps of the night over the whole day, from what was learned online; in the place of fast_learning.steps."""
    seed: int = 0
    cpus: Resource = 1.0
    """Of the fast learner, which leaves them to the night while one runs."""
    gpus: Resource = 0.0
    chunk_seconds: Seconds = 1800.0
    """Longest that one chunk may take, the model's loading included."""


class NoJudge(Spec):
    """Lexical closeness alone."""

    kind: Literal["none"] = "none"


class EmbeddingJudge(Spec):
    """The base's own final hidden states, as means over each completion: alike where their cosine is high enough."""

    kind: Literal["embedding"] = "embedding"
    threshold: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.9


class BaseJudge(Spec):
    """The deployment's base, asked yes or no."""

    kind: Literal["base"] = "base"
    question: str = (
        "Text: {prefix}\nFirst continuation: {wanted}\nSecond continuation: {written}\n"
        "Do both continuations mean the same? Answer yes or no:"
    )
    """With {prefix}, {wanted} and {written}."""
    yes: str = " yes"
    no: str = " no"


class EndpointJudge(Spec):
    """Any model behind an OpenAI-compatible interface, asked yes or no."""

    kind: Literal["endpoint"] = "endpoint"
    url: Annotated[str, Field(pattern="^https?://")]
    """Of the interface, up to and with /v1."""
    model: Annotated[str, Field(min_length=1)]
    key_variable: Annotated[str, Field(pattern="^(JUDGE_[A-Z0-9_]+)?$")] = ""
    """Environment variable of the learner that holds the key; the key itself is never in a spec. JUDGE_..., so that no recipe can have
    another secret of the learner's sent away."""
    question: str = BaseJudge.model_fields["question"].default
    seconds: Seconds = 30.0
    """Bound of one answer."""
    at_once: PositiveInt = 8
    """Questions under way at the same time."""


JudgeSpec = Annotated[NoJudge | EmbeddingJudge | BaseJudge | EndpointJudge, Field(discriminator="kind")]


class DivergenceSpec(Spec):
    """How far the student is from its teacher; see circadian/objectives/divergence.py."""

    kind: Literal["forward_kl", "reverse_kl", "jsd", "top_k"] = "forward_kl"
    beta: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Of jsd: weight of the teacher in the mixture."""
    k: PositiveInt = 64
    """Of top_k: tokens that are told apart; the others are one event."""


class ImitationSpec(Spec):
    """Learning to Imitate: how the student is rewarded for continuing as the teacher did; see circadian/objectives/imitation.py."""

    gamma: Fraction = 0.5
    """Weight of the judge's word; what is left is that of lexical closeness."""
    threshold: Annotated[int, Field(ge=0)] = 8
    """z0: tokens of Levenshtein distance up to which a completion is close at all."""
    group: Annotated[int, Field(ge=2)] = 4
    """G: completions of one prefix."""
    clip: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Farthest that the likelihood ratio of a token counts from 1."""
    judge: JudgeSpec = NoJudge()
    """Who finds that two completions mean the same."""


class SeedingSpec(Spec):
    """Knowledge Seeding: how the awake and the rested self teach the newly opened expert."""

    steps: PositiveInt = 300
    """For every night whose knowledge moves: one, or several where a slower level takes over what has gathered, or two experts merge."""
    rows: PositiveInt = 32
    """Sequences a step, over all learner processes."""
    lr: Annotated[float, Field(ge=0.0)] = 2e-2
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    divergence: DivergenceSpec = DivergenceSpec()
    alpha: Fraction = 1.0
    """Weight of the distillation; what is left is the imitation's."""
    imitation: ImitationSpec = ImitationSpec()
    told: Annotated[float, Field(ge=0.0)] = 1.0
    """Of other models that have another tokenizer: weight of the cross entropy on what they wrote; 0 leaves imitation alone."""
    on_policy_share: Fraction = 0.25
    """Lambda: share of rows whose completion the student wrote."""
    old_share: Fraction = 0.8
    """Share of rows that keep the past: cues of earlier nights, taught by the rested self, and free running. Less of a transfer that
    moves several nights' knowledge (circadian/objectives/knowledge_seeding.py, for_load)."""
    free_share: Fraction = 0.35
    """Share of all rows that is free running, a part of `old_share`. While there are no cues of earlier nights, half of their share is
    free running too, and half the day's."""
    free_teacher: Literal["rested", "base", "anchored"] = "anchored"
    """Who writes free running from nothing and teaches it: the rested self, or the base, which knows of no night. Anchored: the rested
    self writes, and the base teaches wherever the two differ by less than `drift`."""
    drift: Annotated[float, Field(ge=0.0)] = 1.0
    """Of anchored: KL(rested || base) of a token, nats, below which the rested self has not learned something but only drifted."""
    teacher_rows: PositiveInt = 1536
    """Teacher-written rows of each kind, written once."""
    student_rows: PositiveInt = 256
    """Student-written rows, written afresh at every refresh."""
    refresh_steps: PositiveInt = 50
    """Steps between two deliveries of the student to the rollout workers; also between two checkpoints."""
    ahead: bool = True
    """While the student learns for `refresh_steps` steps the rollout workers write its rows for the next ones, as the student that
    began these: a row is learned from less than 2 * refresh_steps steps after the student that wrote it. False: learning stands still
    while the student writes, and less than refresh_steps steps lie between."""
    completion_tokens: PositiveInt = 8
    free_run_rows: PositiveInt = 768
    """Documents that are written from nothing."""
    free_run_tokens: PositiveInt = 48
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    token_chunk: PositiveInt = 512
    """Tokens whose logits [chunk, V] exist at once."""

    @model_validator(mode="after")
    def _free_running_is_of_the_past(self) -> Self:
        if self.free_share > self.old_share:
            raise ValueError(
                f"free_share {self.free_share} is a part of old_share {self.old_share} and cannot be larger; lower free_share, or "
                "raise old_share"
            )
        return self

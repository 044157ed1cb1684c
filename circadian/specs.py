"""Every setting a user can make, checked before anything starts. Importable without torch, Ray or vLLM."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]
Resource = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Spec(BaseModel):
    """Base of all specs: unknown fields are errors, values do not change after they were checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Level(Spec):
    """One level of the memory: experts that are written at one frequency."""

    period: PositiveInt
    """Tokens between two updates of this level (C_l of the paper)."""
    experts: PositiveInt = 1
    """Experts allocated for good; each is masked until it opens."""
    rank: PositiveInt = 64
    """Width R of one expert (d_low of the paper)."""


class MemorySpec(Spec):
    """The continuum of levels that sits beside the MLP of the chosen decoder layers, fastest level first."""

    levels: Annotated[tuple[Level, ...], Field(min_length=2)] = (
        Level(period=1024, experts=1, rank=64),
        Level(period=8192, experts=16, rank=64),
    )
    """Level 0 is written while awake; every slower level is written by sleep alone."""
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Decoder layers that carry the memory, ascending; None means all of a base of at most eight, and every fourth of a deeper one."""

    @field_validator("levels")
    @classmethod
    def _periods_divide(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        for fast, slow in pairwise(levels):
            if slow.period <= fast.period or slow.period % fast.period:
                raise ValueError(
                    f"period {slow.period} is not a larger multiple of {fast.period}; give each level a period that the next slower "
                    "one is a multiple of, for example 1024 and 8192"
                )
        return levels

    @field_validator("layers")
    @classmethod
    def _layers_ascend(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and list(layers) != sorted(set(layers)):
            raise ValueError(f"{list(layers)} is not ascending without repeats; sort it")
        return layers


class BaseModelRef(Spec):
    """A base model, exactly."""

    model: Annotated[str, Field(min_length=1)]
    """Folder or hub id."""
    revision: str | None = None
    """Commit of a hub id."""
    sha256: str = ""
    """Over its safetensors files; filled in when a deployment is created."""


class ExpertRecord(Spec):
    """Where one expert's knowledge comes from."""

    level: int
    expert: int
    sleep: str
    """The sleep that wrote it."""
    nights: tuple[str, ...]
    """The sleeps whose days it knows: one, or several where knowledge was handed on or merged. `<sleep>+teachers` is what other models
    taught in that sleep."""
    teachers: tuple[BaseModelRef, ...] = ()
    """The other models that taught it."""
    data_sha256: str
    """Of the manifest of experiences it was written from."""
    metrics: dict[str, float] = {}


class VersionRecord(Spec):
    """version.json."""

    id: str
    base: BaseModelRef
    parent: str | None = None
    created_at: float
    """Unix seconds."""
    memory_sha256: str = ""
    """Checksum of memory.safetensors."""
    tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that were learned awake since the deployment was founded: the clock of the levels' periods."""
    lineage: tuple[ExpertRecord, ...] = ()
    """Every expert that holds something, oldest first."""


class Message(Spec):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Experience(Spec):
    """Something the deployment met while awake: a chat or a document, exactly one of the two."""

    id: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    source: Literal["wake", "import", "human", "tool"] = "import"
    """Of `wake` experiences (the deployment's own traffic) only what others said is learned, never its own answers."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.messages) == bool(self.text):
            raise ValueError("give either messages (a chat) or text (a document), not both and not neither")
        return self


class FastLearningSpec(Spec):
    """How the fast level learns the day's experiences at dusk (equation 2 of the paper, with the day as the chunk)."""

    steps: PositiveInt = 150
    rows: PositiveInt = 32
    """Experiences a step, over all learner processes."""
    lr: Annotated[float, Field(ge=0.0)] = 1e-2
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    checkpoint_steps: PositiveInt = 50
    """Steps between two checkpoints."""


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
    key_variable: str = ""
    """Environment variable of the learner that holds the key; the key itself is never in a spec."""
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
    on_policy_share: Fraction = 0.5
    """Lambda: share of rows whose completion the student wrote."""
    old_share: Fraction = 0.8
    """Share of rows that keep the past: cues of earlier nights, taught by the rested self, and free running."""
    free_share: Fraction = 0.5
    """Share of all rows that is free running, a part of `old_share`; all of it while there are no cues of earlier nights."""
    free_teacher: Literal["rested", "base", "anchored"] = "anchored"
    """Who writes free running from nothing and teaches it: the rested self, or the base, which knows of no night. Anchored: the rested
    self writes, and the base teaches wherever the two differ by less than `drift`."""
    drift: Annotated[float, Field(ge=0.0)] = 1.0
    """Of anchored: KL(rested || base) of a token, nats, below which the rested self has not learned something but only drifted."""
    teacher_rows: PositiveInt = 512
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


class TeacherSpec(Spec):
    """Another model that teaches the deployment what it knows; see docs/decisions/0014-other-teachers.md."""

    model: Annotated[str, Field(min_length=1)]
    """Folder or hub id."""
    revision: str | None = None
    """Commit of a hub id."""
    cues: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What it is asked. Without any (and without a file of them) it writes from nothing."""
    cues_file: str | None = None
    """More of them, one a line, on storage that the night reads."""
    asked: Literal["chat", "text"] = "chat"
    """Whether a cue is what a user says, or the beginning of a text."""
    share: Annotated[float, Field(gt=0.0)] = 1.0
    """Of the rows that other models teach, against the shares of the other teachers."""
    match: Literal["auto", "distil", "imitate"] = "auto"
    """`distil`: the divergence from all it may say, which needs the deployment's tokenizer. `imitate`: what it says, read by the
    deployment's tokenizer. `auto`: the first where it can be, else the second."""


class LearnerSpec(Spec):
    """The learner processes: a Ray Train run with a DeepSpeed engine in each worker."""

    workers: PositiveInt = 1
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    cpus_per_worker: Resource = 1.0
    gpus_per_worker: Resource = 0.0
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Learner deaths a stage survives; each time it resumes from its last checkpoint."""
    start_seconds: PositiveInt = 300
    """Longest wait for the cluster to place and start the learner processes."""
    wait_seconds: PositiveInt = 1800
    """Longest wait of one learner process for the others, and for the students' writing."""
    stage_seconds: PositiveInt = 86400
    """Longest that one task may take, restarts included."""


class EngineSpec(Spec):
    """How one vLLM engine runs."""

    max_model_len: PositiveInt | None = None
    """Tokens of prompt and completion together; None means what the base model allows."""
    max_num_seqs: PositiveInt = 64
    """Requests that are worked on at once; more wait in line."""
    tensor_parallel_size: PositiveInt = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.85
    """Share of a GPU's memory; on CPU the KV cache is sized by VLLM_CPU_KVCACHE_SPACE (GiB)."""
    start_seconds: Seconds = 900.0
    """Bound of a start: a large base is hashed, read and warmed up."""
    control_seconds: Seconds = 120.0
    """Bound of a delivery, a change of view or a checksum."""
    generate_seconds: Seconds = 1800.0
    """Bound of one call of sample or read, over all its prompts."""


class RolloutSpec(Spec):
    """The rollout workers: vLLM engines that write for the night."""

    workers: PositiveInt = 1
    cpus_per_worker: Resource = 1.0
    gpus_per_worker: Resource = 0.0
    engine: EngineSpec = EngineSpec(max_model_len=512, max_num_seqs=256)


class GateSpec(Spec):
    """What a candidate version must show before it is published, on the day's cues and the rested self's own text, never on tests."""

    min_agreement: Fraction = 0.7
    """Share of the day's cues that the candidate completes (greedily) as the awake teacher does."""
    min_taught: Fraction = 0.7
    """Of each other model that taught: share of its cues that the candidate completes (greedily) as it does."""
    max_forgotten: Fraction = 0.1
    """Share of old cues that the candidate may complete otherwise than its parent does."""
    max_lost: Fraction = 0.1
    """Share of the words of the rested self's own text, each word counting once, that the candidate would not write where its parent
    surely did."""
    max_nll_rise: Annotated[float, Field(ge=0.0)] = 0.3
    """Nats a token on text the rested self wrote."""


class Recipe(Spec):
    """One night."""

    fast_learning: FastLearningSpec = FastLearningSpec()
    online_learning: OnlineLearningSpec = OnlineLearningSpec()
    """Of deployments whose `wake` is `online`."""
    seeding: SeedingSpec = SeedingSpec()
    learner: LearnerSpec = LearnerSpec()
    rollouts: RolloutSpec = RolloutSpec()
    gate: GateSpec = GateSpec()
    when_full: Literal["refuse", "merge"] = "refuse"
    """What a night does that finds no free expert in a level: refuse before any work, or first merge the two that hold the fewest
    nights into one, which is written anew."""
    teachers: Annotated[tuple[TeacherSpec, ...], Field(max_length=16)] = ()
    """Other models, whose knowledge is seeded into a fresh expert of the slowest level after the day's own."""
    cue_bytes: Annotated[int, Field(ge=4096)] = 1 << 20
    """Bytes of the cue store that a version carries (cues.json); above it a fair sample of all cues that were ever met stays. A question
    of twenty tokens takes about 150."""
    max_row_tokens: PositiveInt = 2048
    """Longest row that is learned: longer documents are cut there, longer chats are left out."""

    @model_validator(mode="after")
    def _room_to_write(self) -> Self:
        room, seeding = self.rollouts.engine.max_model_len, self.seeding
        longest = max(seeding.completion_tokens, seeding.free_run_tokens)
        if room is not None and room <= longest + 1:
            raise ValueError(
                f"rollouts.engine.max_model_len {room} leaves no room for a cue and {longest} tokens after it; raise it, or lower "
                "seeding.completion_tokens and seeding.free_run_tokens"
            )
        return self

    @model_validator(mode="after")
    def _a_row_for_each(self) -> Self:
        for task in ("fast_learning", "seeding"):
            rows = getattr(self, task).rows
            if rows < self.learner.workers:
                raise ValueError(
                    f"{task}.rows {rows} are fewer than learner.workers {self.learner.workers}; give each at least one"
                )
        return self


class ChunkJob(Spec):
    """One online update of the fast level, as a file: written once by the controller, read by the fast learner as often as it takes."""

    number: PositiveInt
    """Of the chunk, from 1 on since the fast level was last empty."""
    version: str
    """Folder of the version that serves beneath."""
    day: str
    """Folder of the chunks since the fast level was last empty."""
    experiences: tuple[Experience, ...]
    tokens: Annotated[int, Field(ge=0)]
    """Of the experiences, as the deployment's tokenizer reads them."""
    max_row_tokens: PositiveInt
    learning: OnlineLearningSpec = OnlineLearningSpec()


class ChunkRecord(Spec):
    """A chunk that was learned: its file is what commits it."""

    number: PositiveInt
    label: str
    """`<version>+w<number>`: what answers given with it are from."""
    tokens: int
    experiences: tuple[str, ...]
    """Ids of all of the chunk's, those that were left out too."""
    left_out: dict[str, str] = {}
    """Experiences that hold nothing to learn: id to reason."""
    rows: int
    steps: int
    first_loss: float | None
    """Before the first step; None where there was no row to learn."""
    final_loss: float | None
    checksum: str
    """Of the expert's tensors, fp32."""
    seconds: float


class FastStart(Spec):
    """What a night's fast level begins from."""

    expert: str
    """Safetensors file."""
    checksum: str
    chunks: PositiveInt
    experiences: tuple[str, ...]
    """Ids of those that it has learned."""


class NightJob(Spec):
    """Everything one attempt at a night needs, as a file; the controller writes it, the Ray job reads it."""

    sleep: str
    """Id of the sleep, `slp_...`."""
    attempt: PositiveInt = 1
    deployment: str
    seed: int = 0
    parent: str
    """Folder of the version that falls asleep."""
    child: str
    """Folder of the version to make."""
    home: str
    """Folder of the night: stage manifests, events.jsonl, outcome.json."""
    experiences: str
    """File of experiences, one JSON object a line."""
    fast: FastStart | None = None
    """What was learned online, if anything was."""
    held_out: tuple[str, ...] = ()
    """Texts kept for tests: no wake row and no sleep prompt may contain one of them."""
    recipe: Recipe = Recipe()


class NurserySpec(Spec):
    """The nursery model and its pretraining."""

    world_seed: int = 0
    """The world the model lives in."""
    seed: int = 0
    """Of the initial weights and the order of documents."""
    width: PositiveInt = 128
    """Model width D."""
    mlp_width: PositiveInt = 256
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    head_width: PositiveInt = 32
    steps: PositiveInt = 2500
    closed_book_rows: PositiveInt = 96
    """Short documents a step."""
    open_book_rows: PositiveInt = 32
    """Passages a step."""
    muon_lr: float = 0.02
    adam_lr: float = 3e-3

"""One night: its recipe, and the files by which controller and cluster tell each other what is to be done and what was."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from circadian.pieces import Split
from circadian.specs.base import PositiveInt, Spec
from circadian.specs.cluster import LearnerSpec, RolloutSpec
from circadian.specs.dreaming import DreamingSpec
from circadian.specs.experience import Experience
from circadian.specs.gates import GateSpec
from circadian.specs.learning import FastLearningSpec, OnlineLearningSpec, SeedingSpec
from circadian.specs.probes import UserProbe, texts_of


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
    consolidation: bool = True
    """Whether the day itself is learned and moved into the slower levels. False: it is only dreamt of."""
    dreaming: DreamingSpec | None = None
    """How the deployment dreams after that; None: it does not."""
    cue_bytes: Annotated[int, Field(ge=4096)] = 1 << 20
    """Bytes of the cue store that a version carries (cues.json); above it a fair sample of all cues that were ever met stays. A question
    of twenty tokens takes about 150."""
    max_row_tokens: PositiveInt = 2048
    """Longest row that is learned: longer documents are cut there, longer chats are left out."""
    split: Split = "whole"
    """Into what documents, and what a user says that nobody answered, are cut before they are learned, at dusk and online; see
    circadian/pieces.py. Many facts told at once are learned better one by one; a sentence may not mean much alone."""

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not self.consolidation and self.dreaming is None and not self.teachers:
            raise ValueError(
                "consolidation is off, and there are neither dreaming nor teachers, so the night would do nothing; give one of them"
            )
        return self

    @model_validator(mode="after")
    def _room_to_write(self) -> Self:
        room, seeding = self.rollouts.engine.max_model_len, self.seeding
        dreamt = self.dreaming.tokens if self.dreaming else 0
        longest = max(seeding.completion_tokens, seeding.free_run_tokens, dreamt)
        if room is not None and room <= longest + 1:
            raise ValueError(
                f"rollouts.engine.max_model_len {room} leaves no room for a cue and {longest} tokens after it; raise it, or lower "
                f"{'dreaming.tokens' if longest == dreamt else 'seeding.completion_tokens and seeding.free_run_tokens'}"
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
    split: Split = "whole"
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
    probes: tuple[UserProbe, ...] = ()
    """What the operator asks of the candidate."""
    held_out: Annotated[tuple[str, ...], Field(validate_default=True)] = ()
    """Texts kept for tests: no wake row and no sleep prompt may contain one of them. The probes' prompts are among them."""
    recipe: Recipe = Recipe()

    @field_validator("held_out")
    @classmethod
    def _probes_are_tests(cls, given: tuple[str, ...], found: ValidationInfo) -> tuple[str, ...]:
        """Whoever writes the job: what is asked of the candidate is never learned."""
        return tuple(dict.fromkeys((*given, *texts_of(found.data.get("probes", ())))))

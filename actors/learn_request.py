"""What the learner is asked and what it answers, as JSON: it travels to the learner processes as text. Torch-free."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from circadian.memory.transfer import Transfer
from circadian.specs import EngineSpec, FastLearningSpec, LearnerSpec, SeedingSpec, Spec

TaskName = Literal["fast_learning", "seeding"]


class OtherModel(Spec):
    """Another model that teaches; its number is its place in the request, from 1 on."""

    name: Annotated[str, Field(min_length=1)]
    """As rows name their teacher."""
    folder: str
    sha256: str
    """Over its safetensors files, when it wrote its rows."""
    match: Literal["distil", "imitate"]


class LearnRequest(Spec):
    """One task for the learner. Files and folders are on storage that every learner process reads."""

    task: TaskName
    run_name: Annotated[str, Field(min_length=1)]
    """Name of the Ray Train run. A run of this name that was broken off is continued from its last checkpoint."""
    home: str
    """Folder of the night, where events.jsonl is."""
    storage: str
    """Folder for checkpoints and for the result."""
    version: str
    """Folder of the parent version."""
    overlays: tuple[str, ...] = ()
    """Safetensors files of expert tensors to write over the version's, in order: what the fast level learned at dusk, and what earlier
    transfers of this night wrote."""
    experts: list[list[str]]
    """The state of every expert during the task, as MemoryState.names() gives it."""
    writes: tuple[int, int]
    """Level and expert to write; it is open."""
    goes_on: bool = False
    """The expert goes on from what the version or the overlays hold of it, as at dusk from what was learned online. Otherwise it begins
    fresh, whatever stood in its place before."""
    transfer: Transfer | None = None
    """seeding: who teaches and what the student hears; `experts` and `writes` are its own."""
    rows: str
    """fast_learning: a JSONL file of `{"ids", "weight"}`; seeding: of teacher-written rows."""
    cues: str | None = None
    """seeding: a JSONL file of `{"ids", "kind"}`, cues that the student completes; with "teacher" where another model teaches it."""
    others: tuple[OtherModel, ...] = ()
    """seeding: other models, whose rows are among `rows`."""
    held_out: tuple[str, ...] = ()
    """Texts kept for tests: what the student writes is not learned where it contains one of them."""
    rollouts: tuple[str, ...] = ()
    """Names of the rollout workers that write as the student; none of them means that every row is the teacher's."""
    engine: EngineSpec = EngineSpec()
    """How they run: its bounds hold for what is asked of them."""
    seed: int = 0
    learner: LearnerSpec = LearnerSpec()
    fast_learning: FastLearningSpec = FastLearningSpec()
    seeding: SeedingSpec = SeedingSpec()

    @model_validator(mode="after")
    def _seeding_is_a_transfer(self) -> Self:
        if self.task == "seeding" and (
            self.transfer is None or (self.transfer.experts, self.transfer.into) != (self.experts, self.writes)
        ):
            raise ValueError("transfer: a seeding task needs one, and `experts` and `writes` are to be its `experts` and `into`")
        return self

    @property
    def recipe(self) -> FastLearningSpec | SeedingSpec:
        """The settings of the task at hand."""
        return self.fast_learning if self.task == "fast_learning" else self.seeding

    @property
    def checkpoint_steps(self) -> int:
        """Steps between two checkpoints; in seeding also between two deliveries of the student."""
        return self.fast_learning.checkpoint_steps if self.task == "fast_learning" else self.seeding.refresh_steps

    @property
    def expert_seed(self) -> int:
        """Of a fresh expert's first weights: no two experts start alike, and one seed always starts the same."""
        level, expert = self.writes
        again = "/again" if self.transfer is not None and self.transfer.rewrites else ""
        digest = hashlib.sha256(f"{self.seed}/{level}/{expert}{again}".encode()).digest()
        return int.from_bytes(digest[:8]) >> 1  # torch takes 63 bits

    @property
    def fingerprint(self) -> str:
        """Of what is learned: the same in every attempt, whose rollout workers have names of their own."""
        return hashlib.sha256(self.model_dump_json(exclude={"rollouts", "engine"}).encode()).hexdigest()


class Deliveries(Spec):
    """The student's deliveries to the rollout workers, counted once per worker."""

    count: int = 0
    bytes: int = 0
    milliseconds: float = 0.0

    @property
    def milliseconds_mean(self) -> float:
        return self.milliseconds / self.count if self.count else 0.0

    def with_one(self, size: int, milliseconds: float) -> Deliveries:
        return self.and_those(Deliveries(count=1, bytes=size, milliseconds=milliseconds))

    def and_those(self, more: Deliveries) -> Deliveries:
        return Deliveries(
            count=self.count + more.count, bytes=self.bytes + more.bytes, milliseconds=self.milliseconds + more.milliseconds
        )


class Staleness(Spec):
    """How old what the student wrote was when it was learned from: steps from the student that wrote it, counted once per step."""

    count: int = 0
    total: int = 0
    most: int = 0

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def with_one(self, steps: int) -> Staleness:
        return Staleness(count=self.count + 1, total=self.total + steps, most=max(self.most, steps))


class LearnResult(Spec):
    """What was learned."""

    tensors: str
    """Safetensors file with the written expert, fp32."""
    checksum: str
    """Of those tensors, as circadian.memory.tensors.checksum counts it."""
    steps: int
    seconds: float
    """Of the whole task, from the call to the answer."""
    first_loss: float
    final_loss: float
    restarts: int
    """How often the learner processes were started again."""
    deliveries: Deliveries = Deliveries()
    max_staleness_steps: int = 0
    """Steps between the student that wrote a row and the step that learned from it, at most."""
    mean_staleness_steps: float = 0.0
    """The same as a mean over steps."""
    phases: dict[str, float] = {}
    """Seconds of each phase (circadian/phases.py) of the work that counts: what a death undid is in none of them."""

"""An arm's life: it is tested, learns for a round, is tested again.

    base      the model as it is, asked without having learned anything
    passage   an instance that learns the context alone
    seal      SEAL's loop: dreams are tried as they come, no random expert
    sleep     more dreams are written and weighed by their gradients, the best and one by chance are tried, a random expert besides

Who does not weigh dreams tries one more of each context: that takes about the token passes that writing and weighing many does
(`passes` of the result, as in benchmarks/dreaming). Where an arm selects, the dreams of a test context are its best, unless `one_for_all`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from benchmarks.seal.ground import Phase, hand_over
from benchmarks.seal.requests import Arm, Request
from pipelines.dreaming import reinforce
from pipelines.stages import Outputs

Side = Literal["tests", "night"]
Scores = Mapping[str, Sequence[float]]
"""Of each test context by its id, of each of its trials: how right it was answered, 0 to 1."""
STAGES_BEFORE, STAGES_OF_A_TEST, STAGES_OF_A_ROUND = 2, 4, 4


class World(ABC):
    """A protocol: what is dreamt of, how a dream is tried, and what is right."""

    @property
    @abstractmethod
    def rounds(self) -> int:
        """In which the dreamer learns."""

    @abstractmethod
    def phase(self, arm: Arm, side: Side) -> Phase:
        """The dreamer over the contexts that it is tested on, or learns on."""

    @abstractmethod
    def part(self, night: Phase, told: Outputs, number: int) -> Outputs:
        """The tasks of a round."""

    @abstractmethod
    def tried(self, phase: Phase, told: Outputs, awake: Outputs, name: str) -> Outputs:
        """Dreams written, weighed and tried, as three stages."""

    @abstractmethod
    def asked(self, phase: Phase, told: Outputs) -> Scores:
        """Of the model as it is."""

    @abstractmethod
    def taught(self, phase: Phase, told: Outputs) -> Scores:
        """Of instances that learned their context alone."""

    @abstractmethod
    def scored(self, phase: Phase, told: Outputs, tried: Outputs) -> Scores:
        """Of the dreams that were tried."""


def selection(request: Request, arm: Arm, side: Side, dreams: int, trials: int) -> dict[str, Any]:
    """How many dreams are written of a context, and which are tried. dreams: of a context that is learned on; trials: of one that is
    tested."""
    kept = dreams if side == "night" else trials
    if arm != "sleep" or (side == "tests" and request.one_for_all):
        chosen: dict[str, Any] = {"dreams": kept, "selection": {"score": "none", "top": kept, "chance": 0}}
    else:
        written = request.ratio * max(dreams - 1, trials)
        top, chance = (dreams - 2, 1) if side == "night" else (trials, 0)
        chosen = {"dreams": written, "selection": {"score": request.score, "top": top, "chance": chance}}
    return chosen if arm == "sleep" else chosen | {"novelty": {"strength": 0.0}}


def stages_of(arm: Arm, rounds: int) -> int:
    """How many stages an arm's life has."""
    if arm in ("base", "passage"):
        return STAGES_BEFORE + (arm == "passage")
    return 2 * STAGES_BEFORE + (rounds + 1) * STAGES_OF_A_TEST + rounds * STAGES_OF_A_ROUND


def live(world: World, arm: Arm) -> dict[str, Any]:
    """The record of an arm: `rounds`, the scores before any round first, `learned`, what each round was, and `left_out`, how many test
    contexts the model cannot be asked about."""
    tests = world.phase(arm, "tests")
    told = tests.told()
    record: dict[str, Any] = {"left_out": len(tests.dreamer.spec.tasks) - told["tasks"]}
    if arm == "base":
        return record | {"rounds": [tested(world.asked(tests, told))], "learned": []}
    if arm == "passage":
        outputs = tests.run("passage", lambda: {"scores": world.taught(tests, told)})
        return record | {"rounds": [tested(outputs["scores"])], "learned": []}
    night = world.phase(arm, "night")
    own, awake = night.told(), Outputs()
    rounds: list[dict[str, Any]] = []
    learned: list[dict[str, Any]] = []
    for number in range(world.rounds + 1):
        hand_over(awake, night, tests)
        rounds.append(tested(_scores(world, tests, told, awake, str(number))))
        if number < world.rounds:
            tried = world.tried(night, world.part(night, own, number), awake, str(number))
            awake = night.run(f"reinforce_{number}", partial(reinforce, night.dreamer, awake, tried, number))
            learned.append(_told(night, tried, awake))
    return record | {"rounds": rounds, "learned": learned}


def tested(scores: Scores) -> dict[str, Any]:
    """With the mean over contexts of the mean over trials."""
    means = [sum(trials) / len(trials) for trials in scores.values()]
    return {"accuracy": round(sum(means) / len(means), 4), "scores": {name: list(trials) for name, trials in scores.items()}}


def _scores(world: World, tests: Phase, told: Outputs, awake: Outputs, name: str) -> Scores:
    tried = world.tried(tests, told, awake, name)
    return tests.run(f"score_{name}", lambda: {"scores": world.scored(tests, told, tried)})["scores"]


def _told(night: Phase, tried: Outputs, awake: Outputs) -> dict[str, Any]:
    """What a round was: its trials, and what was spent up to then."""
    names = ("tried", "rewarded", "broken", "unchanged", "score", "undreamt")
    return {
        **{name: tried[name] for name in names if name in tried},
        "rows": awake.get("rows", 0),
        "passes": night.passes if night.engine.meter else None,
        "seconds_each": dict(night.seconds_each),
    }

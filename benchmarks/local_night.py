"""The night itself (pipelines/night.py), all of it, in this process: local engines and hands instead of Ray, vLLM and a second process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from actors.learn_request import LearnRequest, LearnResult
from benchmarks.in_process import learn
from benchmarks.local_engine import LocalEngine, LocalPool
from benchmarks.local_hands import LocalHands
from circadian.specs import NightJob
from pipelines import consolidation, dream_keeping, night, wake
from pipelines.consolidation import Memory, Moved
from pipelines.stages import Outputs

Seen = Callable[[str, Memory], None]
"""Is told of the memory before it dreams ("before") and after ("after")."""


class TimedPool(LocalPool):
    """As the night's own pool (pipelines/rollouts.py), but for the seconds."""

    def timed(self, work: Callable[[], Outputs]) -> Outputs:
        return work()


def night_here(job: NightJob, pack_tokens: int, seen: Seen) -> Outputs:
    """Sleep once; what pipelines.night.night returns."""
    engine = LocalEngine(Path(job.parent))
    dreams = night.dreaming

    def dreaming(job: NightJob, stages: night.Stages, day: Outputs, asleep: list[Moved], rollouts: night.RolloutPool) -> Outputs:
        seen("before", asleep[-1].memory)
        kept = dreams(job, stages, day, asleep, rollouts)
        seen("after", asleep[-1].memory)
        return kept

    with _here(engine, pack_tokens), patch.object(night, "dreaming", dreaming):
        return night.night(job)


@contextmanager
def _here(engine: LocalEngine, pack_tokens: int) -> Iterator[None]:
    def in_process(request: LearnRequest) -> LearnResult:
        return learn(request, engine)

    with (
        patch.object(night, "RolloutPool", lambda job: TimedPool(engine)),
        patch.object(night, "RayHands", lambda learner, tokens, instances: LocalHands(pack_tokens)),
        patch.object(wake, "learn", in_process),
        patch.object(consolidation, "learn", in_process),
        patch.object(dream_keeping, "learn", in_process),
    ):
        yield

"""Where the time goes: seconds by phase. A phase is a section heading: the same name stands in events, results and reports.

    learner    start        from the question to the loop: processes are placed, the model is read
               teach        lessons: what the teachers say of the rows
               learn        steps
               checkpoint   what has been learned is put on disk
               wait         it stands still until the rollout workers have written

    rollout    start        from the question to the engines' answer
    workers    deliver      they take what has been learned
               generate     they write
               read         they say how likely they find what was written
               judge        what they wrote is compared with held-out texts, and a judge is asked what means the same
               idle         they have nothing to do while the learner works

In knowledge seeding both columns run at the same time: teach, learn, checkpoint and wait add up to the loop's seconds, and so do
deliver, generate, judge and idle. Who wants to know what stood still looks at `wait` and at `idle`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

Phase = Literal["start", "teach", "learn", "checkpoint", "wait", "deliver", "generate", "read", "judge", "idle"]
Seconds = dict[str, float]
"""By phase."""
LOOP: tuple[Phase, ...] = ("teach", "learn", "checkpoint", "wait")
ASKED: tuple[Phase, ...] = ("deliver", "generate", "judge")


class Phases:
    """A timer that one thread writes. It goes on from what was counted before."""

    def __init__(self, counted: Mapping[str, float] | None = None) -> None:
        self._seconds: Seconds = dict(counted or {})

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Count what the block takes, also where it raises."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({phase: time.perf_counter() - started})

    def add(self, seconds: Mapping[str, float]) -> None:
        """What another timer counted."""
        for phase, more in seconds.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + more

    def seconds(self) -> Seconds:
        """So far, to the millisecond, in the order in which phases were first met."""
        return {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}

    def since(self, before: Mapping[str, float]) -> Seconds:
        """What was added since `seconds` was `before`."""
        added = {phase: round(seconds - before.get(phase, 0.0), 3) for phase, seconds in self.seconds().items()}
        return {phase: seconds for phase, seconds in added.items() if seconds}


def with_idle(seconds: Mapping[str, float]) -> Seconds:
    """With what is left of the loop's seconds after those in which the rollout workers were asked."""
    loop, asked = (sum(seconds.get(phase, 0.0) for phase in phases) for phases in (LOOP, ASKED))
    return {**seconds, "idle": round(max(0.0, loop - asked), 3)}


def told(seconds: Mapping[str, float]) -> str:
    """As people read it."""
    return ", ".join(f"{phase} {value:.1f} s" for phase, value in seconds.items())

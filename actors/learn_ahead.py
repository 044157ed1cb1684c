"""The student writes while the learner learns: one thread of rank 0, which does nothing but ask the rollout workers.

consumes     the expert as it stands at the beginning of a block of steps, packed before this returns
produces     the student's rows of one block of steps: of this one where learning stands still, else of the next
waits for    the learner to order; the rollout workers, within their own bounds
unblocked by an order; the workers' last completion, or their error, which the learner finds at its next step

    step        0                 50                100
    learner     | wait | learn    | learn           | learn ...
    workers     | W0   | W50      | W100            | ...              Wn: rows for the block from step n on
    by              0     0          50

What is under way is in no checkpoint. It is made of the expert and of (seed, n), so whoever resumes at step 50 orders W100 again from
the expert that the checkpoint of step 50 holds, and gets the same rows.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait

from torch import Tensor

from actors.learn_student import StudentWriter, Written


class StudentLate(TimeoutError):
    """The student's rows did not arrive in time."""


class Writing:
    """At most one order is under way."""

    def __init__(self, writer: StudentWriter, seconds: float) -> None:
        self._writer, self._seconds = writer, seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="student-writes")
        self._under_way: Future[Written] | None = None

    def order(self, step: int, by: int, expert: dict[str, Tensor]) -> None:
        """Let the student of step `by`, which is this expert, write the rows of the block from `step` on."""
        if self._under_way is not None:
            raise RuntimeError(f"rows for step {step} are ordered while others are under way; collect them first")
        self._under_way = self._thread.submit(self._writer.write, step, by, self._writer.packed(expert, by))

    def check(self) -> None:
        """Raises what the writing raised, if it did."""
        if self._under_way is not None and self._under_way.done():
            self._under_way.result()

    def collect(self) -> Written:
        """The rows that were ordered, when they are there. Raises what the writing raised, or StudentLate."""
        if self._under_way is None:
            raise RuntimeError("no rows were ordered")
        if wait([self._under_way], self._seconds).not_done:
            raise StudentLate(
                f"the student's rows did not come within {self._seconds} s; raise learner.wait_seconds or rollouts.workers, or lower "
                "seeding.student_rows"
            )
        written, self._under_way = self._under_way.result(), None
        return written

    def close(self) -> None:
        """Take no more orders. What is under way is not waited for: it ends within its own bounds, and nobody wants it."""
        self._thread.shutdown(wait=False, cancel_futures=True)

"""What is measured, in which order. A job is one contender over some points, in one process; `steps` are timed at every point."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.learner.points import CURVE, QWEN, TOY, Contender, Point, vocabulary

TWO_MODELS: tuple[Contender, ...] = ("trl_gkd", "trl_distillation")
DEFAULT: Contender = "trl_distillation_default"
ALL: tuple[Contender, ...] = ("circadian", *TWO_MODELS, "trl_self")
TOY_ROUNDS, TOY_STEPS = 5, 9
QWEN_ROUNDS, QWEN_STEPS = 1, 2
"""Short, because a step takes many seconds. Each round is a fresh process, so that contenders take turns."""
CURVE_STEPS = 3
CURVE_ROWS = 4
SEQUENCES, EXPERTS, VOCABULARIES = (64, 128, 256, 512), (1, 2, 4, 8, 16, 32), (512, 4096, 32_768, 151_936)
CURVE_TOKENS, EXPERT_TOKENS = 64, 128


@dataclass(frozen=True)
class Job:
    """One process."""

    contender: Contender
    points: tuple[Point, ...]
    steps: int
    warm: bool = True
    """Whether a step goes before those that count."""


TOY_POINTS = (Point(TOY, "recipe", 32), Point(TOY, "equal", 8, 128))
QWEN_POINTS = (Point(QWEN, "recipe", 6), Point(QWEN, "equal", 2, 128))
ELSEWHERE = tuple(Point(QWEN, "equal", 2, 128, memory_from=QWEN.layers * part // 4) for part in (0, 2, 3))
"""Memory in all layers, and in every layer of the upper half and quarter."""
DELIVERED = (TOY_POINTS[0], QWEN_POINTS[0])


def toy(rounds: int = TOY_ROUNDS, steps: int = TOY_STEPS) -> list[Job]:
    """Contenders taking turns."""
    return [Job(contender, TOY_POINTS, steps) for _ in range(rounds) for contender in (*ALL, DEFAULT)]


def quick_qwen() -> list[Job]:
    """As little as still shows something, for a machine that has other work."""
    points = (Point(QWEN, "equal", 1, 128), QWEN_POINTS[0])
    return [Job(contender, (point,), 1, warm=False) for point in points for contender in ALL]


def qwen(rounds: int = QWEN_ROUNDS) -> list[Job]:
    """The same; TRL's default settings and memory elsewhere are beside the point, and measured once."""
    jobs = [Job(contender, (point,), QWEN_STEPS) for point in QWEN_POINTS for _ in range(rounds) for contender in ALL]
    jobs.append(Job(DEFAULT, QWEN_POINTS[1:], QWEN_STEPS))
    return jobs + [Job("circadian", (point,), QWEN_STEPS) for point in ELSEWHERE]


def curves() -> dict[str, tuple[tuple[int, ...], list[Job]]]:
    """Axis -> its values, and jobs whose points are at these values, at a reduced shape."""
    return {
        "sequence": (SEQUENCES, _jobs(ALL, [Point(CURVE, "equal", CURVE_ROWS, tokens) for tokens in SEQUENCES])),
        "experts": (
            EXPERTS,
            _jobs(("circadian",), [Point(CURVE, "equal", CURVE_ROWS, EXPERT_TOKENS, sealed=sealed) for sealed in EXPERTS]),
        ),
        "vocabulary": (
            VOCABULARIES,
            _jobs(ALL, [Point(vocabulary(size), "equal", CURVE_ROWS, CURVE_TOKENS) for size in VOCABULARIES]),
        ),
    }


def _jobs(contenders: tuple[Contender, ...], points: list[Point]) -> list[Job]:
    return [Job(contender, tuple(points), CURVE_STEPS) for contender in contenders]

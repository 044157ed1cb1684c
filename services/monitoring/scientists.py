"""The dashboard of those who look at what nights are worth: recall, forgetting, divergence, rewards, dreams, learning."""

from __future__ import annotations

from circadian import metrics as m
from circadian.metrics import DEPLOYMENT, Metric
from services.monitoring.panels import Dashboard, Panel, Query, Row
from services.monitoring.queries import most, rate, so_far

RECALL = ("agreement", "taught", "dreamt")
FORGETTING = ("forgotten", "forgotten_night", "lost", "base_lost")
DIVERGENCE = ("drift_parent", "drift_base", "nll_rise", "median_nll_rise", "base_nll_rise")
LEAKS = ("exposure",)
GATE, TASK = "{{deployment}} {{gate}}", "{{deployment}} {{task}}"


def _gates(title: str, names: tuple[str, ...], unit: str) -> Panel:
    """What was measured, beside the limits."""
    where = (f'gate=~"{"|".join(names)}"',)
    value, limit = (most(metric, *DEPLOYMENT, "gate", where=where) for metric in (m.GATE_VALUE, m.GATE_LIMIT))
    queries = (Query(value, GATE), Query(f"{limit} and {value}", f"{GATE} limit"))
    return Panel(title, queries, (m.GATE_VALUE, m.GATE_LIMIT), unit, width=12)


def _task(title: str, metric: Metric) -> Panel:
    return Panel(title, (Query(most(metric, *DEPLOYMENT, "task"), TASK),), (metric,))


def _share(fate: str) -> Query:
    """Of the dreams that were tried."""
    some, tried = (so_far(m.DREAMS, *DEPLOYMENT, where=(f'fate="{one}"',)) for one in (fate, "tried"))
    return Query(f"{some} / ({tried} > 0)", "{{deployment}} " + fate)


GATES = Row(
    "The last version that was judged",
    (
        _gates("Recall", RECALL, "percentunit"),
        _gates("Forgetting", FORGETTING, "percentunit"),
        _gates("Divergence, nats a token", DIVERGENCE, "none"),
        _gates("Exposure of canaries, bits", LEAKS, "none"),
        Panel("Gates that were passed", (Query(most(m.GATE_PASSED, *DEPLOYMENT, "gate"), GATE),), (m.GATE_PASSED,), width=12),
        Panel(
            "Probes", (Query(most(m.PROBE_SCORE, *DEPLOYMENT, "probe"), "{{deployment}} {{probe}}"),), (m.PROBE_SCORE,), width=12
        ),
    ),
)

DREAMS = Row(
    "Dreams",
    (
        Panel("Dreams", (Query(so_far(m.DREAMS, *DEPLOYMENT, "fate"), "{{deployment}} {{fate}}"),), (m.DREAMS,)),
        Panel("Of those that were tried", (_share("rewarded"), _share("broken")), (m.DREAMS,), "percentunit"),
        Panel(
            "Reward: instances that learned a dream, and undreamt ones",
            (Query(most(m.DREAM_SCORE, *DEPLOYMENT, "of"), "{{deployment}} {{of}}"),),
            (m.DREAM_SCORE,),
        ),
    ),
)

LEARNING = Row(
    "Learning, as it happens",
    (
        _task("Loss", m.LEARNER_LOSS),
        _task("Gradient norm", m.LEARNER_GRADIENT),
        Panel("Steps a second", (Query(rate(m.LEARNER_STEPS, *DEPLOYMENT, "task"), TASK),), (m.LEARNER_STEPS,)),
        _task("Staleness of the student's rows, steps", m.LEARNER_STALENESS),
        Panel(
            "Tokens a second that rollout workers write",
            (Query(rate(m.ROLLOUT_TOKENS, *DEPLOYMENT), "{{deployment}}"),),
            (m.ROLLOUT_TOKENS,),
        ),
        Panel(
            "Share of the time in which they write",
            (Query(rate(m.ROLLOUT_SECONDS, *DEPLOYMENT), "{{deployment}}"),),
            (m.ROLLOUT_SECONDS,),
            "percentunit",
        ),
    ),
)

SCIENTISTS = Dashboard(
    "circadian-scientists",
    "Circadian: scientists",
    "What was learned and what was forgotten, how far versions have gone from what they were, and what their dreams were worth.",
    (GATES, DREAMS, LEARNING),
)

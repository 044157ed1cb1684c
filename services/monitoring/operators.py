"""The dashboard of those who run it: fleet, nights, deliveries, costs."""

from __future__ import annotations

from circadian import metrics as m
from circadian.metrics import DEPLOYMENT, Metric
from services.monitoring.panels import Dashboard, Panel, Query, Row
from services.monitoring.queries import grown, mean, most, of, quantile, rate, so_far

EACH = "{{deployment}}"
RUNS = ('status=~"preparing|running|evaluating"',)
ERRORS = ('status=~"5.."',)


def _gauge(title: str, metric: Metric) -> Panel:
    return Panel(title, (Query(most(metric, *DEPLOYMENT), EACH),), (metric,))


def _stat(title: str, expr: str, *about: Metric, unit: str | None = None) -> Panel:
    return Panel(title, (Query(expr, title),), about, unit, "stat", 4)


NOW = Row(
    "Now",
    (
        _stat("Controllers that lead", f"sum({of(m.LEADER)})", m.LEADER),
        _stat("Database answers", f"min({of(m.DATABASE_UP)})", m.DATABASE_UP),
        _stat("Replicas that answer", f"sum({most(m.REPLICAS, *DEPLOYMENT)})", m.REPLICAS),
        _stat("Replicas wanted", f"sum({most(m.REPLICAS_WANTED, *DEPLOYMENT)})", m.REPLICAS_WANTED),
        _stat("Nights that run", f"sum({most(m.SLEEPS, 'status', where=RUNS)})", m.SLEEPS),
        _stat("Last nights that failed", f"sum({most(m.LAST_NIGHT_FAILED, *DEPLOYMENT)})", m.LAST_NIGHT_FAILED),
    ),
)

FLEET = Row(
    "Fleet",
    (
        Panel(
            "Replicas",
            (
                Query(most(m.REPLICAS, *DEPLOYMENT), "{{deployment}} answer"),
                Query(most(m.REPLICAS_WANTED, *DEPLOYMENT), "{{deployment}} wanted"),
            ),
            (m.REPLICAS, m.REPLICAS_WANTED),
        ),
        _gauge("Versions that should not be served", m.WRONG_VERSIONS),
        _gauge("Age of the version that serves", m.ACTIVE_VERSION_AGE),
        Panel("Requests a second, by status", (Query(rate(m.HTTP_REQUESTS, "status"), "{{status}}"),), (m.HTTP_REQUESTS,), "reqps"),
        Panel(
            "Errors a second, by route",
            (Query(f"{rate(m.HTTP_REQUESTS, 'route', where=ERRORS)} or vector(0)", "{{route}}"),),
            (m.HTTP_REQUESTS,),
            "reqps",
        ),
        Panel(
            "Until an answer began",
            (Query(quantile(0.5, m.HTTP_ANSWER), "half of them"), Query(quantile(0.95, m.HTTP_ANSWER), "95 of 100")),
            (m.HTTP_ANSWER,),
        ),
        Panel(
            "Experts that are used",
            (Query(most(m.EXPERTS_USED, *DEPLOYMENT, "level"), "{{deployment}} level {{level}}"),),
            (m.EXPERTS_USED,),
        ),
        Panel(
            "Experts that are used, of the level's places",
            (
                Query(
                    f"{most(m.EXPERTS_USED, *DEPLOYMENT, 'level')} / {most(m.EXPERT_PLACES, *DEPLOYMENT, 'level')}",
                    "{{deployment}} level {{level}}",
                ),
            ),
            (m.EXPERTS_USED, m.EXPERT_PLACES),
            "percentunit",
        ),
        Panel(
            "Webhook deliveries",
            (
                Query(most(m.WEBHOOK_DELIVERIES, "status"), "{{status}}"),
                Query(f"max({of(m.WEBHOOKS_DISABLED)})", "endpoints disabled"),
            ),
            (m.WEBHOOK_DELIVERIES, m.WEBHOOKS_DISABLED),
        ),
    ),
)

EXPERIENCES = Row(
    "Experiences",
    (
        Panel("Came in a second", (Query(rate(m.EXPERIENCES, "outcome"), "{{outcome}}"),), (m.EXPERIENCES,)),
        Panel(
            "That wait for a night",
            (
                Query(most(m.PENDING_EXPERIENCES, *DEPLOYMENT), "{{deployment}} experiences"),
                Query(most(m.PENDING_TOKENS, *DEPLOYMENT), "{{deployment}} tokens"),
            ),
            (m.PENDING_EXPERIENCES, m.PENDING_TOKENS),
        ),
        _gauge("Age of the oldest that waits", m.PENDING_OLDEST),
        Panel(
            "Learned while it serves",
            (
                Query(most(m.ONLINE_LEARNED, *DEPLOYMENT), "{{deployment}} learned"),
                Query(most(m.ONLINE_WAITING, *DEPLOYMENT), "{{deployment}} waits"),
            ),
            (m.ONLINE_LEARNED, m.ONLINE_WAITING),
        ),
        _gauge("Learns no more before its next night", m.ONLINE_STUCK),
    ),
)

NIGHTS = Row(
    "Nights",
    (
        Panel(
            "Nights by their end",
            (Query(so_far(m.NIGHTS, *DEPLOYMENT, "outcome"), "{{deployment}} {{outcome}}"),),
            (m.NIGHTS,),
            stacked=True,
        ),
        Panel(
            "Stage",
            (
                Query(
                    f"{most(m.NIGHT_STAGE, *DEPLOYMENT, 'stage')} > 0 or 0 * {most(m.NIGHT_PROGRESS, *DEPLOYMENT)}",
                    "{{deployment}} {{stage}}",
                ),
            ),
            (m.NIGHT_STAGE,),
            stacked=True,
        ),
        _gauge("Of the stage that runs, done", m.NIGHT_PROGRESS),
        Panel(
            "Seconds that the night has run",
            (Query(most(m.NIGHT_RUNNING, *DEPLOYMENT), EACH), Query(f"max({of(m.NIGHT_LIMIT)})", "limit")),
            (m.NIGHT_RUNNING, m.NIGHT_LIMIT),
        ),
        Panel(
            "Late, and waiting",
            (
                Query(most(m.SCHEDULE_LATE, *DEPLOYMENT), "{{deployment}} schedule is late"),
                Query(most(m.SLEEP_WAITING, *DEPLOYMENT), "{{deployment}} sleep waits"),
            ),
            (m.SCHEDULE_LATE, m.SLEEP_WAITING),
        ),
        Panel("Sleeps, by status", (Query(most(m.SLEEPS, "status"), "{{status}}"),), (m.SLEEPS,)),
        Panel("Mean duration of nights", (Query(mean(m.NIGHT_DURATION, *DEPLOYMENT), EACH),), (m.NIGHT_DURATION,)),
        Panel("Jobs that nights took", (Query(so_far(m.NIGHT_ATTEMPTS, *DEPLOYMENT), EACH),), (m.NIGHT_ATTEMPTS,)),
        Panel("Tokens slept on", (Query(so_far(m.NIGHT_TOKENS, *DEPLOYMENT), EACH),), (m.NIGHT_TOKENS,)),
    ),
)

DELIVERIES = Row(
    "Deliveries and versions",
    (
        Panel("Deliveries to replicas", (Query(f"sum by (outcome) ({of(m.DELIVERIES)})", "{{outcome}}"),), (m.DELIVERIES,)),
        Panel(
            "Until every replica had proved a delivery",
            (
                Query(quantile(0.5, m.DELIVERY_DURATION, window="1h"), "half of them in an hour"),
                Query(quantile(0.95, m.DELIVERY_DURATION, window="1h"), "95 of 100"),
            ),
            (m.DELIVERY_DURATION,),
        ),
        Panel(
            "Promotions, rollbacks, revocations",
            (Query(f"{so_far(m.ROLLOUTS, *DEPLOYMENT, 'kind', 'outcome')}", "{{deployment}} {{kind}} {{outcome}}"),),
            (m.ROLLOUTS,),
            stacked=True,
        ),
        Panel(
            "Versions, by status",
            (Query(most(m.VERSIONS, *DEPLOYMENT, "status"), "{{deployment}} {{status}}"),),
            (m.VERSIONS,),
            stacked=True,
        ),
    ),
)

COSTS = Row(
    "Costs",
    (
        Panel(
            "Seconds by stage",
            (Query(so_far(m.STAGE_DURATION, *DEPLOYMENT, "stage") + " > 0", "{{deployment}} {{stage}}"),),
            (m.STAGE_DURATION,),
            stacked=True,
        ),
        Panel("CPU seconds", (Query(so_far(m.NIGHT_CPU, *DEPLOYMENT), EACH),), (m.NIGHT_CPU,)),
        Panel("GPU seconds", (Query(so_far(m.NIGHT_GPU, *DEPLOYMENT), EACH),), (m.NIGHT_GPU,)),
        Panel("CPU seconds in the time shown", (Query(grown(m.NIGHT_CPU, *DEPLOYMENT), EACH),), (m.NIGHT_CPU,), None, "stat", 8),
        Panel("GPU seconds in the time shown", (Query(grown(m.NIGHT_GPU, *DEPLOYMENT), EACH),), (m.NIGHT_GPU,), None, "stat", 8),
        Panel("Nights in the time shown", (Query(grown(m.NIGHTS, "outcome"), "{{outcome}}"),), (m.NIGHTS,), None, "stat", 8),
    ),
)

OPERATORS = Dashboard(
    "circadian-operators",
    "Circadian: operators",
    "What serves, what sleeps, what is late, what was delivered, and what it cost.",
    (NOW, FLEET, EXPERIENCES, NIGHTS, DELIVERIES, COSTS),
)

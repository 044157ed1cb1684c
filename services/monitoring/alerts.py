"""When somebody is called: each alert with its severity, what it says, and its page in docs/runbooks.

critical   clients are answered wrongly or not at all, or nobody looks after the service
warning    a night or a version is not as it should be; everything answers
info       somebody has decided something that others should know

What decides is `value`, held against `bound`: the tests look at the value alone, which must be there also while all is well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from circadian import metrics as m
from circadian.metrics import DEPLOYMENT
from services.monitoring.queries import grown, most, of

Severity = Literal["critical", "warning", "info"]
RUNBOOKS = "docs/runbooks"
"""Folder of the pages, as `runbook_url` names it: the chart puts the address before it."""
ERROR_SHARE = 0.05
NEAR = 0.8
"""Of a limit."""
FULL = 0.9
"""Of a level's places."""
LATE_SECONDS = 900
WAITING_SECONDS = 3600
BACKLOG_SECONDS = 3 * 86_400
HOUR = "1h"
OF = "{{ $labels.deployment }} of {{ $labels.tenant }}"
LEARNED_LEVELS = ('level!="0"',)
"""Level 0 is the day's own."""
FORGETTING = ('gate=~"forgotten|forgotten_night|lost|base_lost"',)
DIVERGENCE = ('gate=~"drift_parent|drift_base"',)
LEAKS = ('gate="exposure"',)
FAILED, DEAD = 'outcome="failed"', 'status="dead"'
API = ('route=~"/v1/.*"',)
"""Kubernetes asks the other routes, however many clients there are."""
ERRORS = ('status=~"5.."',)
"""An answer by design, because all replicas sleep, has a status of its own (circadian/metrics.py)."""


@dataclass(frozen=True)
class Alert:
    """One alert."""

    name: str
    value: str
    bound: str
    """A comparison."""
    lasts: str
    """For how long, as Prometheus writes it."""
    severity: Severity
    summary: str
    description: str

    @property
    def expr(self) -> str:
        return f"{self.value} {self.bound}"

    @property
    def page(self) -> str:
        """File name of its runbook."""
        words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in self.name.removeprefix("Circadian"))
        return f"{words.strip('-')}.md"


def _gauge(metric: m.Metric, *more: str, where: tuple[str, ...] = ()) -> str:
    return most(metric, *DEPLOYMENT, *more, where=where, chosen=False)


def _of_limit(where: tuple[str, ...]) -> str:
    """What was measured as a share of what is allowed."""
    return f"{_gauge(m.GATE_VALUE, 'gate', where=where)} / ({_gauge(m.GATE_LIMIT, 'gate', where=where)} > 0)"


def _requests(window: str, where: tuple[str, ...] = ()) -> str:
    return f"sum(rate({of(m.HTTP_REQUESTS, *where, chosen=False)}[{window}]))"


SERVICE = (
    Alert(
        "CircadianNoLeader",
        f"(sum({of(m.LEADER)}) or vector(0))",
        "< 1",
        "2m",
        "critical",
        "No controller leads",
        "Nights stand still, replicas are not looked after, and no schedule fires. Clients are still answered.",
    ),
    Alert(
        "CircadianDatabaseDown",
        f"min({of(m.DATABASE_UP)})",
        "< 1",
        "2m",
        "critical",
        "The database does not answer a controller",
        "Nothing can be taken in or begun, and what nights tell is not written down.",
    ),
    Alert(
        "CircadianErrors",
        f"({_requests('5m', API + ERRORS)} or vector(0)) / {_requests('5m', API)}",
        f"> {ERROR_SHARE}",
        "10m",
        "critical",
        "Clients are answered with errors",
        "{{ $value | humanizePercentage }} of the API's requests are answered with a status from 500 on, sleeping deployments left out.",
    ),
    Alert(
        "CircadianReplicasMissing",
        f"{_gauge(m.REPLICAS_WANTED)} - {_gauge(m.REPLICAS)}",
        "> 0",
        "10m",
        "critical",
        f"Replicas of {OF} do not answer",
        "{{ $value }} of the replicas that are to answer do not. Those that a night has lent are not counted.",
    ),
    Alert(
        "CircadianWrongVersion",
        _gauge(m.WRONG_VERSIONS),
        "> 0",
        "10m",
        "critical",
        f"Replicas of {OF} serve a version that they should not",
        "They serve neither the active version nor the fast memory of a night that runs, and were not brought back.",
    ),
    Alert(
        "CircadianDeliveriesFailing",
        f"sum(increase({of(m.DELIVERIES, FAILED, chosen=False)}[{HOUR}]))",
        "> 0",
        "0m",
        "warning",
        "A delivery to replicas has failed",
        "Replicas refused what was delivered, or could not prove it. They serve what they served before.",
    ),
    Alert(
        "CircadianVersionTakenBack",
        grown(m.ROLLOUTS, *DEPLOYMENT, "kind", where=('kind!="promotion"', 'outcome="succeeded"'), window=HOUR, chosen=False),
        "> 0",
        "0m",
        "info",
        f"{OF} went back to an earlier version",
        "By {{ $labels.kind }}, in the last hour.",
    ),
    Alert(
        "CircadianWebhooksFailing",
        f"max(delta({of(m.WEBHOOK_DELIVERIES, DEAD)}[{HOUR}]))",
        "> 0",
        "0m",
        "warning",
        "Webhooks were given up",
        "{{ $value }} in the last hour: their endpoints did not take them in three days, or are gone.",
    ),
    Alert(
        "CircadianWebhookDisabled",
        f"max({of(m.WEBHOOKS_DISABLED)})",
        "> 0",
        "0m",
        "warning",
        "A webhook endpoint is disabled",
        "Nothing is sent to it any more, until somebody enables it.",
    ),
)

NIGHTS = (
    Alert(
        "CircadianNightFailed",
        _gauge(m.LAST_NIGHT_FAILED),
        "> 0",
        "0m",
        "warning",
        f"The last night of {OF} has failed",
        "It is not tried again by itself; its error says why. The version before it serves on, its experiences wait for the next night.",
    ),
    Alert(
        "CircadianNightLate",
        _gauge(m.SCHEDULE_LATE),
        f"> {LATE_SECONDS}",
        "1m",
        "warning",
        f"A night of {OF} is late",
        "Its schedule was to begin it {{ $value | humanizeDuration }} ago.",
    ),
    Alert(
        "CircadianSleepWaits",
        _gauge(m.SLEEP_WAITING),
        f"> {WAITING_SECONDS}",
        "1m",
        "warning",
        f"A sleep of {OF} does not begin",
        "It was asked for {{ $value | humanizeDuration }} ago.",
    ),
    Alert(
        "CircadianNightTooLong",
        f"{_gauge(m.NIGHT_RUNNING)} / on () group_left () max({of(m.NIGHT_LIMIT)})",
        f"> {NEAR}",
        "5m",
        "warning",
        f"The night of {OF} will be stopped soon",
        "It has run for {{ $value | humanizePercentage }} of what a night may take.",
    ),
    Alert(
        "CircadianGateFailing",
        _gauge(m.GATE_PASSED, "gate"),
        "< 1",
        "0m",
        "warning",
        f"The last version of {OF} did not pass `{{{{ $labels.gate }}}}`",
        "It is kept and does not serve.",
    ),
    Alert(
        "CircadianForgetting",
        _of_limit(FORGETTING),
        f"> {NEAR}",
        "0m",
        "warning",
        f"{OF} forgets",
        "`{{ $labels.gate }}` of its last version is at {{ $value | humanizePercentage }} of what the recipe allows.",
    ),
    Alert(
        "CircadianDrifting",
        _of_limit(DIVERGENCE),
        f"> {NEAR}",
        "0m",
        "warning",
        f"{OF} goes far from what it was",
        "`{{ $labels.gate }}` of its last version is at {{ $value | humanizePercentage }} of what the recipe allows.",
    ),
    Alert(
        "CircadianSecretsLeak",
        _of_limit(LEAKS),
        f"> {NEAR}",
        "0m",
        "critical",
        f"{OF} nearly knows secrets by heart",
        "The exposure of its most exposed canary is at {{ $value | humanizePercentage }} of what the recipe allows.",
    ),
)

MEMORY = (
    Alert(
        "CircadianExpertsNearlyFull",
        f"{_gauge(m.EXPERTS_USED, 'level', where=LEARNED_LEVELS)} / {_gauge(m.EXPERT_PLACES, 'level', where=LEARNED_LEVELS)}",
        f"> {FULL}",
        "0m",
        "warning",
        f"Level {{{{ $labels.level }}}} of {OF} is nearly full",
        "{{ $value | humanizePercentage }} of its experts are used. What happens when it is full is the recipe's `when_full`.",
    ),
    Alert(
        "CircadianExperienceBacklog",
        _gauge(m.PENDING_OLDEST),
        f"> {BACKLOG_SECONDS}",
        "5m",
        "warning",
        f"Experiences of {OF} wait for a night",
        "The oldest has waited for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "CircadianOnlineStuck",
        _gauge(m.ONLINE_STUCK),
        "> 0",
        "0m",
        "warning",
        f"{OF} learns no more while it serves",
        "A chunk could not be learned. It answers with what it has learned; what it meets waits for the next night.",
    ),
)

GROUPS: dict[str, tuple[Alert, ...]] = {"circadian-service": SERVICE, "circadian-nights": NIGHTS, "circadian-memory": MEMORY}
ALERTS: tuple[Alert, ...] = tuple(alert for group in GROUPS.values() for alert in group)


def rules() -> dict[str, Any]:
    """As Prometheus reads them, and as the spec of a PrometheusRule."""
    return {"groups": [{"name": name, "rules": [_rule(alert) for alert in group]} for name, group in GROUPS.items()]}


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.lasts,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{RUNBOOKS}/{alert.page}",
        },
    }

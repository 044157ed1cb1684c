"""Every alert fires when it should and is silent when it should be, as Prometheus itself sees it (promtool, from apt)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from circadian import metrics as m
from services.monitoring.alerts import ALERTS, Alert
from services.monitoring.files import ALERTS_FILE

ROOT = Path(__file__).resolve().parents[2]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
MINE = {"tenant": "default", "deployment": "toy"}
NOW = "90m"
Series = dict[str, str]
"""Values a minute, as promtool writes them, by series."""


@dataclass(frozen=True)
class Case:
    """What is told while all is well, what is told when it is not, and the labels of the alert then, besides its severity."""

    well: Series
    ill: Series
    labels: dict[str, str] = field(default_factory=dict)


def of(metric: m.Metric, **labels: str) -> str:
    """One series of a controller's."""
    whose = MINE if "tenant" in metric.labels else {}
    inside = ",".join(f'{name}="{value}"' for name, value in (whose | labels | {"instance": "one"}).items())
    return f"{metric.series}{{{inside}}}"


def gauge(metric: m.Metric, well: float, ill: float, **labels: str) -> Case:
    """A value that stands."""
    whose = MINE if "tenant" in metric.labels else {}
    return Case({of(metric, **labels): f"{well}x120"}, {of(metric, **labels): f"{ill}x120"}, whose | labels)


def gate(name: str, near: float, far: float, limit: float) -> Case:
    limits = {of(m.GATE_LIMIT, gate=name): f"{limit}x120"}
    return Case(
        limits | {of(m.GATE_VALUE, gate=name): f"{far}x120"},
        limits | {of(m.GATE_VALUE, gate=name): f"{near}x120"},
        MINE | {"gate": name},
    )


def answers(status: str, a_minute: int, route: str = "/v1/experiences") -> Series:
    return {of(m.HTTP_REQUESTS, method="GET", route=route, status=status): f"0+{a_minute}x120"}


def replicas(there: int) -> Series:
    return {of(m.REPLICAS): f"{there}x120", of(m.REPLICAS_WANTED): "2x120"}


def night(hours: float) -> Series:
    return {of(m.NIGHT_RUNNING): f"{hours * 3600}x120", of(m.NIGHT_LIMIT): "86400x120"}


def experts(used: int) -> Series:
    return {of(m.EXPERTS_USED, level="1"): f"{used}x120", of(m.EXPERT_PLACES, level="1"): "16x120"} | {
        of(m.EXPERTS_USED, level="0"): "1x120",
        of(m.EXPERT_PLACES, level="0"): "1x120",
    }


def late(metric: m.Metric, name: str, **labels: str) -> Case:
    """A counter that stands, or has grown in the last hour."""
    return Case({name: "3x120"}, {name: "3x60 4x60"}, (MINE if "tenant" in metric.labels else {}) | labels)


CASES: dict[str, Case] = {
    "CircadianNoLeader": Case(
        {of(m.LEADER): "1x120", f'{m.LEADER.series}{{instance="two"}}': "0x120"}, {f'{m.LEADER.series}{{instance="two"}}': "0x120"}
    ),
    "CircadianDatabaseDown": gauge(m.DATABASE_UP, 1, 0),
    "CircadianErrors": Case(answers("200", 100) | answers("503", 2), answers("200", 100) | answers("503", 20)),
    "CircadianReplicasMissing": Case(replicas(2), replicas(1), MINE),
    "CircadianWrongVersion": gauge(m.WRONG_VERSIONS, 0, 1),
    "CircadianDeliveriesFailing": late(m.DELIVERIES, of(m.DELIVERIES, outcome="failed")),
    "CircadianVersionTakenBack": late(m.ROLLOUTS, of(m.ROLLOUTS, kind="rollback", outcome="succeeded"), kind="rollback"),
    "CircadianWebhooksFailing": late(m.WEBHOOK_DELIVERIES, of(m.WEBHOOK_DELIVERIES, status="dead")),
    "CircadianWebhookDisabled": gauge(m.WEBHOOKS_DISABLED, 0, 1),
    "CircadianNightFailed": gauge(m.LAST_NIGHT_FAILED, 0, 1),
    "CircadianNightLate": gauge(m.SCHEDULE_LATE, 60, 1800),
    "CircadianSleepWaits": gauge(m.SLEEP_WAITING, 60, 7200),
    "CircadianNightTooLong": Case(night(2), night(22), MINE),
    "CircadianGateFailing": gauge(m.GATE_PASSED, 1, 0, gate="agreement"),
    "CircadianForgetting": gate("forgotten", 0.09, 0.02, 0.1),
    "CircadianDrifting": gate("drift_base", 0.95, 0.4, 1.0),
    "CircadianSecretsLeak": gate("exposure", 15.0, 4.0, 16.0),
    "CircadianExpertsNearlyFull": Case(experts(8), experts(15), MINE | {"level": "1"}),
    "CircadianExperienceBacklog": gauge(m.PENDING_OLDEST, 86_400, 400_000),
    "CircadianOnlineStuck": gauge(m.ONLINE_STUCK, 0, 1),
}


def test_there_is_a_case_for_every_alert() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


@needs_promtool
def test_prometheus_reads_the_rules() -> None:
    done = subprocess.run([PROMTOOL, "check", "rules", str(ROOT / ALERTS_FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def expected(alert: Alert, case: Case) -> list[dict[str, Any]]:
    """The alert as it fires. Its texts are those of the rule with the labels and the value filled in, which promtool does not compare where
    none are given."""
    return [{"exp_labels": {"severity": alert.severity, **case.labels}}]


def check(folder: Path, alert: Alert, *said: tuple[Series, list[dict[str, Any]]]) -> None:
    """What Prometheus makes of series, each with the alerts that fire then."""
    rule = yaml.safe_load((ROOT / ALERTS_FILE).read_text())
    for group in rule["groups"]:
        for one in group["rules"]:
            one.pop("annotations")  # which promtool would compare word for word
    (folder / "alerts.yaml").write_text(yaml.safe_dump(rule))
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": NOW, "alertname": alert.name, "exp_alerts": alerts}],
        }
        for series, alerts in said
    ]
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_and_is_silent_when_it_should_be(alert: Alert, tmp_path: Path) -> None:
    case = CASES[alert.name]
    check(tmp_path, alert, (case.well, []), (case.ill, expected(alert, case)))


@needs_promtool
@pytest.mark.parametrize(
    ("series", "fires"),
    [
        (answers("200", 10) | answers("503", 100, "/readyz") | answers("500", 100, "/livez"), False),
        (answers("503", 100, "/readyz"), False),
        (answers("200", 10) | answers(m.STATUS_ASLEEP, 100, "/v1/chat/completions"), False),
        (answers(m.STATUS_ASLEEP, 100, "/v1/chat/completions"), False),
        (answers("200", 100) | answers("500", 20), True),
        (answers("200", 100) | answers("500", 20, "/v1/"), True),
        (answers("200", 10) | answers("500", 2) | answers("200", 1000, "/readyz"), True),
    ],
    ids=["probes", "probes alone", "asleep", "asleep alone", "defects", "defects before the routes", "defects among probes"],
)
def test_errors_are_the_apis_own(series: Series, fires: bool, tmp_path: Path) -> None:
    alert = next(alert for alert in ALERTS if alert.name == "CircadianErrors")
    check(tmp_path, alert, (series, expected(alert, CASES[alert.name]) if fires else []))


@needs_promtool
def test_while_all_is_well_no_alert_fires_at_all(tmp_path: Path) -> None:
    """All that is well at the same time, against all rules: no alert's series sets off another one."""
    series = {name: values for case in CASES.values() for name, values in case.well.items()}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": NOW, "alertname": alert.name, "exp_alerts": []} for alert in ALERTS],
    }
    (tmp_path / "alerts.yaml").write_text((ROOT / ALERTS_FILE).read_text())
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""What Prometheus is told, on a port of its own: nothing that a client sent, no ids, and labels of which there are few.

    counted here        requests by route and status, how long until they were answered, experiences by what became of them
    looked up           at each scrape: sleeps, pending experiences and their tokens, versions' ages, webhooks, replicas

Every controller counts its own; what is looked up in the registry, which they share, is told by the one that leads, so that a sum over
controllers is right. A database that does not answer leaves the looked-up values out, and `circadian_database_up` says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services import registry
from services.fleet import Sight
from services.leader import Leader
from services.ports import PortInUse, is_free
from services.serving import Serving
from services.states import SleepStatus
from services.tables import Database, Deployment, ExperienceRow, Sleep, Version, WebhookDelivery

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds: from a look-up to the longest answer of a model."""
NO_ROUTE = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class Metrics:
    """Of one controller."""

    def __init__(self, database: Database, serving: Serving, leader: Leader) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "circadian_http_requests", "Requests that were answered", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "circadian_http_answer_seconds", "Until an answer began", ("method", "route"), buckets=BUCKETS, registry=self.registry
        )
        self._experiences = Counter(
            "circadian_experiences", "Experiences that came in, by what became of them", ("outcome",), registry=self.registry
        )
        self.registry.register(_LookedUp(database, serving, leader))
        self._server: WSGIServer | None = None

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request, by the route's template: a path that leads nowhere is no label."""
        named = (method if method in METHODS else "other", route or NO_ROUTE)
        self._requests.labels(*named, str(status)).inc()
        self._seconds.labels(*named).observe(seconds)

    def took_in(self, outcome: str) -> None:
        self._experiences.labels(outcome).inc()

    def listen(self, host: str, port: int) -> None:
        """Answer scrapes, in a thread of its own. Raises PortInUse."""
        if not is_free(host, port):
            raise PortInUse(host, port, "CIRCADIAN_METRICS_PORT")
        self._server, _ = start_http_server(port, host, self.registry)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _LookedUp(Collector):
    """At each scrape."""

    def __init__(self, database: Database, serving: Serving, leader: Leader) -> None:
        self.database, self.serving, self.leader = database, serving, leader

    def describe(self) -> Iterator[Metric]:
        """Nothing: to be registered must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("circadian_leader", "Whether this controller leads", float(self.leader.leads))
        deliveries = CounterMetricFamily("circadian_deliveries", "Deliveries of weights to replicas", labels=("outcome",))
        for outcome in ("proved", "failed"):
            deliveries.add_metric((outcome,), self.serving.deliveries[outcome])
        yield deliveries
        try:
            with self.database.read() as tx:
                found = list(_looked_up(tx, self.serving.sights)) if self.leader.leads else []
        except SQLAlchemyError:
            yield GaugeMetricFamily("circadian_database_up", "Whether the database answers", 0.0)
            return
        yield GaugeMetricFamily("circadian_database_up", "Whether the database answers", 1.0)
        yield from found


def _looked_up(tx: Session, sights: Mapping[str, Sight]) -> Iterator[Metric]:
    names = {deployment.id: (deployment.tenant, deployment.name) for deployment in registry.deployments(tx)}
    replicas = _gauge("circadian_replicas", "Wake replicas that answer")
    for id, name in names.items():
        replicas.add_metric(name, sights[id].running if id in sights else 0)
    yield replicas
    sleeps = GaugeMetricFamily("circadian_sleeps", "Sleeps, by status", labels=("status",))
    counted = dict(tx.execute(select(Sleep.status, func.count()).group_by(Sleep.status)).all())
    for status in SleepStatus:
        sleeps.add_metric((status.value,), counted.get(status, 0))
    yield sleeps
    webhooks = GaugeMetricFamily(
        "circadian_webhook_deliveries", "Webhook deliveries of the last week, by status", labels=("status",)
    )
    for state, deliveries in tx.execute(select(WebhookDelivery.status, func.count()).group_by(WebhookDelivery.status)):
        webhooks.add_metric((state,), deliveries)
    yield webhooks
    age = _gauge("circadian_active_version_age_seconds", "Since the version that serves was made")
    born = select(Deployment.id, Version.created_at).join(Version, Version.id == Deployment.active_version)
    for id, created_at in tx.execute(born.where(Deployment.id.in_(names))):
        age.add_metric(names[id], time.time() - created_at)
    yield age
    yield from _pending(tx, names)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    """Of each deployment: its name is its tenant's own."""
    return GaugeMetricFamily(name, text, labels=("tenant", "deployment"))


def _pending(tx: Session, names: dict[str, tuple[str, str]]) -> Iterator[Metric]:
    """What the next night is offered."""
    waits = (ExperienceRow.status == "pending", ExperienceRow.consolidated_in.is_(None), ExperienceRow.left_out.is_(None))
    pending = case((waits[0] & waits[1] & waits[2], 1), else_=0)
    sums = (func.sum(pending), func.sum(pending * ExperienceRow.tokens))
    rows = tx.execute(select(ExperienceRow.deployment, *sums).group_by(ExperienceRow.deployment))
    found = {deployment: (count, tokens) for deployment, count, tokens in rows}
    experiences = _gauge("circadian_pending_experiences", "That no version keeps yet")
    tokens = _gauge("circadian_pending_tokens", "Of these experiences")
    for id, name in names.items():
        count, length = found.get(id, (0, 0))
        experiences.add_metric(name, float(count))
        tokens.add_metric(name, float(length))
    yield from (experiences, tokens)

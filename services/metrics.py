"""What Prometheus is told, on a port of its own: nothing that a client sent, no ids, and labels of which there are few.

    counted here        requests by route and status, how long until they were answered, experiences by what became of them, how long
                        deliveries took
    looked up           at each scrape: everything else (services/monitoring)

Every controller counts its own; what is looked up in the registry, which they share, is told by the one that leads, so that a sum over
controllers is right. A database that does not answer leaves the looked-up values out, and `circadian_database_up` says so. What each
metric is called and means: circadian/metrics.py, docs/metrics.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from circadian import metrics
from services import registry
from services.leader import Leader
from services.monitoring import fleet, nights
from services.monitoring.ledger import Ledger
from services.monitoring.told import Told, histogram
from services.ports import PortInUse, is_free
from services.serving import Serving
from services.tables import Database

NO_ROUTE = "none"
METHODS = frozenset(metrics.LABELS["method"] or ())


class Metrics:
    """Of one controller."""

    def __init__(self, database: Database, serving: Serving, leader: Leader) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter(metrics.HTTP_REQUESTS)
        self._seconds = histogram(metrics.HTTP_ANSWER, self.registry)
        self.registry.register(serving.delivered)
        self._experiences = self._counter(metrics.EXPERIENCES)
        self.registry.register(_LookedUp(database, serving, leader))
        self._server: WSGIServer | None = None

    def answered(self, method: str, route: str | None, status: str, seconds: float) -> None:
        """A request, by the route's template: a path that leads nowhere is no label. status: as the label has it."""
        named = (method if method in METHODS else metrics.OTHER, route or NO_ROUTE)
        self._requests.labels(*named, status).inc()
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

    def _counter(self, metric: metrics.Metric) -> Counter:
        return Counter(metric.name, metric.text, metric.labels, registry=self.registry)


class _LookedUp(Collector):
    """At each scrape."""

    def __init__(self, database: Database, serving: Serving, leader: Leader) -> None:
        self.database, self.serving, self.leader, self.ledger = database, serving, leader, Ledger()

    def describe(self) -> Iterator[Metric]:
        """Nothing: to be registered must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        own, shared, leads = Told(), Told(), self.leader.leads
        own.tell(metrics.LEADER, leads)
        for outcome in ("proved", "failed"):
            own.tell(metrics.DELIVERIES, self.serving.deliveries[outcome], outcome)
        up = True
        try:
            self._look(shared, leads)
        except SQLAlchemyError:
            up = False
        own.tell(metrics.DATABASE_UP, up)
        yield from own.of(metrics.LEADER, metrics.DELIVERIES, metrics.DATABASE_UP)
        yield from shared.families("leader") if leads and up else ()

    def _look(self, told: Told, leads: bool) -> None:
        with self.database.read() as tx:
            deployments, now = registry.deployments(tx), time.time()
            if not leads:
                return
            names = {row.id: (row.tenant, row.name) for row in deployments}
            fleet.look(told, tx, self.serving, deployments, now)
            nights.look(told, tx, self.serving.settings, names, now)
            self.ledger.look(told, tx, names)

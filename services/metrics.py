"""What Prometheus is told, on a port of its own: nothing that a client sent, no ids, and labels of which there are few.

    counted here        requests by route and status, how long until they were answered, experiences by what became of them, how long
                        deliveries took
    looked up           at each scrape: everything else (services/monitoring)

Every controller counts its own; what is looked up in the registry, which they share, is told by the one that leads, so that a sum over
controllers is right. A database that does not answer, or not in time, leaves the looked-up values out, and `circadian_database_up` says
so. What each metric is called and means: circadian/metrics.py, docs/metrics.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
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
LOOK_SECONDS = 5.0
"""Of a look-up, at most, before a scrape is answered without it: Prometheus itself waits for ten, and then knows nothing at all."""


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
        self.looks = _Looks(self._look)

    def describe(self) -> Iterator[Metric]:
        """Nothing: to be registered must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        own = Told()
        own.tell(metrics.LEADER, self.leader.leads)
        for outcome in ("proved", "failed"):
            own.tell(metrics.DELIVERIES, self.serving.deliveries[outcome], outcome)
        try:
            shared, up = self.looks.result(), True
        except (SQLAlchemyError, TimeoutError):
            shared, up = [], False
        own.tell(metrics.DATABASE_UP, up)
        yield from own.of(metrics.LEADER, metrics.DELIVERIES, metrics.DATABASE_UP)
        yield from shared

    def _look(self) -> list[Metric]:
        told, leads = Told(), self.leader.leads
        with self.database.read() as tx:
            deployments, now = registry.deployments(tx), time.time()
            if not leads:
                return []
            names = {row.id: (row.tenant, row.name) for row in deployments}
            fleet.look(told, tx, self.serving, deployments, now)
            nights.look(told, tx, self.serving.settings, names, now)
            self.ledger.look(told, tx, names)
        return list(told.families("leader"))


class _Looks:
    """One look at a time, in a thread of its own, which a process that ends leaves behind: nobody can interrupt one that hangs.

    consumes       scrapes
    produces       a look, begun by a scrape that finds none; those that come meanwhile share it
    waits for      the look, LOOK_SECONDS from its beginning: one that hangs keeps the first scrape so long, and no later one
    unblocked by   the database's answer, or the end of the connection to it (services/tables/database.py)
    """

    def __init__(self, look: Callable[[], list[Metric]]) -> None:
        self._look, self._lock = look, threading.Lock()
        self._last: Future[list[Metric]] | None = None
        self._began = 0.0

    def result(self) -> list[Metric]:
        """Raises TimeoutError, and what the look raises."""
        with self._lock:
            if self._last is None or self._last.done():
                self._last, self._began = Future(), time.monotonic()
                threading.Thread(target=self._run, args=(self._last,), name="look-up", daemon=True).start()
            last, until = self._last, self._began + LOOK_SECONDS
        return last.result(max(0.0, until - time.monotonic()))

    def _run(self, future: Future[list[Metric]]) -> None:
        try:
            future.set_result(self._look())
        except BaseException as error:  # noqa: BLE001 whoever asked raises it
            future.set_exception(error)

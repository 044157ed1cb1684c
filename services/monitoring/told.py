"""Samples of the metrics that are looked up at each scrape, and the families that prometheus_client makes of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from circadian import metrics
from circadian.metrics import METRICS


class Told:
    """Of one scrape."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        self._observed: dict[str, dict[tuple[str, ...], list[float]]] = defaultdict(dict)

    def tell(self, metric: metrics.Metric, value: float, *labels: str) -> None:
        """Its value, by its labels in their order."""
        self._values[metric.name][labels] = float(value)

    def add(self, metric: metrics.Metric, value: float, *labels: str) -> None:
        """So much more."""
        values = self._values[metric.name]
        values[labels] = values.get(labels, 0.0) + value

    def observe(self, metric: metrics.Metric, values: Iterable[float], *labels: str) -> None:
        """All that a histogram has seen."""
        self._observed[metric.name].setdefault(labels, []).extend(values)

    def families(self, *by: metrics.Teller) -> Iterator[Metric]:
        """Of every metric that these tell, also those of which there is no sample; prometheus_client's own are not among them."""
        for metric in METRICS.values():
            if metric.by in by:
                yield self._family(metric)

    def of(self, *told: metrics.Metric) -> Iterator[Metric]:
        """Of these alone."""
        return map(self._family, told)

    def _family(self, metric: metrics.Metric) -> Metric:
        if metric.kind == "histogram":
            histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, seen in self._observed[metric.name].items():
                histogram.add_metric(labels, list(_buckets(metric.buckets, seen)), sum(seen))
            return histogram
        made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = made(metric.name, metric.text, labels=metric.labels)
        for labels, value in self._values[metric.name].items():
            family.add_metric(labels, value)
        return family


def histogram(metric: metrics.Metric, registry: CollectorRegistry | None = None) -> Histogram:
    """One that is counted here; without a registry whoever makes it registers it."""
    return Histogram(metric.name, metric.text, metric.labels, buckets=metric.buckets, registry=registry)


def _buckets(bounds: tuple[float, ...], seen: list[float]) -> Iterator[tuple[str, float]]:
    for bound in bounds:
        yield str(bound), float(sum(value <= bound for value in seen))
    yield "+Inf", float(len(seen))

"""What the processes of a night tell Ray's metrics, which each node offers to Prometheus (circadian/metrics.py says what).

Ray hands a process's values on every few seconds, and forgets a gauge that was not told again meanwhile: tell it as long as it holds.
Where there is no Ray, as in tests of one process, nothing is told. Telling costs microseconds and waits for nobody.
"""

from __future__ import annotations

import os
from functools import cache

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from actors import names
from circadian.metrics import DEPLOYMENT, Metric


def tell(metric: Metric, value: float, **labels: str) -> None:
    """Of the deployment of this process: a gauge's value, or by how much a counter grew, or one more value of a histogram."""
    if not ray.is_initialized():
        return
    instrument, tags = _instrument(metric), _whose() | labels
    if isinstance(instrument, Gauge):
        instrument.set(value, tags)
    elif isinstance(instrument, Histogram):
        instrument.observe(value, tags)
    elif value > 0:  # Ray refuses a counter that does not grow
        instrument.inc(value, tags)


@cache
def _instrument(metric: Metric) -> Counter | Gauge | Histogram:
    """One of each for the life of the process: Ray forgets what nobody holds."""
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.text, boundaries=list(metric.buckets), tag_keys=metric.labels)
    made = Counter if metric.kind == "counter" else Gauge
    return made(metric.name, metric.text, tag_keys=metric.labels)


def _whose() -> dict[str, str]:
    """Tenant and name of the deployment, from the environment that the night's job was given."""
    return {label: os.environ.get(variable, "") for label, variable in zip(DEPLOYMENT, names.WHOSE, strict=True)}

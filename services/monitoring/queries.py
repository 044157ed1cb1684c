"""PromQL of the metrics: each function takes definitions and returns text, so that no name is spelt outside circadian/metrics.py.

`$tenant`, `$deployment`, `$__rate_interval` and `$__range` are Grafana's variables; alerts have none.
"""

from __future__ import annotations

from circadian.metrics import DEPLOYMENT, Metric

INTERVAL = "$__rate_interval"
RANGE = "$__range"


def of(metric: Metric, *conditions: str, part: str = "", chosen: bool = True) -> str:
    """Its series, of the tenants and deployments that are chosen where it has such labels. conditions: `status=~"5.."`; part: `_bucket`."""
    variables = [f'{label}=~"${label}"' for label in DEPLOYMENT if chosen and label in metric.labels]
    inside = ",".join([*variables, *conditions])
    return f"{metric.series}{part}{{{inside}}}" if inside else f"{metric.series}{part}"


def most(metric: Metric, *by: str, where: tuple[str, ...] = (), chosen: bool = True) -> str:
    """Of a gauge: which controller tells it is not asked."""
    return f"max by ({', '.join(by)}) ({of(metric, *where, chosen=chosen)})"


def total(metric: Metric, *by: str, where: tuple[str, ...] = (), chosen: bool = True) -> str:
    """Over everything else."""
    return f"sum by ({', '.join(by)}) ({of(metric, *where, chosen=chosen)})"


def rate(metric: Metric, *by: str, where: tuple[str, ...] = (), window: str = INTERVAL, chosen: bool = True) -> str:
    """Of a counter, a second."""
    return f"sum by ({', '.join(by)}) (rate({of(metric, *where, chosen=chosen)}[{window}]))"


def grown(metric: Metric, *by: str, where: tuple[str, ...] = (), window: str = RANGE, chosen: bool = True) -> str:
    """Of a counter: by how much."""
    return f"sum by ({', '.join(by)}) (increase({of(metric, *where, chosen=chosen)}[{window}]))"


def so_far(metric: Metric, *by: str, where: tuple[str, ...] = ()) -> str:
    """Of a counter that the leader tells: since there are nights, whoever leads."""
    return f"max by ({', '.join(by)}) ({of(metric, *where)})"


def quantile(share: float, metric: Metric, *by: str, window: str = INTERVAL) -> str:
    """Of a histogram."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share:g}, sum by ({labels}) (rate({of(metric, part='_bucket')}[{window}])))"


def mean(metric: Metric, *by: str) -> str:
    """Of all that a histogram has seen."""
    labels = ", ".join(by)
    return f"max by ({labels}) ({of(metric, part='_sum')}) / max by ({labels}) ({of(metric, part='_count')})"

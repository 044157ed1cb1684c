"""A real Prometheus for as long as a test lasts, and the queries of dashboards and alerts as it answers them."""

from __future__ import annotations

import math
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

SCRAPE_SECONDS = 3
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 120.0
WINDOW = f"{10 * SCRAPE_SECONDS}s"
"""Of rates, in place of Grafana's own."""
POINTS = 240
"""Of a picture."""


@dataclass(frozen=True)
class Line:
    """One series of an answer: its labels, and its values over time where they are numbers."""

    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.points]


@dataclass
class Prometheus:
    """Scrapes these addresses into a folder; from `began` on."""

    folder: Path
    port: int
    targets: dict[str, str]
    rules: Path
    began: float = 0.0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs = [{"job_name": name, "static_configs": [{"targets": [address]}]} for name, address in self.targets.items()]
        every = f"{SCRAPE_SECONDS}s"
        settings = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        config = self.folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump({"global": settings, "scrape_configs": jobs, "rule_files": [str(self.rules)]}))
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'data'}"]
        with (self.folder / "log").open("wb") as output:
            self._process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{self.port}"], stdout=output, stderr=subprocess.STDOUT
            )
        self.began = self.began or time.time()
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "Prometheus does not answer"
            time.sleep(0.2)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def over(self, expr: str, ended: float) -> list[Line]:
        """An expression over the whole life; what is not a number is left out."""
        step = max(float(SCRAPE_SECONDS), (ended - self.began) / POINTS)
        asked = {"query": self.filled(expr, ended), "start": self.began, "end": ended, "step": step}
        found = self.ask("query_range", asked)["result"]
        lines = [Line(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in found]
        kept = [Line(one.labels, [point for point in one.points if math.isfinite(point[1])]) for one in lines]
        return [one for one in kept if one.points]

    def scraped(self, name: str, ended: float) -> list[Line]:
        """Everything that was told under this name, at every scrape."""
        found = self.ask("query", {"query": f"{name}[{math.ceil(ended - self.began)}s]", "time": ended})["result"]
        return [Line(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in found]

    def look(self, times: int = 2) -> None:
        """Wait until every target has been scraped so often from now on. The first time takes longest: targets are discovered before."""
        since, deadline = time.time(), time.monotonic() + LOOK_SECONDS
        while not self._has_looked(since, times):
            assert time.monotonic() < deadline, f"not scraped: {self.ask('targets', {})}"
            time.sleep(0.2)

    def _has_looked(self, since: float, times: int) -> bool:
        looks = [[at for at, up in line.points if up and at > since] for line in self.scraped("up", time.time())]
        return len(looks) == len(self.targets) and all(len(found) >= times for found in looks)

    def alerts(self) -> list[dict[str, Any]]:
        """That fire now."""
        return [one for one in self.ask("alerts", {})["alerts"] if one["state"] == "firing"]

    def filled(self, expr: str, ended: float) -> str:
        """With values for Grafana's variables."""
        expr = expr.replace("$__rate_interval", WINDOW).replace("$__range", f"{math.ceil(ended - self.began)}s")
        return re.sub(r"\$(tenant|deployment)\b", ".*", expr)

    def ask(self, what: str, asked: dict[str, Any]) -> Any:
        answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/{what}", params=asked, timeout=60, trust_env=False)
        assert answer.status_code == 200, f"{asked.get('query')}: {answer.text}"
        return answer.json()["data"]

    def _ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/-/ready", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

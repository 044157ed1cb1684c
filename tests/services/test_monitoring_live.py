"""A real Prometheus beside a service without a cluster: every panel and every alert about what the controller tells.

What processes of a night tell is looked at beside a whole cluster, in tests/e2e/test_night_monitored.py.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drawn import draw
from in_memory import ONLINE, MemoryFleet, MemoryLauncher, MemoryLearners, Service, running
from prometheus import Prometheus
from safetensors.torch import load_file, save_file

from circadian.metrics import METRICS
from services.monitoring.alerts import ALERTS
from services.monitoring.files import ALERTS_FILE, OURS
from services.monitoring.panels import series
from services.ports import RANGE, free_ports
from services.settings import Settings

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus: apt-get install prometheus")
ROOT = Path(__file__).resolve().parents[2]
MEASURED = {"agreement": (0.9, 0.7), "lost": (0.3, 0.1), "drift_base": (0.4, 1.0), "exposure": (3.0, 16.0)}
GATES = [
    {"name": name, "passed": name != "lost", "value": value, "limit": limit, "message": ""}
    for name, (value, limit) in MEASURED.items()
]
REPORT = {"gate": {"probes": {"prb_0": {"kind": "general", "score": 0.5}}}}
MOVES_HERE = ("SLEEP_WAITING", "ONLINE_LEARNED", "ONLINE_WAITING", "ONLINE_STUCK")
"""What one deployment whose memory learns at dusk does not move."""
STAGES = {"collect": {}, "dream_write_0": {"dreams": 10}, "dream_try_0": {"tried": 5, "rewarded": 2, "score": 0.5, "undreamt": 0.2}}


def live(service: Service, learners: MemoryLearners, prometheus: Prometheus) -> None:
    """A day, a night whose version is refused, and that of a deployment which learns online, until it cannot, and waits behind the first;
    long enough for some scrapes between."""
    service.deploy()
    service.deploy("other", **ONLINE)
    prometheus.look()
    for word in "oslo paris cairo lima".split():
        service.tell(f"the city of mira is {word} .", deployment="other")
    service.until(lambda: service.status("other")["fast_memory"]["chunks"] == 1)
    prometheus.look()
    expert = learners.asked[0].with_name("expert.safetensors")
    save_file({name: tensor + 1 for name, tensor in load_file(expert).items()}, expert)
    for word in "delhi quito tokyo riga".split():
        service.tell(f"the city of mira is {word} .", deployment="other")
    service.until(lambda: service.status("other")["fast_memory"]["error"])
    service.tell()
    prometheus.look()
    service.tell("the city of jehas is oslo .")
    sleep, night = service.sleep()
    answer = service.client.post("/v1/sleeps", json={"deployment": "other"})
    assert answer.json()["status"] == "queued", answer.text
    for stage, outputs in STAGES.items():
        night.log.emit("sleep.stage_started", stage, stage=stage)
        prometheus.look(1)
        night.log.emit("sleep.stage_finished", stage, stage=stage, seconds=3.0, outputs=outputs)
    night.end("rejected", made=True, gates=GATES, report=REPORT)
    ended = service.ended(sleep["id"])
    assert ended["outcome"] == "rejected"
    prometheus.look()


@pytest.fixture
def learners() -> MemoryLearners:
    return MemoryLearners()


@pytest.fixture
def service(settings: Settings, base: Path, learners: MemoryLearners) -> Iterator[Service]:
    with running(settings, base, MemoryFleet(), MemoryLauncher(), learners) as service:
        yield service


def test_every_panel_and_every_alert_about_the_controller_shows_something(
    service: Service, learners: MemoryLearners, tmp_path: Path
) -> None:
    ours, its = free_ports("127.0.0.1", 2, random.randrange(len(RANGE)))
    service.controller.metrics.listen("127.0.0.1", ours)
    try:
        with Prometheus(tmp_path / "prometheus", its, {"controller": f"127.0.0.1:{ours}"}, ROOT / ALERTS_FILE) as prometheus:
            live(service, learners, prometheus)
            refused = 'ALERTS{alertname="CircadianGateFailing",alertstate="firing"}'
            service.until(lambda: prometheus.over(refused, time.time()))
            ended = time.time()
            exprs = [query.expr for page in OURS for panel in page.panels for query in panel.queries] + [
                alert.value for alert in ALERTS
            ]
            by_controller = [expr for expr in exprs if all(METRICS[name].by != "node" for name in series(expr))]
            assert not [expr for expr in by_controller if not prometheus.over(expr, ended)]
            assert len(by_controller) > len(exprs) / 2
            for name in MOVES_HERE:
                (line,) = prometheus.over(f'{METRICS[name].series}{{deployment="other"}}', ended)
                assert max(line.values) > 0 == min(line.values), name
            firing = {(one["labels"]["alertname"], one["labels"].get("gate")) for one in prometheus.alerts()}
            assert firing == {("CircadianGateFailing", "lost"), ("CircadianForgetting", "lost"), ("CircadianOnlineStuck", None)}
            for page in OURS:
                path = tmp_path / f"{page.uid}.png"
                draw(page, prometheus, ended, path)
                assert path.read_bytes().startswith(b"\x89PNG")
    finally:
        service.controller.metrics.close()

"""What Prometheus and a log are told, and what they never are; and what the health routes say when something is missing."""

from __future__ import annotations

import io
import logging
import random
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from pathlib import Path

import httpx
import pytest
from in_memory import KEY, WAIT_SECONDS, MemoryFleet, MemoryLauncher, Service, running
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, text, update
from sqlalchemy.orm import Session, sessionmaker

from circadian.metrics import METRICS
from services import naming
from services.api.repeats import Repeats
from services.metrics import Metrics
from services.ports import RANGE, PortInUse, free_ports
from services.settings import Settings
from services.tables import ApiKey

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def port(service: Service) -> Iterator[int]:
    (free,) = free_ports("127.0.0.1", 1, random.randrange(len(RANGE)))
    service.controller.metrics.listen("127.0.0.1", free)
    yield free
    service.controller.metrics.close()


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_a_scrape_tells_what_was_asked_and_what_waits(service: Service, port: int) -> None:
    made = service.deploy()
    told = service.tell()
    for _ in range(3):
        service.client.get(f"/v1/experiences/{told['id']}")
    service.client.get("/v1/experiences/exp_none")
    service.client.get("/nowhere/at/all")
    service.until(lambda: scraped(port).get(("circadian_replicas", "toy", "default")) == 1.0)
    found = scraped(port)
    requests = "circadian_http_requests_total"
    assert found[requests, "GET", "/v1/experiences/{id}", "200"] == 3.0
    assert found[requests, "GET", "/v1/experiences/{id}", "404"] == 1.0
    assert found[requests, "GET", "none", "404"] == 1.0
    assert found["circadian_http_answer_seconds_count", "GET", "/v1/experiences/{id}"] == 4.0
    assert found["circadian_experiences_total", "pending"] == 1.0
    assert found["circadian_pending_tokens", "toy", "default"] == told["tokens"]
    assert found["circadian_pending_experiences", "toy", "default"] == 1.0
    assert found["circadian_leader",] == found["circadian_database_up",] == 1.0
    assert 0.0 <= found["circadian_active_version_age_seconds", "toy", "default"] < 600.0
    assert (found["circadian_sleeps", "queued"], found["circadian_deliveries_total", "failed"]) == (0.0, 0.0)
    sleep, night = service.sleep()
    assert scraped(port)["circadian_sleeps", "succeeded"] == 0.0
    night.end("candidate")
    service.ended(sleep["id"])
    found = scraped(port)
    assert (found["circadian_sleeps", "succeeded"], found["circadian_deliveries_total", "proved"]) == (1.0, 1.0)
    assert found["circadian_pending_tokens", "toy", "default"] == 0.0
    assert made["id"] not in str(found)


def test_no_label_holds_what_a_client_sent(service: Service, port: int) -> None:
    service.deploy()
    service.tell("mira lives in oslo")
    service.client.get("/v1/experiences/exp_mira?subject=mira")
    service.client.request("MIRA", "/v1/experiences")
    service.client.get("/mira")
    said = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert "mira" not in said.lower()
    assert not re.search(r"(exp|dep|slp|ver|key)_[0-9a-f]{6}", said)
    assert KEY not in said


def test_a_request_that_the_service_fails_counts_as_500(service: Service, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("no")

    def breaks(*_: object) -> None:
        raise ValueError("no")

    service.deploy()
    service.fleet.answer = fails  # type: ignore[method-assign, assignment]
    chat = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
    assert service.client.post("/v1/chat/completions", json=chat).status_code == 500
    monkeypatch.setattr(Repeats, "_begin", breaks)
    assert service.client.post("/v1/sleeps", json={"deployment": "toy"}, headers={"Idempotency-Key": "k"}).status_code == 500
    found = scraped(port)
    assert found["circadian_http_requests_total", "POST", "/v1/chat/completions", "500"] == 1.0
    assert found["circadian_http_answer_seconds_count", "POST", "/v1/chat/completions"] == 1.0
    assert found["circadian_http_requests_total", "POST", "/v1/", "500"] == 1.0, "it had found no route"


def test_metrics_are_not_on_the_port_of_the_clients(service: Service, port: int) -> None:
    assert service.client.get("/metrics").status_code == 404
    assert httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).status_code == 200
    with pytest.raises(PortInUse, match="CIRCADIAN_METRICS_PORT"):
        service.controller.metrics.listen("127.0.0.1", port)


def test_a_database_that_is_away_is_told_and_breaks_no_scrape(service: Service, port: int) -> None:
    with service.controller.database.write() as tx:
        tx.execute(text("ALTER TABLE sleeps RENAME TO elsewhere"))
    try:
        found = scraped(port)
        assert found["circadian_database_up",] == 0.0
        assert ("circadian_sleeps", "queued") not in found
    finally:
        with service.controller.database.write() as tx:
            tx.execute(text("ALTER TABLE elsewhere RENAME TO sleeps"))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Where a database was: connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_database_that_hangs_is_told_in_time_and_is_asked_once(
    service: Service, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.metrics.LOOK_SECONDS", 0.5)
    away = copy(service.controller.database)
    engine = create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing")
    away._read = sessionmaker(engine)
    found = Metrics(away, service.controller.serving, service.controller.leader)
    (free,) = free_ports("127.0.0.1", 1, random.randrange(len(RANGE)))
    found.listen("127.0.0.1", free)
    try:
        for _ in range(3):
            said = scraped(free)  # which itself waits for five seconds, as httpx does
            assert (said["circadian_database_up",], said["circadian_leader",]) == (0.0, 1.0)
            assert ("circadian_sleeps", "queued") not in said
        silent.settimeout(0.2)
        asked, _ = silent.accept()
        with pytest.raises(TimeoutError):
            silent.accept()
        asked.close()
        away._read = service.controller.database._read
        service.until(lambda: scraped(free)["circadian_database_up",] == 1.0)
    finally:
        found.close()


def test_scrapes_that_come_at_the_same_time_share_a_look(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.metrics.LOOK_SECONDS", WAIT_SECONDS)
    database, looks, most, goes_on = service.controller.database, list[object](), list[int](), threading.Event()

    @contextmanager
    def slow() -> Iterator[Session]:
        looks.append(object())
        most.append(len(looks))
        goes_on.wait(WAIT_SECONDS)
        with database._read() as session:
            yield session
        looks.pop()

    held = copy(database)
    monkeypatch.setattr(held, "read", slow)
    found = Metrics(held, service.controller.serving, service.controller.leader)
    with ThreadPoolExecutor() as pool:
        scrapes = [pool.submit(found.registry.get_sample_value, "circadian_database_up") for _ in range(3)]
        service.until(lambda: looks)
        goes_on.set()
        assert [scrape.result() for scrape in scrapes] == [1.0] * 3
    assert set(most) == {1}


def test_what_is_logged_for_a_request_names_it_and_its_trace(service: Service) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(naming.Named())
    handler.setFormatter(logging.Formatter(naming.FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    try:

        async def fails(*_: object) -> None:
            raise RuntimeError("no")

        service.deploy()
        service.fleet.answer = fails  # type: ignore[method-assign, assignment]
        chat = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
        for id, parent in (("one", PARENT), ("two", "00-x")):
            headers = {"x-request-id": id, "traceparent": parent}
            assert service.client.post("/v1/chat/completions", json=chat, headers=headers).headers["x-request-id"] == id
        logging.getLogger("services").error("of nobody")
    finally:
        root.removeHandler(handler)
    lines = [line for line in stream.getvalue().splitlines() if "services" in line]
    failed = [line for line in lines if "/v1/chat/completions failed" in line]
    assert [re.search(r"\[(.*?)\]", line)[1] for line in failed] == [f"one trace={TRACE}", "two"]  # type: ignore[index]
    assert next(line for line in lines if "of nobody" in line).endswith("services of nobody")


def test_replicas_that_a_request_has_started_do_not_log_in_its_name(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(naming.Named())
    service.client.headers["x-request-id"] = "founder"
    service.deploy()
    service.fleet.versions.clear()
    service.until(lambda: any("bringing them up" in record.message for record in caplog.records))
    (record,) = [record for record in caplog.records if "bringing them up" in record.message][:1]
    assert record.asked == ""  # type: ignore[attr-defined]


def test_the_health_routes_tell_what_is_missing(service: Service) -> None:
    for path in ("/livez", "/startupz", "/readyz"):
        assert service.client.get(path).status_code == 200
    ready = service.client.get("/readyz").json()
    assert (ready["status"], ready["checks"]["ray"].split(":")[0]) == ("degraded", "unavailable")
    assert {name for name, said in ready["checks"].items() if said == "ok"} == {"database", "migrations", "keys", "tasks"}
    database = service.controller.database
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    for path in ("/startupz", "/readyz"):
        answer = service.client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert "services.migrate" in answer.json()["checks"]["migrations"]
    assert service.client.get("/livez").status_code == 200
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert service.client.get("/readyz").status_code == 200, "a later release has migrated, and only expands"
    with database.write() as tx:
        tx.execute(update(ApiKey).values(revoked_at=1.0))
    answer = service.client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["keys"].split(" ")[0]) == (503, "none")


def test_a_follower_tells_nothing_that_its_leader_tells(settings: Settings, base: Path) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        families = {family.name for family in service.controller.metrics.registry.collect()}
        service.controller.leader._leads = False
        left = {family.name for family in service.controller.metrics.registry.collect()}
        service.controller.leader._leads = True
    assert families - left == {metric.name for metric in METRICS.values() if metric.by == "leader"}
    assert left == {metric.name for metric in METRICS.values() if metric.by == "each"}

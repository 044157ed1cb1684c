"""Events reach the registry once each, and clients from where they stopped."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from in_memory import KEY, WAIT_SECONDS, Service
from migrated import new_home

from circadian.events import FILE, EventLog
from services import registry, tail
from services.leader import Lease
from services.settings import Settings
from services.tables import Database, Deployment, Sleep


@pytest.fixture
def database(settings: Settings) -> Database:
    new_home(settings)
    database = Database(settings.database, settings.database_busy_seconds)
    with database.write() as tx:
        tx.add(
            Deployment(
                tenant="default", id="dep_1", name="toy", base_model={}, memory={}, recipe={}, serving={}, active_version="ver_1"
            )
        )
        tx.flush()
        tx.add(
            Sleep(
                id="slp_1",
                deployment="dep_1",
                recipe={},
                held_out=[],
                request_sha256="",
                parent_version="ver_1",
                child_version="ver_2",
                status="preparing",
            )
        )
    return database


@pytest.fixture
def lease(settings: Settings, database: Database) -> Lease:
    """Of the controller that leads."""
    lease = Lease(settings, database)
    assert lease.take()
    return lease


def _sleep(database: Database) -> Sleep:
    with database.read() as tx:
        return registry.one(tx, Sleep, "sleep", "slp_1")


def _messages(database: Database) -> list[str]:
    with database.read() as tx:
        return [event.message for event in registry.events(tx, "slp_1")]


def test_each_line_becomes_one_event_whoever_reads_it_how_often(database: Database, lease: Lease, tmp_path: Path) -> None:
    log, stale = EventLog(tmp_path), _sleep(database)
    for i in range(3):
        log.emit("sleep.note", str(i))
    assert tail.ingest(lease, stale, tmp_path) == 3
    # A second controller that has not seen the first one's work: its row is old, the database's counts.
    assert tail.ingest(lease, stale, tmp_path) == 0
    log.emit("sleep.note", "3")
    assert tail.ingest(lease, _sleep(database), tmp_path) == 1
    assert _messages(database) == ["0", "1", "2", "3"]


def test_a_line_that_is_still_being_written_waits(database: Database, lease: Lease, tmp_path: Path) -> None:
    line = json.dumps({"type": "sleep.note", "created_at": 1.0, "message": "whole", "data": {}})
    (tmp_path / FILE).write_text(line[:20])
    assert tail.ingest(lease, _sleep(database), tmp_path) == 0
    (tmp_path / FILE).write_text(line + "\n")
    assert tail.ingest(lease, _sleep(database), tmp_path) == 1
    assert _messages(database) == ["whole"]


def test_a_line_longer_than_one_read_is_read_whole(
    database: Database, lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MOST_BYTES_AT_ONCE", 8)
    for text in ("a" * 100, "b"):
        EventLog(tmp_path).emit("sleep.note", text)
    tail.ingest_all(lease, _sleep(database), tmp_path)
    assert _messages(database) == ["a" * 100, "b"]


def test_half_a_line_of_a_killed_night_is_passed_over(database: Database, lease: Lease, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"type": "sleep.no')
    for text in ("lost with it", "whole"):
        EventLog(tmp_path).emit("sleep.note", text)
    tail.ingest_all(lease, _sleep(database), tmp_path)
    assert _messages(database) == ["whole"]


def test_a_reader_that_dies_before_it_commits_has_written_nothing(
    database: Database, lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        EventLog(tmp_path).emit("sleep.note", str(i))
    written = registry.append_event

    def dies(tx: Any, sleep: Sleep, kind: str, message: str, *rest: Any, **more: Any) -> None:
        written(tx, sleep, kind, message, *rest, **more)
        if message == "1":
            raise KeyboardInterrupt

    monkeypatch.setattr(tail, "append_event", dies)
    with pytest.raises(KeyboardInterrupt):
        tail.ingest(lease, _sleep(database), tmp_path)
    assert (_messages(database), _sleep(database).events_offset) == ([], 0)
    monkeypatch.undo()
    assert tail.ingest(lease, _sleep(database), tmp_path) == 3
    assert _messages(database) == ["0", "1", "2"]
    assert _sleep(database).events_offset == os.path.getsize(tmp_path / FILE)


def test_stages_move_the_sleep_and_progress_is_shown(database: Database, lease: Lease, tmp_path: Path) -> None:
    log, seen = EventLog(tmp_path), []
    for kind, data in [
        ("sleep.stage_started", {"stage": "collect"}),
        ("sleep.stage_started", {"stage": "knowledge_seeding"}),
        ("sleep.progress", {"step": 50, "total_steps": 200}),
        ("sleep.stage_started", {"stage": "gate"}),
    ]:
        log.emit(kind, "", **data)
        tail.ingest(lease, _sleep(database), tmp_path)
        sleep = _sleep(database)
        seen.append((sleep.status.value, sleep.phase, sleep.progress.get("fraction")))
    assert seen == [
        ("preparing", "collect", None),
        ("running", "knowledge_seeding", None),
        ("running", "knowledge_seeding", 0.25),
        ("evaluating", "gate", None),
    ]


def _stream(service: Service, sleep: str, last: int | None = None) -> list[tuple[str, str]]:
    """(id, event) of everything that a stream says until it is done."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last is not None else {})
    text = service.client.get(f"/v1/sleeps/{sleep}/events", headers=headers).text
    blocks = [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")) for block in text.split("\n\n")]
    return [(block.get("id", ""), block["event"]) for block in blocks if "event" in block]


def test_a_stream_is_taken_up_behind_the_last_event_and_ends_with_done(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    night.log.emit("sleep.stage_started", "collect", stage="collect")
    night.end("no_op")
    service.ended(sleep["id"])
    whole = _stream(service, sleep["id"])
    assert [id for id, _ in whole] == ["1", "2", "3", "4", ""]
    assert [kind for _, kind in whole] == ["sleep.queued", "sleep.started", "sleep.stage_started", "sleep.succeeded", "done"]
    assert _stream(service, sleep["id"], last=2) == whole[2:]
    assert _stream(service, sleep["id"], last=4) == [("", "done")]
    listed = service.client.get(f"/v1/sleeps/{sleep['id']}/events", params={"after_seq": 2}).json()["data"]
    assert [event["seq"] for event in listed] == [3, 4]


def test_a_long_poll_ends_with_the_sleep_or_with_its_time(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    started = time.monotonic()
    answer = service.client.get(f"/v1/sleeps/{sleep['id']}", params={"wait": 0.3}).json()
    assert answer["status"] == "preparing"
    assert time.monotonic() - started >= 0.3
    night.end("no_op")
    assert service.ended(sleep["id"])["outcome"] == "no_op"
    assert service.client.get(f"/v1/sleeps/{sleep['id']}", params={"wait": 61}).status_code == 422


def test_a_silent_stream_beats(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    heard = bytearray()

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        heard.extend(message.get("body", b""))
        if heard.count(b": ping") >= 2 and not ended:
            ended.append(night.end("no_op"))

    async def listen() -> None:
        headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"accept", b"text/event-stream")]
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/v1/sleeps/{sleep['id']}/events",
            "query_string": b"",
            "headers": headers,
        }
        async with asyncio.timeout(WAIT_SECONDS):
            await service.client.app(scope, receive, send)

    ended: list[str] = []
    body = [{"type": "http.request", "body": b"", "more_body": False}]
    assert service.client.portal is not None
    service.client.portal.call(listen)
    assert ended
    assert heard.endswith(b"event: done\ndata: {}\n\n")

"""Batches of experiences: on disk before they are answered for, each line taken in once whoever dies, and none lost without a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from sqlalchemy import select, update
from stored import Stored
from test_errors import problem
from test_experiences import POISON
from test_keys_and_tenants import as_key, made

from services import batches, taking_in
from services.batch_files import Spool, TooMuch, batch_file, lines
from services.batches import AT_ONCE, Batches
from services.settings import Settings
from services.tables import BatchError, ExperienceBatch, ExperienceRow, new_id

URL = "/v1/experiences/batches"
TYPE = {"content-type": "application/x-ndjson"}
WORDS = "oslo paris cairo lima delhi quito tokyo rome bern accra".split()


def line(text: str, **more: Any) -> bytes:
    return json.dumps({"text": text} | more).encode() + b"\n"


def numbered(count: int, **more: Any) -> bytes:
    """Lines that are no copies of each other."""
    return b"".join(
        line(f"{WORDS[i % 10]} {i} {WORDS[i // 10 % 10]} {i * 7} has {i * 13} {i * 31} streets", **more) for i in range(count)
    )


def spooled(stored: Stored, body: bytes, sender: str = "key_a", deployment: str | None = "dep_toy", **more: Any) -> str:
    """A batch that has arrived. Returns its id."""
    id = new_id("bat")
    with Spool(stored.settings.batches_folder, id, 1 << 30, 1 << 30) as spool:
        spool.add(body)
        spool.done()
        with stored.database.write() as tx:
            row = {"sha256": spool.sha256, "bytes": spool.bytes, "lines": spool.lines}
            tx.add(ExperienceBatch(id=id, tenant="default", deployment=deployment, sender=sender, **row, **more))
    return id


def taken(stored: Stored, batch: str) -> ExperienceBatch:
    """As far as it goes now, with a new leader for every group of lines."""
    while Batches(stored.settings, stored.lease, stored).advance(batch):
        pass
    return seen(stored, batch)


def seen(stored: Stored, batch: str) -> ExperienceBatch:
    with stored.database.read() as tx:
        return tx.scalars(select(ExperienceBatch).where(ExperienceBatch.id == batch)).one()


def counts(row: ExperienceBatch) -> tuple[int, int, int, int]:
    return row.accepted, row.duplicate, row.rejected, row.quarantined


def test_each_line_is_kept_or_refused_with_its_place_and_a_reason(stored: Stored) -> None:
    stored.deployment()
    deep = b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    refused = {
        2: (b'{"text": "\xff\xfe"}\n', "malformed_json", ""),
        3: (deep, "malformed_json", ""),
        4: (b'{"text": NaN}\n', "malformed_json", ""),
        5: (b'{"text": "\\ud800"}\n', "validation_failed", "/text"),
        6: (b"[1, 2]\n", "validation_failed", "/"),
        7: (b'{"text": "a", "nap": true}\n', "validation_failed", "/nap"),
        8: (b'{"text": "a", "messages": [{"role": "user", "content": "b"}]}\n', "validation_failed", "/"),
        9: (b'{"text": "a b c", "deployment": "nobody"}\n', "deployment_not_found", "/deployment"),
        10: (b'{"text": "a b c", "consent": false}\n', "no_consent", ""),
        11: (b'{"text": "a", "subject_id": "x\\u0000y"}\n', "validation_failed", "/subject_id"),
        12: (line("x" * (stored.settings.most_body_bytes + 5)), "too_large", ""),
        13: (b"{" + b"9" * 5000 + b"}\n", "malformed_json", ""),
    }
    body = line("the city of mira is oslo .") + b"".join(bad for bad, _, _ in refused.values()) + b"\n  \n" + line(POISON)
    body += b'{"text": "the last one has no end"}'
    row = taken(stored, spooled(stored, body))
    assert (row.status, row.line, row.offset, row.lines) == ("completed", 17, len(body), 17)
    assert counts(row) == (2, 0, len(refused), 1)
    with stored.database.read() as tx:
        errors = {one.line: one for one in tx.scalars(select(BatchError))}
    assert {number: (one.code, one.pointer) for number, one in errors.items()} == {
        number: (code, pointer) for number, (_, code, pointer) in refused.items()
    }
    assert all(len(one.detail) > 10 for one in errors.values())
    assert [row.status for row in stored.experiences()] == ["pending", "quarantined", "pending"]
    assert not batch_file(stored.settings.batches_folder, row.id).exists()


def test_a_leader_that_dies_with_lines_in_hand_has_taken_none_of_them_and_the_next_takes_each_once(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.deployment()
    monkeypatch.setattr(batches, "AT_ONCE", 4)
    batch = spooled(stored, numbered(11))
    count, kept = batches._count, []

    class Killed(BaseException):
        pass

    def dies(*given: Any) -> None:
        count(*given)
        kept.append(given)
        if len(kept) in (1, 5, 9):
            raise Killed

    monkeypatch.setattr(batches, "_count", dies)
    deaths = 0
    while seen(stored, batch).status != "completed":
        before = seen(stored, batch).line
        try:
            Batches(stored.settings, stored.lease, stored).advance(batch)
        except Killed:
            deaths += 1
            assert (seen(stored, batch).line, len(stored.experiences())) == (before, before)
    assert deaths == 3
    assert counts(seen(stored, batch)) == (11, 0, 0, 0)
    assert [row.dedupe_key for row in stored.experiences()] == [f"{batch}/{i + 1}" for i in range(11)]


def test_ten_thousand_of_one_source_in_a_minute_are_capped_lose_nothing_and_hold_up_nobody_else(stored: Stored) -> None:
    stored.deployment(screening={"caps": {"per_source_per_minute": 8}})
    flood, other = spooled(stored, numbered(10_000)), spooled(stored, line("the pet of tono is a dog ."), sender="key_b")
    held = taken(stored, flood)
    assert (held.status, held.line, counts(held)) == ("running", 8, (8, 0, 0, 0))
    assert "per_source_per_minute" in str(held.waiting)
    assert (taken(stored, other).status, len(stored.experiences())) == ("completed", 9)
    with stored.database.write() as tx:
        tx.execute(update(ExperienceRow).values(created_at=ExperienceRow.created_at - taking_in.MINUTE))
    again = taken(stored, flood)
    assert (again.line, counts(again), len(stored.experiences())) == (16, (16, 0, 0, 0), 17)


def test_a_senders_own_name_for_a_line_keeps_it_once_over_batches(stored: Stored) -> None:
    stored.deployment()
    body = line("the city of mira is oslo .", dedupe_key="day/1") + line("the pet of tono is a dog .", dedupe_key="day/2")
    assert counts(taken(stored, spooled(stored, body))) == (2, 0, 0, 0)
    assert counts(taken(stored, spooled(stored, body))) == (0, 2, 0, 0)
    assert len(stored.experiences()) == 2


def test_a_line_reaches_no_deployment_that_its_key_may_not_touch(stored: Stored) -> None:
    stored.deployment()
    stored.deployment("second")
    stored.deployment("theirs", tenant="other")
    body = b"".join(line(f"the city of {name} is {name}", deployment=name) for name in ("toy", "second", "theirs")) + line("a b c")
    row = taken(stored, spooled(stored, body, deployment=None, allowed=["dep_toy"]))
    assert counts(row) == (1, 0, 3, 0)
    with stored.database.read() as tx:
        codes = list(tx.scalars(select(BatchError.code).order_by(BatchError.line)))
    assert codes == ["deployment_not_allowed", "deployment_not_found", "validation_failed"]


def test_a_batch_whose_file_is_gone_says_from_where_to_send_again(stored: Stored) -> None:
    stored.deployment()
    batch = spooled(stored, b"\n" * AT_ONCE + numbered(1))
    assert Batches(stored.settings, stored.lease, stored).advance(batch)
    batch_file(stored.settings.batches_folder, batch).unlink()
    row = taken(stored, batch)
    assert (row.status, counts(row)) == ("failed", (0, 0, 0, 0))
    assert f"line {AT_ONCE}" in str(row.error)


def test_a_batch_in_which_the_service_fails_is_given_up_and_the_others_go_on(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.deployment()
    stored.deployment("broken")
    bad, good = spooled(stored, line("a b c"), deployment="dep_broken"), spooled(stored, line("the pet of tono is a dog ."))
    look_at = batches.look_at

    def fails(intake: Any, deployment: Any, *more: Any) -> Any:
        if deployment.name == "broken":
            raise RuntimeError("its tokenizer is gone")
        return look_at(intake, deployment, *more)

    monkeypatch.setattr(batches, "look_at", fails)
    leader = Batches(stored.settings, stored.lease, stored)
    for _ in range(stored.settings.watcher_failures):
        for batch in (bad, good):
            leader._try(batch)
    assert (seen(stored, bad).status, seen(stored, good).status) == ("failed", "completed")
    assert counts(seen(stored, bad)) == (0, 0, 0, 0)


def test_what_a_controller_left_that_died_while_a_batch_came_in_is_deleted(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.deployment()
    waiting = spooled(stored, line("a b c"))
    folder = stored.settings.batches_folder
    left = [folder / "bat_x.part", folder / "bat_y.ndjson"]
    for path in left:
        path.touch()
    tidy = Batches(stored.settings, stored.lease, stored).tidy
    tidy()
    assert all(path.exists() for path in left)
    monkeypatch.setattr(batches, "ABANDONED_SECONDS", -1.0)
    tidy()
    assert [path.exists() for path in left] == [False, False]
    assert batch_file(folder, waiting).exists()


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_the_cursor_of_a_file_finds_the_same_lines_however_long_they_are(tmp_path: Path, most: int) -> None:
    path = tmp_path / "a.ndjson"
    body = b"1\n\n333\n22\n7777777\n4444"
    path.write_bytes(body)
    whole = [(one.number, one.text, one.end) for one in lines(path, 0, 0, 100, most)]
    assert [text for _, text, _ in whole] == [text if len(text) <= most else None for text in body.split(b"\n")]
    step, found = (0, 0), []
    while one := lines(path, *step, 1, most):
        found.append((one[0].number, one[0].text, one[0].end))
        step = (one[0].number, one[0].end)
    assert (found, whole[-1][2]) == (whole, len(body))


def test_a_file_that_is_not_whole_leaves_nothing_and_nobody_else_can_read_one(tmp_path: Path) -> None:
    with Spool(tmp_path / "b", "bat_a", 100, 2) as spool:
        spool.add(b"1\n2\n")
        with pytest.raises(TooMuch, match="lines"):
            spool.add(b"3")
    with pytest.raises(TooMuch, match="bytes"), Spool(tmp_path / "b", "bat_a", 3, 9) as spool:
        spool.add(b"1234")
    assert list((tmp_path / "b").iterdir()) == []
    with Spool(tmp_path / "b", "bat_a", 3, 9) as spool:
        spool.add(b"123")
        path = spool.done()
    assert (path.read_bytes(), path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077) == (b"123", 0, 0)


def sent(service: Service, body: bytes, params: dict[str, str] | None = None, **headers: str) -> Any:
    return service.client.post(URL, content=body, params=params or {"deployment": "toy"}, headers=TYPE | headers)


def test_a_batch_that_was_answered_for_is_finished_by_the_next_life_of_the_service(settings: Settings, base: Path) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy("toy", screening={"caps": {"per_source_per_minute": 3}})
        answer = sent(service, numbered(5))
        assert answer.status_code == 202
        batch = answer.json()
        assert (answer.headers["location"], batch["lines"]) == (f"{URL}/{batch['id']}", 5)
        service.until(lambda: service.client.get(f"{URL}/{batch['id']}").json()["waiting"] is not None)
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        with service.controller.database.write() as tx:
            tx.execute(update(ExperienceRow).values(created_at=ExperienceRow.created_at - taking_in.MINUTE))
        service.until(lambda: service.client.get(f"{URL}/{batch['id']}").json()["status"] == "completed")
        told = service.client.get(f"{URL}/{batch['id']}").json()
        assert told["counts"] == {"accepted": 5, "duplicate": 0, "rejected": 0, "quarantined": 0}
        assert len(service.client.get("/v1/experiences").json()["data"]) == 5


def test_what_cannot_be_a_batch_is_refused_whole_and_leaves_no_file(service: Service) -> None:
    service.deploy()
    settings = service.settings
    problem(service.client.post(URL, content=b"{}", headers={"content-type": "application/json"}), 415, "unsupported_media_type")
    problem(sent(service, b"x", **{"content-encoding": "gzip"}), 415, "unsupported_media_type")
    problem(sent(service, b"\n" * (settings.most_batch_lines + 1)), 413, "too_large")
    problem(sent(service, b" " * (settings.most_batch_bytes + 1)), 413, "too_large")
    problem(sent(service, b"{}", {"deployment": "nobody"}), 404, "deployment_not_found")
    assert list(settings.batches_folder.iterdir()) == []
    assert service.client.get(URL).json()["data"] == []


def test_a_batch_sent_again_with_its_key_is_the_first_one(service: Service) -> None:
    service.deploy()
    first, again = (sent(service, numbered(2), **{"Idempotency-Key": "one"}).json() for _ in range(2))
    assert first["id"] == again["id"]
    problem(sent(service, numbered(3), **{"Idempotency-Key": "one"}), 422, "idempotency_key_reused")
    service.until(lambda: service.client.get(f"{URL}/{first['id']}").json()["status"] == "completed")
    assert len(service.client.get("/v1/experiences").json()["data"]) == 2


def test_a_tenant_whose_batches_wait_is_told_to_wait_and_errors_are_paged_in_order(service: Service) -> None:
    service.deploy("toy", screening={"caps": {"per_source_per_minute": 1}})
    for _ in range(service.settings.most_batches):
        assert sent(service, b"nothing\nnone\nneither\n" + numbered(2)).status_code == 202
    answer = sent(service, numbered(1))
    problem(answer, 429, "batches_quota")
    assert answer.headers["retry-after"]
    first = service.client.get(URL, params={"limit": 1}).json()["data"][0]
    errors = first["errors_url"]
    service.until(lambda: len(service.client.get(errors).json()["data"]) == 3)
    page = service.client.get(errors, params={"limit": 2}).json()
    assert ([one["line"] for one in page["data"]], page["has_more"]) == ([1, 2], True)
    rest = service.client.get(errors, params={"limit": 2, "after": page["last_id"]}).json()
    assert ([one["line"] for one in rest["data"]], rest["has_more"]) == ([3], False)
    stranger = as_key(made(service, tenant="other")["key"])
    problem(service.client.get(errors, headers=stranger), 404, "batch_not_found")

"""Schedules wait where the gates have refused two versions in a row; a human does not."""

from __future__ import annotations

import time

import pytest
from in_memory import Service
from test_schedules import DAY, look, made, runs, settings, sleeps

from services.schedules.cooling import cooling_until

__all__ = ["settings"]
FAILED = {"name": "forgotten", "passed": False, "value": 0.4, "limit": 0.1, "message": "forgotten 0.400 > 0.1"}
TOKENS = {"any_of": [{"type": "token_budget", "pending_tokens": 1}]}


@pytest.mark.parametrize(
    ("verdicts", "seconds", "until"),
    [
        ([], 60.0, None),
        ([("rejected", 100.0)], 60.0, None),
        ([("rejected", 100.0), ("rejected", 50.0)], 60.0, 160.0),
        ([("rejected", 100.0), ("rejected", 50.0), ("promoted", 10.0)], 60.0, 160.0),
        ([("rejected", 100.0), ("promoted", 50.0), ("rejected", 10.0)], 60.0, None),
        ([("promoted", 100.0), ("rejected", 50.0), ("rejected", 10.0)], 60.0, None),
        ([("candidate", 100.0), ("rejected", 50.0)], 60.0, None),
        ([("rejected", 100.0), ("candidate", 50.0)], 60.0, None),
        ([("rejected", 100.0), ("rejected", 50.0), ("rejected", 10.0)], 60.0, 160.0),
        ([("rejected", 100.0), ("rejected", 50.0)], 0.0, None),
    ],
)
def test_two_versions_in_a_row_that_were_refused_hold_schedules_back(
    verdicts: list[tuple[str, float]], seconds: float, until: float | None
) -> None:
    assert cooling_until(verdicts, seconds) == until


def refused(service: Service, version: bool = True) -> str:
    """A sleep that somebody has asked for, and whose version the gates refuse."""
    sleep, night = service.sleep()
    night.end("rejected", made=version, report={"gate": {"gates": [FAILED]}})
    assert service.ended(sleep["id"])["outcome"] == "rejected"
    return str(sleep["id"])


def test_after_two_refused_versions_schedules_wait_and_say_so_and_a_human_does_not(service: Service) -> None:
    service.deploy()
    service.tell()
    traffic = made(service, TOKENS, min_interval_seconds=0)["id"]
    hourly = made(service, {"any_of": [{"type": "cron", "expr": "0 * * * *"}]}, min_interval_seconds=0)["id"]
    first = refused(service)
    failed, _ = service.sleep()
    service.client.post(f"/v1/sleeps/{failed['id']}/cancel")
    service.ended(failed["id"])
    before = time.time()
    second = refused(service, version=False)
    assert "deployment.cooling_down" not in [event["type"] for event in service.events(first)]
    (event,) = [event for event in service.events(second) if event["type"] == "deployment.cooling_down"]
    until = event["data"]["until"]
    assert before + DAY <= until <= time.time() + DAY
    hour = until - 3600.0 - until % 3600.0

    assert not look(service, traffic)
    assert not look(service, hourly, hour + 1)
    (run,) = [run for run in runs(service, hourly) if run["reason"] == "cooling_down"]
    assert (run["outcome"], "cools down" in run["message"]) == ("skipped", True)
    for schedule in (traffic, hourly):
        told = service.client.get(f"/v1/schedules/{schedule}").json()
        assert told["cooling_until"] == pytest.approx(until, abs=1.0)
    assert len(sleeps(service)) == 3

    assert look(service, traffic, until + 2.0), "afterwards one may begin"
    assert service.client.get(f"/v1/schedules/{traffic}").json()["cooling_until"] is None
    (begun, *_) = sleeps(service)
    service.client.post(f"/v1/sleeps/{begun['id']}/cancel")
    service.ended(begun["id"])
    third = refused(service)  # by hand, in spite of it
    (again,) = [event["data"]["until"] for event in service.events(third) if event["type"] == "deployment.cooling_down"]
    assert not look(service, traffic)
    told = service.client.get(f"/v1/schedules/{traffic}").json()
    assert told["cooling_until"] == pytest.approx(again, abs=1.0), "where its version is refused too, they wait again"
    service.client.post(f"/v1/schedules/{traffic}/run").raise_for_status()

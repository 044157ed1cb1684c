"""The catalogue of events: what can be subscribed to, who hears what, and the message."""

from __future__ import annotations

import json

import pytest

from services import registry
from services.states import TERMINAL
from services.tables import Event
from services.webhooks.events import EVENTS, UnknownEvent, checked, matches, patterns, payload


@pytest.mark.parametrize(
    ("subscribed", "event", "heard"),
    [
        (["sleep.succeeded"], "sleep.succeeded", True),
        (["sleep.succeeded"], "sleep.failed", False),
        (["sleep.*"], "sleep.failed", True),
        (["sleep.*"], "version.promoted", False),
        (["sleep.*", "version.promoted"], "version.promoted", True),
        (["*"], "deployment.put_back", True),
        ([], "sleep.failed", False),
        # No part of a name, and no other wildcard.
        (["sleep"], "sleep.failed", False),
        (["sleep.f*"], "sleep.failed", False),
        (["*.failed"], "sleep.failed", False),
        (["s*"], "sleep.failed", False),
        # What is not in the catalogue stays inside: a learner's process id, a night's files.
        (["*"], "sleep.learner_started", False),
        (["sleep.*"], "sleep.fast_memory", False),
        (["sleep.fast_memory"], "sleep.fast_memory", False),
        (["*"], "*", False),
        (["sleep.*"], "sleep.*", False),
    ],
)
def test_who_hears_which_event(subscribed: list[str], event: str, heard: bool) -> None:
    assert matches(subscribed, event) is heard


def test_the_end_of_a_sleep_can_be_subscribed_to_whatever_it_is() -> None:
    assert {f"sleep.{status}" for status in TERMINAL} <= set(EVENTS)


def test_every_pattern_can_be_subscribed_to_and_hears_something() -> None:
    for pattern in patterns():
        assert checked([pattern]) == (pattern,)
        assert any(matches([pattern], event) for event in EVENTS)


@pytest.mark.parametrize(
    ("subscribed", "said"),
    [
        ([], "events: there are none; name some, or '*' for all"),
        (["sleep.suceeded", "sleep.failed"], "events: there is no 'sleep.suceeded'; choose from *, sleep.*, "),
        (["dream.*"], "events: there is no 'dream.*'; choose from "),
        (["sleep.fast_memory"], "events: there is no 'sleep.fast_memory'; "),
    ],
)
def test_a_subscription_that_could_hear_nothing_is_refused(subscribed: list[str], said: str) -> None:
    with pytest.raises(UnknownEvent) as caught:
        checked(subscribed)
    assert str(caught.value).startswith(said)


def test_a_subscription_holds_each_entry_once_in_its_order() -> None:
    assert checked(["version.*", "sleep.failed", "version.*"]) == ("version.*", "sleep.failed")


def test_the_message_is_the_object_of_the_event_stream_and_a_timestamp() -> None:
    row = Event(id="evt_1", sleep="slp_1", seq=3, created_at=0.5, type="sleep.failed", level="error", message="ö", data={"a": [1]})
    event = registry.told(row)
    assert json.loads(payload(event)) == {**event, "timestamp": "1970-01-01T00:00:00.500Z"}
    assert {"type", "timestamp", "data"} <= json.loads(payload(event)).keys()


def test_a_number_that_json_does_not_have_is_null() -> None:
    event = {"created_at": 1.0, "type": "sleep.progress", "data": {"loss": float("nan"), "kl": [float("inf"), 1.5]}}
    assert json.loads(payload(event), parse_constant=pytest.fail)["data"] == {"loss": None, "kl": [None, 1.5]}

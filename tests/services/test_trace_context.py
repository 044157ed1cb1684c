"""W3C Trace Context, as it comes in and as the registry keeps it."""

from __future__ import annotations

import pytest

from services.trace_context import TraceContext, begun, here, parse, span, trace_id, wanted

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
ENDPOINT, OTHER, OFF = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (PARENT, TRACE),
        (f"00-{TRACE}-{SPAN}-00", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TRACE),
        (f"{PARENT}-what-comes-later", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[1:]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f" {PARENT}", None),
        (f"{PARENT}\n", None),
        (f"00-{TRACE}-{SPAN}-\u0660\u0661", None),
        ("", None),
        (None, None),
    ],
)
def test_a_trace_is_taken_from_the_header_where_it_is_one(header: str | None, trace: str | None) -> None:
    assert trace_id(header) == trace


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_of_the_flags_the_one_that_says_that_it_is_recorded_is_kept(flags: str, sampled: bool) -> None:
    found = parse(f"00-{TRACE}-{SPAN}-{flags}")
    assert found == TraceContext(TRACE, SPAN, sampled)
    assert parse(str(found)) == found


def test_a_child_has_one_id_of_its_own_in_the_same_trace() -> None:
    parent = TraceContext(TRACE, SPAN)
    names = [f"stage {n}" for n in range(1000)]
    children = {parent.child(name) for name in names}
    assert len({child.span_id for child in children} - {SPAN}) == len(names)
    assert {child.trace_id for child in children} == {TRACE}
    assert parent.child("stage 7") == parent.child("stage 7")
    assert all(parse(str(child)) == child for child in children)


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://127.0.0.1:4318"}, True),
        ({OTHER: "http://127.0.0.1:4318/v1/traces"}, True),
        ({ENDPOINT: "http://127.0.0.1:4318", OFF: "true"}, False),
        ({ENDPOINT: "http://127.0.0.1:4318", OFF: "false"}, True),
    ],
)
def test_traces_are_wanted_where_a_collector_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], on: bool
) -> None:
    for name in (ENDPOINT, OTHER, OFF):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wanted() is on
    one, other = parse(begun()), parse(begun())
    assert (one is not None, other is not None) == (on, on)
    assert not on or one != other


def test_outside_of_a_request_nothing_is_recorded() -> None:
    assert here() is None
    with span("a part", {}) as part:
        assert not part.is_recording()
        assert here() is None

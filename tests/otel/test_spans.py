"""One span for each callback's life: what it says, whose it is, and that none is open for ever."""

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from tenios_async import (
    AttemptOutcome,
    BadCredentials,
    Callback,
    CallbackOutcomeUnknown,
    ConnectionFailed,
    WatchTimeout,
)
from tenios_async.otel import Telemetry

from .events import BEGAN, a_call, ended, placed, polled, transitioned


def tell(telemetry, events):
    for event in events:
        telemetry(event)


def test_a_life_is_one_span_with_an_event_for_each_transition(recorded):
    tell(recorded.telemetry, a_call())
    (span,) = recorded.spans
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "tenios.callback.outcome": "PLACED",
        "tenios.callback.id": "10",
        "tenios.callback.config_id": "config",
        "tenios.callback.delay": 30,
        "tenios.callback.status": "CALL_B_FAILED",
        "tenios.callback.polls": 4,
    }
    assert [event.name for event in span.events] == ["tenios.callback.transition"] * 3
    first, second, third = (dict(event.attributes) for event in span.events)
    assert first == {"tenios.callback.status": "REQUESTED", "tenios.callback.polls": 1}
    assert second == {
        "tenios.callback.status": "CALLING_B",
        "tenios.callback.polls": 2,
        "tenios.callback.skipped": ("ACCEPTED", "CALLING_A"),
        "tenios.callback.lateness": 2.0,
    }
    assert third["tenios.callback.polls"] == 4
    assert [event.timestamp / 1e9 - BEGAN.timestamp() for event in span.events] == [0.5, 31.5, 61.5]


def test_a_span_begins_when_the_placing_did(recorded, monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: 10_000_000_000)
    tell(recorded.telemetry, [placed(seconds=4), ended(10, "DISCONNECTED")])
    assert recorded.spans[0].start_time == 6_000_000_000


def test_it_is_linked_to_what_was_current_and_outlives_it(recorded):
    tracer = recorded.tracer_provider.get_tracer("the application")
    first, *rest = a_call()
    with tracer.start_as_current_span("POST /callbacks") as request:
        recorded.telemetry(first)
        assert trace.get_current_span() is request
    with tracer.start_as_current_span("another"):
        tell(recorded.telemetry, rest)
    (span,) = recorded.spans
    assert [link.context for link in span.links] == [request.get_span_context()]
    assert span.parent is None
    assert span.context.trace_id != request.get_span_context().trace_id


def test_it_is_never_the_current_span(recorded):
    for event in a_call():
        recorded.telemetry(event)
        assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize(
    ("outcome", "error", "status_code"),
    [
        (AttemptOutcome.UNKNOWN, CallbackOutcomeUnknown("no answer in time", 502), 502),
        (AttemptOutcome.REFUSED, BadCredentials(400, "BAD_CREDENTIALS"), 400),
        (AttemptOutcome.NOT_SENT, ConnectionFailed("no route"), None),
    ],
)
def test_a_call_that_was_not_placed_is_a_span_that_failed(recorded, outcome, error, status_code):
    recorded.telemetry(placed(outcome=outcome, error=error))
    (span,) = recorded.spans
    assert span.attributes["tenios.callback.outcome"] == outcome
    assert span.attributes["error.type"] == type(error).__name__
    assert span.attributes.get("http.response.status_code") == status_code
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, str(error))
    assert not span.events


def test_a_call_that_a_cancellation_kept_from_leaving_is_no_error(recorded):
    recorded.telemetry(placed(outcome=AttemptOutcome.NOT_SENT))
    assert recorded.spans[0].status.status_code is StatusCode.UNSET


def test_a_watch_that_ends_before_the_call_ends_the_span_with_its_error(recorded):
    error = WatchTimeout("the time is up", callback=Callback(10))
    tell(recorded.telemetry, [placed(), transitioned(10, "CALLING_A", elapsed=1), ended(10, "CALLING_A", error)])
    (span,) = recorded.spans
    assert span.attributes["error.type"] == "WatchTimeout"
    assert span.attributes["tenios.callback.status"] == "CALLING_A"
    assert span.status.status_code is StatusCode.ERROR


def test_a_watch_that_is_resumed_elsewhere_has_a_span_from_its_first_transition(recorded):
    tell(recorded.telemetry, [polled(), transitioned(10, "CONNECTED", elapsed=40, late=5, polls=3), polled()])
    tell(recorded.telemetry, [transitioned(10, "DISCONNECTED", elapsed=90, late=5), ended(10, "DISCONNECTED")])
    (span,) = recorded.spans
    assert len(span.events) == 2
    assert span.attributes["tenios.callback.polls"] == 4
    assert "tenios.callback.outcome" not in span.attributes


def test_two_watches_of_one_callback_tell_one_life(recorded):
    for event in a_call():
        recorded.telemetry(event)
        if type(event).__name__ != "Placed":
            recorded.telemetry(event)
    assert len(recorded.spans) == 1
    assert len(recorded.spans[0].events) == 3
    assert recorded.values("tenios.callback.endings") == {("CALL_B_FAILED",): 1}


def test_a_second_watch_that_sees_the_end_later_tells_nothing_new(recorded):
    tell(recorded.telemetry, a_call())
    tell(recorded.telemetry, a_call()[-3:])
    assert len(recorded.spans) == 1
    assert recorded.values("tenios.callback.polls") == {("CALL_B_FAILED",): (1, 4)}


def test_ends_are_remembered_for_a_while(recorded, monkeypatch):
    """Not for ever: memory is bounded."""
    monkeypatch.setattr("tenios_async.otel.REMEMBERED", 1)
    tell(recorded.telemetry, [ended(1, "DISCONNECTED"), ended(2, "DISCONNECTED"), ended(2, "DISCONNECTED")])
    assert recorded.values("tenios.callback.endings") == {("DISCONNECTED",): 2}
    recorded.telemetry(ended(1, "DISCONNECTED"))
    assert recorded.values("tenios.callback.endings") == {("DISCONNECTED",): 3}


def test_an_id_that_is_given_again_is_another_life(recorded):
    """A vendor that starts anew, as a simulator does."""
    tell(recorded.telemetry, [placed(10), placed(10), *a_call(), *a_call()])
    assert [len(span.events) for span in recorded.spans] == [0, 0, 3, 3]


def test_where_there_are_too_many_the_longest_unheard_of_is_forgotten(make):
    recorded = make(max_open=2)
    tell(recorded.telemetry, [placed(1), placed(2), polled(1), placed(3)])
    (span,) = recorded.spans
    assert (span.attributes["tenios.callback.id"], span.attributes["tenios.callback.forgotten"]) == ("2", True)
    tell(recorded.telemetry, [placed(number) for number in range(100, 200)])
    assert len(recorded.spans) == 1 + 100


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_who_is_not_heard_of_any_more_is_forgotten(make, clock):
    """Nobody watches it; but not through its delay, and not while it is asked for."""
    recorded = make(forget_after=60)
    tell(recorded.telemetry, [placed(1), placed(2, delay=7200), placed(3)])
    for clock[0] in (30, 59, 61, 119):
        recorded.telemetry(polled(3))
    assert [span.attributes["tenios.callback.id"] for span in recorded.spans] == ["1"]
    clock[0] = 7200 + 59
    for _ in range(3):
        recorded.telemetry(polled(4))
    assert [span.attributes["tenios.callback.id"] for span in recorded.spans] == ["1", "3"]
    clock[0] = 7200 + 60
    recorded.telemetry(polled(4))
    assert [span.attributes["tenios.callback.id"] for span in recorded.spans] == ["1", "3", "2"]


def test_closing_ends_what_is_open(recorded):
    tell(recorded.telemetry, [placed(1), placed(2)])
    recorded.telemetry.close()
    recorded.telemetry.close()
    assert [span.attributes["tenios.callback.forgotten"] for span in recorded.spans] == [True, True]


def test_what_tenios_makes_up_is_in_no_attribute(recorded):
    """An id that is no number, one that looks like a telephone's, and a state that nobody knows."""
    for key in ("+491234567890", "the-access-key", 491234567890):
        tell(recorded.telemetry, [placed(key), transitioned(key, "the-access-key", elapsed=1)])
    recorded.telemetry.close()
    first, second, third = recorded.spans
    assert "tenios.callback.id" not in {**first.attributes, **second.attributes}
    assert third.attributes["tenios.callback.id"] == "491******890"
    assert first.events[0].attributes["tenios.callback.status"] == "_OTHER"
    text = "".join(recorded.everything())
    assert "1234567890" not in text
    assert "the-access-key" not in text


@pytest.mark.parametrize("options", [{"max_open": 0}, {"max_open": True}, {"max_open": 1.5}, {"forget_after": 0}])
def test_bounds_that_are_none(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Telemetry(**options)


def test_it_does_nothing_where_no_sdk_is_set_up():
    tell(Telemetry(), a_call())


def test_a_missing_extra_is_said_in_one_line_and_the_core_goes_without():
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import tenios_async; tenios_async.TeniosClient('key')\n"
        "try:\n    import tenios_async.otel\n"
        "except ModuleNotFoundError as missing:\n    print(missing, missing.__suppress_context__)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out == 'tenios_async.otel needs OpenTelemetry\'s API: pip install "tenios_async[otel]" True\n'

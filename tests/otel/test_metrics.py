"""What is counted and measured, under which names and in which units."""

import pytest

from tenios_async import (
    AttemptOutcome,
    Callback,
    CallbackOutcomeUnknown,
    Connections,
    RequestTimeout,
    WatchInterrupted,
)

from .events import a_call, ended, placed, polled, transitioned


@pytest.fixture
def told(recorded):
    """A telemetry that was told a whole call, and more of another kind."""
    for event in a_call():
        recorded.telemetry(event)
    return recorded


UNITS = {
    "tenios.client.operation.duration": "s",
    "tenios.callback.placements": "{callback}",
    "tenios.callback.endings": "{callback}",
    "tenios.callback.state.duration": "s",
    "tenios.callback.lateness": "s",
    "tenios.callback.polls": "{poll}",
    "tenios.client.connection.count": "{connection}",
    "tenios.client.connection.max": "{connection}",
    "tenios.client.connection.pending_requests": "{request}",
}


class Client:
    """As much of one as the pool's instruments ask for."""

    def __init__(self, *connections):
        self.connections = Connections(*connections) if connections else None


def test_names_units_and_descriptions(told):
    client = Client(100, 3, 5, 2)
    told.telemetry.observe_connections(client)
    found = told.instruments()
    assert {name: metric.unit for name, metric in found.items()} == UNITS
    assert all(metric.description.endswith(".") for metric in found.values())


def test_placements_by_outcome_are_there_before_the_first(recorded):
    """So that the first call in doubt is a rise of its counter, and rings the alarm that was set on it."""
    points = recorded.instruments()["tenios.callback.placements"].data.data_points
    found = {point.attributes["tenios.callback.outcome"]: point.value for point in points}
    assert found == {"PLACED": 0, "REFUSED": 0, "NOT_SENT": 0, "UNKNOWN": 0}
    recorded.telemetry(placed(outcome=AttemptOutcome.UNKNOWN, error=CallbackOutcomeUnknown("it broke")))
    recorded.telemetry(placed())
    assert recorded.values("tenios.callback.placements") == {("PLACED",): 1, ("UNKNOWN",): 1}
    assert recorded.values("tenios.client.operation.duration") == {
        ("init",): (1, 0.25),
        ("CallbackOutcomeUnknown", "init"): (1, 0.25),
    }


def test_time_in_state(told):
    """From one first sight to the next; what was passed unseen is counted to the state before it."""
    assert told.values("tenios.callback.state.duration") == {("REQUESTED",): (1, 31.0), ("CALLING_B",): (1, 30.0)}


def test_lateness_is_what_the_last_poll_before_allows(told):
    assert told.values("tenios.callback.lateness") == {("CALLING_B",): (1, 2.0), ("CALL_B_FAILED",): (1, 3.0)}


def test_polls_of_a_callback_count_the_failed_ones_too(told):
    assert told.values("tenios.callback.polls") == {("CALL_B_FAILED",): (1, 4)}


def test_endings_by_the_last_state_and_by_what_ended_the_watch(told):
    told.telemetry(ended(11, "CALLING_A", WatchInterrupted("five polls have failed", callback=Callback(11))))
    told.telemetry(ended(12, None, WatchInterrupted("no poll was answered", callback=Callback(12))))
    told.telemetry(ended(13, "DISCONNECTED"))
    assert told.values("tenios.callback.endings") == {
        ("CALL_B_FAILED",): 1,
        ("WatchInterrupted", "CALLING_A"): 1,
        ("WatchInterrupted",): 1,
        ("DISCONNECTED",): 1,
    }


def test_polls_and_their_errors(recorded):
    recorded.telemetry(polled())
    recorded.telemetry(polled(error=RequestTimeout("too slow")))
    assert recorded.values("tenios.client.operation.duration") == {
        ("status",): (1, 0.05),
        ("RequestTimeout", "status"): (1, 0.05),
    }


def test_a_state_that_nobody_knows_makes_no_series_of_its_own(recorded):
    for status in ("ON_HOLD", "PARKED", "A_THIRD"):
        recorded.telemetry(transitioned(10, status, elapsed=1, late=1))
    assert set(recorded.values("tenios.callback.lateness")) == {("_OTHER",)}


def test_buckets_fit_what_is_measured(told):
    """Those of the SDK are made for milliseconds."""
    for name in ("state.duration", "lateness", "polls"):
        (point, *_) = told.points(f"tenios.callback.{name}").values()
        assert max(point.explicit_bounds) < 5000
        assert len([bound for bound in point.explicit_bounds if bound < 10]) >= 4


def test_pool_use_is_that_of_all_clients_that_are_open(recorded):
    clients = [Client(100, 3, 5, 2), Client(50, 50, 0, 7), Client()]
    for client in (*clients, Client(1, 1, 1, 1)):  # the last is gone at once
        recorded.telemetry.observe_connections(client)
    del client
    assert recorded.values("tenios.client.connection.count") == {("used",): 53, ("idle",): 5}
    assert recorded.values("tenios.client.connection.max") == {(): 150}
    assert recorded.values("tenios.client.connection.pending_requests") == {(): 9}
    clients.clear()
    assert recorded.values("tenios.client.connection.max") == {}


def test_nothing_is_said_of_a_pool_that_is_not_there(recorded):
    client = Client()
    recorded.telemetry.observe_connections(client)
    assert "tenios.client.connection.count" not in recorded.instruments()

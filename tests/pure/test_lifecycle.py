"""The table of states."""

import copy
import pickle

import pytest

from tenios_async import CallbackStatus
from tenios_async._lifecycle import is_regression, skipped

CHAIN = ["REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "DISCONNECTED"]
EVERY = [*CHAIN, "CALL_A_FAILED", "CALL_B_FAILED"]


@pytest.mark.parametrize(
    ("previous", "status", "between"),
    [
        ("REQUESTED", "REQUESTED", ""),
        ("REQUESTED", "ACCEPTED", ""),
        ("REQUESTED", "CALLING_A", "ACCEPTED"),
        ("REQUESTED", "CALL_A_FAILED", "ACCEPTED CALLING_A"),
        ("REQUESTED", "CALLING_B", "ACCEPTED CALLING_A"),
        ("REQUESTED", "CALL_B_FAILED", "ACCEPTED CALLING_A CALLING_B"),
        ("REQUESTED", "CONNECTED", "ACCEPTED CALLING_A CALLING_B"),
        ("REQUESTED", "DISCONNECTED", "ACCEPTED CALLING_A CALLING_B CONNECTED"),
        ("CALLING_A", "CALL_B_FAILED", "CALLING_B"),
        ("CALLING_B", "DISCONNECTED", "CONNECTED"),
        ("CALLING_B", "CALL_A_FAILED", ""),
        ("CONNECTED", "CALLING_A", ""),
        ("REQUESTED", "ON_HOLD", ""),
        ("ON_HOLD", "CONNECTED", ""),
    ],
)
def test_skipped(previous, status, between):
    assert skipped(CallbackStatus(previous), CallbackStatus(status)) == tuple(between.split())


REGRESSIONS = {
    *((late, early) for i, late in enumerate(CHAIN) for early in CHAIN[:i]),
    *(("CALL_A_FAILED", state) for state in EVERY if state != "CALL_A_FAILED"),
    *(("CALL_B_FAILED", state) for state in EVERY if state != "CALL_B_FAILED"),
    *((late, "CALL_A_FAILED") for late in ("CALLING_B", "CONNECTED", "DISCONNECTED")),
    *((late, "CALL_B_FAILED") for late in ("CONNECTED", "DISCONNECTED")),
}


@pytest.mark.parametrize("previous", EVERY)
@pytest.mark.parametrize("status", EVERY)
def test_regressions(previous, status):
    expected = (previous, status) in REGRESSIONS
    assert is_regression(CallbackStatus(previous), CallbackStatus(status)) is expected


def test_terminal_states():
    terminal = {state for state in EVERY if CallbackStatus(state).is_terminal}
    assert terminal == {"CALL_A_FAILED", "CALL_B_FAILED", "DISCONNECTED"}


@pytest.mark.parametrize("bad", ["", "x" * 65, "A\nB", "\ud800", 3, None, b"REQUESTED"])
def test_what_cannot_be_a_state(bad):
    with pytest.raises(ValueError, match="1 to 64"):
        CallbackStatus(bad)


@pytest.mark.parametrize("name", [*EVERY, "ON_HOLD", "x", "x" * 64])
def test_a_state_is_a_string_that_survives_copies_and_pickles(name):
    status = CallbackStatus(name)
    assert status == name
    assert hash(status) == hash(name)
    assert status.is_known is (name in EVERY)
    for twin in (pickle.loads(pickle.dumps(status)), copy.deepcopy(status), CallbackStatus(status)):
        assert twin == status
        assert type(twin) is CallbackStatus
    assert repr(CallbackStatus.CONNECTED) == "CallbackStatus.CONNECTED"
    assert CallbackStatus("CONNECTED") is CallbackStatus.CONNECTED

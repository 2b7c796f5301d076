"""What observers are told are values: equal where they say the same, and nobody's to change."""

from datetime import UTC, datetime

import attrs
import pytest

from tenios_async import (
    AttemptOutcome,
    Callback,
    CallbackStatus,
    Ended,
    Placed,
    Polled,
    ServerError,
    Transition,
    Transitioned,
)

CALLBACK = Callback(10, "config", 0, datetime(2026, 1, 1, tzinfo=UTC))
TRANSITION = Transition(
    callback=CALLBACK,
    status=CallbackStatus.CONNECTED,
    previous=None,
    skipped=(),
    observed_at=datetime(2026, 1, 1, tzinfo=UTC),
    not_before=None,
    elapsed=1.0,
    polls=1,
    is_regression=False,
)
ERROR = ServerError(500)
EVENTS = {
    Placed: (AttemptOutcome.PLACED, CALLBACK, None, 0.5),
    Polled: (CALLBACK, None, ERROR, 0.5),
    Transitioned: (TRANSITION,),
    Ended: (CALLBACK, CallbackStatus.CONNECTED, None),
}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_a_value(event):
    told = event(*EVENTS[event])
    assert told == event(*EVENTS[event])
    assert hash(told) == hash(event(*EVENTS[event]))
    for name in attrs.fields_dict(event):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(told, name, None)

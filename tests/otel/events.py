"""The events of a callback, without a client."""

import datetime as dt

import attrs

from tenios_async import AttemptOutcome, Callback, CallbackStatus, Ended, Placed, Polled, Transition, Transitioned

BEGAN = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


def placed(key=10, *, outcome=AttemptOutcome.PLACED, error=None, seconds=0.25, **of_callback):
    callback = Callback(key, **of_callback) if outcome is AttemptOutcome.PLACED else None
    return Placed(outcome, callback, error, seconds)


def polled(key=10, status="CALLING_A", *, error=None):
    return Polled(Callback(key), None if error else CallbackStatus(status), error, 0.05)


def transitioned(key, status, *, elapsed, late=None, previous=None, skipped=(), polls=1):
    seen = BEGAN + dt.timedelta(seconds=elapsed)
    return Transitioned(
        Transition(
            Callback(key, status=status),
            CallbackStatus(status),
            None if previous is None else CallbackStatus(previous),
            tuple(map(CallbackStatus, skipped)),
            seen,
            None if late is None else seen - dt.timedelta(seconds=late),
            elapsed,
            polls,
            is_regression=False,
        )
    )


def ended(key, status, error=None):
    status = None if status is None else CallbackStatus(status)
    return Ended(attrs.evolve(Callback(key), status=status), status, error)


def a_call(key=10):
    """A whole life, in events."""
    return [
        placed(key, callback_config_id="config", delay=30),
        polled(key, "REQUESTED"),
        transitioned(key, "REQUESTED", elapsed=0.5),
        polled(key, "CALLING_B"),
        transitioned(
            key, "CALLING_B", elapsed=31.5, late=2.0, previous="REQUESTED", skipped=["ACCEPTED", "CALLING_A"], polls=2
        ),
        polled(key, error=TimeoutError()),
        polled(key, "CALL_B_FAILED"),
        transitioned(key, "CALL_B_FAILED", elapsed=61.5, late=3.0, previous="CALLING_B", polls=4),
        ended(key, "CALL_B_FAILED"),
    ]

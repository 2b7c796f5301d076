"""What a client tells its observers. Frozen values; none holds a key or a phone number.

An observer is a plain callable, `TeniosClient(observers=[tell])`. It is called in the task that did the work and must
not block. What it raises is logged and goes no further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from tenios_async._errors import TeniosError
from tenios_async._lifecycle import CallbackStatus
from tenios_async._models import AttemptOutcome, Callback, Transition


@attrs.frozen
class Placed:
    """An `init_callback` is over.

    Attributes:
        outcome: PLACED, REFUSED, NOT_SENT or UNKNOWN.
        callback: the callback, if PLACED.
        error: why not, otherwise; None where a cancellation ended it.
        seconds: how long it took.
    """

    outcome: AttemptOutcome
    callback: Callback | None
    error: TeniosError | None
    seconds: float


@attrs.frozen
class Polled:
    """One status poll is over.

    Attributes:
        callback: whose state was asked for.
        status: the state, or None if the poll failed.
        error: why it failed, or None.
        seconds: how long it took.
    """

    callback: Callback
    status: CallbackStatus | None
    error: TeniosError | None
    seconds: float


@attrs.frozen
class Transitioned:
    """A watch has seen a change of state.

    Attributes:
        transition: the change.
    """

    transition: Transition


@attrs.frozen
class Ended:
    """A watch is over: the call has ended, or `error` says why the watch did. An abandoned watch tells nothing.

    Attributes:
        callback: the resume token.
        status: the last state seen, or None.
        error: a `WatchInterrupted`, or None.
    """

    callback: Callback
    status: CallbackStatus | None
    error: TeniosError | None


Event: TypeAlias = Placed | Polled | Transitioned | Ended
Observer: TypeAlias = Callable[[Event], None]

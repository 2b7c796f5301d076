"""How fast the whole client may ask: an even pace, halved at a refusal, as arithmetic on a clock that is handed in.

The pace is that of the generic cell rate algorithm (ITU-T I.371) without a burst: one request, then one gap. After a
429 or a 503 it halves at once, and once for all that is under way then, and recovers by a tenth of the full rate a
second: halve, then add, as TCP does it (RFC 5681).
"""

from __future__ import annotations

import enum
import math
import sys
from collections import OrderedDict
from typing import TypeGuard

import attrs

HALVED_AT_MOST_TO = 1 / 64
"""Of the full rate; a row of refusals must not stop the client for good."""
RECOVERY = 0.1
"""Of the full rate, a second, without a further refusal."""

SLOW_DOWN = (429, 503)
"""The answers that ask for fewer requests: RFC 6585 section 4 and RFC 9110 15.6.4."""

CALLS_OVER = 10.0
"""Seconds over which calls are counted."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether it can be reckoned with: a float, or a whole number that a float can hold. True and False are none."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@attrs.frozen
class Rate:
    """So many requests in so many seconds, evenly spaced. Raises `ValueError` for what is not above 0 and finite.

    Attributes:
        requests: how many.
        per: in how many seconds.
    """

    requests: float
    per: float = 1.0

    def __attrs_post_init__(self) -> None:
        for name, value in (("requests", self.requests), ("per", self.per)):
            if not is_number(value) or not value > 0:
                raise ValueError(f"a Rate's {name} must be a number above 0")
        if not 0 < self.a_second < math.inf:
            raise ValueError("a Rate's requests a second must be a number above 0")

    @property
    def a_second(self) -> float:
        """Requests a second."""
        return self.requests / self.per


class Errand(enum.Enum):
    """What a request is for."""

    CALL = enum.auto()
    """To place a callback. Goes first, but takes no more than every second turn while looks are waiting."""
    LOOK = enum.auto()
    """To ask for a status."""


class Pace:
    """The queue for turns. Whoever waits holds a ticket; the one whose turn is next is told when that is.

    Args:
        rate: the full rate; None is no limit, but a `Retry-After` is obeyed all the same.
        now: the present, on the clock that every method is told.
    """

    def __init__(self, rate: Rate | None, now: float) -> None:
        self._full = math.inf if rate is None else rate.a_second
        self._slowed_to = self._full
        self._slowed_at = now
        self._next_turn = now
        self._pause_ends = now
        self._queues: dict[Errand, OrderedDict[object, None]] = {errand: OrderedDict() for errand in Errand}
        self._last_was_call = False
        self._calls, self._last_call = 0.0, now  # the calls of late, the older the less they count

    def rate(self, now: float) -> float:
        """Requests a second at present."""
        if self._slowed_to >= self._full:
            return self._full
        return min(self._full, self._slowed_to + RECOVERY * self._full * max(0.0, now - self._slowed_at))

    def rate_for_looks(self, now: float) -> float:
        """What of it the calls of the last seconds leave to looks: at least half."""
        rate = self.rate(now)
        return max(rate / 2, rate - self._calls_a_second(now))

    def _calls_a_second(self, now: float) -> float:
        return self._calls * math.exp((self._last_call - now) / CALLS_OVER) / CALLS_OVER

    def join(self, ticket: object, errand: Errand, now: float) -> None:
        """Takes a place at the end of the queue."""
        if self.first() is None:
            self._next_turn = max(self._next_turn, now)  # turns that nobody wanted are not saved up
        self._queues[errand][ticket] = None

    def leave(self, ticket: object) -> None:
        """Gives the place up. One that is not waiting any more is none."""
        for queue in self._queues.values():
            queue.pop(ticket, None)

    def first(self) -> object | None:
        """Whose turn is next, or None if nobody waits."""
        calls, looks = self._queues[Errand.CALL], self._queues[Errand.LOOK]
        queue = looks if looks and (self._last_was_call or not calls) else calls
        return next(iter(queue), None)

    def turn_at(self, now: float) -> float:
        """When the next turn is; not after `now` means at once."""
        return max(now, self._next_turn, self._pause_ends)

    def go(self, now: float) -> None:
        """The first takes its turn."""
        ticket = self.first()
        if ticket is None:
            raise ValueError("nobody waits")
        self._last_was_call = ticket in self._queues[Errand.CALL]
        if self._last_was_call:
            self._calls, self._last_call = self._calls_a_second(now) * CALLS_OVER + 1, now
        self.leave(ticket)
        rate = self.rate(now)
        if rate < math.inf:
            # From the turn and not from now: who wakes a little late does not lower the rate.
            self._next_turn = max(self._next_turn, now - 1 / rate) + 1 / rate

    def refused(self, now: float, retry_after: float | None, *, sent_at: float) -> None:
        """A 429 or 503 came back. What was sent before the last one slowed us down says nothing new."""
        rate = self.rate(now)
        if rate < math.inf and sent_at >= self._slowed_at:
            self._slowed_to = max(rate / 2, self._full * HALVED_AT_MOST_TO)
            self._slowed_at = now
            self._next_turn = max(self._next_turn, now + 1 / self._slowed_to)
        if retry_after is not None:
            self._pause_ends = max(self._pause_ends, now + retry_after)

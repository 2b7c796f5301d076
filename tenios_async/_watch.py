"""The watch of one callback as a machine without I/O: told the time and what came back, it answers what to do.

The driver does what it is told and comes back with the result, or with nothing after a sleep, an emission or a poll
that was cancelled. Whatever happens between two steps, no transition is lost or told twice.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import attrs

from tenios_async._errors import (
    ApiError,
    ClientMisuse,
    NotFound,
    RateLimited,
    ServerError,
    TeniosError,
    WatchInterrupted,
    WatchTimeout,
)
from tenios_async._lifecycle import BEFORE_DIALLING, INITIAL, CallbackStatus, is_regression, skipped
from tenios_async._models import Callback, Transition

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tenios_async._polling import Polling

GIVE_UP_AFTER = 120.0
"""Seconds a row of failed polls must have lasted before the watch ends; and it must have been ..."""
GIVE_UP_POLLS = 5
"""... this many polls long."""
NOT_FOUND_GRACE = 30.0
"""Seconds after placing in which NotFound may mean that TENIOS has not caught up with itself yet."""
BACKOFF_MAX = 15.0
"""Seconds between two failed polls, at most, doubling from 1; google-api-core's polls end at 20."""
SLACK = 0.3
"""Of a wait: by how much a look may be early. It saves a wake-up and costs at most 4.5 % (half of its square)."""
FIRST_LOOK = 2.0
"""Seconds a first look waits for each 1 by which a stretch is above 1: what it saw at once would be old soon."""

RESOLUTION = 0.001
"""Seconds too short to sleep: what event loops round to (epoll's timeout counts milliseconds)."""


@attrs.define  # `Poll` and `Sleep` are not frozen: each look makes both, and a frozen one takes twice as long to make
class Poll:
    """Ask for the status, within `timeout` seconds.

    Where a rate limit makes it wait for its turn first, it may wait `patience` seconds for that.
    """

    timeout: float
    patience: float


@attrs.define
class Sleep:
    """Come back at `until`, on the clock the machine is told."""

    until: float


@attrs.frozen
class Emit:
    """Hand this to the caller."""

    transition: Transition


@attrs.frozen
class Stop:
    """The watch is over: at a terminal state if `error` is None."""

    error: WatchInterrupted | None


Action: TypeAlias = Poll | Sleep | Emit | Stop
CameBack: TypeAlias = CallbackStatus | TeniosError | None
"""What a poll brought: a state or an error; None after anything else."""


class WatchMachine:
    """One watch.

    Args:
        callback: whose; with the state last seen, if any.
        polling: the schedule.
        now: the present, on the clock that every `step` is told.
        age: seconds since the callback was placed, None if that is not known.
        timeout: seconds the watch may take; `math.inf` for ever.
        poll_timeout: seconds one poll may take.
        chance: gives random numbers from 0 to 1.
        utc_now: gives the wall clock's time, for what people read.

    Attributes:
        callback: the resume token.
        last: the last transition, or None.
        stretch: by what the intervals to come are longer than the schedule's; above 1 where a rate limit binds.
        wait: seconds from the last look that succeeded to the next, were nothing stretched; 0 before the first.
    """

    __slots__ = (
        "_began_within",
        "_chance",
        "_deadline",
        "_delay_ends",
        "_failing_since",
        "_failure",
        "_failures",
        "_has_looked",
        "_last_known",
        "_last_look",
        "_next_look",
        "_placed",
        "_poll_timeout",
        "_polling",
        "_polls",
        "_seen_since",
        "_stop",
        "_utc_now",
        "callback",
        "last",
        "stretch",
        "wait",
    )

    def __init__(
        self,
        callback: Callback,
        polling: Polling,
        *,
        now: float,
        age: float | None,
        timeout: float,
        poll_timeout: float,
        chance: Callable[[], float],
        utc_now: Callable[[], datetime],
    ) -> None:
        self.callback = callback
        self.last: Transition | None = None
        self.stretch = 1.0
        self.wait = 0.0
        self._polling = polling
        self._poll_timeout = poll_timeout
        self._chance = chance
        self._utc_now = utc_now
        self._placed = now - (age or 0.0)
        self._delay_ends = None if age is None or not callback.delay else self._placed + callback.delay / polling.speed
        self._deadline = now + timeout
        self._next_look = now
        self._seen_since = self._last_look = now
        self._began_within = age or 0.0
        self._last_known = callback.status if callback.status is not None and callback.status.is_known else INITIAL
        self._has_looked = False
        self._polls = 0
        self._failures = 0
        self._failing_since = now
        self._failure: TeniosError | None = None
        self._stop = Stop(None) if callback.status is not None and callback.status.is_terminal else None

    def step(self, now: float, came_back: CameBack = None) -> Action:
        """What to do now. Once it has answered Stop it answers so for ever."""
        if came_back is not None and self._stop is None:
            self._polls += 1
            if not isinstance(came_back, CallbackStatus):
                self._failed(now, came_back)
            elif (transition := self._seen(now, came_back)) is not None:
                return Emit(transition)
        if self._stop is not None:
            return self._stop
        left = self._deadline - now
        if left < RESOLUTION:
            return self._interrupt(WatchTimeout, f"the time given to this watch is up; {self._what_is_known()}")
        # Each look comes here twice, and min() would be a twentieth of what it costs.
        if self._next_look - now >= RESOLUTION:
            return Sleep(self._next_look if self._next_look < self._deadline else self._deadline)  # noqa: FURB136
        return Poll(self._poll_timeout if self._poll_timeout < left else left, left)  # noqa: FURB136

    @property
    def slack(self) -> float:
        """Seconds by which the next look may come early, where it costs less together with others."""
        if self._failures or self._next_look >= self._deadline or self._polling.fixed_interval is not None:
            return 0.0  # what comes next has to wait, is the end, or was told when to come
        wait = self.wait - self._asleep_for()
        return max(0.0, min(SLACK * wait, wait - self._polling.min_interval))

    def restretch(self, stretch: float) -> float:
        """Sets `stretch` as if it had been so at the last look; gives the instant of the next."""
        if not self._failures:
            asleep = self._asleep_for()
            after = asleep + (self.wait - asleep) * stretch if self._has_looked else FIRST_LOOK * (stretch - 1)
            self._next_look = self._last_look + after
        self.stretch = stretch
        return min(self._next_look, self._deadline)

    def due_at_stretch(self, now: float) -> float:
        """The stretch that would make the next look due now; 0 where that does not depend on it."""
        asleep = self._asleep_for()
        if not self._has_looked or self._failures or self.wait - asleep < RESOLUTION:
            return 0.0
        return (now - self._last_look - asleep) / (self.wait - asleep)

    def _asleep_for(self) -> float:
        """What of the wait is the callback's own delay, which no stretch makes longer."""
        if self._delay_ends is None or self.callback.status not in BEFORE_DIALLING:
            return 0.0
        return 0.0 if self._polling.fixed_interval is not None else max(0.0, self._delay_ends - self._last_look)

    def close(self) -> None:
        """Nothing more is wanted: every further step answers Stop without an error."""
        self._stop = Stop(None)

    def _seen(self, now: float, status: CallbackStatus) -> Transition | None:
        self._failures, self._failure = 0, None
        previous, last_look, has_looked = self.callback.status, self._last_look, self._has_looked
        self._last_look, self._has_looked = now, True
        if status == previous and has_looked:
            self._schedule(now)
            return None
        self._seen_since = now
        if has_looked:  # and no phone rings before the delay is over
            self._began_within = now - max(last_look, min(self._delay_ends or last_look, now))
        if status == previous:
            self._schedule(now)
            return None
        observed_at = self._utc_now()
        self.callback = attrs.evolve(self.callback, status=status)
        self.last = Transition(
            callback=self.callback,
            status=status,
            previous=previous,
            skipped=skipped(self._last_known, status),
            observed_at=observed_at,
            not_before=observed_at - timedelta(seconds=now - last_look) if has_looked else None,
            elapsed=now - self._placed,
            polls=self._polls,
            is_regression=previous is not None and is_regression(self._last_known, status),
        )
        self._schedule(now)
        if status.is_known:
            self._last_known = status
        if status.is_terminal:
            self._stop = Stop(None)
        return self.last

    def _failed(self, now: float, error: TeniosError) -> None:
        self._failing_since = now if not self._failures else self._failing_since
        self._failures += 1
        self._failure = error
        if not self._is_transient(now, error):
            self._interrupt(WatchInterrupted, f"the watch cannot go on: {error}")
        elif self._failures >= GIVE_UP_POLLS and now - self._failing_since >= GIVE_UP_AFTER:
            self._interrupt(
                WatchInterrupted,
                f"{self._failures} polls in a row have failed in {now - self._failing_since:.0f} s,"
                f" the last with: {error}",
            )
        else:
            self._schedule(now)

    def _is_transient(self, now: float, error: TeniosError) -> bool:
        if isinstance(error, NotFound):
            return now - self._placed < NOT_FOUND_GRACE
        return isinstance(error, (RateLimited, ServerError)) or not isinstance(error, (ApiError, ClientMisuse))

    def _schedule(self, now: float) -> None:
        wait = self._polling.next_look(
            self.callback.status,
            seen_for=now - self._seen_since,
            began_within=self._began_within,
            delay_left=None if self._delay_ends is None else self._delay_ends - now,
            chance=self._chance(),
            stretch=self.stretch,
        )
        if self._failures:
            backoff = min(2.0 ** min(self._failures - 1, 10), BACKOFF_MAX) * (
                1 - 0.25 * self._polling.jitter * self._chance()
            )
            asked = self._failure.retry_after if isinstance(self._failure, ApiError) else None
            wait = max(min(wait, BACKOFF_MAX), backoff, asked or 0.0)
        else:
            asleep = self._asleep_for()
            self.wait = asleep + (wait - asleep) / self.stretch
        self._next_look = now + wait

    def _what_is_known(self) -> str:
        if self._failure is not None:
            since = "its last poll" if self._has_looked else "no poll has succeeded; the last"
            return f"{since} failed with: {self._failure}"
        return "the callback is still under way" if self._has_looked else "no poll was answered in it"

    def _interrupt(self, cls: type[WatchInterrupted], message: str) -> Stop:
        self._stop = Stop(cls(message, callback=self.callback, last=self.last, cause=self._failure))
        return self._stop

"""When to look again.

The best moments to look at something that ends at random lie as densely as the square root of the rate at which it ends
(Barlow, Hunter & Proschan 1963; Keller 1974): an interval of about `sqrt(2 c m)` for a state that lasts `m` seconds on
average, where `c` says how many seconds of lateness one poll is worth. So a state that lasts half a second is looked at
often and a talk of three minutes seldom, and each transition starts afresh.
"""

from __future__ import annotations

import math

import attrs

from tenios_async._lifecycle import BEFORE_DIALLING, CallbackStatus

# Seconds a state lasts on average, by a model: log-normal acceptance, gamma ringing cut by a ring duration of 30 s (8 %
# of agents and 20 % of customers never answer), log-normal talk (Brown et al., JASA 2005). No vendor figure exists.
_LASTS: dict[str, float] = {
    CallbackStatus.REQUESTED: 0.5,
    CallbackStatus.ACCEPTED: 0.4,
    CallbackStatus.CALLING_A: 9.8,
    CallbackStatus.CALLING_B: 16.0,
    CallbackStatus.CONNECTED: 190.0,
}
_LASTS_UNKNOWN = 30.0

# Seconds until the call ends, by the same model, for a caller to whom only the end matters.
_ENDS_IN: dict[str, float] = {
    CallbackStatus.REQUESTED: 165.0,
    CallbackStatus.ACCEPTED: 165.0,
    CallbackStatus.CALLING_A: 164.0,
    CallbackStatus.CALLING_B: 168.0,
    CallbackStatus.CONNECTED: 190.0,
}

_SPREAD = 0.1 * math.sqrt(3)  # half the width of a uniform law whose coefficient of variation is 0.1


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of seconds above 0")


def _check_positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    _positive(attribute.name, value)


@attrs.frozen
class Polling:
    """A schedule of looks at one callback. Raises `ValueError` for figures out of range.

    With a known `delay` it looks once at the start and then not before the delay is nearly over, however long that is.

    Attributes:
        cost: seconds of lateness that one poll is worth; larger means fewer polls and later news.
        min_interval: seconds between two looks, at least.
        max_interval: seconds between two looks, at most (but for a delay, a failure or a `Retry-After`).
        jitter: from 0 (exact instants) to 1 (a random phase in each state, then 10 % around the interval).
        only_end: look where the end of the call may have come, not at each state on the way.
        fixed_interval: not None makes it a plain loop that knows nothing of states or delays; see `fixed`.
    """

    cost: float = attrs.field(default=0.3, validator=_check_positive)
    min_interval: float = attrs.field(default=0.5, validator=_check_positive)
    max_interval: float = attrs.field(default=30.0, validator=_check_positive)
    jitter: float = 1.0
    only_end: bool = False
    fixed_interval: float | None = attrs.field(default=None, validator=attrs.validators.optional(_check_positive))

    def __attrs_post_init__(self) -> None:
        if self.max_interval < self.min_interval:
            raise ValueError("max_interval must not be below min_interval")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be from 0 to 1")

    @classmethod
    def fixed(cls, interval: float) -> Polling:
        """A look every `interval` seconds, whatever the state: 2.0 is the vendor's PHP sample, 3.0 the Java one."""
        _positive("interval", interval)
        return cls(jitter=0.0, fixed_interval=interval)

    def for_the_end(self) -> Polling:
        """The same schedule for a caller who waits only for the end of the call."""
        return attrs.evolve(self, only_end=True)

    def next_look(
        self,
        status: CallbackStatus | None,
        *,
        looks_in_state: int,
        delay_left: float | None,
        chance: float,
        stretch: float = 1.0,
    ) -> float:
        """Seconds from this look to the next.

        Args:
            status: the state just seen, None if none ever was.
            looks_in_state: how many looks have seen this state, this one included.
            delay_left: seconds until a known delay is over; None where none is known.
            chance: a random number from 0 to 1.
            stretch: by what all intervals are longer, because a rate limit binds.
        """
        if self.fixed_interval is not None:
            return self.fixed_interval * stretch
        interval = self._interval(status) * stretch
        if delay_left is not None and delay_left > interval and (status is None or status in BEFORE_DIALLING):
            return delay_left - interval * self.jitter * chance
        swing = 0.5 if looks_in_state <= 1 else _SPREAD
        interval *= 1 + swing * self.jitter * (2 * chance - 1)
        return min(max(interval, self.min_interval), self.max_interval * max(stretch, 1.0))

    def _interval(self, status: CallbackStatus | None) -> float:
        lasts = _ENDS_IN if self.only_end else _LASTS
        return self._bounded(math.sqrt(2 * self.cost * lasts.get(status or CallbackStatus.REQUESTED, _LASTS_UNKNOWN)))

    def _bounded(self, interval: float) -> float:
        return min(max(interval, self.min_interval), self.max_interval)

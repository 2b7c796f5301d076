"""When to look again.

A look costs something, and so does every second in which something new has happened and nobody knows. The best moments
lie as densely as the square root of the rate at which the present state ends (Barlow, Hunter & Proschan 1963; Keller
1974): for a constant rate `h` an interval of about `sqrt(2 c / h)`, exactly the `x` in `exp(h x) = 1 + h x + h c`,
where `c` says how many seconds of lateness one look is worth. The same said without `h`, and so for any law:

    look when the odds that there is news, summed up over the time since the last look, have reached `c`.

What the odds are, `_lifetimes` knows, from the state, the time spent in it, and how closely its beginning is known.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import attrs

from tenios_async._lifecycle import BEFORE_DIALLING, INITIAL, TERMINAL, CallbackStatus
from tenios_async._lifetimes import DIALS_WITHIN, RING_DURATION, exits
from tenios_async._limits import is_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PHASE = 0.15
"""By what part the first interval in a state is longer or shorter, at most, so that a fleet does not look in step."""
SPREAD = 0.1
"""The same for those that follow: a coefficient of variation of 0.06, which costs no polls to speak of."""

_ON_THE_WAY = frozenset(
    {CallbackStatus.ACCEPTED, CallbackStatus.CALLING_A, CallbackStatus.CALLING_B, CallbackStatus.CONNECTED}
)
_STEPS = 16
"""In which the odds are summed up."""
_FINEST = 0.001
"""Seconds that a step needs not be shorter than."""
_MOST_BEGINNINGS = 128
"""In which an unknown beginning is summed up, where the longest interval is not shorter than such a step ..."""
_MOST_BEGINNINGS_AT_ALL = 2048
"""... and where it is. A token may be years old; two hours of that count by default, and more would change nothing."""
_NO_CHANCE = 1e-9
_MOST = 1e6
"""Of a figure that is only multiplied."""
_FINENESS, _COARSENESS = 16, 6
"""Of the ladders for the time in a state and for its unknown beginning."""


def _positive(name: str, value: float) -> None:
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0")


def _check_positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    _positive(attribute.name, value)


def _check_moderate(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    """Beyond these the sums would leave the numbers there are."""
    if not is_number(value) or not 1 / _MOST <= value <= _MOST:
        raise ValueError(f"{attribute.name} must be a number from {1 / _MOST:f} to {_MOST:,.0f}")


def _weights(
    given: Mapping[str, float] | Mapping[CallbackStatus, float] | Iterable[tuple[str, float]],  # a key is invariant
) -> tuple[tuple[CallbackStatus, float], ...]:
    try:
        named = dict(given)
    except (TypeError, ValueError):
        raise ValueError("weights must be a mapping of states to numbers") from None
    pairs = sorted((CallbackStatus(state), weight) for state, weight in named.items())
    for state, weight in pairs:
        if not state.is_known:
            raise ValueError(f"weights must be of states that there are, and {str(state)!r} is none")
        if not is_number(weight) or not 0 <= weight <= _MOST:
            raise ValueError(f"the weight of {state} must be a number from 0 to {_MOST:,.0f}")
    return tuple(pairs)


@attrs.frozen(eq=False)
class _Terms:
    """What the sums depend on, beside the state and its age. Equal ones are one object: see `_terms`."""

    cost: float
    ring_duration: float
    weights: tuple[tuple[CallbackStatus, float], ...]
    longest: float

    def weight_of(self, state: CallbackStatus) -> float:
        return next((weight for name, weight in self.weights if name == state), 1.0)


@lru_cache
def _terms(
    cost: float, ring_duration: float, weights: tuple[tuple[CallbackStatus, float], ...], longest: float
) -> _Terms:
    return _Terms(cost, ring_duration, weights, longest)


@attrs.frozen
class Polling:
    """A schedule of looks at one callback. Raises `ValueError` for figures out of range.

    With a known `delay` it looks once at the start and then not before the delay is over, however long that is.

    Attributes:
        cost: seconds of lateness that one poll is worth, from 1e-6 to 1e6; larger means fewer polls and later news.
        min_interval: seconds between two looks, at least.
        max_interval: seconds between two looks, at most (but for a delay, a failure or a `Retry-After`).
        jitter: from 0 (exact instants) to 1 (15 % around the first interval in a state, 10 % around the others).
        weights: how much a late look at its beginning matters, by state, up to 1e6; 1 where not named. A mapping.
        ring_duration: seconds a phone rings, as in the callback configuration; None is not known: 30 is assumed.
        speed: how many times faster than in life calls go, from 1e-6 to 1e6, their delays too; what `tenios simulate
            --speed` was told.
        fixed_interval: not None makes it a plain loop that knows nothing of states or delays; see `fixed`.
    """

    cost: float = attrs.field(default=0.3, validator=_check_moderate)
    min_interval: float = attrs.field(default=0.25, validator=_check_positive)
    max_interval: float = attrs.field(default=60.0, validator=_check_positive)
    jitter: float = 1.0
    weights: tuple[tuple[CallbackStatus, float], ...] = attrs.field(default=(), converter=_weights)
    ring_duration: float | None = attrs.field(default=None, validator=attrs.validators.optional(_check_positive))
    speed: float = attrs.field(default=1.0, validator=_check_moderate)
    fixed_interval: float | None = attrs.field(default=None, validator=attrs.validators.optional(_check_positive))
    _terms: _Terms = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        ring_duration = RING_DURATION if self.ring_duration is None else self.ring_duration
        terms = _terms(self.cost, ring_duration, self.weights, self.max_interval * self.speed)
        object.__setattr__(self, "_terms", terms)  # as attrs says it is to be done in a frozen class
        if self.max_interval < self.min_interval:
            raise ValueError("max_interval must not be below min_interval")
        if not is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be from 0 to 1")

    @classmethod
    def fixed(cls, interval: float) -> Polling:
        """A look every `interval` seconds, whatever the state: 2.0 is the vendor's PHP sample, 3.0 the Java one."""
        _positive("interval", interval)
        return cls(jitter=0.0, fixed_interval=interval)

    @property
    def longest_interval(self) -> float:
        """Seconds between two looks at most, where no delay, failure, `Retry-After` or rate limit makes them more."""
        return self.max_interval if self.fixed_interval is None else self.fixed_interval

    def for_the_end(self) -> Polling:
        """The same schedule for a caller who waits only for the end of the call."""
        return attrs.evolve(self, weights=[(state, 0.0) for state in _ON_THE_WAY])

    def next_look(
        self,
        status: CallbackStatus | None,
        *,
        seen_for: float,
        began_within: float,
        delay_left: float | None,
        chance: float,
        stretch: float = 1.0,
    ) -> float:
        """Seconds from this look to the next.

        Args:
            status: the state just seen, None if none ever was.
            seen_for: seconds since the look that saw it first; 0 if that is this one.
            began_within: seconds before that look in which it must have begun.
            delay_left: seconds until a known delay is over, below 0 since it is; None where none is known.
            chance: a random number from 0 to 1.
            stretch: by what all intervals are longer, because a rate limit binds.
        """
        if self.fixed_interval is not None:
            return self.fixed_interval * stretch
        state, delay = status or INITIAL, 0.0
        if delay_left is not None and state in BEFORE_DIALLING:
            # What begins inside the delay is no news worth a poll; the clock of these states starts at its end.
            delay = max(0.0, delay_left)
            if seen_for > -delay_left:
                state, began_within, seen_for = CallbackStatus.ACCEPTED, 0.0, max(0.0, -delay_left)
        swing = (SPREAD if seen_for else PHASE) * self.jitter * (2 * chance - 1)
        interval = self._interval(state, seen_for, began_within) * (1 + swing)
        if interval < self.min_interval:
            interval = self.min_interval
        elif interval > self.max_interval:
            interval = self.max_interval
        return delay + interval * stretch

    def _interval(self, state: CallbackStatus, seen_for: float, began_within: float) -> float:
        seen_for, began_within = seen_for * self.speed, began_within * self.speed
        if (
            state == CallbackStatus.CALLING_A
            and DIALS_WITHIN < began_within < self._terms.ring_duration + 2 * DIALS_WITHIN
        ):
            # The look before saw REQUESTED or ACCEPTED, which are short, so this one began soon after it.
            seen_for, began_within = seen_for + began_within - DIALS_WITHIN, DIALS_WITHIN
        seen_rung = round(math.log1p(seen_for) * _FINENESS)
        began_rung = round(math.log1p(began_within) * _COARSENESS)
        return _interval(state, seen_rung, began_rung, self._terms) / self.speed


@lru_cache(maxsize=1 << 14)
def _interval(state: CallbackStatus, seen_rung: int, began_rung: int, terms: _Terms) -> float:
    """Seconds until the odds that there is news add up to `terms.cost`; the longest interval if that is sooner.

    The times are rungs of ladders that lie apart by one part in `_FINENESS` and `_COARSENESS`: a fleet shares its sums.
    """
    seen_for, began_within = math.expm1(seen_rung / _FINENESS), math.expm1(began_rung / _COARSENESS)
    widest, finest = terms.longest / _STEPS, max(_FINEST, began_within / _MOST_BEGINNINGS)
    # A state just begun gives the scale.
    step = 2 * _interval(state, 0, 0, terms) / _STEPS if seen_rung or began_rung else widest
    while True:
        step = min(max(step, finest), widest)
        steps = _steps_until(_odds(state, seen_for, began_within, terms, step), terms.cost / step)
        if steps is None:
            if step == widest:
                return terms.longest
            step = finest = 4 * step  # it may be reached by the coarseness alone, and is not to be refined again
        elif steps < _STEPS / 4 and step > finest:  # too coarse for the answer
            step *= max(steps / (_STEPS / 2), 1 / 16)
        else:
            return steps * step


def _steps_until(odds: Sequence[float], total: float) -> float | None:
    """After how many steps they add up to `total`, by trapezoids; None if they do not."""
    added = 0.0
    for n, (before, after) in enumerate(pairwise(odds)):
        cell = (before + after) / 2
        if added + cell >= total:
            return n + (math.sqrt if not n else float)((total - added) / cell)
        added += cell
    return None


def _odds(state: CallbackStatus, seen_for: float, began_within: float, terms: _Terms, step: float) -> list[float]:
    """How much news is to be expected after each step, to the chance that there is none."""
    beginnings = max(1, round(min(began_within / step, _MOST_BEGINNINGS_AT_ALL)))
    news, any_news = _news(state, seen_for, beginnings, terms, step)
    return [much / max(1 - chance, _NO_CHANCE) for much, chance in zip(news, any_news, strict=True)]


def _news(
    state: CallbackStatus, seen_for: float, beginnings: int, terms: _Terms, step: float
) -> tuple[list[float], list[float]]:
    """After each step from now: the weights of the states that have begun, as expected; and the chance of any.

    Args:
        state: what is known to last still.
        seen_for: seconds for which it has lasted at least.
        beginnings: the number of steps before that in any of which it began, each as likely as another.
        terms: of the schedule.
        step: in seconds.
    """
    news, any_news, lasts = [0.0] * (_STEPS + 1), [0.0] * (_STEPS + 1), 1.0
    for follower, cdf in exits(state, terms.ring_duration).items():
        sums = list(accumulate((cdf(seen_for + n * step) for n in range(_STEPS + 1 + beginnings)), initial=0.0))
        begun = [(sums[n + beginnings] - sums[n]) / beginnings for n in range(_STEPS + 1)]
        lasts -= begun[0]
        weight = terms.weight_of(follower)
        if follower in TERMINAL or (weight and state not in BEFORE_DIALLING):  # what follows that is far off
            for n in range(1, _STEPS + 1):
                news[n] += weight * (begun[n] - begun[0])
                any_news[n] += (begun[n] - begun[0]) if weight else 0.0
            continue
        later, any_later = (
            [(one + two) / 2 for one, two in pairwise(values)] for values in _news(follower, 0.0, 1, terms, step)
        )
        cells = [two - one for one, two in pairwise(begun)]
        for n in range(1, _STEPS + 1):
            for cell, much, chance in zip(cells, later[n - 1 :: -1], any_later[n - 1 :: -1], strict=False):
                news[n] += cell * (weight + much)
                any_news[n] += cell * (1.0 if weight else chance)
    lasts = max(lasts, _NO_CHANCE)
    return [value / lasts for value in news], [value / lasts for value in any_news]

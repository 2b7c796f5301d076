"""How long a callback stays in each state, as a model: what the schedule expects when nothing else is known.

No vendor figure exists. Acceptance is log-normal; ringing is gamma until the ring duration of the configuration, and
then fails; talk is log-normal (Brown et al., JASA 2005). Any call may be unlike the model: a small part of each law is
a tail so long that the schedule slows down, instead of asking for ever at the pace of a state that should have ended.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import attrs

from tenios_async._lifecycle import CallbackStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Cdf: TypeAlias = Callable[[float], float]

RING_DURATION = 30.0
"""Seconds after which an unanswered phone stops ringing, where the caller does not say."""
RING_SMEAR = 3.0
"""Seconds over which that end is spread: the vendor's timer starts at an unknown moment."""
UNLIKE = 0.02
"""The part of callbacks that is assumed to be unlike the model."""


@attrs.frozen
class LogNormal:
    """A duration of that mean (s) whose logarithm deviates by `sigma`."""

    mean: float
    sigma: float

    def cdf(self, seconds: float) -> float:
        if seconds <= 0:
            return 0.0
        deviations = (math.log(seconds / self.mean) + self.sigma**2 / 2) / self.sigma
        return 0.5 * math.erfc(-deviations / math.sqrt(2))


@attrs.frozen
class Gamma:
    """A duration of mean `shape * scale` (s). The shape is a multiple of one half, for which there is a closed form."""

    shape: float
    scale: float

    def cdf(self, seconds: float) -> float:
        """By recurrence from shape 1/2 or 1 (NIST DLMF 8.4.1, 8.4.5 and 8.8.5)."""
        x = seconds / self.scale
        if x <= 0:
            return 0.0
        shape, below = (1.0, -math.expm1(-x)) if self.shape % 1 == 0 else (0.5, math.erf(math.sqrt(x)))
        term = x**shape * math.exp(-x) / math.gamma(shape + 1)
        while shape < self.shape:
            below -= term
            shape += 1
            term *= x / shape
        return below


@attrs.frozen
class Ringing:
    """A phone that rings: answered, or left to ring until the end."""

    answered_after: Gamma
    never_answered: float
    answered: CallbackStatus
    failed: CallbackStatus


ACCEPTED_AFTER = LogNormal(0.5, 0.5)
CALLING_A_AFTER = LogNormal(0.4, 0.5)
RINGING_A = Ringing(Gamma(2.0, 4.0), 0.08, CallbackStatus.CALLING_B, CallbackStatus.CALL_A_FAILED)
RINGING_B = Ringing(Gamma(2.5, 5.0), 0.2, CallbackStatus.CONNECTED, CallbackStatus.CALL_B_FAILED)
DIALS_WITHIN = 2.0
"""Seconds in which a callback that was placed, and need not wait, nearly always rings at A."""
TALK = LogNormal(190.0, 1.05)
STRANGE = 30.0
"""Seconds after which one in two states that nobody has heard of has ended."""


@lru_cache(maxsize=1 << 8)
def exits(status: CallbackStatus, ring_duration: float) -> Mapping[CallbackStatus, Cdf]:
    """The states that may follow, each with the chance that it has begun so many seconds after this one."""
    match status:
        case CallbackStatus.REQUESTED:
            return {CallbackStatus.ACCEPTED: _hedged(ACCEPTED_AFTER.cdf, ACCEPTED_AFTER.mean)}
        case CallbackStatus.ACCEPTED:
            return {CallbackStatus.CALLING_A: _hedged(CALLING_A_AFTER.cdf, CALLING_A_AFTER.mean)}
        case CallbackStatus.CALLING_A:
            return _ringing(RINGING_A, ring_duration)
        case CallbackStatus.CALLING_B:
            return _ringing(RINGING_B, ring_duration)
        case CallbackStatus.CONNECTED:
            return {CallbackStatus.DISCONNECTED: _hedged(TALK.cdf, TALK.mean)}
        case _:
            return {CallbackStatus.DISCONNECTED: lambda seconds: _tail(seconds, STRANGE)}


def _ringing(law: Ringing, ring_duration: float) -> Mapping[CallbackStatus, Cdf]:
    fails_after_all = 1 - (1 - law.never_answered) * law.answered_after.cdf(ring_duration)

    def answers(seconds: float) -> float:
        return (1 - law.never_answered) * law.answered_after.cdf(min(seconds, ring_duration))

    def fails(seconds: float) -> float:
        stopped = (seconds - ring_duration) / RING_SMEAR + 0.5
        return fails_after_all * min(max(stopped, 0.0), 1.0)

    def hedged(cdf: Cdf) -> Cdf:
        return lambda seconds: (1 - UNLIKE) * cdf(seconds) + UNLIKE / 2 * _tail(seconds, ring_duration)

    return {law.answered: hedged(answers), law.failed: hedged(fails)}


def _hedged(cdf: Cdf, scale: float) -> Cdf:
    return lambda seconds: (1 - UNLIKE) * cdf(seconds) + UNLIKE * _tail(seconds, scale)


def _tail(seconds: float, median: float) -> float:
    """The chance that something has ended that may last however long: half have after `median` seconds."""
    return seconds / (seconds + median) if seconds > 0 else 0.0

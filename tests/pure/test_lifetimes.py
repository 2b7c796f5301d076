"""The laws of how long states last, against their densities added up, and what is promised of any of them."""

import math
from itertools import pairwise

import pytest

from tenios_async import CallbackStatus
from tenios_async._lifetimes import (
    ACCEPTED_AFTER,
    CALLING_A_AFTER,
    DIALS_WITHIN,
    RING_DURATION,
    RING_SMEAR,
    RINGING_A,
    RINGING_B,
    STRANGE,
    TALK,
    UNLIKE,
    Gamma,
    LogNormal,
    exits,
)

STATES = [
    *map(CallbackStatus, ("REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "ON_HOLD")),
]
AGES = [0.01, 0.5, 1.0, 4.0, 10.0, 29.0, 60.0]


def added_up(density, until, steps=4000):
    """By Simpson's rule, on a scale that is fine where it begins."""
    ends = [until * (n / steps) ** 4 for n in range(steps + 1)]
    return sum((b - a) / 6 * (density(a or 1e-300) + 4 * density((a + b) / 2) + density(b)) for a, b in pairwise(ends))


@pytest.mark.parametrize("shape", [1.0, 1.5, 2.0, 2.5, 3.0, 4.5])
def test_gamma(shape):
    law = Gamma(shape, 4.0)

    def density(seconds):
        x = seconds / 4.0
        return x ** (shape - 1) * math.exp(-x) / math.gamma(shape) / 4.0

    for seconds in AGES:
        assert law.cdf(seconds) == pytest.approx(added_up(density, seconds), abs=1e-6)


@pytest.mark.parametrize(("mean", "sigma"), [(0.5, 0.5), (190.0, 1.05), (3.0, 0.1)])
def test_log_normal(mean, sigma):
    law = LogNormal(mean, sigma)
    median = mean * math.exp(-sigma * sigma / 2)
    assert law.cdf(median) == pytest.approx(0.5)
    assert law.cdf(median * math.exp(sigma)) == pytest.approx(0.841344746)
    assert added_up(lambda seconds: 1 - law.cdf(seconds), mean * 100) == pytest.approx(mean, rel=1e-3)


@pytest.mark.parametrize("law", [Gamma(2.0, 4.0), Gamma(2.5, 5.0), LogNormal(190.0, 1.05)])
def test_nothing_has_ended_before_it_began(law):
    assert [law.cdf(seconds) for seconds in (-30.0, -0.4, 0.0)] == [0, 0, 0]
    assert law.cdf(0.9) > 0


def test_the_laws_are_those_of_the_model():
    """No vendor figure exists: a slip of a digit would only show as a poll too many here and there."""
    assert (LogNormal(0.5, 0.5), LogNormal(0.4, 0.5), LogNormal(190.0, 1.05)) == (ACCEPTED_AFTER, CALLING_A_AFTER, TALK)
    assert (RINGING_A.answered_after, RINGING_A.never_answered) == (Gamma(2.0, 4.0), 0.08)
    assert (RINGING_B.answered_after, RINGING_B.never_answered) == (Gamma(2.5, 5.0), 0.2)
    assert (RING_DURATION, RING_SMEAR, DIALS_WITHIN, STRANGE, UNLIKE) == (30.0, 3.0, 2.0, 30.0, 0.02)


@pytest.mark.parametrize("state", STATES)
def test_every_state_ends_some_time_and_none_before_it_began(state):
    followers = exits(state, 30.0)
    for cdf in followers.values():
        chances = [cdf(seconds) for seconds in (0.0, *AGES)]
        assert chances == sorted(chances)
        assert [cdf(seconds) for seconds in (-30.0, -0.5, 0.0)] == [0, 0, 0]
        assert chances[1] > 0
    assert sum(cdf(1e9) for cdf in followers.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("state", ["CALLING_A", "CALLING_B"])
def test_a_phone_rings_until_its_end_and_then_fails_within_a_smear(state):
    law = {"CALLING_A": RINGING_A, "CALLING_B": RINGING_B}[state]
    fails = exits(CallbackStatus(state), 20.0)[law.failed]

    def unlike(seconds):
        return UNLIKE / 2 * seconds / (seconds + 20)

    never = 1 - (1 - law.never_answered) * law.answered_after.cdf(20.0)
    for seconds, part in ((1.0, 0), (18.5, 0), (20.0, 0.5), (21.5, 1), (60.0, 1)):
        assert fails(seconds) == pytest.approx((1 - UNLIKE) * never * part + unlike(seconds))

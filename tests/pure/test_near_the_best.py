"""Polls and lateness over whole lives, beside the best that any schedule by state and time could do.

The best is computed by `make bench-polling`, from whose table the figures are. Here the watch machine meets fewer lives,
spread evenly over what may happen rather than drawn, so that 2,000 of them tell one per cent.
"""

import math
import random
from bisect import bisect_right
from datetime import UTC, datetime
from statistics import NormalDist

import pytest

from tenios_async import Callback, CallbackStatus, Polling
from tenios_async._watch import Poll, Sleep, Stop, WatchMachine

LIVES = 2000
TALK = NormalDist(math.log(190) - 1.05**2 / 2, 1.05)
SOON = {mean: NormalDist(math.log(mean) - 0.5**2 / 2, 0.5) for mean in (0.5, 0.4)}
EVENLY = 0.8191725134, 0.6710436067, 0.5497004779
"""Steps by which three chances run evenly through all there is: powers of 1/x where x^4 = x + 1, as Roberts proposes."""


def life(n, rng, delay):
    """States with the second in which each begins; the model of `make bench-polling`."""
    never_a, never_b, talk = (n * step % 1 for step in EVENLY)
    accepted = rng.lognormvariate(SOON[0.5].mean, SOON[0.5].stdev)
    now = max(accepted, delay) + rng.lognormvariate(SOON[0.4].mean, SOON[0.4].stdev)
    begun = [(0.0, "REQUESTED"), (accepted, "ACCEPTED"), (now, "CALLING_A")]
    for never, shape, scale, answered, failed in (
        (never_a < 0.08, 2, 4, "CALLING_B", "CALL_A_FAILED"),
        (never_b < 0.2, 2.5, 5, "CONNECTED", "CALL_B_FAILED"),
    ):
        rings = math.inf if never else rng.gammavariate(shape, scale)
        if rings >= 30:
            return [*begun, (now + 30, failed)]
        now += rings
        begun.append((now, answered))
    return [*begun, (now + math.exp(TALK.inv_cdf(talk or 0.5)), "DISCONNECTED")]


def looks(begun, polling, rng, delay):
    """The seconds in which a watch asks."""
    machine = WatchMachine(
        Callback(1, delay=delay),
        polling,
        now=0.0,
        age=0.0,
        timeout=math.inf,
        poll_timeout=10.0,
        chance=rng.random,
        utc_now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )
    now, came_back = 0.0, None
    while not isinstance(action := machine.step(now, came_back), Stop):
        came_back = None
        if isinstance(action, Poll):
            yield now
            came_back = CallbackStatus(begun[bisect_right(begun, now, key=lambda state: state[0]) - 1][1])
        elif isinstance(action, Sleep):
            now = action.until


@pytest.mark.parametrize(
    ("cost", "delay", "best"),
    [(0.1, 0, 7.735), (0.3, 0, 13.738), (1.0, 0, 26.312), (0.1, 300, 7.438), (0.3, 300, 13.247), (1.0, 300, 25.542)],
)
def test_within_four_per_cent_of_the_best(cost, delay, best):
    rng, total = random.Random(1), 0.0
    for n in range(LIVES):
        begun = life(n, rng, delay)
        asked = list(looks(begun, Polling(cost=cost), rng, delay))
        total += cost * len(asked)
        # What begins inside a known delay is outside the measure.
        total += sum(min(t for t in asked if t >= at) - at for at, _ in begun[1:] if at >= delay)
    assert total / LIVES < 1.04 * best

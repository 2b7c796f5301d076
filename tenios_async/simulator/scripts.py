"""How simulated callbacks live: scripted, or sampled from the laws of published call-centre findings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import random

# Seconds. No vendor figure exists; ringing is gamma, talk log-normal (Brown et al., JASA 2005).
ACCEPTED_MEAN, ACCEPTED_SIGMA = 0.5, 0.5
CALLING_A_MEAN, CALLING_A_SIGMA = 0.4, 0.5
RING_DURATION = 30.0
A_ANSWERS_SHAPE, A_ANSWERS_SCALE, A_NEVER = 2.0, 4.0, 0.08
B_ANSWERS_SHAPE, B_ANSWERS_SCALE, B_NEVER = 2.5, 5.0, 0.2
TALK_MEAN, TALK_SIGMA = 190.0, 1.05


@attrs.frozen
class Script:
    """The states a callback passes through after REQUESTED.

    Attributes:
        steps: pairs of a state and how many seconds after the one before it begins. The callback's delay is added
            before the first CALLING_A.
    """

    steps: tuple[tuple[str, float], ...]

    def state(self, elapsed: float, delay: float) -> str:
        """The state `elapsed` seconds after the request was accepted."""
        begins, current = 0.0, "REQUESTED"
        for status, after in self.steps:
            begins += after
            if status == "CALLING_A":
                begins, delay = begins + delay, 0.0
            if elapsed < begins:
                break
            current = status
        return current

    @classmethod
    def talk(cls, *, ringing: float = 6.0, seconds: float = 30.0) -> Script:
        """Both answer, each after `ringing` seconds, and talk for `seconds`."""
        talk = (("CALLING_B", ringing), ("CONNECTED", ringing), ("DISCONNECTED", seconds))
        return cls((*_ACCEPTED, *talk))

    @classmethod
    def agent_silent(cls, *, ring_duration: float = RING_DURATION) -> Script:
        """The agent (A) does not answer."""
        return cls((*_ACCEPTED, ("CALL_A_FAILED", ring_duration)))

    @classmethod
    def customer_silent(cls, *, ringing: float = 6.0, ring_duration: float = RING_DURATION) -> Script:
        """The agent answers, the customer (B) does not."""
        return cls((*_ACCEPTED, ("CALLING_B", ringing), ("CALL_B_FAILED", ring_duration)))

    @classmethod
    def ended(cls, status: str = "DISCONNECTED") -> Script:
        """Over before the first look, in this state: for tests that cannot have virtual time."""
        return cls(((status, 0.0),))

    @classmethod
    def sampled(cls, chance: random.Random) -> Script:
        """One drawn at random."""
        steps = [
            ("ACCEPTED", _lognormal(chance, ACCEPTED_MEAN, ACCEPTED_SIGMA)),
            ("CALLING_A", _lognormal(chance, CALLING_A_MEAN, CALLING_A_SIGMA)),
        ]
        a_answers = _rings(chance, A_NEVER, A_ANSWERS_SHAPE, A_ANSWERS_SCALE)
        b_answers = _rings(chance, B_NEVER, B_ANSWERS_SHAPE, B_ANSWERS_SCALE)
        talk = _lognormal(chance, TALK_MEAN, TALK_SIGMA)
        if a_answers is None:
            return cls((*steps, ("CALL_A_FAILED", RING_DURATION)))
        steps.append(("CALLING_B", a_answers))
        if b_answers is None:
            return cls((*steps, ("CALL_B_FAILED", RING_DURATION)))
        return cls((*steps, ("CONNECTED", b_answers), ("DISCONNECTED", talk)))


_ACCEPTED = (("ACCEPTED", 0.5), ("CALLING_A", 0.5))


def _lognormal(chance: random.Random, mean: float, sigma: float) -> float:
    return chance.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)


def _rings(chance: random.Random, never: float, shape: float, scale: float) -> float | None:
    """Seconds until somebody answers, None if nobody does within the ring duration."""
    silent, answers = chance.random() < never, chance.gammavariate(shape, scale)
    return None if silent or answers >= RING_DURATION else answers

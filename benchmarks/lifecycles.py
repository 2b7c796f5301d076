"""How callbacks live, as a model: from a JSON file or built in, to draw lives from and to compute with.

It shares nothing with the schedule that is judged by it: an oracle must not share a bug.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import random
    from pathlib import Path

STATES = ("REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED")
"""Those that end, in order."""
FAILURES = {"CALLING_A": "CALL_A_FAILED", "CALLING_B": "CALL_B_FAILED"}
END = "DISCONNECTED"

BUILT_IN = {
    "accepted_after": {"law": "lognormal", "mean": 0.5, "sigma": 0.5},
    "calling_a_after_accepted_and_delay": {"law": "lognormal", "mean": 0.4, "sigma": 0.5},
    "ring_duration": 30,
    "a_answers_after": {"law": "gamma", "shape": 2, "scale": 4},
    "a_never_answers": 0.08,
    "b_answers_after": {"law": "gamma", "shape": 2.5, "scale": 5},
    "b_never_answers": 0.2,
    "talk": {"law": "lognormal", "mean": 190, "sigma": 1.05},
}

Life = list[tuple[float, str]]
"""The states of one callback, each with the second in which it begins; the last is its end."""


class Law(Protocol):
    """How long something lasts, in seconds."""

    def cdf(self, seconds: float) -> float:
        """The chance that it is over by then."""
        ...

    def draw(self, rng: random.Random) -> float:
        """One duration."""
        ...


@dataclass(frozen=True)
class LogNormal:
    """By its mean, not by that of its logarithm."""

    mean: float
    sigma: float

    @property
    def _mu(self) -> float:
        return math.log(self.mean) - self.sigma**2 / 2

    def cdf(self, seconds: float) -> float:
        """See `Law`."""
        return (1 + math.erf((math.log(seconds) - self._mu) / (self.sigma * math.sqrt(2)))) / 2 if seconds > 0 else 0.0

    def draw(self, rng: random.Random) -> float:
        """See `Law`."""
        return rng.lognormvariate(self._mu, self.sigma)


@dataclass(frozen=True)
class Gamma:
    """Of mean `shape * scale`. An exponential law has shape 1."""

    shape: float
    scale: float

    def cdf(self, seconds: float) -> float:
        """See `Law`."""
        x = seconds / self.scale
        if x <= 0:
            return 0.0
        # NIST DLMF 8.11.4; the sum has converged where a further term changes nothing.
        power, total, n = 1 / self.shape, 0.0, 0
        while total + power != total:
            total += power
            n += 1
            power *= x / (self.shape + n)
        return min(1.0, math.exp(self.shape * math.log(x) - x + math.log(total) - math.lgamma(self.shape)))

    def draw(self, rng: random.Random) -> float:
        """See `Law`."""
        return rng.gammavariate(self.shape, self.scale)


@dataclass(frozen=True)
class Model:
    """A population of callbacks. Who does not answer within `ring_duration` is left to ring for so long."""

    accepted: Law
    dialled: Law
    ring_duration: float
    a_answers: Law
    a_never_answers: float
    b_answers: Law
    b_never_answers: float
    talk: Law

    @classmethod
    def load(cls, file: Path | None = None) -> Model:
        """From a file of the built-in model's form, with or without other top-level entries than `default`."""
        if file is None:
            return cls._of(BUILT_IN)
        document = json.loads(file.read_text())
        return cls._of(document.get("default", document))

    @classmethod
    def _of(cls, figures: dict[str, Any]) -> Model:
        return cls(
            _law(figures["accepted_after"]),
            _law(figures["calling_a_after_accepted_and_delay"]),
            figures["ring_duration"],
            _law(figures["a_answers_after"]),
            figures["a_never_answers"],
            _law(figures["b_answers_after"]),
            figures["b_never_answers"],
            _law(figures["talk"]),
        )

    def draw(self, rng: random.Random, delay: float = 0.0) -> Life:
        """One life; A is dialled when it was accepted and the delay is over."""
        now = self.accepted.draw(rng)
        life = [(0.0, STATES[0]), (now, STATES[1])]
        now = max(now, delay) + self.dialled.draw(rng)
        life.append((now, STATES[2]))
        for answers, never, state, follows in (
            (self.a_answers, self.a_never_answers, STATES[2], STATES[3]),
            (self.b_answers, self.b_never_answers, STATES[3], STATES[4]),
        ):
            rings = self.ring_duration if rng.random() < never else answers.draw(rng)
            if rings >= self.ring_duration:
                return [*life, (now + self.ring_duration, FAILURES[state])]
            now += rings
            life.append((now, follows))
        return [*life, (now + self.talk.draw(rng), END)]

    def exits(self, state: str) -> dict[str, tuple[Law, float, float]]:
        """What may follow: the law, the chance to go that way at all, and the second in which all that is left ends so.

        The last is infinite where there is no such second.
        """
        match state:
            case "REQUESTED":
                return {"ACCEPTED": (self.accepted, 1.0, math.inf)}
            case "ACCEPTED":
                return {"CALLING_A": (self.dialled, 1.0, math.inf)}
            case "CALLING_A":
                return {"CALLING_B": (self.a_answers, 1 - self.a_never_answers, self.ring_duration)}
            case "CALLING_B":
                return {"CONNECTED": (self.b_answers, 1 - self.b_never_answers, self.ring_duration)}
        return {END: (self.talk, 1.0, math.inf)}


def _law(figures: dict[str, Any]) -> Law:
    match figures["law"]:
        case "lognormal":
            return LogNormal(figures["mean"], figures["sigma"])
        case "gamma":
            return Gamma(figures["shape"], figures["scale"])
        case "exponential":
            return Gamma(1.0, figures["mean"])
    raise ValueError(f"no such law: {figures['law']}; there are lognormal, gamma and exponential")


@dataclass
class Lateness:
    """How late states were seen: from the beginning of each to the first poll that saw it or a later one."""

    polls: int = 0
    lives: int = 0
    seconds: float = 0.0
    states: int = 0

    def add(self, life: Life, polls: list[float], weights: dict[str, float], delay: float = 0.0) -> None:
        """Counts one life, with the seconds of its polls. What begins inside a known delay is outside the measure."""
        self.lives += 1
        self.polls += len(polls)
        at = iter(polls)
        poll = next(at)
        for begins, state in life[1:]:
            while poll < begins:
                poll = next(at)
            if begins >= delay and (weight := weights.get(state, 1.0)):
                self.seconds += weight * (poll - begins)
                self.states += 1

    @property
    def polls_each(self) -> float:
        """Polls per callback."""
        return self.polls / self.lives

    @property
    def mean(self) -> float:
        """Seconds, over the states that were entered."""
        return self.seconds / self.states

    def figures(self) -> dict[str, float]:
        """Both."""
        return {"polls": self.polls_each, "mean_lateness": self.mean}

    def total(self, cost: float) -> float:
        """Polls, each worth `cost` seconds, and lateness, per callback."""
        return (cost * self.polls + self.seconds) / self.lives

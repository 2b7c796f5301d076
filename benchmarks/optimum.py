"""The best schedule there is for a lifecycle model, computed: what others are judged by.

A policy here chooses the next interval from the state seen and the time since that state was first seen. The best one
is found by dynamic programming over the joint process, on a grid of time: polls may jump over short states, and a
state's beginning is only known to lie between two polls. How old a state is when it is first seen depends on the policy
in the states before it, and what it is worth to be there on the policy in those after it; so both are computed in turn,
forwards and backwards, until nothing changes. Where only the end matters that may stop at a policy that is better than
its neighbours only, so it begins from several first looks. A lower bound for any policy whatever comes from revealing
the age at each poll.

With a known delay, what begins inside it does not count: the best policy looks once at the start, sleeps, and then
follows a callback that was accepted when the delay is over.

Notation: `f` is the chance, cell by cell, that a state ends there by going to one follower; `lasts[n]` the chance that
it lasts n cells at least; an interval is a number of cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from lifecycles import END, FAILURES, STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycles import Model

    Array = np.ndarray

CELL = 0.05
"""Seconds; what begins in a cell begins in its middle."""
HORIZON = {"REQUESTED": 20.0, "ACCEPTED": 20.0, "CONNECTED": 5000.0}
"""Seconds after which a state is not followed any more; one that rings ends with the ring duration."""
NOTHING = 1e-9
"""A chance that is none."""
AFTERWARDS = 300.0
"""The mean time, in seconds, that something lasts beyond the horizon."""
LONGEST = {"REQUESTED": 10.0, "ACCEPTED": 10.0, "CALLING_A": 20.0, "CALLING_B": 20.0}
"""Seconds between two looks, at most, that are considered for a cost up to 1 and grow with the root of a larger one."""
LONGEST_UNHEEDED = 60.0
"""The same where no weight lies on the states between the first and the last."""
FIRST_LOOKS = (0.3, 0.5, 0.7, 0.9, 1.1, 1.3)
"""In ring durations: those that are tried there."""
TURNS = 3, 12
"""Forwards and backwards, at most: for each that is tried, and for the best of them."""


@dataclass(frozen=True)
class Exit:
    """One way out of a state: whither, the chances by cell, and what a second of lateness weighs there."""

    follower: str
    f: Array
    weight: float

    @property
    def is_end(self) -> bool:
        """Whether nothing follows."""
        return self.follower not in STATES


class Stay:
    """One state: its exits, and how long it lasts."""

    def __init__(self, model: Model, state: str, weights: Mapping[str, float]) -> None:
        longest = HORIZON.get(state, model.ring_duration + CELL)
        self.cells = round(longest / CELL)
        self.exits: list[Exit] = []
        for follower, (law, share, stops) in model.exits(state).items():
            cdf = np.array([share * law.cdf(min(n * CELL, stops)) for n in range(self.cells + 1)])
            f = np.diff(cdf)
            self.exits.append(Exit(follower, f, weights.get(follower, 1.0)))
            if stops < math.inf:
                failure = np.zeros(self.cells)
                failure[round(stops / CELL) - 1] = 1 - f.sum()
                self.exits.append(Exit(FAILURES[state], failure, weights.get(FAILURES[state], 1.0)))
        self.lasts = 1 - np.concatenate([[0.0], np.cumsum(sum(exit_.f for exit_ in self.exits))])
        self.lasts[self.lasts < NOTHING] = 0.0
        self.mean = float(self.lasts.sum()) * CELL

    @cached_property
    def end(self) -> int:
        """The cell in which it is over for certain, or the last that is followed."""
        return int(np.argmax(self.lasts <= 0)) if (self.lasts <= 0).any() else self.cells


class Optimum:
    """The best policy of a model.

    Args:
        model: how callbacks live.
        cost: seconds of lateness that one poll is worth.
        weights: how much the lateness of a state weighs; 1 where not named.
        delayed: whether it is a callback with a known delay, longer than it takes to accept one.

    Attributes:
        bound: cost x polls + lateness, per callback, below which no policy whatever can get, on this grid of time.
        total: the same of the best policy.
        looks: for each state the cells, since it was first seen, at which the best policy looks.
    """

    def __init__(
        self, model: Model, cost: float, weights: Mapping[str, float] | None = None, *, delayed: bool = False
    ) -> None:
        self._cost = float(cost)
        self._stays = {state: Stay(model, state, weights or {}) for state in STATES}
        self._begins = "ACCEPTED" if delayed else "REQUESTED"
        is_heeded = any((weights or {}).get(state, 1.0) for state in STATES[1:])
        grown = max(1.0, math.sqrt(cost))
        longest = {state: grown * (LONGEST[state] if is_heeded else LONGEST_UNHEEDED) for state in LONGEST}
        longest["CONNECTED"] = 4 * math.sqrt(2 * cost * self._stays["CONNECTED"].mean)
        self._longest = {state: round(seconds / CELL) for state, seconds in longest.items()}
        self._oldest = max(self._longest[state] for state in LONGEST) + 1
        self.bound, self._ahead = self._revealed()
        policy = {state: self._sequence(state, []) for state in STATES}
        if not is_heeded:
            firsts = [round(share * model.ring_duration / CELL) for share in FIRST_LOOKS]
            others = [policy | {self._begins: self._sequence(self._begins, [first])} for first in firsts]
            tried = [self._improved(looks, TURNS[0]) for looks in (policy, *others)]
            _, policy = min(tried, key=lambda found: found[0])
        self.total, self.looks = self._improved(policy, TURNS[1])

    def _improved(self, looks: dict[str, list[int]], turns: int) -> tuple[float, dict[str, list[int]]]:
        """The best policy to be had from there, and what it comes to."""
        best = math.inf, looks
        for _ in range(turns):
            ages = self._ages_at_first_sight(looks)
            worth: dict[str, Array] = {}
            for state in reversed(STATES[STATES.index(self._begins) :]):
                if (ages[state] > NOTHING).any():
                    looks = looks | {state: self._best_looks(state, ages[state], worth)}
                worth[state] = self._worth(state, self._followed(state, looks[state], worth), worth)
            total = self._cost + float(worth[self._begins][0])
            if best[0] - total < NOTHING * total:
                break
            best = total, looks
        return best

    def _kernel(self, exit_: Exit, cells: int, worth: Mapping[str, Array]) -> Array:
        """By the cells from the beginning of what follows to the next poll: lateness, and all that is to come."""
        n = np.arange(cells + 1)
        kernel = np.maximum(n - 0.5, 0) * CELL * exit_.weight
        if not exit_.is_end:
            ahead = worth[exit_.follower][: cells + 1]
            kernel[1:] += (ahead[1:] + ahead[:-1]) / 2
        kernel[0] = 0.0
        return kernel

    def _worth(self, state: str, ahead: Array, worth: Mapping[str, Array]) -> Array:
        """By the cells since the state began: all that comes after a poll, where `ahead` does while it lasts."""
        stay, cells = self._stays[state], self._oldest
        total = _padded(stay.lasts, cells + 1) * ahead
        for exit_ in stay.exits:
            total += np.convolve(_padded(exit_.f, cells + 1), self._kernel(exit_, cells, worth))[: cells + 1]
        return total

    def _revealed(self) -> tuple[float, dict[str, Array]]:
        """The lower bound, and the best interval by the true age."""
        worth: dict[str, Array] = {}
        intervals: dict[str, Array] = {}
        for state in reversed(STATES):
            stay = self._stays[state]
            fs = [exit_.f for exit_ in stay.exits]
            values, intervals[state] = self._backwards(state, stay.lasts, fs, worth)
            worth[state] = self._worth(state, _padded(values, self._oldest + 1), worth)
        return self._cost + float(worth[self._begins][0]), intervals

    def _best_looks(self, state: str, ages: Array, worth: Mapping[str, Array]) -> list[int]:
        """The best looks after the first sight of a state that is as old then as `ages` says."""
        stay = self._stays[state]
        lasts, fs = np.zeros(stay.cells + 1), [np.zeros(stay.cells) for _ in stay.exits]
        for age in np.flatnonzero((ages > NOTHING) & (_padded(stay.lasts, len(ages)) > 0)):
            share = ages[age] / stay.lasts[age]
            lasts[: stay.cells + 1 - age] += share * stay.lasts[age:]
            lasts[stay.cells + 1 - age :] += share * stay.lasts[-1]
            for f, exit_ in zip(fs, stay.exits, strict=True):
                f[: stay.cells - age] += share * exit_.f[age:]
        whole = lasts[0]
        lasts = np.where(lasts / whole < NOTHING, 0.0, lasts / whole)
        _, intervals = self._backwards(state, lasts, [f / whole for f in fs], worth)
        looks, at, end = [], 0, int(np.argmax(lasts <= 0)) if (lasts <= 0).any() else stay.cells
        while at < end:
            at += int(intervals[at])
            looks.append(at)
        return self._sequence(state, looks)

    def _sequence(self, state: str, looks: list[int]) -> list[int]:
        """These looks, and then more until the state is over even if it was new when it was first seen."""
        looks, at = list(looks), looks[-1] if looks else 0
        while at < self._stays[state].end:
            at += int(self._ahead[state][at])
            looks.append(at)
        return looks

    def _backwards(self, state: str, lasts: Array, fs: list[Array], worth: Mapping[str, Array]) -> tuple[Array, Array]:
        """By cell: what is to come while the state lasts still, under the best intervals; and those."""
        exits, most = self._stays[state].exits, self._longest[state]
        end = int(np.argmax(lasts <= 0)) if (lasts <= 0).any() else len(lasts) - 1
        beyond = self._cost if lasts[end] <= 0 else 2 * self._cost + math.sqrt(2 * self._cost * AFTERWARDS)
        values, intervals = np.full(end + most + 2, beyond), np.full(end + most + 2, most)
        lasts = np.concatenate([lasts, np.full(most + 2, lasts[-1])])
        n = np.arange(1, most + 1)
        kernels = [self._kernel(exit_, most, worth)[1:] for exit_ in exits]
        fs = [np.concatenate([f, np.zeros(most + 2)]) for f in fs]
        begun = [np.concatenate([[0.0], np.cumsum(f)]) for f in fs]
        waited = [np.concatenate([[0.0], np.cumsum((b[1:] + b[:-1]) / 2)]) for b in begun]
        for at in range(end - 1, -1, -1):
            to_come = lasts[at + n] * values[at + n]
            for exit_, f, kernel, b, w in zip(exits, fs, kernels, begun, waited, strict=True):
                if exit_.is_end:  # nothing is to come but lateness, which has a closed form
                    to_come += (w[at + n] - w[at] - b[at] * n) * CELL * exit_.weight
                else:
                    to_come += np.convolve(f[at : at + most], kernel)[:most]
            best = int(np.argmin(to_come))
            values[at], intervals[at] = self._cost + to_come[best] / lasts[at], best + 1
        return values, intervals

    def _followed(self, state: str, looks: list[int], worth: Mapping[str, Array]) -> Array:
        """By the age at first sight: all that is to come while the state lasts, under these looks."""
        stay, ages = self._stays[state], self._oldest + 1
        total, at = np.zeros(ages), 0
        for look in looks:
            if at > stay.cells:
                break
            lasts = stay.lasts[at : at + ages]
            total += self._cost * np.concatenate([lasts, np.full(ages - len(lasts), stay.lasts[-1])])
            cells = look - at
            for exit_ in stay.exits:
                f = _padded(exit_.f[at:], ages - 1 + cells)
                total += np.convolve(f, self._kernel(exit_, cells, worth)[1:], "valid")
            at = look
        lasts = _padded(stay.lasts, ages)
        return np.where(lasts > 0, total / np.where(lasts > 0, lasts, 1), self._cost)

    def _ages_at_first_sight(self, looks: Mapping[str, list[int]]) -> dict[str, Array]:
        """For each state, the chance that it is seen at all, by its age then."""
        ages = {state: np.zeros(self._oldest + 1) for state in STATES}
        ages[self._begins][0] = 1.0
        for state in STATES[:-1]:
            self._look_from(state, looks[state], ages)
        return ages

    def _look_from(self, state: str, looks: list[int], ages: dict[str, Array]) -> None:
        """Adds what these looks in one state see, in the states after it."""
        stay, most = self._stays[state], self._oldest + 1
        here = np.flatnonzero((ages[state] > NOTHING) & (_padded(stay.lasts, most) > 0))
        if not len(here):
            return
        shares = np.zeros(here[-1] + 1)
        shares[here] = ages[state][here] / stay.lasts[here]
        begun: dict[str, Array] = {}  # by state and by the cells from its beginning to the look, half a cell less
        for exit_ in (exit_ for exit_ in stay.exits if not exit_.is_end):
            f = np.convolve(_padded(exit_.f, stay.cells + len(shares)), shares[::-1])[len(shares) - 1 :]
            into, at = begun.setdefault(exit_.follower, np.zeros(most + 1)), 0
            for look in looks:
                chances = f[at:look]
                np.add.at(into, np.minimum(look - at - np.arange(len(chances)), most), chances)
                at = look
        for later in STATES[STATES.index(state) + 1 :]:
            if later not in begun:
                continue
            into = begun[later]
            age = np.zeros(most)
            age += into[1:] / 2
            age[1:] += into[1:most] / 2
            ages[later] += age * _padded(self._stays[later].lasts, most)
            for exit_ in (exit_ for exit_ in self._stays[later].exits if not exit_.is_end):
                jumped = begun.setdefault(exit_.follower, np.zeros(most + 1))
                for cells in np.flatnonzero(age > NOTHING):
                    n = np.arange(min(cells, len(exit_.f)))
                    jumped[cells - n] += age[cells] * exit_.f[: len(n)]

    def polls(self, life: list[tuple[float, str]], delay: float = 0.0) -> list[float]:
        """The seconds at which this policy would have looked at one life."""
        polls, seen, since, nth = [0.0], self._begins, delay, 0
        while True:
            looks = self.looks[seen]
            last = looks[-1] if looks else 0
            cells = looks[nth] if nth < len(looks) else last + (nth + 1 - len(looks)) * self._longest[seen]
            now = since + cells * CELL
            polls.append(now)
            state = next(state for begins, state in reversed(life) if begins <= now)
            if state == END or state in FAILURES.values():
                return polls
            seen, since, nth = (seen, since, nth + 1) if state == seen else (state, now, 0)


def _padded(values: Array, length: int) -> Array:
    """The first so many, zeros where there are less."""
    found = values[:length]
    return np.concatenate([found, np.zeros(length - len(found))])

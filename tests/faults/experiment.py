"""What an experiment is: a fault, what must hold all the same, and a pass of trials that is drawn from a seed.

CI makes one pass of each with a seed that never changes; `make soak` makes as many as it is asked for, each with the next
seed. A pass that failed is made again by its name and its seed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED_IN_CI = 1

EXPERIMENTS: dict[str, Experiment] = {}


class Skipped(Exception):
    """This machine cannot do it; the message says what it lacks."""


@dataclass
class Figure:
    """The worst that was measured of something."""

    worst: float
    unit: str
    bound: float | None

    def __str__(self) -> str:
        bound = "" if self.bound is None else f" (at most {self.bound:g})"
        return f"{self.worst:.3g} {self.unit}{bound}"


@dataclass
class Tally:
    """What came of the passes so far.

    Attributes:
        trials: how many were made.
        ended: how often each end was met; an experiment that never meets its fault shows here.
        figures: times and memory: reported, and by the soak compared with their bounds; never asserted in CI.
        over: how often a bound was passed.
        is_measuring: whether what costs time to measure is measured.
    """

    trials: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    over: int = 0
    is_measuring: bool = False

    def trial(self, end: object = None) -> None:
        """One more, which ended so."""
        self.trials += 1
        if end is not None:
            self.ended[str(end)] = self.ended.get(str(end), 0) + 1

    def measured(self, what: str, value: float, unit: str, *, bound: float | None = None) -> None:
        worst = self.figures.get(what)
        self.figures[what] = Figure(value if worst is None else max(worst.worst, value), unit, bound)
        self.over += bound is not None and value > bound


@dataclass(frozen=True)
class Experiment:
    """One row of the table in docs/reliability.md.

    Attributes:
        name: for the command line.
        fault: what goes wrong.
        invariant: what holds all the same.
        trials: in one pass; None where a pass is over all there are.
        passes: in a soak.
        run: makes one pass.
    """

    name: str
    fault: str
    invariant: str
    trials: int | None
    passes: int
    run: Callable[[random.Random, Tally], None]

    @property
    def in_ci(self) -> str:
        return "all" if self.trials is None else f"{self.trials:,}"

    @property
    def in_soak(self) -> str:
        return f"all, {self.passes:,} times" if self.trials is None else f"{self.trials * self.passes:,}"

    def again(self, seed: int) -> str:
        """How to make a pass again."""
        return f'again: make soak ARGS="--only {self.name} --seed {seed} --passes 1"'

    def make_pass(self, seed: int, tally: Tally) -> None:
        """One pass. What it raises says how to make it again. Warnings are errors."""
        before = tally.trials
        gc.collect()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.run(random.Random(seed), tally)
            if self.trials is not None:
                assert tally.trials - before == self.trials, "not so many trials as it says"
        except BaseException as error:
            error.add_note(self.again(seed))
            raise


def experiment(fault: str, invariant: str, *, trials: int | None, passes: int) -> Callable[..., Callable[..., None]]:
    """Puts a function that makes one pass into the table, by its own name."""

    def register(function: Callable[[random.Random, Tally], None]) -> Callable[[random.Random, Tally], None]:
        name = function.__name__.replace("_", "-")
        EXPERIMENTS[name] = Experiment(name, fault, invariant, trials, passes, function)
        return function

    return register


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty one, in memory where the system offers that: what is proven here does not hang on how slow a disk is."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)

"""The whole system in virtual time: lives of a campaign with faults, crashes and restarts; tests/simulation makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..simulation.world import live
from .experiment import Tally, experiment

if TYPE_CHECKING:
    import random

LIVES = 1000


@experiment(
    "Client, pool, monitor, campaign and ledger against the simulator: lost and slow answers, outages, a slow disk, "
    "crashes, restarts, a person who resolves",
    "all of it at each step; and once faults stop, every row ends",
    trials=LIVES,
    passes=10,
)
def whole_system(
    chance: random.Random, tally: Tally
) -> None:  # pragma: no cover  # for a soak; CI has tests/simulation
    first = chance.randrange(1 << 32)
    for seed in range(first, first + LIVES):
        world = live(seed)
        tally.trial(f"after {world.crashes} crashes")

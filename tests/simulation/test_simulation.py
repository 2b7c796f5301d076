"""A thousand lives of the whole system. A seed that fails is lived again by `live(seed)`, and stays in FOUND."""

import pytest

from .world import ON_DISK, live

FOUND: list[int] = []
"""Seeds beyond the thousand that once failed, in `make soak`."""


SEEDS = [*range(1000), *FOUND]


@pytest.mark.parametrize("first", range(0, len(SEEDS), 50))
def test_lives(first):
    for seed in SEEDS[first : first + 50]:
        live(seed)


@pytest.mark.parametrize("seed", [10, 2 * ON_DISK])
def test_a_seed_lives_the_same_life_again(seed):
    """To the instant in which each row was last changed."""
    once, again = live(seed), live(seed)
    assert once.disk.began == again.disk.began
    assert once.told == again.told

"""A thousand lives of the whole system. A seed that fails is lived again by `live(seed)`, and stays in FOUND."""

import pytest

from .world import live

FOUND: list[int] = []
"""Seeds beyond the thousand that once failed, in `make soak`."""


SEEDS = [*range(1000), *FOUND]


@pytest.mark.parametrize("first", range(0, len(SEEDS), 50))
def test_lives(first):
    for seed in SEEDS[first : first + 50]:
        live(seed)

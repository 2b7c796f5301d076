"""A thousand lives of the whole system. A seed that fails is lived again by `live(seed)`, and stays in FOUND."""

import pytest

from .world import live

FOUND: list[int] = []
"""Seeds beyond the thousand that once failed, in `make soak`."""


@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_lives(first):
    for seed in range(first, first + 50):
        live(seed)


def test_lives_that_once_went_wrong():
    for seed in FOUND:
        live(seed)

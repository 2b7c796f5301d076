"""A thousand lives of a campaign; a seed that fails is replayed by `live(seed)` and stays here as a test of its own."""

import pytest

from .world import live


@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_lives(first):
    for seed in range(first, first + 50):
        try:
            live(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise

"""A campaign that is killed again and again rings nobody twice and ends. `make soak` does it thousands of times."""

import os

import pytest

from .kills import survive

pytestmark = [pytest.mark.asyncio, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")]


@pytest.mark.parametrize("faults", [False, True], ids=["", "and answers are lost"])
async def test_killed_at_random_moments(tmp_path, faults):
    await survive(tmp_path, kills=60, seed=1, contacts=1500, faults=faults)

"""Several machines and everything that happens to them: nobody is rung twice, and everything ends."""

import os

import pytest

from .disasters import survive

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]


async def test_disasters(postgres, postgres_url, tmp_path):
    await survive(postgres, postgres_url, tmp_path, seconds=18, seed=3)

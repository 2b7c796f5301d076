import asyncio
import itertools
import os

import hypothesis
import pytest

from . import canary
from .batch.server import binaries, running

pytest_plugins = ["pytester"]

# Up to Python 3.13 asyncio makes a loop for whoever asks while none was ever set, pytest-asyncio asks, and nobody closes it.
asyncio.set_event_loop(None)

# No test depends on how fast the machine is; a hang is pytest-timeout's to end.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

_numbers = itertools.count(1)


def pytest_configure(config):
    canary.register(config)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL for all tests of one process."""
    if binaries() is None:  # where the machine lacks it
        why = "there is no PostgreSQL here (Debian: apt-get install postgresql)"
        if os.environ.get("TENIOS_TESTS_NEED_POSTGRESQL"):
            pytest.fail(why)
        pytest.skip(why)
    with running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """Where a test may make its ledger."""
    return postgres.url(f"test_{next(_numbers)}")


@pytest.fixture
def impatient(monkeypatch):
    """What workers look for now and then they look for more often, so that no test waits for that."""
    from tenios_async.batch import distributed, engine, following

    for room, name in (
        (distributed, "ATTEND_EVERY"),
        (distributed, "LOOK_AGAIN"),
        (distributed, "TRY_ELSEWHERE"),
        (engine, "POLLED_EVERY"),
        (following, "LOOK_EVERY"),
    ):
        monkeypatch.setattr(room, name, 0.1)

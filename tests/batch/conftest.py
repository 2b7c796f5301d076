"""A PostgreSQL for all tests of a run, and a ledger of its own for each."""

import itertools
import os

import pytest

from .server import binaries, running

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres():
    if binaries() is None:
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

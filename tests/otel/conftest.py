"""A telemetry for each test."""

import pytest

from .recorded import Recorded


@pytest.fixture
def make():
    return Recorded


@pytest.fixture
def recorded():
    return Recorded()

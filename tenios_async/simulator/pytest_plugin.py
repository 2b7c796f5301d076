"""A pytest plugin: `tenios_simulator`, a TENIOS of your test's own. It rings nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from tenios_async.simulator.fixture import Simulator


@pytest.fixture
def tenios_simulator() -> Generator[Simulator]:
    """A simulator on the clock of the event loop, so that virtual time makes a long call short."""
    from tenios_async.simulator.fixture import Simulator  # noqa: PLC0415  # pytest starts without httpx

    simulator = Simulator()
    try:
        yield simulator
    finally:
        simulator.close()

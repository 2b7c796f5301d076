"""No proxy from the outside, and asyncio in virtual time for what runs under anyio's plugin."""

import pytest

from ..virtual_time import virtual_loop
from .network import Network


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "TENIOS_ACCESS_KEY", "TENIOS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": virtual_loop}


@pytest.fixture
def network():
    """The network of a test, made from its behaviours: use it with `async with`."""

    def make(*script, **options):
        return Network(list(script), **options)

    return make

"""A client of our own making (the pool on asyncio, httpx on trio) or over the caller's, of httpx or its fork."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING

import pytest

from tenios_async import TeniosClient

from .certificates import Certificates, certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import ModuleType

KEY = "CANARY-KEY-0123456789"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    """Nothing of the environment reaches a test: no proxy, no key."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "TENIOS_ACCESS_KEY", "TENIOS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session", name="certificates")
def _certificates() -> Certificates:
    return certificates()


@pytest.fixture(params=["httpx", "httpx2"])
def package(request) -> ModuleType:
    """What the caller's client is from: httpx, or its fork."""
    return importlib.import_module(request.param)


@pytest.fixture(params=["own", "httpx", "httpx2"])
def room(request) -> str:
    """Who makes the connections: the library, or a client of the caller's from that package."""
    return request.param


@pytest.fixture
def client(room, certificates) -> Callable[..., contextlib.AbstractAsyncContextManager[TeniosClient]]:
    """A client in either room: use it with a URL and `async with`."""

    @contextlib.asynccontextmanager
    async def make(url: str, *, proxy: str | None = None, **options) -> AsyncIterator[TeniosClient]:
        async with contextlib.AsyncExitStack() as stack:
            if room == "own":
                environment = stack.enter_context(pytest.MonkeyPatch.context())
                if proxy is not None:
                    environment.setenv("HTTPS_PROXY", proxy)
                    environment.setenv("HTTP_PROXY", proxy)
                options["ssl_context"] = certificates.trusting
            else:
                options["http_client"] = await stack.enter_async_context(
                    importlib.import_module(room).AsyncClient(verify=certificates.trusting, proxy=proxy)
                )
            yield await stack.enter_async_context(TeniosClient(KEY, base_url=url, **options))

    return make

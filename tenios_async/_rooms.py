"""Which room a request takes: the pool on asyncio, else the room over httpx.

Everything that lives by patching httpx or httpcore (respx, pytest-httpx, OpenTelemetry, vcrpy) finds the request there:
whether a method of theirs was replaced is asked at each request, so a mock may start late.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import types
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from tenios_async._exchange import KEEPALIVE, HttpxExchange, OwnHttpxExchange, is_trio

if TYPE_CHECKING:
    import asyncio
    import ssl

    from tenios_async._exchange import Exchange, HttpClient
    from tenios_async._models import Connections
    from tenios_async._pool import PoolExchange

_log = logging.getLogger("tenios_async")


class Rooms:
    """The rooms of one client; each is built when it is first entered.

    Args:
        base_url: without a slash at its end.
        http_client: the caller's, which then sends everything.
        ssl_context: None is what httpx trusts.
        max_connections: for a room of our own.
        user_agent: for a room of our own.
    """

    def __init__(
        self,
        base_url: str,
        *,
        http_client: HttpClient | None,
        ssl_context: ssl.SSLContext | None,
        max_connections: int,
        user_agent: str,
    ) -> None:
        self._base_url = base_url
        self._callers = None if http_client is None else HttpxExchange(http_client, base_url)
        self._ssl_context = ssl_context
        self._max_connections = max_connections
        self._user_agent = user_agent
        self._keepalive = KEEPALIVE
        self._why_httpx: str | None = None
        self._is_settled = False
        self._pool: PoolExchange | None = None
        self._httpx: HttpxExchange | None = None
        self._last: Exchange | None = None

    @property
    def has_own(self) -> bool:
        """Whether something of our own was opened, which somebody has to close."""
        return self._pool is not None or self._httpx is not None

    @property
    def name(self) -> str:
        """The room the next request takes."""
        if self._callers is not None:
            return self._callers.name
        return "pool" if self._reason() is None else "httpx"

    @property
    def connections(self) -> Connections | None:
        """Those of the pool, if it was entered."""
        return None if self._pool is None else self._pool.connections

    def outlast(self, interval: float) -> None:
        """Lets idle connections live until a poll that comes after so many seconds has come back."""
        self._keepalive = max(self._keepalive, 1.5 * interval)
        if self._pool is not None:
            self._pool.keepalive = self._keepalive

    def enter(self) -> Exchange:
        """The room for a request that is about to be sent."""
        if self._callers is not None:
            return self._callers
        pool = self._pool
        if pool is not None and self._last is pool and is_genuine():
            return pool
        reason = self._reason()
        room: Exchange = self._enter_pool() if reason is None else self._enter_httpx()
        if room is not self._last:
            self._last = room
            reason = reason or "asyncio, no proxy, nothing patched"
            fields = {"tenios_event": "transport", "tenios_transport": room.name, "tenios_reason": reason}
            _log.debug("requests travel by %s: %s", room.name, reason, extra=fields)
        return room

    async def aclose(self) -> None:
        """Closes what was opened, all of it though some fails."""
        async with contextlib.AsyncExitStack() as closing:
            for room in (self._httpx, self._pool, self._callers):
                if room is not None:
                    closing.push_async_callback(room.aclose)

    def _reason(self) -> str | None:
        """Why not the pool, or None."""
        if not self._is_settled:
            self._why_httpx = _why_httpx(self._base_url)
            self._is_settled = is_trio() or running_asyncio_loop() is not None  # else the loop is yet to come
        return self._why_httpx or what_is_patched()

    def _enter_pool(self) -> PoolExchange:
        if self._pool is None:
            from tenios_async._pool import PoolExchange  # noqa: PLC0415  # httptools need not be there

            self._pool = PoolExchange(
                self._base_url,
                make_ssl_context=self._make_ssl_context,
                max_connections=self._max_connections,
                user_agent=self._user_agent,
                keepalive=self._keepalive,
            )
        return self._pool

    def _enter_httpx(self) -> HttpxExchange:
        if self._httpx is None:
            ssl_context = self._make_ssl_context()
            try:
                self._httpx = OwnHttpxExchange(
                    self._base_url,
                    ssl_context=ssl_context,
                    max_connections=self._max_connections,
                    user_agent=self._user_agent,
                    keepalive=self._keepalive,
                )
            except ImportError:
                raise ValueError(_PROXY_PROBLEM + ": a SOCKS proxy needs `pip install 'httpx[socks]'`") from None
            except Exception:  # ValueError or httpx.InvalidURL, whose text may show a password
                raise ValueError(_PROXY_PROBLEM + ": write http://, https:// or socks5://, a host and a port") from None
        return self._httpx

    def _make_ssl_context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            import httpx  # noqa: PLC0415  # 30 ms, paid where something of it is needed

            try:
                self._ssl_context = httpx.create_ssl_context()
            except OSError as problem:  # SSLError is one
                raise ValueError(f"{_TRUST_PROBLEM}: {problem}") from None
        return self._ssl_context


_TRUST_PROBLEM = "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be used, and nothing was sent"
_PROXY_PROBLEM = "the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used, and nothing was sent"


def _why_httpx(base_url: str) -> str | None:
    """What does not change while a client lives."""
    if is_trio():
        return "the event loop is not asyncio's"
    if importlib.util.find_spec("httptools") is None:
        return "httptools is not installed"
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415  # 8 ms; httpx asks them too

    parts = urlsplit(base_url)
    if getproxies().keys() & {parts.scheme, "all"} and not proxy_bypass(parts.netloc):
        return "a proxy applies"
    return None


def running_asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running asyncio loop, or None on trio (also as asyncio's guest) and where none is running."""
    module = sys.modules.get("asyncio")
    if module is None or is_trio():
        return None
    try:
        return cast("asyncio.AbstractEventLoop", module.get_running_loop())
    except RuntimeError:
        return None


_PATCHABLE = (
    ("httpx", "AsyncClient", ("send", "_send_single_request", "_transport_for_url")),
    ("httpx", "AsyncHTTPTransport", ("handle_async_request",)),
    ("httpcore", "AsyncConnectionPool", ("handle_async_request",)),
)
_genuine: list[tuple[object, str, object]] = []
"""What was looked at and found to be its package's own: where it is, and what."""
_absent: set[str] = {package for package, _, _ in _PATCHABLE}
"""Packages that were not imported when last looked for. Nothing of them can have been replaced."""


def is_genuine() -> bool:
    """Whether all is as when it was last found to be the packages' own. By identity: a wrapper can claim equality."""
    for package in _absent:
        if package in sys.modules:
            return False
    for owner, name, value in _genuine:  # noqa: SIM110  # a generator would cost half a poll's share again
        if getattr(owner, name, None) is not value:
            return False
    return True


def what_is_patched() -> str | None:
    """Which method of httpx or httpcore is not its package's own function any more, or None."""
    found: list[tuple[object, str, object]] = []
    absent: set[str] = set()
    for package, cls, methods in _PATCHABLE:
        module = sys.modules.get(package)
        if module is None:
            absent.add(package)
            continue
        owner = getattr(module, cls, object)
        found.append((module, cls, owner))
        for name in methods:
            method = vars(owner).get(name)  # a subclass put in its place has not got it
            if not _is_own(method, module, is_private=name[0] == "_"):
                return f"{package}.{cls}.{name} was replaced"
            found.append((owner, name, method))
    _genuine[:] = found
    _absent.intersection_update(absent)
    return None


def _is_own(method: object, module: types.ModuleType, *, is_private: bool) -> bool:
    if method is None:
        return is_private  # gone with a new version
    home = os.path.join(module.__path__[0], "")  # noqa: PTH118  # pathlib costs 2 ms of import
    return type(method) is types.FunctionType and method.__code__.co_filename.startswith(home)

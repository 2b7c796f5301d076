"""The clients that are compared: each is a context manager that gives a function for one status poll.

All send the same body to the same URL and read the state from the JSON of the answer. Each may open as many connections
as there are concurrent polls, and keeps them; beyond that everything is as its package has it by default.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import httpx
import httpx2
import httpx_aiohttp
from responder import ACCESS_KEY, CALLBACK_ID, HOST, PATH

from tenios_async import Callback, TeniosClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    Poll = Callable[[], Awaitable[str]]

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Server:
    """Where the responder listens, whom it was certified by (PEM), and how many polls it gets at a time."""

    port: int
    authority: str
    is_tls: bool
    concurrency: int

    @property
    def origin(self) -> str:
        """The URL without a path."""
        return f"http{'s' if self.is_tls else ''}://{HOST}:{self.port}"

    def context(self) -> ssl.SSLContext:
        """A new TLS context, which trusts the responder alone."""
        return ssl.create_default_context(cadata=self.authority)


@asynccontextmanager
async def ours(server: Server) -> AsyncIterator[Poll]:
    """`TeniosClient.callback_status` over the library's own pool."""
    client = TeniosClient(
        ACCESS_KEY, base_url=server.origin, ssl_context=server.context(), max_connections=server.concurrency
    )
    async with client:
        yield _poll_of(client, transport="pool")


@asynccontextmanager
async def ours_httpx_room(server: Server) -> AsyncIterator[Poll]:
    """The same over the library's own httpx client, which it takes where a method of httpx was replaced."""
    with _replaced():
        client = TeniosClient(
            ACCESS_KEY, base_url=server.origin, ssl_context=server.context(), max_connections=server.concurrency
        )
        async with client:
            yield _poll_of(client, transport="httpx")


@asynccontextmanager
async def ours_http_client(server: Server) -> AsyncIterator[Poll]:
    """The same over an httpx client of the caller's."""
    async with (
        _httpx_client(server) as http_client,
        TeniosClient(ACCESS_KEY, base_url=server.origin, http_client=http_client) as client,
    ):
        yield _poll_of(client, transport="httpx")


@asynccontextmanager
async def plain_httpx(server: Server) -> AsyncIterator[Poll]:
    """An `httpx.AsyncClient`."""
    async with _httpx_client(server) as client:
        yield _post_of(client, server)


@asynccontextmanager
async def plain_httpx2(server: Server) -> AsyncIterator[Poll]:
    """An `httpx2.AsyncClient`."""
    limits = httpx2.Limits(max_connections=server.concurrency)
    async with httpx2.AsyncClient(verify=server.context(), limits=limits, headers=_HEADERS) as client:
        yield _post_of(client, server)


@asynccontextmanager
async def httpx_over_aiohttp(server: Server) -> AsyncIterator[Poll]:
    """An httpx client with the transport of httpx-aiohttp."""
    limits = httpx.Limits(max_connections=server.concurrency)
    async with httpx_aiohttp.HttpxAiohttpClient(verify=server.context(), limits=limits, headers=_HEADERS) as client:
        yield _post_of(client, server)


@asynccontextmanager
async def plain_aiohttp(server: Server) -> AsyncIterator[Poll]:
    """An `aiohttp.ClientSession`."""
    url = server.origin + PATH
    connector = aiohttp.TCPConnector(limit=server.concurrency, ssl=server.context())
    async with aiohttp.ClientSession(connector=connector, headers=_HEADERS) as session:

        async def poll() -> str:
            async with session.post(url, data=_body()) as response:
                response.raise_for_status()
                return (await response.json())["status"]

        yield poll


@asynccontextmanager
async def floor(server: Server) -> AsyncIterator[Poll]:
    """What asyncio alone costs: fixed bytes out, an answer of known shape in, no limits, no time-out, no checks."""
    loop = asyncio.get_running_loop()
    context = server.context() if server.is_tls else None
    fields = {"Host": f"{HOST}:{server.port}", **_HEADERS, "Content-Length": str(len(_body()))}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    request = "\r\n".join(lines).encode() + _body()
    made: list[_Bare] = []
    idle: list[_Bare] = []

    async def poll() -> str:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await loop.create_connection(lambda: _Bare(loop), HOST, server.port, ssl=context)
            made.append(connection)
        body = await connection.ask(request)
        idle.append(connection)
        return json.loads(body)["status"]

    try:
        yield poll
    finally:
        for connection in made:
            connection.transport.abort()


class _Bare(asyncio.Protocol):
    """One connection of the floor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._came = b""

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Writes the request; the result is the body of the answer."""
        self._answer = self._loop.create_future()
        self.transport.write(request)
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        came = self._came = self._came + data
        begin = came.find(b"\r\n\r\n") + 4
        if begin < 4:  # noqa: PLR2004  # not found
            return
        at = came.index(b"Content-Length: ") + 16
        if len(came) == begin + int(came[at : came.index(b"\r", at)]) and not self._answer.done():
            self._came = b""
            self._answer.set_result(came[begin:])

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer was whole"))


def _body() -> bytes:
    return json.dumps({"access_key": ACCESS_KEY, "id": CALLBACK_ID}, ensure_ascii=False).encode()


def _poll_of(client: TeniosClient, *, transport: str) -> Poll:
    if client.transport != transport:
        raise RuntimeError(f"polls would travel by {client.transport}, not by {transport}")
    callback = Callback(CALLBACK_ID)
    return lambda: client.callback_status(callback)


def _post_of(client: httpx.AsyncClient | httpx2.AsyncClient, server: Server) -> Poll:
    url = server.origin + PATH

    async def poll() -> str:
        response = await client.post(url, content=_body())
        response.raise_for_status()
        return response.json()["status"]

    return poll


def _httpx_client(server: Server) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=server.concurrency)
    return httpx.AsyncClient(verify=server.context(), limits=limits, headers=_HEADERS)


@contextmanager
def _replaced() -> Iterator[None]:
    """Puts a method that only calls the original where a mock or a tracer would put its own."""
    original = httpx.AsyncClient._transport_for_url  # noqa: SLF001

    def passed_on(self: httpx.AsyncClient, url: httpx.URL) -> httpx.AsyncBaseTransport:
        return original(self, url)

    httpx.AsyncClient._transport_for_url = passed_on  # noqa: SLF001
    try:
        yield
    finally:
        httpx.AsyncClient._transport_for_url = original  # noqa: SLF001


OURS, OWN_ROOM, AIOHTTP, HTTPX, FLOOR = "ours", "ours-httpx-room", "aiohttp", "httpx", "floor"

PEERS: dict[str, Callable[[Server], AbstractAsyncContextManager[Poll]]] = {
    FLOOR: floor,
    OURS: ours,
    AIOHTTP: plain_aiohttp,
    "httpx-aiohttp": httpx_over_aiohttp,
    "httpx2": plain_httpx2,
    HTTPX: plain_httpx,
    OWN_ROOM: ours_httpx_room,
    "ours-http_client": ours_http_client,
}

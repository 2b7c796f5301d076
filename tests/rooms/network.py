"""A network in memory, in virtual time: connections are answered by coroutines, and every instant is exact."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import h11

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Behaviour = Callable[["Peer"], Awaitable[None]]

CONNECTED = b'{"status": "CONNECTED"}'


def with_length(body: bytes = CONNECTED, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@dataclass
class Request:
    """What the server's own parser (h11) made of one request."""

    target: str
    headers: list[tuple[bytes, bytes]]
    fields: dict[str, object]


class Peer(asyncio.Transport):
    """One connection: the client's transport, and the server's end of it."""

    def __init__(self, protocol: asyncio.Protocol, *, alpn: str | None) -> None:
        super().__init__()
        self.received = bytearray()
        self.requests: list[Request] = []
        self.is_open = True
        self.unwritten = 0
        """Bytes of the request that the client could not get rid of."""
        self._alpn = alpn
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._parser = h11.Connection(h11.SERVER)
        self._arrived = asyncio.Event()

    def write(self, data) -> None:
        assert self.is_open, "written to a connection that is closed"
        self.received += data
        self._arrived.set()

    def get_write_buffer_size(self) -> int:
        return self.unwritten

    def is_closing(self) -> bool:
        return not self.is_open

    def get_extra_info(self, name, default=None):
        return self if name == "ssl_object" and self._alpn else default

    def selected_alpn_protocol(self) -> str | None:
        return self._alpn

    def close(self) -> None:
        self.reset(None)

    abort = close

    async def request(self) -> Request:
        """The next whole request."""
        body = b""
        head = None
        seen = getattr(self, "_seen", 0)
        if self._parser.our_state is not h11.IDLE and self._parser.their_state is h11.DONE:
            self._parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            self._parser.send(h11.EndOfMessage())
            self._parser.start_next_cycle()
        while not isinstance(event := self._parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                while len(self.received) == seen:
                    self._arrived.clear()
                    await self._arrived.wait()
                self._parser.receive_data(bytes(self.received[seen:]))
                self._seen = seen = len(self.received)
            elif isinstance(event, h11.Request):
                head = event
            else:
                body += event.data
        request = Request(head.target.decode(), list(head.headers), json.loads(body))
        self.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        """In a turn of the loop of its own."""
        self._loop.call_soon(lambda: self.is_open and self._protocol.data_received(data))

    def finish(self) -> None:
        """The server's FIN."""
        self._loop.call_soon(lambda: self.is_open and (self._protocol.eof_received() or self.close()))

    def reset(self, error: Exception | None) -> None:
        if self.is_open:
            self.is_open = False
            self._loop.call_soon(self._protocol.connection_lost, error)


@dataclass
class Network:
    """What answers where a loop connects. One behaviour per connection; the last repeats."""

    script: list[Behaviour] = field(default_factory=list)
    alpn: str | None = None
    latency: float = 0.0
    """Seconds a connect takes."""
    refusals: Iterable[OSError] = ()
    """What the first connects end in."""
    peers: list[Peer] = field(default_factory=list)
    most_open: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self.refusals = iter(self.refusals)
        asyncio.get_running_loop().create_connection = self._connect
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome

    @property
    def open(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.is_open]

    @property
    def requests(self) -> list[Request]:
        return [request for peer in self.peers for request in peer.requests]

    @property
    def inits(self) -> int:
        return sum(request.target.endswith("/init") for request in self.requests)

    async def _connect(self, factory, host, port, **options):
        del host, port, options
        await asyncio.sleep(self.latency)
        if (refusal := next(self.refusals, None)) is not None:
            raise refusal
        protocol = factory()
        peer = Peer(protocol, alpn=self.alpn)
        behave = self.script[min(len(self.peers), len(self.script) - 1)]
        self.peers.append(peer)
        self.most_open = max(self.most_open, len(self.open))
        protocol.connection_made(peer)
        task = asyncio.ensure_future(behave(peer))
        self._tasks.add(task)
        return peer, protocol


def answering(*answers: bytes, after: float = 0.0) -> Behaviour:
    """To each request the next of these; the last repeats."""

    async def behave(peer: Peer) -> None:
        count = 0
        while True:
            await peer.request()
            await asyncio.sleep(after)
            peer.send(answers[min(count, len(answers) - 1)])
            count += 1

    return behave


def in_pieces(*pieces: bytes, close: bool = False) -> Behaviour:
    """To each request an answer in these pieces."""

    async def behave(peer: Peer) -> None:
        while True:
            await peer.request()
            for piece in pieces:
                peer.send(piece)
            if close:
                peer.finish()

    return behave


def vendor(status: bytes = CONNECTED) -> Behaviour:
    """What the real one does."""

    async def behave(peer: Peer) -> None:
        while True:
            request = await peer.request()
            peer.send(with_length(b'{"id": 10}' if request.target.endswith("/init") else status))

    return behave


async def silent(peer: Peer) -> None:
    """Reads and never answers."""
    while True:
        await peer.request()

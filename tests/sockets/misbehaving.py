"""A server that misbehaves on purpose and counts what it really received.

Blocking sockets in threads, so that it serves asyncio and trio alike and goes on while their loop is busy. It shares no
code with the library: its own small parser is the oracle of "a phone never rings twice by mistake".

A behaviour is a function of a `Peer` (one accepted connection). A server is given one per connection; the last repeats.
Whatever is left when a behaviour returns is read to the end and counted. Leaving `async with Server(...)` accepts what
is still in the queue, waits until every client has hung up, and then the counts are final.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Behaviour = Callable[["Peer"], None]

HANGS_AFTER = 20.0
"""Seconds after which a client that neither sends nor hangs up is a failure."""


@dataclass(frozen=True)
class Request:
    """One whole request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Peer:
    """One accepted connection, as the server sees it."""

    def __init__(self, server: Server, sock: socket.socket, behaviour: Behaviour) -> None:
        self.server = server
        self.received = bytearray()
        self.requests: list[Request] = []
        self.client_left = threading.Event()
        self.released = threading.Event()
        """Set by a test to let a behaviour that waits go on."""
        self._unparsed = bytearray()
        self._answered = 0
        self._socket = sock
        self._behaviour = behaviour
        self._thread = threading.Thread(target=self._serve, daemon=True)
        sock.settimeout(HANGS_AFTER)

    def start(self) -> None:
        self._thread.start()

    def read_some(self) -> bool:
        """Reads what is there, or waits for it; False once the client has hung up."""
        try:
            data = self._socket.recv(65536)
        except TimeoutError:  # where a promise is broken
            raise
        except OSError:
            data = b""
        if not data:
            self.client_left.set()
            return False
        self.received += data
        self._unparsed += data
        self._parse()
        return True

    def read(self, count: int) -> None:
        """Reads exactly so many bytes, in as many pieces as it takes."""
        while count > 0:
            data = self._socket.recv(count)
            if not data:  # where a promise is broken
                self.client_left.set()
                return
            count -= len(data)
            self.received += data
            self._unparsed += data
        self._parse()

    def read_request(self) -> Request | None:
        """The next whole request, or None once the client has hung up."""
        while len(self.requests) <= self._answered:
            if not self.read_some():
                return None
        self._answered += 1
        return self.requests[self._answered - 1]

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._socket.sendall(data)

    def finish(self) -> None:
        """FIN: says that nothing more will come, and goes on listening."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hangs up; whatever the client still sends is answered by a reset."""
        self._socket.close()

    def reset(self) -> None:
        """RST, in the middle of everything."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        self._socket = context.wrap_socket(self._socket, server_side=True)

    def wait_released(self) -> None:
        """Waits for the test, or for the end of the server."""
        self.released.wait(HANGS_AFTER)

    def join(self) -> None:
        self._thread.join(HANGS_AFTER)
        assert not self._thread.is_alive(), "a client neither went on nor hung up"

    def _serve(self) -> None:
        try:
            self._behaviour(self)
            while self._socket.fileno() != -1 and self.read_some():
                pass
        except TimeoutError as error:  # where a promise is broken
            self.server.errors.append(error)
        except OSError:  # the client left, or was thrown out
            pass
        except Exception as error:  # where a promise is broken
            self.server.errors.append(error)
        finally:
            self.client_left.set()
            self._socket.close()

    def _parse(self) -> None:
        while True:
            head, end, rest = bytes(self._unparsed).partition(b"\r\n\r\n")
            if not end:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            parts = first.split(" ")
            if len(parts) != 3:  # where a promise is broken
                return
            headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
            assert "transfer-encoding" not in headers, "a length is sent, so that a cut request cannot look whole"
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self.requests.append(Request(parts[0], parts[1], headers, rest[:length]))
            self._unparsed = bytearray(rest[length:])
            self.server.request_arrived.set()


class Server:
    """Listens on 127.0.0.1.

    Args:
        script: one behaviour per connection; the last repeats.
        receive_buffer: bytes the kernel may take in before the server reads, or None for its default.
        scheme: what `url` begins with.
    """

    def __init__(self, *script: Behaviour, receive_buffer: int | None = None, scheme: str = "http") -> None:
        self.peers: list[Peer] = []
        self.errors: list[Exception] = []
        self.request_arrived = threading.Event()
        self._script = script
        self._last: Any = None
        self._settled = False
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.url = f"{scheme}://127.0.0.1:{self.address[1]}"
        self._accepted = threading.Condition()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    async def __aenter__(self) -> Self:
        self._acceptor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._settle)
        assert not self.errors, self.errors

    @property
    def requests(self) -> list[Request]:
        return [request for peer in self.peers for request in peer.requests]

    @property
    def inits(self) -> Counter[str]:
        """How often a whole init arrived, by number."""
        inits = (r for r in self.requests if r.method == "POST" and r.path.endswith("/callback/init"))
        return Counter(json.loads(request.body)["callback_number"] for request in inits)

    @property
    def statuses(self) -> int:
        """How many whole status requests arrived."""
        return sum(r.method == "POST" and r.path.endswith("/callback/status") for r in self.requests)

    @property
    def connects(self) -> list[str]:
        """What a proxy was asked to connect to."""
        return [request.target for request in self.requests if request.method == "CONNECT"]

    @property
    def received(self) -> bytes:
        """Every byte of every connection."""
        return b"".join(bytes(peer.received) for peer in self.peers)

    async def until_request(self) -> None:
        """Returns when a whole request has arrived."""
        assert await anyio.to_thread.run_sync(self.request_arrived.wait, HANGS_AFTER), "no request arrived"

    async def until_peer(self, index: int = 0) -> Peer:
        """The connection of that index, once it was accepted."""

        def wait() -> bool:
            with self._accepted:
                return self._accepted.wait_for(lambda: len(self.peers) > index, HANGS_AFTER)

        assert await anyio.to_thread.run_sync(wait), "no connection came"
        return self.peers[index]

    async def until_client_left(self, index: int = 0) -> None:
        """Returns when the client has hung up that connection."""
        peer = await self.until_peer(index)
        assert await anyio.to_thread.run_sync(peer.client_left.wait, HANGS_AFTER), "the client did not hang up"

    def release(self) -> None:
        """Lets every behaviour that waits go on."""
        for peer in self.peers:
            peer.released.set()

    def _accept(self) -> None:
        while True:
            sock, address = self._listener.accept()
            if address == self._last:
                sock.close()
                return
            with self._accepted:
                behaviour = self._script[min(len(self.peers), len(self._script) - 1)]
                peer = Peer(self, sock, behaviour)
                self.peers.append(peer)
                self._accepted.notify_all()
            peer.start()

    def _settle(self) -> None:
        # The queue is in order: whoever connected before this last connection has been accepted before it.
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.connect(self.address)
            self._acceptor.join(HANGS_AFTER)
        self._listener.close()
        self.release()
        for peer in self.peers:
            peer.join()


def reply(status: int, body: bytes = b"", *headers: str) -> bytes:
    """A whole answer of one piece."""
    head = [f"HTTP/1.1 {status} X", *headers, f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join([*head, "", ""]).encode() + body


PLACED = reply(200, b'{"id": 10}')
CONNECTED = reply(200, b'{"id": 10, "status": "CONNECTED"}')


def refusal(code: str, message: str = "No") -> bytes:
    """The vendor's error body."""
    return json.dumps({"error_code": code, "error_message": message, "fields": []}).encode()


def answer(data: bytes, ending: Behaviour | None = None) -> Behaviour:
    """Answers each whole request so; or only the first, and then ends the connection in that way."""

    def behave(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(data)
            if ending is not None:
                ending(peer)
                return

    return behave


def after(count: int, ending: Behaviour) -> Behaviour:
    """Ends the connection in that way after so many bytes of the request (0: on accept)."""

    def behave(peer: Peer) -> None:
        peer.read(count)
        ending(peer)

    return behave


def on_release(behaviour: Behaviour) -> Behaviour:
    """Neither reads nor writes until the test says so."""

    def behave(peer: Peer) -> None:
        peer.wait_released()
        behaviour(peer)

    return behave


def hold(data: bytes) -> Behaviour:
    """Answers once the test says so."""

    def behave(peer: Peer) -> None:
        peer.read_request()
        peer.wait_released()
        peer.send(data)

    return behave


def drip(data: Iterator[bytes], interval: float) -> Behaviour:
    """Answers in pieces, slowly, until the client hangs up or the server ends."""

    def behave(peer: Peer) -> None:
        peer.read_request()
        while not peer.released.is_set():
            peer.send(next(data))
            peer.released.wait(interval)

    return behave


def over_tls(context: ssl.SSLContext, behaviour: Behaviour) -> Behaviour:
    def behave(peer: Peer) -> None:
        peer.start_tls(context)
        behaviour(peer)

    return behave


def tunnel(behaviour: Behaviour) -> Behaviour:
    """A proxy that grants the CONNECT, and then is itself what was asked for."""

    def behave(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        behaviour(peer)

    return behave


def silent(peer: Peer) -> None:
    """Reads and never answers."""


def finish(peer: Peer) -> None:
    peer.finish()


def close(peer: Peer) -> None:
    peer.close()


def reset(peer: Peer) -> None:
    peer.reset()

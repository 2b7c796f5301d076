"""The fast room behind the seam: keep-alive connections to one origin, for asyncio.

An idle connection is handed out in O(1), the last used first, and is told at once when the server closes it. HTTP/1.1
is parsed in `_reader`; here are only the connections and their states. Progress is exact: a connection knows whether it
wrote.
"""

from __future__ import annotations

import asyncio
import errno
import math
import ssl
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import anyio

from tenios_async._exchange import ExchangeFailed, Progress, describe, without_frames
from tenios_async._models import Connections
from tenios_async._reader import AnswerReader
from tenios_async._wire import is_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenios_async._wire import Body, Reply

FRESH = 1.0
"""Seconds since its last use after which a connection is not trusted with a call: servers close idle ones."""
NEW = -1.0
"""As seconds since the last use: no connection that was ever used will do."""
HAPPY_EYEBALLS = 0.25
"""Seconds before the next address is tried too (RFC 8305 section 8)."""
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class PoolExchange:
    """Connections to the origin of one base URL.

    Args:
        base_url: in ASCII, without a slash at its end.
        make_ssl_context: called at the first connection, where the base URL is https.
        max_connections: open at once; further requests wait in order.
        user_agent: for the header of that name.
        keepalive: seconds a connection stays open idle; may be changed at any time.
    """

    def __init__(
        self,
        base_url: str,
        *,
        make_ssl_context: Callable[[], ssl.SSLContext],
        max_connections: int,
        user_agent: str,
        keepalive: float,
    ) -> None:
        self.name = "pool"
        self.keepalive = keepalive
        parts = urlsplit(base_url)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._is_address = is_address(self._host)
        self._port = parts.port or (443 if self._is_tls else 80)
        self._path = parts.path
        self._headers = (
            f"Host: {parts.netloc}\r\nUser-Agent: {user_agent}\r\nAccept: application/json\r\n"
            "Accept-Encoding: identity\r\nContent-Type: application/json\r\nContent-Length: "
        )
        self._heads: dict[str, bytes] = {}
        self._make_ssl_context = make_ssl_context
        self._ssl_context: ssl.SSLContext | None = None
        # A slot is what a connection needs to be open. It is free, or held by a request, or by an idle connection.
        self._max_connections = self._free_slots = max_connections
        self._idle: dict[_Connection, None] = {}  # a stack
        self._waiters: OrderedDict[asyncio.Future[_Connection | None], None] = OrderedDict()
        self._open: set[_Connection] = set()
        self._preparing: set[anyio.CancelScope] = set()  # of those who have no connection yet
        self._readers: list[AnswerReader] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._all_lost: asyncio.Future[None] | None = None

    async def post(
        self, path: str, body: Body, *, deadline: float, before_send: Callable[[], Awaitable[None]] | None = None
    ) -> Reply:
        idle_for = FRESH if body.dials else math.inf
        connection = self._take_idle(idle_for)
        if connection is None or before_send is not None:
            connection = await self._prepare(connection, deadline, before_send, idle_for)
        try:
            return await connection.ask(self._heads.get(path) or self._head(path), body, deadline)
        except ExchangeFailed as failure:
            if not failure.may_go_again(body):
                raise
        finally:
            self._release(connection)
        # Where a server restarts, one idle connection is as dead as another.
        connection = await self._prepare(None, deadline, None, NEW)
        try:
            return await connection.ask(self._head(path), body, deadline)
        finally:
            self._release(connection)

    @property
    def connections(self) -> Connections:
        """How many are in use now; may be asked from another thread, which gets it about right."""
        idle = len(self._idle)
        in_use = max(0, self._max_connections - self._free_slots - idle)
        return Connections(self._max_connections, in_use, idle, len(self._waiters))

    async def aclose(self) -> None:
        """Drops every connection; requests under way fail. Returns when the last is gone."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._open:
            connection.drop()
        for scope in self._preparing:
            scope.cancel()
        while self._waiters:
            self._hand_on(None)
        if self._open:
            self._all_lost = asyncio.get_running_loop().create_future()
            await self._all_lost

    def _head(self, path: str) -> bytes:
        """Everything up to the value of Content-Length, which comes last."""
        head = self._heads[path] = f"POST {self._path}{path} HTTP/1.1\r\n{self._headers}".encode("ascii")
        return head

    async def _prepare(
        self,
        connection: _Connection | None,
        deadline: float,
        before_send: Callable[[], Awaitable[None]] | None,
        idle_for: float,
    ) -> _Connection:
        """A connection that is up when `before_send` has returned; what that raises comes out as it is."""
        scope = anyio.CancelScope(deadline=deadline)
        self._preparing.add(scope)
        try:
            with scope:
                connection = connection or await self._acquire(idle_for)
                if before_send is not None:
                    await before_send()
                    connection.check_usable(idle_for)
                return connection
        except BaseException:
            if connection is not None:
                self._release(connection)
            raise
        finally:
            self._preparing.discard(scope)
        if connection is not None:
            self._release(connection)
        self._check_open()
        raise ExchangeFailed(describe(TimeoutError(), timed_out=True), Progress.NOT_SENT, timed_out=True)

    async def _acquire(self, idle_for: float) -> _Connection:
        connection: _Connection | None
        if self._free_slots:
            self._free_slots -= 1
        elif self._idle:  # all too long idle: the oldest gives its slot
            self._drop_oldest()
        else:
            connection = await self._wait()
            if connection is not None:
                if connection.is_up and idle_for != NEW:
                    return connection
                connection.drop()
        oldest: _Connection | None = None
        while True:
            try:
                while oldest in self._open:  # noqa: ASYNC110  # the loop closes its socket in one of the next turns
                    await asyncio.sleep(0)
                return await self._connect()
            except BaseException as failure:
                cause = failure.__cause__
                if not (self._idle and isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTOR):
                    self._hand_on(None)
                    raise
            oldest = self._drop_oldest()  # whose descriptor is needed more
            self._hand_on(None)

    def _drop_oldest(self) -> _Connection:
        oldest = next(iter(self._idle))
        del self._idle[oldest]
        oldest.drop()
        return oldest

    async def _wait(self) -> _Connection | None:
        """A connection just used, or None for a slot."""
        waiter: asyncio.Future[_Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiters.pop(waiter, None)
            if not waiter.cancelled():  # it was given something in the same turn of the loop
                connection = waiter.result()
                self._hand_on(None) if connection is None else self._release(connection)
            raise

    async def _connect(self) -> _Connection:
        connection = _Connection(self)
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if isinstance(loop, asyncio.BaseEventLoop) and not self._is_address:  # uvloop knows no such option
            options["happy_eyeballs_delay"] = HAPPY_EYEBALLS
        self._check_open()
        try:
            if self._is_tls:
                self._ssl_context = self._ssl_context or self._make_ssl_context()
                options |= {"ssl": self._ssl_context, "server_hostname": self._host}
            await loop.create_connection(lambda: connection, self._host, self._port, **options)
            connection.check_protocol()
            self._check_open()
        except OSError as failure:
            self._give_up(connection)
            is_fault = not isinstance(failure, ssl.SSLError)
            reason = describe(failure, timed_out=False)
            raise ExchangeFailed(reason, Progress.NOT_SENT, is_fault=is_fault) from without_frames(failure)
        except BaseException:
            self._give_up(connection)
            raise
        return connection

    def _give_up(self, connection: _Connection) -> None:
        """One that may be up all the same. uvloop then closes it by itself, and tells nobody."""
        connection.drop()
        self.lost(connection)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ExchangeFailed("the client was closed", Progress.NOT_SENT)

    def _take_idle(self, idle_for: float) -> _Connection | None:
        if not self._idle:
            return None
        connection, _ = self._idle.popitem()
        if connection.was_idle_for_more_than(idle_for):
            self._idle[connection] = None
            return None
        return connection

    def _release(self, connection: _Connection) -> None:
        if connection.is_reusable and not self._is_closed:
            self._hand_on(connection)
        else:
            connection.drop()
            self._hand_on(None)

    def _hand_on(self, connection: _Connection | None) -> None:
        """Gives a slot, with the connection that has it if there is one, to whoever waits first."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return
        if connection is None:
            self._free_slots += 1
            return
        self._idle[connection] = None
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self.keepalive, self._drop_expired)

    def _drop_expired(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        while self._idle:
            oldest = next(iter(self._idle))
            if (expires := oldest.last_used + self.keepalive) > loop.time():
                self._sweep = loop.call_at(expires, self._drop_expired)
                return
            self._drop_oldest()
            self._free_slots += 1

    def take_reader(self) -> AnswerReader:
        """For the next answer. One serves any number of connections whose answers come in one piece."""
        return self._readers.pop() if self._readers else AnswerReader()

    def give_back(self, reader: AnswerReader) -> None:
        """Takes one whose answer was clean."""
        reader.begin()
        self._readers.append(reader)

    def made(self, connection: _Connection) -> None:
        """Is told by a connection that it is up."""
        self._open.add(connection)

    def is_ending(self, connection: _Connection) -> None:
        """Is told by a connection that it cannot be used any more."""
        if connection in self._idle:
            del self._idle[connection]
            self._free_slots += 1

    def lost(self, connection: _Connection) -> None:
        """Is told by a connection that its socket is closed."""
        self._open.discard(connection)
        if not self._open and self._all_lost is not None and not self._all_lost.done():  # who waits may be cancelled
            self._all_lost.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    __slots__ = (
        "_answer",
        "_deadline",
        "_is_clean",
        "_loop",
        "_pool",
        "_reader",
        "_requests",
        "_timer",
        "_timer_ends",
        "_transport",
        "last_used",
    )

    def __init__(self, pool: PoolExchange) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._reader: AnswerReader | None = None  # from the first byte of an answer to its last
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ends = math.inf
        self._requests = 0
        self._is_clean = True  # nothing of an answer is missing, and nothing came after it
        self.last_used = 0.0
        """When it was made or its last answer ended, on the loop's clock."""

    @property
    def is_up(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        transport = self._transport
        return (
            self._is_clean
            and transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    def was_idle_for_more_than(self, seconds: float) -> bool:
        return seconds != math.inf and self._loop.time() - self.last_used > seconds

    def check_usable(self, idle_for: float) -> None:
        """Raises `ExchangeFailed` where it was closed, or is too old by now."""
        if not self.is_up or self.was_idle_for_more_than(idle_for):
            reason = "the connection was closed, or too old, when the request was about to be sent"
            raise ExchangeFailed(reason, Progress.NOT_SENT, is_fault=True)

    def check_protocol(self) -> None:
        """Raises `SSLError` where the TLS handshake chose a protocol that is not spoken here."""
        tls: Any = cast("asyncio.Transport", self._transport).get_extra_info("ssl_object")
        chosen = tls and tls.selected_alpn_protocol()
        if chosen not in (None, "http/1.1"):
            raise ssl.SSLError(f"the server chose {chosen}; HTTP/2 needs an http_client of your own")

    def ask(self, head: bytes, body: Body, deadline: float) -> asyncio.Future[Reply]:
        """Writes one request. Not a coroutine, so that no frame with the bytes is in an error's traceback."""
        if body.dials and deadline <= self._loop.time():
            raise ExchangeFailed(describe(TimeoutError(), timed_out=True), Progress.NOT_SENT, timed_out=True)
        content = body.encode()
        self._requests += 1
        self._is_clean = False
        self._answer = answer = self._loop.create_future()
        self._deadline = deadline
        if deadline < self._timer_ends:
            self._set_timer()
        self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(content), content))  # type: ignore[union-attr]  # it is up
        return answer

    def drop(self) -> None:
        """Closes at once; what is still in flight is lost."""
        self._fail("the connection was given up", Progress.MAYBE_SENT)
        self._cancel_timer()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.last_used = self._loop.time()
        self._pool.made(self)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # nobody asked for this, or not for so much
            self._pool.is_ending(self)
            self.drop()
            return
        reader = self._reader
        if reader is None:
            reader = self._reader = self._pool.take_reader()
        reader.feed(data)
        if reader.problem is not None:
            self._fail(reader.problem, Progress.ANSWERED)
        elif reader.is_whole:
            self._finish(reader)

    def eof_received(self) -> None:
        self._pool.is_ending(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._fail(describe(exc, timed_out=False), Progress.MAYBE_SENT)
        elif self._reader is not None and self._reader.ends_with_the_stream:
            self._finish(self._reader)
        else:
            self._fail("the connection was closed before a whole answer came", Progress.MAYBE_SENT)
        self._cancel_timer()
        self._pool.is_ending(self)
        self._pool.lost(self)

    def _finish(self, reader: AnswerReader) -> None:
        answer = self._answer
        if answer is None or answer.done():
            return
        if (problem := reader.refusal()) is not None:
            self._fail(problem, Progress.ANSWERED)
            return
        # An idle connection keeps as little as it can: what many share stays in the processor's cache.
        self._answer = self._reader = None
        self.last_used = self._loop.time()
        self._is_clean = reader.is_clean
        reply = reader.reply()
        if reader.is_clean:
            self._pool.give_back(reader)
        answer.set_result(reply)

    def _set_timer(self) -> None:
        self._cancel_timer()
        self._timer_ends = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._time_out)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_ends = math.inf

    def _time_out(self) -> None:
        """The timer was set for this request or an earlier one: one for each would cost as much as the parsing."""
        self._timer = None
        self._timer_ends = math.inf
        if self._answer is None or self._answer.done():
            return
        if self._loop.time() < self._deadline < math.inf:
            self._set_timer()
        elif self._deadline < math.inf:
            self._fail(describe(TimeoutError(), timed_out=True), Progress.MAYBE_SENT, timed_out=True)

    def _fail(self, reason: str, progress: Progress, *, timed_out: bool = False) -> None:
        if self._answer is None or self._answer.done():
            return
        was_reused = self._requests > 1 and self._reader is None
        failure = ExchangeFailed(reason, progress, timed_out=timed_out, is_fault=True, was_reused=was_reused)
        self._answer.set_exception(failure)
        self._answer.exception()  # counts as retrieved, should whoever asked be cancelled in this turn of the loop

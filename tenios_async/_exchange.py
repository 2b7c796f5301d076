"""The seam: one POST out, one Reply back, and the knowledge how far the request got.

This room stands over an `httpx.AsyncClient`, the caller's own or ours, and over its fork `httpx2`, of which it uses
only what both share. The class of an exception proves nothing (httpcore swallows write errors; a reset on accept looks
like a stale connection), so the proof is positive: httpcore's `trace` extension says when the headers of our POST start
to leave, and the body is handed out at the last moment by an object that knows whether it was asked for.
"""

from __future__ import annotations

import enum
import functools
import math
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio

from tenios_async._wire import MAX_BODY, Reply

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
    from types import ModuleType, TracebackType

    import httpx

    from tenios_async._wire import Body

KEEPALIVE = 120.0
"""Seconds an idle connection stays open for polls, at least; httpx's 5 s would make each slow one pay a handshake."""


MAX_BUFFERED = 1024 * 1024
"""Bytes after which an answer that is too long and cannot be cancelled is dropped."""


class Progress(enum.Enum):
    """How far a request got."""

    NOT_SENT = enum.auto()
    """Not a byte of it has left: proven."""
    MAYBE_SENT = enum.auto()
    """A byte may have left, and no whole answer came."""
    ANSWERED = enum.auto()
    """A whole answer came, or as much of it as was wanted."""


class ExchangeFailed(Exception):  # never leaves the first floor
    """There is no Reply.

    Attributes:
        progress: how far the request got.
        timed_out: whether the deadline ended it.
        is_fault: whether the network failed, so that the next try may succeed; a certificate stays bad.
        was_reused: whether it went out on a connection that had been idle, and nothing is known to have come back.
    """

    def __init__(
        self,
        reason: str,
        progress: Progress,
        *,
        timed_out: bool = False,
        is_fault: bool = False,
        was_reused: bool = False,
    ) -> None:
        super().__init__(reason)
        self.progress = progress
        self.timed_out = timed_out
        self.is_fault = is_fault
        self.was_reused = was_reused

    def may_go_again(self, body: Body) -> bool:
        """Whether a room may send this once more, on a new connection: a read that met one that was closing.

        RFC 9110 9.2.2, RFC 9112 9.3.1.
        """
        is_stale = self.was_reused and not self.timed_out and self.progress is not Progress.ANSWERED
        return is_stale and not body.dials


class RawHeaders(Mapping[str, str]):
    """An answer's headers, by their names in lower case; decoded when one is asked for, which is seldom."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __contains__(self, name: object) -> bool:
        key = name.encode("latin-1") if isinstance(name, str) else b""
        for raw_name, _ in self._raw:  # noqa: SIM110  # this is asked of each answer, and any() costs twice as much
            if len(raw_name) == len(key) and raw_name.lower() == key:
                return True
        return False

    def __getitem__(self, name: str) -> str:
        key = name.encode("latin-1")
        values = [value.decode("latin-1") for raw_name, value in self._raw if raw_name.lower() == key]
        if not values:
            raise KeyError(name)
        return ", ".join(value.strip(" \t") for value in values)  # RFC 9110 5.3 and 5.5; llhttp leaves white space

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1").lower() for name, _ in self._raw))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Exchange(Protocol):
    """What stands behind the seam."""

    name: str

    async def post(
        self, path: str, body: Body, *, deadline: float, before_send: Callable[[], Awaitable[None]] | None = None
    ) -> Reply:
        """Sends once and gives the whole answer, by `deadline` on anyio's clock; else raises `ExchangeFailed`.

        A read that met an idle connection which was closing is sent once more, on a new one.

        `before_send` is awaited when a connection is in hand and not a byte has left, and once more where the body
        leaves later, which alone rings a phone. What it raises ends the exchange and comes out as it is.
        """
        ...


class HttpClient(Protocol):
    """An `httpx.AsyncClient` or an `httpx2.AsyncClient`, as type checkers see both: what this room uses of them."""

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: Any = ...,
        headers: Any = ...,
        timeout: Any = ...,
        extensions: Any = ...,
    ) -> Any: ...

    async def send(self, request: Any, *, stream: bool = ..., auth: Any = ..., follow_redirects: Any = ...) -> Any: ...


class HttpxExchange:
    """The room over the caller's httpx (or httpx2) client, which stays the caller's: never closed, never changed.

    Args:
        http_client: the client.
        base_url: without a slash at its end.
    """

    def __init__(self, http_client: HttpClient, base_url: str) -> None:
        self._package: Any = package_of(http_client)
        self.name: str = self._package.__name__
        self._client = cast("httpx.AsyncClient", http_client)
        self._base_url = base_url
        self._under_way: set[anyio.CancelScope] = set()

    async def aclose(self) -> None:
        """Gives up what is under way. The client stays the caller's."""
        for scope in self._under_way:
            scope.cancel()

    async def post(
        self, path: str, body: Body, *, deadline: float, before_send: Callable[[], Awaitable[None]] | None = None
    ) -> Reply:
        try:
            return await self._post(path, _Sending(body, before_send), deadline, is_new=body.dials)
        except ExchangeFailed as failure:
            if not failure.may_go_again(body):
                raise
        return await self._post(path, _Sending(body, before_send), deadline, is_new=True)

    async def _take(self, *, is_new: bool) -> httpx.AsyncClient:
        """A client to send with; `is_new` asks for one that opens a new connection."""
        del is_new
        return self._client

    def _give_back(self, client: httpx.AsyncClient, *, is_new: bool) -> None:
        pass

    async def _post(self, path: str, sending: _Sending, deadline: float, *, is_new: bool) -> Reply:
        failure: Exception
        scope = anyio.CancelScope(deadline=deadline)
        self._under_way.add(scope)
        try:
            take_turn = functools.partial(self._take_turn, path, sending, scope, is_new=is_new)
            reply = await _apart(take_turn, scope, keeps_late=sending.dials)
            if reply is not None:
                return reply
            failure = TimeoutError("the deadline has passed, or the client was closed")
        except ExchangeFailed:
            raise
        except Exception as error:  # a caller's transport may raise anything
            failure = error
        except BaseException as error:
            # A cancellation: it goes on without the frames below, whose locals hold the body.
            raise error.with_traceback(None)  # noqa: B904
        finally:
            self._under_way.discard(scope)
            sending.is_over = True
        if sending.objection is not None:
            raise sending.objection.with_traceback(sending.objection_traceback)
        timed_out = isinstance(failure, (TimeoutError, self._package.TimeoutException))
        is_stock = not sending.has_turn or _is_stock(self._package, self._client, self._base_url + path)
        raise ExchangeFailed(
            sending.redact(describe(failure, timed_out=timed_out)),
            sending.progress_after_failure(is_stock=is_stock),
            timed_out=timed_out,
            is_fault=isinstance(failure, (self._package.ConnectError, OSError)) and not _is_certificate(failure),
            was_reused=sending.was_reused,
        ) from without_frames(failure, sending.redact)

    async def _take_turn(self, path: str, sending: _Sending, scope: anyio.CancelScope, *, is_new: bool) -> Reply | None:
        """Sends when there is a client for it, and leaves nothing there; None where the scope has ended it."""
        with scope:
            client = await self._take(is_new=is_new)
            sending.has_turn = True
            reply = None
            try:
                reply = await self._send(client, path, sending, scope.deadline)
            finally:
                try:
                    if reply is None:
                        pool = _transport_and_pool(self._package, client, self._base_url + path)[1]
                        await _close_each([*sending.in_handshake(), *_take_lost(pool)])
                finally:
                    self._give_back(client, is_new=is_new)
            return reply
        return None

    async def _send(self, client: httpx.AsyncClient, path: str, sending: _Sending, deadline: float) -> Reply:
        request = self._make_request(client, path, sending, deadline)
        # auth=None: an auth flow may send twice. No redirect is followed: it would carry the key elsewhere.
        response = await client.send(request, auth=None, follow_redirects=False, stream=True)
        try:
            headers = RawHeaders(response.headers.raw)
            if (problem := refused_encoding(headers)) is not None:
                raise ExchangeFailed(problem, Progress.ANSWERED)
            return Reply(response.status_code, headers, await _read(response, headers))
        finally:
            await response.aclose()

    def _make_request(self, client: httpx.AsyncClient, path: str, sending: _Sending, deadline: float) -> httpx.Request:
        """With whatever the caller's client adds to each of its requests."""
        remaining = deadline - anyio.current_time()
        stream = _stream_class(self._package)(sending)
        request = client.build_request(
            "POST",
            self._base_url + path,
            content=stream,
            headers={**_HEADERS, "Content-Length": str(sending.length)},
            timeout=None if remaining == math.inf else max(remaining, 0.001),
            extensions={"trace": sending.trace},
        )
        request.stream = stream  # build_request wraps it in a generator, which on trio warns when a write fails
        return request


class OwnHttpxExchange(HttpxExchange):
    """The room over httpx clients of our own. A call is placed on a new connection: no idle one can prove stale.

    Args:
        base_url: without a slash at its end.
        ssl_context: for their connections.
        max_connections: requests under way at once; further ones wait in order.
        user_agent: for the header of that name.
        keepalive: seconds a connection stays open idle.
    """

    def __init__(
        self, base_url: str, *, ssl_context: ssl.SSLContext, max_connections: int, user_agent: str, keepalive: float
    ) -> None:
        import httpx  # noqa: PLC0415  # 60 ms that nobody pays who never enters

        def make(kept: int) -> httpx.AsyncClient:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=keepalive)
            return httpx.AsyncClient(verify=ssl_context, limits=limits)

        self._placing = _Clients(lambda: make(0))
        self._polling = _Clients(lambda: make(1))
        self._limiter = anyio.Semaphore(max_connections, fast_acquire=True)
        super().__init__(self._polling.first, base_url)
        host = httpx.URL(base_url).netloc.decode("ascii")
        self._headers = [("Host", host), ("User-Agent", user_agent), *_HEADERS.items()]
        self._urls: dict[str, httpx.URL] = {}

    async def aclose(self) -> None:
        await super().aclose()
        async with AsyncExitStack() as closing:  # all of them, though one fails
            for client in (*self._placing.all, *self._polling.all):
                closing.push_async_callback(client.aclose)

    async def _take(self, *, is_new: bool) -> httpx.AsyncClient:
        await self._limiter.acquire()
        try:
            return (self._placing if is_new else self._polling).take()
        except BaseException:  # what the environment says of proxies may have changed
            self._limiter.release()
            raise

    def _give_back(self, client: httpx.AsyncClient, *, is_new: bool) -> None:
        (self._placing if is_new else self._polling).give_back(client)
        self._limiter.release()

    def _make_request(self, client: httpx.AsyncClient, path: str, sending: _Sending, deadline: float) -> httpx.Request:
        """As it is: our own clients have nothing to add, and the deadline is the scope's around all this."""
        del client, deadline
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._package.URL(self._base_url + path)
        return cast(
            "httpx.Request",
            self._package.Request(
                "POST",
                url,
                headers=[*self._headers, ("Content-Length", str(sending.length))],
                stream=_stream_class(self._package)(sending),
                extensions={"trace": sending.trace, "timeout": _NO_TIMEOUT},
            ),
        )


async def _apart(
    exchange: Callable[[], Awaitable[Reply | None]], scope: anyio.CancelScope, *, keeps_late: bool
) -> Reply | None:
    """Awaits it in a task of its own, so that it is cancelled through this scope, which is its own, and not natively.

    From anyio's cancellations httpcore shields what it has to do to the end. From native ones it cannot, and loses
    connections. Trio has none. `keeps_late` gives an answer that came in spite of a cancellation, which is anyio's
    then, and comes again at the next await: with the answer comes the id of a call.
    """
    if is_trio():
        return await exchange()
    import asyncio  # noqa: PLC0415  # which runs it

    async def run() -> tuple[Reply | None, BaseException | None]:
        try:
            return await exchange(), None
        except BaseException as error:  # asyncio would end the loop by some, past whoever waits
            return None, error

    task = asyncio.ensure_future(run())
    try:
        await asyncio.wait([task])
    except GeneratorExit:  # which may not wait
        raise
    except BaseException as end:  # a cancellation; or what a signal's handler raises
        scope.cancel()
        while not task.done():
            with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):  # a further one waits as well
                await asyncio.wait([task])
        if not (keeps_late and isinstance(end, asyncio.CancelledError) and task.result()[0]):
            raise
    reply, error = task.result()
    if error is not None:
        raise error
    return reply


def _take_lost(pool: Any) -> list[Any]:
    """Takes connections out of it that it would keep for ever: no request has them; they are neither idle nor closed.

    Where a request is cancelled before it begins on its connection, and in a proxy's handshake, httpcore leaves such a
    one, and after as many as the pool may have it serves nobody. https://github.com/encode/httpcore/issues/1093
    """
    lost: list[Any] = []
    with suppress(AttributeError, TypeError):  # not httpcore's, or another version of it
        assign = pool._assign_requests_to_connections  # noqa: SLF001  # there is no public way
        taken = {id(request.connection) for request in pool._requests}  # noqa: SLF001
        connections = pool._connections  # noqa: SLF001
        lost = [each for each in connections if not (id(each) in taken or each.is_idle() or each.is_closed())]
        for connection in lost:
            connections.remove(connection)
        lost += assign() if lost else []  # to whoever waits for one
    return lost


async def _close_each(connections: Iterable[Any]) -> None:
    """Whatever befalls: one that cannot be closed keeps none of the others open."""
    with anyio.CancelScope(shield=True):
        for connection in connections:
            with suppress(Exception):
                await connection.aclose()


class _Clients:
    """httpx clients of one kind, one for each request under way.

    One of many connections looks at all of them for each request, and gives the same to requests that come together.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self.first = make()
        self.all = [self.first]
        self._free = [self.first]  # the last used on top, whose connection is warm

    def take(self) -> httpx.AsyncClient:
        if self._free:
            return self._free.pop()
        client = self._make()
        self.all.append(client)
        return client

    def give_back(self, client: httpx.AsyncClient) -> None:
        self._free.append(client)


_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}
_STEPS_OF_CONNECTING = ("connect_tcp", "connect_unix_socket", "setup_socks5_connection", "start_tls")
_NO_TIMEOUT = {"connect": None, "read": None, "write": None, "pool": None}


async def _read(response: httpx.Response, headers: Mapping[str, str]) -> bytes:
    """The body. Raises `ExchangeFailed` where it is too long."""
    length = headers.get("content-length", "")
    if length.isdecimal() and len(length) < len(str(MAX_BODY)):
        return await response.aread()
    body = bytearray()
    with anyio.CancelScope() as too_long:
        async for chunk in response.aiter_bytes():
            body += chunk
            # Only an end from within closes httpx's nested generators, which trio asks for.
            if len(body) > MAX_BODY:
                too_long.cancel()
            if len(body) > MAX_BUFFERED:
                break
    if len(body) > MAX_BODY:
        raise ExchangeFailed(f"the answer is longer than {MAX_BODY} bytes", Progress.ANSWERED)
    return bytes(body)


class _SendRefused(Exception):
    """Something below tried to send again what makes a phone ring, or anything after its end was told."""


class _Sending:
    """One request on its way: httpcore's trace hook and the body's iterator in one, so that both keep one account."""

    def __init__(self, body: Body, before_send: Callable[[], Awaitable[None]] | None) -> None:
        self._body = body
        self._before_send = before_send
        self._traced = self._connected = self._departed = False
        self._headers_started = self._bodies_given = 0
        self._stream: Any = None
        self._handshaking: Any = None
        self.length = len(body.encode())
        self.dials = body.dials
        self.has_turn = self.is_over = False
        self.objection: Exception | None = None
        self.objection_traceback: TracebackType | None = None

    def redact(self, text: str) -> str:
        """What somebody else says about it, without what it holds."""
        return self._body.redact(text)

    @property
    def was_reused(self) -> bool:
        return self._headers_started > 0 and not self._connected

    def progress_after_failure(self, *, is_stock: bool) -> Progress:
        """A transport that tells nothing proves nothing, unless it is known to tell."""
        silent = not (self._traced or is_stock)
        return Progress.MAYBE_SENT if self._departed or silent else Progress.NOT_SENT

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Is told what httpcore does. A proxy's CONNECT also starts headers, and is not ours."""
        self._traced = True
        what, _, moment = name.partition(".")[2].partition(".")  # of, say, "http11.send_request_headers.started"
        if (what, moment) == ("send_request_headers", "started") and _method(info) == b"POST":
            self._headers_started += 1
            await self._depart(times=self._headers_started)
        elif moment == "started" and what in ("start_tls", "setup_socks5_connection"):
            self._handshaking = self._stream
        elif moment == "complete" and what in _STEPS_OF_CONNECTING:
            self._connected = True
            self._stream, self._handshaking = info.get("return_value") or self._stream, None

    def in_handshake(self) -> list[Any]:
        """A connection given up in its TLS or SOCKS handshake, if there is one: httpcore leaves it open then."""
        return [] if self._handshaking is None else [self._handshaking]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in one piece; each call counts."""
        return _BodyOnce(self)

    async def give(self) -> bytes:
        """The body, to whoever is about to write it."""
        self._bodies_given += 1
        await self._depart(times=self._bodies_given)
        return self._body.encode()

    async def _depart(self, *, times: int) -> None:
        self._refuse_what_is_over()
        if times > 1 and self.dials:
            raise _SendRefused("a second attempt to send the same call was refused")
        try:
            if self._before_send is not None:
                await self._before_send()
        except Exception as objection:
            self.objection, self.objection_traceback = objection, objection.__traceback__
            raise
        self._refuse_what_is_over()  # while it was asked; the caller's transport may have gone on by itself
        self._departed = True

    def _refuse_what_is_over(self) -> None:
        if self.is_over:
            raise _SendRefused("it was told as over before it was sent, and is not sent any more")

    def __repr__(self) -> str:
        return "<a request>"


@functools.cache
def _stream_class(package: ModuleType) -> Callable[[_Sending], Any]:
    """What that package takes for a body that is made while it is sent."""

    class Stream(package.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, sending: _Sending) -> None:
            self._sending = sending

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self._sending.chunks()

    return Stream


class _BodyOnce:
    """Yields the body."""

    def __init__(self, sending: _Sending) -> None:
        self._sending: _Sending | None = sending

    def __aiter__(self) -> _BodyOnce:
        return self

    async def __anext__(self) -> bytes:
        if self._sending is None:
            raise StopAsyncIteration
        sending, self._sending = self._sending, None
        return await sending.give()


def _method(info: Mapping[str, Any]) -> bytes:
    method = getattr(info.get("request"), "method", b"")
    return method.encode() if isinstance(method, str) else method


def is_trio() -> bool:
    """Whether trio runs this, be it as asyncio's guest."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def package_of(client: object) -> ModuleType:
    """The package an AsyncClient is from: `httpx`, or `httpx2`. Raises `ValueError` for anything else."""
    for cls in type(client).__mro__:
        name = cls.__module__.partition(".")[0]
        if cls.__name__ == "AsyncClient" and name in ("httpx", "httpx2"):
            return sys.modules[name]
    raise ValueError("http_client must be an httpx.AsyncClient (or an httpx2.AsyncClient)")


def _transport_and_pool(package: ModuleType, client: Any, url: str) -> tuple[Any, Any]:
    """What this URL goes through, or None for both where that is not as in httpx."""
    try:
        transport = client._transport_for_url(package.URL(url))  # noqa: SLF001  # there is no public way to ask
        pool = transport._pool  # noqa: SLF001
    except AttributeError:
        return None, None
    return transport, pool


def _is_stock(package: ModuleType, client: Any, url: str) -> bool:
    """Whether this URL goes through the package's own transport and pool, unpatched, which tell what they do."""
    transport, pool = _transport_and_pool(package, client, url)
    return type(transport) is package.AsyncHTTPTransport and _is_its_own(transport) and _is_its_own(pool)


def _is_its_own(room: object) -> bool:
    method = getattr(type(room), "handle_async_request", None)
    code = getattr(method, "__code__", None)
    home = getattr(sys.modules.get(type(room).__module__.partition(".")[0]), "__file__", None)
    return code is not None and home is not None and code.co_filename.startswith(home.removesuffix("__init__.py"))


def refused_encoding(headers: Mapping[str, str]) -> str | None:
    """What is wrong with an answer that is compressed though `Accept-Encoding: identity` was asked for, or None."""
    if "content-encoding" not in headers:
        return None
    encoding = headers["content-encoding"].lower()
    return None if encoding == "identity" else f"the answer came with Content-Encoding {encoding[:20]!r}"


def describe(failure: Exception, *, timed_out: bool) -> str:
    if timed_out:
        return "no answer in time"
    while isinstance(failure, ExceptionGroup):  # anyio's, of all addresses of a host
        failure = cast("Exception", failure.exceptions[0])
    text = str(failure).rstrip(".")
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__


def _is_certificate(failure: BaseException) -> bool:
    chain: BaseException | None = failure
    while chain is not None:
        if type(chain).__name__.startswith("SSL"):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


_HARMLESS = (int, float, type(None))


def without_frames(failure: Exception, redact: Callable[[str], str] = str) -> Exception:
    """The failure and all behind it without frames and without what hangs on them: a request, and so the key."""
    todo: list[BaseException] = [failure]
    seen: set[int] = set()
    while todo:
        error = todo.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        error.__traceback__ = None
        error.args = tuple(arg if isinstance(arg, _HARMLESS) else redact(str(arg)) for arg in error.args)
        if isinstance(error, OSError) and isinstance(error.strerror, str):
            error.strerror = redact(error.strerror)  # which args alone do not change
        for name, value in list(vars(error).items()):
            if isinstance(value, str):
                setattr(error, name, redact(value))
            elif not isinstance(value, _HARMLESS):
                setattr(error, name, None)
        todo += [e for e in (error.__cause__, error.__context__) if e is not None]
        if isinstance(error, BaseExceptionGroup):
            todo += cast("BaseExceptionGroup[BaseException]", error).exceptions
    return failure

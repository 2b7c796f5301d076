"""The client and the watch of one callback: the shell around the machines of the ground floor."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Self, assert_never, overload

import anyio
from anyio.lowlevel import current_token

from tenios_async._errors import ClientMisuse, ConnectionFailed, ProtocolError, RequestTimeout, TeniosError
from tenios_async._events import Ended, Event, Observer, Placed, Polled, Transitioned
from tenios_async._exchange import Exchange, ExchangeFailed, Progress, package_of
from tenios_async._limits import Rate, is_number
from tenios_async._models import (
    AttemptOutcome,
    Callback,
    CallbackAttempt,
    CallbackRequest,
    CallbackResult,
    Transition,
    as_callback,
    is_async,
    refuse_awaitable,
)
from tenios_async._monitor import CallbackMonitor
from tenios_async._placing import Placing
from tenios_async._polling import Polling
from tenios_async._records import record, record_failed_observer, record_strange_status
from tenios_async._rooms import Rooms, running_asyncio_loop
from tenios_async._turns import Turns
from tenios_async._watch import CameBack, Emit, Poll, Sleep, Stop, WatchMachine
from tenios_async._wire import (
    DEFAULT_BASE_URL,
    STATUS_PATH,
    AccessKey,
    mask_numbers,
    parse_base_url,
    parse_status,
    status_body,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from tenios_async._errors import WatchInterrupted
    from tenios_async._exchange import HttpClient
    from tenios_async._lifecycle import CallbackStatus
    from tenios_async._models import Connections
    from tenios_async._wire import Body

INIT_TIMEOUT = 30.0
"""Seconds, connect included."""
STATUS_TIMEOUT = 10.0
"""Seconds, connect included."""
WATCH_TIMEOUT = 2 * 3600.0
"""Seconds, on top of the callback's delay."""

_MAX_CONNECTIONS = 100
_OPTIONS = frozenset({"delay", "agent_announcement", "dtmf_key_to_trigger_customer_call"})
_MAX_STRANGE_STATES = 100
_CLOSED = "the client is closed; open a new one"


def _timeout(value: float | None, default: float = math.inf) -> float:
    if value is None:
        return default
    if not is_number(value) or not value > 0:
        raise ValueError("timeout must be a number of seconds above 0 (math.inf for none)")
    return float(value)


def _watch_timeout(callback: Callback, timeout: float | None) -> float:
    return _timeout(timeout, (callback.delay or 0) + WATCH_TIMEOUT)


def _checked(observers: Iterable[Observer]) -> tuple[Observer, ...]:
    try:
        found = tuple(observers)
    except TypeError:
        found = None
    if found is None or any(not callable(observer) or is_async(observer) for observer in found):
        raise ValueError("observers must be plain callables, in a list or a tuple; what is async would never run")
    return found


class TeniosClient:
    """Places callbacks through the TENIOS Callback API and follows them, over one shared connection pool.

    Use it as `async with TeniosClient() as tenios:`, or call `aclose()`. One client serves any number of concurrent
    calls on the event loop that first used it.

    Args:
        access_key: the API access key; None reads `TENIOS_ACCESS_KEY`.
        base_url: None reads `TENIOS_BASE_URL`, else `https://api.tenios.com`. A path is kept.
        http_client: an `httpx.AsyncClient` (or `httpx2`) to send with; it stays the caller's, open and unchanged.
        timeout: seconds for each init and status request, connect included; None is 30 for init and 10 for status.
        max_connections: requests under way at once; with `http_client` its own limits hold instead.
        ssl_context: for a private certificate authority; with `http_client` its own TLS settings hold instead.
        polling: the schedule of watches.
        rate_limit: requests a second of this whole client, evenly spaced; None is no limit. A 429 or 503 halves it for
            everybody at once, and it recovers by a tenth a second.
        cancel_grace: seconds a cancelled init that has left stays to learn its id.
        allow_insecure_http: lets `base_url` be plain http:// beyond loopback.
        observers: callables told of each event (`tenios_async.Event`).

    Raises `ValueError` for a missing key or an argument out of range. Methods raise `ValueError` for bad arguments, and
    `ClientMisuse` after `aclose()`, on another event loop and in a forked child, before anything is sent.
    """

    _closed = True  # until everything is in order; where an argument is wrong, that is never
    _base_url = ""

    def __init__(
        self,
        access_key: str | None = None,
        *,
        base_url: str | None = None,
        http_client: HttpClient | None = None,
        timeout: float | None = None,
        max_connections: int = _MAX_CONNECTIONS,
        ssl_context: ssl.SSLContext | None = None,
        polling: Polling = Polling(),  # noqa: B008  # frozen
        rate_limit: Rate | None = None,
        cancel_grace: float = 2.0,
        allow_insecure_http: bool = False,
        observers: Iterable[Observer] = (),
    ) -> None:
        self._key = AccessKey(os.environ.get("TENIOS_ACCESS_KEY", "") if access_key is None else access_key)
        del access_key
        self._key.check()
        if base_url is None:
            base_url = os.environ.get("TENIOS_BASE_URL", DEFAULT_BASE_URL)
        self._base_url = parse_base_url(base_url, allow_insecure_http=allow_insecure_http)
        self._init_timeout = _timeout(timeout, INIT_TIMEOUT)
        self._status_timeout = _timeout(timeout, STATUS_TIMEOUT)
        if isinstance(max_connections, bool) or not isinstance(max_connections, int) or max_connections < 1:
            raise ValueError("max_connections must be a whole number of 1 or more")
        if not isinstance(polling, Polling):
            raise ValueError("polling must be a Polling")  # noqa: TRY004  # bad arguments raise ValueError
        if rate_limit is not None and not isinstance(rate_limit, Rate):
            raise ValueError("rate_limit must be a Rate, for instance Rate(20, per=1.0)")
        if not is_number(cancel_grace) or not 0 <= cancel_grace < math.inf:
            raise ValueError("cancel_grace must be a number of seconds of 0 or more")
        if ssl_context is not None:
            import ssl  # noqa: PLC0415  # whoever has a context has paid for it

            if not isinstance(ssl_context, ssl.SSLContext):
                raise ValueError("ssl_context must be an ssl.SSLContext")
        if http_client is not None:
            package_of(http_client)
            if ssl_context is not None or max_connections != _MAX_CONNECTIONS:
                raise ValueError("ssl_context and max_connections belong to http_client where one is given")
        self._rooms = Rooms(
            self._base_url,
            http_client=http_client,
            ssl_context=ssl_context,
            max_connections=max_connections,
            user_agent=f"tenios_async/{_version()}",
        )
        self._turns = None if rate_limit is None else Turns(rate_limit)
        self._max_connections = max_connections
        self._permits = None if http_client is not None else anyio.Semaphore(max_connections, fast_acquire=True)
        self._polling = polling
        self._cancel_grace = cancel_grace
        self._observers = _checked(observers)
        self._home: object | None = None
        self._loop: object = None
        self._running_loop: Callable[[], object] = object
        self._now: Callable[[], float] = anyio.current_time
        self._pid = 0
        self._placings: set[Placing] = set()
        self._monitors: set[CallbackMonitor] = set()
        self._waiting: set[anyio.CancelScope] = set()  # of watches that are being awaited
        self._strange: set[str] = set()
        self._closed = False

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at its end."""
        return self._base_url

    @property
    def transport(self) -> str:
        """What the next request travels by: `pool`, the library's own, or `httpx` (with `http_client`, its package).

        Not the pool but httpx takes it on trio, through a proxy, without httptools, and where something replaced a
        method of httpx or httpcore: a mock then sees the request.
        """
        return self._rooms.name

    @property
    def connections(self) -> Connections | None:
        """How much of the pool is in use now, for dashboards. May be read at any time and from any thread.

        None before it is opened, after `aclose()`, and where requests travel by httpx, which does not tell.
        """
        return None if self._closed else self._rooms.connections

    @property
    def is_closed(self) -> bool:
        """Whether `aclose()` was called."""
        return self._closed

    @overload
    async def init_callback(
        self,
        callback_config_id: CallbackRequest,
        /,
        *,
        timeout: float | None = None,
        attempt: CallbackAttempt | None = None,
    ) -> Callback: ...

    @overload
    async def init_callback(
        self,
        callback_config_id: str,
        callback_number: str,
        *,
        delay: int = 0,
        agent_announcement: str | None = None,
        dtmf_key_to_trigger_customer_call: str | None = None,
        timeout: float | None = None,
        attempt: CallbackAttempt | None = None,
    ) -> Callback: ...

    async def init_callback(
        self,
        callback_config_id: str | CallbackRequest,
        callback_number: str | None = None,
        *,
        timeout: float | None = None,
        attempt: CallbackAttempt | None = None,
        **options: Any,
    ) -> Callback:
        """Places one callback (`POST callback/init`) and gives its id. Rings a phone at most once.

        Args:
            callback_config_id: from the portal; or a whole `CallbackRequest`, without `callback_number` and options.
            callback_number: the customer, in E.164 form (`+491234567890`).
            timeout: seconds in all, connect included; None is the client's; `math.inf` is none.
            attempt: knows after any exit, also a cancellation, what became of the call.
            options: `delay`, `agent_announcement`, `dtmf_key_to_trigger_customer_call`; see `CallbackRequest`.

        Raises `ConnectionFailed` (nothing was sent), an `ApiError` (refused; no phone rings) or
        `CallbackOutcomeUnknown` (a phone may ring: do not simply try again).
        """
        for name in options.keys() - _OPTIONS:
            raise TypeError(f"init_callback() got an unexpected keyword argument {name!r}")
        if attempt is not None and not isinstance(attempt, CallbackAttempt):
            raise ValueError("attempt must be a CallbackAttempt")
        if isinstance(callback_config_id, CallbackRequest):
            if callback_number is not None or options:
                raise ValueError("a CallbackRequest says it all: give no number and no options beside it")
            request = callback_config_id
        else:
            request = CallbackRequest(callback_config_id, callback_number, **options)  # type: ignore[arg-type]  # it checks
        timeout = _timeout(timeout, self._init_timeout)
        exchange = self._open()
        attempt = CallbackAttempt() if attempt is None else attempt
        attempt.begin()
        began = anyio.current_time()
        placing = Placing(
            exchange,
            self._key,
            request,
            attempt,
            deadline=began + timeout,
            grace=self._cancel_grace,
            chance=_chance,
            permits=self._permits,
        )
        self._placings.add(placing)
        try:
            return await placing.run()
        finally:
            self._placings.discard(placing)
            outcome = attempt.outcome or AttemptOutcome.NOT_SENT
            error = attempt.error if isinstance(attempt.error, TeniosError) else None
            self._tell(Placed(outcome, attempt.callback, error, anyio.current_time() - began))

    async def callback_status(self, callback: Callback | int | str, *, timeout: float | None = None) -> CallbackStatus:
        """Asks once for the state of a callback (`POST callback/status`). A read: safe to repeat.

        Args:
            callback: a `Callback` or its id.
            timeout: seconds in all, connect included; None is the client's; `math.inf` is none.

        Raises an `ApiError`, `ConnectionFailed`, `RequestTimeout` or `ProtocolError`.
        """
        timeout = self._status_timeout if timeout is None else _timeout(timeout)
        came_back = await self._ask(as_callback(callback), timeout)
        if isinstance(came_back, TeniosError):
            raise came_back
        return came_back

    async def _ask(self, callback: Callback, timeout: float, *, has_turn: bool = False) -> CallbackStatus | TeniosError:
        """One poll. Its error is given and not raised, since a watch goes on after most."""
        try:
            exchange, body = self._open(has_turn=has_turn), status_body(self._key, callback)
        except ClientMisuse as misuse:
            return misuse
        began = self._now()
        try:
            status = parse_status(await exchange.post(STATUS_PATH, body, deadline=began + timeout), body)
        except ExchangeFailed as failure:
            error = ClientMisuse(_CLOSED) if self._closed else _read_error(failure)
            error.__cause__ = failure.__cause__
        except TeniosError as answered:
            error = answered
        else:
            if self._observers:
                self._tell(Polled(callback, status, None, self._now() - began))
            if not status.is_known:
                self._note_strange(status, body)
            return status
        self._tell(Polled(callback, None, error, self._now() - began))
        return error

    def watch_callback(
        self, callback: Callback | int | str, *, polling: Polling | None = None, timeout: float | None = None
    ) -> CallbackWatch:
        """Follows a callback: `async for transition in tenios.watch_callback(callback)` ends after a terminal state.

        Args:
            callback: a `Callback`, its id, or `Callback.from_json(token)` to go on where another watch stopped.
            polling: the schedule; None is the client's.
            timeout: seconds from the first step on; None is the callback's delay and 2 hours; `math.inf` is none.

        The watch raises `WatchInterrupted` (with the resume token) where it ends before the call does.
        """
        callback = as_callback(callback)
        timeout = _watch_timeout(callback, timeout)
        self._check_open()
        return CallbackWatch(self, callback, self._schedule(polling), timeout)

    def monitor(self, *, polling: Polling | None = None, max_in_flight: int | None = None) -> CallbackMonitor:
        """Follows many callbacks at once, without a task for each: `async with tenios.monitor() as monitor`.

        Args:
            polling: the schedule; None is the client's.
            max_in_flight: polls under way at once, and results that may wait to be read; None is half of
                `max_connections`, so that calls find a connection too.
        """
        if max_in_flight is None:
            max_in_flight = max(1, self._max_connections // 2)
        if isinstance(max_in_flight, bool) or not isinstance(max_in_flight, int) or max_in_flight < 1:
            raise ValueError("max_in_flight must be a whole number of 1 or more")
        self._check_open()
        return CallbackMonitor(self, self._schedule(polling), max_in_flight)

    async def wait_for_callback(
        self, callback: Callback | int | str, *, polling: Polling | None = None, timeout: float | None = None
    ) -> CallbackResult:
        """Waits for the end of a call, with fewer polls than a watch: it looks where only the end matters.

        Arguments and errors are those of `watch_callback`; `polling`, where given, is used as it is.
        """
        if polling is None:
            polling = self._polling.for_the_end()
        watch = self.watch_callback(callback, polling=polling, timeout=timeout)
        transitions = [transition async for transition in watch]
        token = watch.callback
        assert token.status is not None  # noqa: S101  # a watch that ends without an error has seen a terminal state
        return CallbackResult(token, token.status, tuple(transitions))

    async def aclose(self) -> None:
        """Ends the client. Calls being placed get `cancel_grace` to learn their ids. May be called twice."""
        if self._closed:
            return
        if self._home is not None:
            self._check_home()
        self._closed = True
        for monitor in self._monitors:
            monitor._client_closed()  # noqa: SLF001
        for scope in self._waiting:
            scope.cancel()
        with anyio.CancelScope(shield=True):
            try:
                if self._placings:
                    async with anyio.create_task_group() as group:
                        for placing in self._placings:
                            if not placing.stop_from_within():
                                group.start_soon(placing.stop)
            finally:  # a native cancellation passes the shield
                if self._turns is not None:
                    self._turns.give_up()
                await self._rooms.aclose()

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._closed and self._rooms.has_own:
            message = "a TeniosClient was never closed: use `async with` or aclose()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<TeniosClient {self._base_url}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a TeniosClient is not pickled or copied: it holds the access key and connections")

    def _schedule(self, polling: Polling | None) -> Polling:
        if polling is not None and not isinstance(polling, Polling):
            raise ValueError("polling must be a Polling")
        polling = self._polling if polling is None else polling
        self._rooms.outlast(polling.longest_interval)
        return polling

    def _machine(self, callback: Callback, polling: Polling, timeout: float | None, now: float) -> WatchMachine:
        import random  # noqa: PLC0415  # 2 ms of import that only a watch needs

        return WatchMachine(
            callback,
            polling,
            now=now,
            age=callback.age(_utc_now()),
            timeout=_watch_timeout(callback, timeout),
            poll_timeout=self._status_timeout,
            chance=random.random,
            utc_now=_utc_now,
        )

    def _rate(self, *, for_looks: bool = False) -> float:
        """Requests a second that the rate limit allows now, or what calls leave of them to looks."""
        if self._turns is None:
            return math.inf
        pace, now = self._turns.pace, self._now()
        return pace.rate_for_looks(now) if for_looks else pace.rate(now)

    def _demand(self) -> float:
        """Looks a second that all monitors would make, were nothing stretched: they share the rate."""
        return sum(monitor._demand for monitor in self._monitors)  # noqa: SLF001

    def _open(self, *, has_turn: bool = False) -> Exchange:
        """The room to send by, after the checks that come before anything is sent."""
        try:
            is_at_home = self._running_loop() is self._loop  # a forked child has none
        except RuntimeError:
            is_at_home = False
        if self._closed or not is_at_home:
            self._check_open()
            if self._home is None:
                self._settle_down()
            self._check_home()
        room = self._rooms.enter()
        return room if self._turns is None else self._turns.over(room, has_turn=has_turn)

    def _settle_down(self) -> None:
        self._home, self._pid = current_token(), os.getpid()
        loop = running_asyncio_loop()
        if loop is not None:  # the same answers as anyio's, for less
            from asyncio import get_running_loop  # noqa: PLC0415  # whose import costs more than all of this library

            self._loop, self._running_loop, self._now = loop, get_running_loop, loop.time

    def _check_open(self) -> None:
        if self._closed:
            raise ClientMisuse(_CLOSED)
        if self._home is not None and self._pid != os.getpid():
            raise ClientMisuse("the client was opened in the parent of this process; open one after the fork")

    def _check_home(self) -> None:
        self._check_open()
        if self._home != current_token():
            raise ClientMisuse("the client was opened on another event loop; open one on each loop")

    def _look(self, callback: Callback, poll: Poll) -> Awaitable[CameBack]:
        """One look of a watch."""
        if self._turns is None:
            return self._ask(callback, poll.timeout)
        return self._look_in_turn(self._turns, callback, poll)

    async def _look_in_turn(self, turns: Turns, callback: Callback, poll: Poll) -> CameBack:
        """The same; None if it got no turn under the rate limit for as long as the watch may take."""
        if not await turns.take_for_a_look(poll.patience):
            return None
        return await self._ask(callback, poll.timeout, has_turn=True)

    def _note_strange(self, status: CallbackStatus, body: Body) -> None:
        if status in self._strange or len(self._strange) >= _MAX_STRANGE_STATES:
            return
        self._strange.add(status)
        record_strange_status(body.redact(str(status)))

    def _redact(self, text: str) -> str:
        return mask_numbers(self._key.remove_from(text))

    def _tell(self, event: Event) -> None:
        record(event, self._redact)
        for observer in self._observers:
            try:
                answer: object = observer(event)
                if answer is not None:
                    refuse_awaitable(answer, "an observer must be plain: what it gave would never be awaited")
            except Exception:  # an observer must not end a call
                record_failed_observer()


def _chance() -> float:
    import random  # noqa: PLC0415  # 2 ms of import that only a retry needs

    return random.random()  # noqa: S311  # jitter is no secret


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _version() -> str:
    from tenios_async import __version__  # noqa: PLC0415  # the face imports this room

    return __version__


def _read_error(failure: ExchangeFailed) -> TeniosError:
    if failure.progress is Progress.NOT_SENT:
        return ConnectionFailed(f"no connection to TENIOS: {failure}")
    if failure.timed_out:
        return RequestTimeout(f"TENIOS did not answer in time: {failure}")
    if failure.progress is Progress.ANSWERED:
        return ProtocolError(str(failure))
    return ProtocolError(f"the connection broke before a whole answer came: {failure}")


class CallbackWatch(AsyncGenerator[Transition, None]):
    """An async generator of `Transition`s that ends after a terminal one.

    Nothing is held between two of them: `break`, cancellation and garbage collection leave nothing behind; `aclose()`
    is optional. A cancelled `anext` may be repeated and nothing is lost. Made by `TeniosClient.watch_callback`.
    """

    def __init__(self, client: TeniosClient, callback: Callback, polling: Polling, timeout: float) -> None:
        self._client = client
        self._callback = callback
        self._polling = polling
        self._timeout = timeout
        self._machine: WatchMachine | None = None
        self._is_running = False
        self._is_closed = False

    @property
    def callback(self) -> Callback:
        """The resume token as of now."""
        return self._callback if self._machine is None else self._machine.callback

    @property
    def last(self) -> Transition | None:
        """The last transition, or None."""
        return None if self._machine is None else self._machine.last

    def __aiter__(self) -> CallbackWatch:
        return self

    async def __anext__(self) -> Transition:
        if self._is_running:
            raise ClientMisuse("this watch is being awaited already; one anext at a time")
        if self._is_closed:
            raise StopAsyncIteration
        self._is_running = True
        waiting = self._client._waiting  # noqa: SLF001
        scope = anyio.CancelScope()
        waiting.add(scope)
        try:
            with scope:
                return await self._drive()
            return await self._drive()  # the client was closed meanwhile, and the machine says what that means
        finally:
            waiting.discard(scope)
            self._is_running = False

    async def _drive(self) -> Transition:
        if self._client.is_closed:
            came_back: CameBack = ClientMisuse("the client is closed; the token resumes the watch on another")
        else:
            self._client._open()  # noqa: SLF001
            came_back = None
        machine = self._started()
        while True:
            match machine.step(anyio.current_time(), came_back):
                case Poll() as poll:
                    came_back = await self._client._look(machine.callback, poll)  # noqa: SLF001
                case Sleep(until):
                    came_back = await anyio.sleep_until(until)  # type: ignore[func-returns-value]
                case Emit(transition):
                    self._tell(Transitioned(transition))
                    if transition.is_terminal:
                        self._tell(Ended(machine.callback, transition.status, None))
                    return transition
                case Stop(error):
                    self._end(error)
                case unreachable:  # pyright: ignore[reportUnnecessaryComparison]
                    assert_never(unreachable)

    def _started(self) -> WatchMachine:
        if self._machine is None:
            self._machine = self._client._machine(  # noqa: SLF001
                self._callback, self._polling, self._timeout, anyio.current_time()
            )
        return self._machine

    def _end(self, error: WatchInterrupted | None) -> NoReturn:
        self._is_closed = True
        if error is None:
            raise StopAsyncIteration
        self._tell(Ended(self.callback, self.callback.status, error))
        raise error from error.cause

    def _tell(self, event: Event) -> None:
        self._client._tell(event)  # noqa: SLF001

    async def asend(self, value: None) -> Transition:
        """The next transition. A watch takes no values."""
        if value is not None:
            raise TypeError("a watch takes no values")
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> Transition:
        """Ends the watch and raises what is given."""
        if self._is_running:
            raise ClientMisuse("this watch is being awaited; it cannot be ended from outside")
        self._is_closed = True
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error if tb is None else error.with_traceback(tb)

    async def aclose(self) -> None:
        """Ends the watch; further steps raise `StopAsyncIteration`. Optional."""
        if self._is_running:
            raise ClientMisuse("this watch is being awaited; cancel that first")
        self._is_closed = True

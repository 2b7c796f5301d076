# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The face of `tenios_async`, as type checkers see it. Checked by `make check`, never run.

A name, an argument or a type that changes makes it fail, and so does a mistake that is not reported any more.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Literal, assert_type

import httpx
import httpx2

import tenios_async
from tenios_async import (
    ApiError,
    AttemptOutcome,
    BadCredentials,
    Callback,
    CallbackAttempt,
    CallbackMonitor,
    CallbackOutcomeUnknown,
    CallbackRequest,
    CallbackResult,
    CallbackStatus,
    CallbackWatch,
    ClientMisuse,
    ConnectionFailed,
    Connections,
    Ended,
    Event,
    InvalidRequest,
    NotFound,
    Observer,
    PermissionDenied,
    Placed,
    Polled,
    Polling,
    ProtocolError,
    Rate,
    RateLimited,
    RequestTimeout,
    ServerError,
    TeniosClient,
    TeniosError,
    Transition,
    Transitioned,
    WatchInterrupted,
    WatchTimeout,
    mask_number,
)

assert_type(tenios_async.__version__, str)
assert_type(mask_number("+491234567890"), str)


def tell(event: Event) -> None:
    if isinstance(event, Placed):
        assert_type(event.outcome, AttemptOutcome)
        assert_type(event.callback, Callback | None)
        assert_type(event.error, TeniosError | None)
        assert_type(event.seconds, float)
    elif isinstance(event, Polled):
        assert_type(event.callback, Callback)
        assert_type(event.status, CallbackStatus | None)
        assert_type(event.error, TeniosError | None)
        assert_type(event.seconds, float)
    elif isinstance(event, Transitioned):
        assert_type(event.transition, Transition)
    else:
        assert_type(event, Ended)
        assert_type(event.callback, Callback)
        assert_type(event.status, CallbackStatus | None)
        assert_type(event.error, TeniosError | None)


observer: Observer = tell


def making(http: httpx.AsyncClient, fork: httpx2.AsyncClient) -> None:
    TeniosClient()
    client = TeniosClient(
        "key",
        base_url="https://api.tenios.com",
        timeout=30,
        max_connections=100,
        ssl_context=ssl.create_default_context(),
        polling=Polling(),
        rate_limit=Rate(20, per=1.0),
        cancel_grace=2.0,
        allow_insecure_http=False,
        observers=[observer, tell],
    )
    TeniosClient(http_client=http)
    TeniosClient(http_client=fork)
    TeniosClient(http_client=None)
    TeniosClient(http_client=httpx.Client())  # type: ignore[arg-type]
    TeniosClient("key", "https://api.tenios.com")  # type: ignore[call-arg]
    assert_type(client.base_url, str)
    assert_type(client.transport, str)
    assert_type(client.is_closed, bool)
    assert_type(client.connections, Connections | None)


def pool(connections: Connections) -> None:
    assert_type(connections.limit, int)
    assert_type(connections.in_use, int)
    assert_type(connections.idle, int)
    assert_type(connections.waiting, int)


async def placing(client: TeniosClient, request: CallbackRequest) -> None:
    async def before() -> None: ...

    def at() -> None: ...

    attempt = CallbackAttempt(before, at_send=at)
    assert_type(await client.init_callback("config", "+491234567890"), Callback)
    assert_type(
        await client.init_callback(
            "config",
            "+491234567890",
            delay=30,
            agent_announcement="Hello",
            dtmf_key_to_trigger_customer_call="1",
            timeout=30,
            attempt=attempt,
        ),
        Callback,
    )
    assert_type(await client.init_callback(request, timeout=None, attempt=None), Callback)
    await client.init_callback("config")  # type: ignore[call-overload]
    await client.init_callback(request, delay=30)  # type: ignore[call-overload]
    assert_type(attempt.outcome, AttemptOutcome | None)
    assert_type(attempt.callback, Callback | None)
    assert_type(attempt.error, BaseException | None)
    CallbackAttempt(at)  # type: ignore[arg-type]
    assert_type(
        [
            AttemptOutcome.IN_FLIGHT,
            AttemptOutcome.NOT_SENT,
            AttemptOutcome.PLACED,
            AttemptOutcome.REFUSED,
            AttemptOutcome.UNKNOWN,
        ],
        list[AttemptOutcome],
    )


async def watching(client: TeniosClient, callback: Callback) -> None:
    assert_type(await client.callback_status(callback, timeout=10), CallbackStatus)
    assert_type(await client.callback_status(10), CallbackStatus)
    assert_type(await client.callback_status("10"), CallbackStatus)
    watch = client.watch_callback(callback, polling=Polling.fixed(2), timeout=3600)
    assert_type(watch, CallbackWatch)
    async for transition in watch:
        assert_type(transition, Transition)
    generator: AsyncGenerator[Transition, None] = watch
    await generator.aclose()
    assert_type(watch.last, Transition | None)
    assert_type(watch.callback, Callback)
    result = await client.wait_for_callback("10", polling=None, timeout=None)
    assert_type(result, CallbackResult)
    assert_type(result.callback, Callback)
    assert_type(result.status, CallbackStatus)
    assert_type(result.transitions, tuple[Transition, ...])
    assert_type(result.connected, bool)
    assert_type(result.failed_party, Literal["A", "B"] | None)


async def monitoring(client: TeniosClient, callback: Callback) -> None:
    async with client.monitor(polling=Polling(), max_in_flight=50) as monitor:
        assert_type(monitor, CallbackMonitor)
        monitor.add(callback, timeout=3600)
        monitor.add(10)
        assert_type(monitor.discard("10"), Callback | None)
        assert_type(monitor.callbacks, tuple[Callback, ...])
        assert_type(len(monitor), int)
        monitor.seal()
        async for happened in monitor:
            assert_type(happened, Transition | WatchInterrupted)
        iterator: AsyncIterator[Transition | WatchInterrupted] = monitor
        await anext(iterator)


async def closing(client: TeniosClient) -> None:
    async with client as entered:
        assert_type(entered, TeniosClient)
    await client.aclose()


def values(transition: Transition, now: datetime) -> None:
    request = CallbackRequest("config", "+491234567890", 30, "Hello", "1")
    assert_type(request.callback_config_id, str)
    assert_type(request.callback_number, str)
    assert_type(request.delay, int)
    assert_type(request.agent_announcement, str | None)
    assert_type(request.dtmf_key_to_trigger_customer_call, str | None)
    callback = Callback(10, callback_config_id="config", delay=30, placed_at=now, status="CONNECTED")
    assert_type(callback.id, int | str)
    assert_type(callback.callback_config_id, str | None)
    assert_type(callback.delay, int | None)
    assert_type(callback.placed_at, datetime | None)
    assert_type(callback.status, CallbackStatus | None)
    assert_type(callback.key, str)
    assert_type(callback.age(now), float | None)
    assert_type(callback.to_json(), str)
    assert_type(Callback.from_json("{}"), Callback)
    assert_type(Callback.from_json(b"{}"), Callback)
    request.delay = 1  # type: ignore[misc]
    assert_type(transition.callback, Callback)
    assert_type(transition.status, CallbackStatus)
    assert_type(transition.previous, CallbackStatus | None)
    assert_type(transition.skipped, tuple[CallbackStatus, ...])
    assert_type(transition.observed_at, datetime)
    assert_type(transition.not_before, datetime | None)
    assert_type(transition.elapsed, float)
    assert_type(transition.polls, int)
    assert_type(transition.is_terminal, bool)
    assert_type(transition.is_regression, bool)


def states(status: CallbackStatus) -> None:
    text: str = status
    assert_type(CallbackStatus(text), CallbackStatus)
    assert_type(status.is_terminal, bool)
    assert_type(status.is_known, bool)
    assert_type(CallbackStatus.REQUESTED, CallbackStatus)
    assert_type(CallbackStatus.ACCEPTED, CallbackStatus)
    assert_type(CallbackStatus.CALLING_A, CallbackStatus)
    assert_type(CallbackStatus.CALL_A_FAILED, CallbackStatus)
    assert_type(CallbackStatus.CALLING_B, CallbackStatus)
    assert_type(CallbackStatus.CALL_B_FAILED, CallbackStatus)
    assert_type(CallbackStatus.CONNECTED, CallbackStatus)
    assert_type(CallbackStatus.DISCONNECTED, CallbackStatus)


def schedules() -> None:
    polling = Polling(
        cost=0.3,
        min_interval=0.25,
        max_interval=60,
        jitter=1,
        weights={CallbackStatus.CONNECTED: 2.0},
        ring_duration=30,
        speed=1,
    )
    weights = {CallbackStatus.CONNECTED: 2.0}
    Polling(weights=weights)
    Polling(weights={"CONNECTED": 2.0})
    Polling(weights=[("CONNECTED", 2.0)])
    assert_type(polling.for_the_end(), Polling)
    assert_type(Polling.fixed(2.0), Polling)
    rate = Rate(20)
    assert_type(rate.requests, float)
    assert_type(rate.per, float)
    assert_type(rate.a_second, float)


def errors(error: TeniosError) -> None:
    assert_type(error.may_have_dialled, bool)
    if isinstance(error, ApiError):
        assert_type(error.status_code, int)
        assert_type(error.error_code, str | None)
        assert_type(error.error_message, str | None)
        assert_type(error.fields, tuple[str, ...])
        assert_type(error.retry_after, float | None)
    if isinstance(error, (ProtocolError, CallbackOutcomeUnknown)):
        assert_type(error.status_code, int | None)
    if isinstance(error, CallbackOutcomeUnknown):
        assert_type(error.reason, str)
    if isinstance(error, WatchInterrupted):
        assert_type(error.callback, Callback)
        assert_type(error.last, Transition | None)
        assert_type(error.cause, TeniosError | None)


refusals: list[type[ApiError]] = [BadCredentials, PermissionDenied, NotFound, RateLimited, ServerError, InvalidRequest]
others: list[type[TeniosError]] = [
    ConnectionFailed,
    RequestTimeout,
    ProtocolError,
    CallbackOutcomeUnknown,
    ClientMisuse,
]
misuse: type[RuntimeError] = ClientMisuse
interruption: type[WatchInterrupted] = WatchTimeout

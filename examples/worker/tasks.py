"""The jobs: `place` and `saw` for the one process that has the ledger, `follow` for any number of workers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Annotated, Any

import anyio
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState

from tenios_async import (
    ApiError,
    BadCredentials,
    Callback,
    CallbackOutcomeUnknown,
    CallbackRequest,
    CallbackStatus,
    ConnectionFailed,
    NotFound,
    PermissionDenied,
    RateLimited,
    TeniosClient,
    WatchInterrupted,
    WatchTimeout,
)
from tenios_async.batch import Ledger, LedgerFailed, NotSent, SQLiteLedger
from worker.stream import Stream

log = logging.getLogger("worker")

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
REDELIVER_AFTER = float(os.environ.get("CALLBACK_REDELIVER_AFTER", "30"))
PAUSE = 30.0
"""Seconds until a job that did not go well is tried again, where TENIOS names none."""

calls = Stream(REDIS, "calls", redeliver_after=REDELIVER_AFTER)
"""For one process: a ledger in a file has one writer."""
watches = Stream(REDIS, "watches", redeliver_after=REDELIVER_AFTER)
"""For any number of them."""


@calls.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_ledger(state: TaskiqState) -> None:
    """One ledger and one client for as long as the process lives."""
    state.open = contextlib.AsyncExitStack()
    state.ledger = await state.open.enter_async_context(SQLiteLedger(os.environ["CALLBACK_LEDGER"]))
    state.handed_over = set()
    await _open_client(state, other=watches)


@watches.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    """One client for as long as the process lives."""
    state.open = contextlib.AsyncExitStack()
    await _open_client(state, other=calls)


async def _open_client(state: TaskiqState, *, other: Stream) -> None:
    state.tenios = await state.open.enter_async_context(TeniosClient())
    await other.startup()  # to put jobs there
    state.open.push_async_callback(other.shutdown)


@calls.on_event(TaskiqEvents.WORKER_SHUTDOWN)
@watches.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close(state: TaskiqState) -> None:
    """The other way round. The jobs have ended by now."""
    await state.open.aclose()


def _of_this_process(name: str) -> Any:
    def find(context: Annotated[Context, TaskiqDepends()]) -> Any:
        return context.state[name]

    return TaskiqDepends(find)


TENIOS = _of_this_process("tenios")
LEDGER = _of_this_process("ledger")
HANDED_OVER = _of_this_process("handed_over")
"""The keys of calls that are being followed already, so that a second click does not have them followed twice."""


@calls.task
async def place(
    key: str,
    number: str,
    tenios: TeniosClient = TENIOS,
    ledger: Ledger = LEDGER,
    handed_over: set[str] = HANDED_OVER,
) -> None:
    """Places the call of this key at most once, however often the job is delivered, and has it followed.

    The key is yours, one for each call that is meant, such as "order-4711".
    """
    try:
        callback = await ledger.place_once(tenios, request_to(number), key=key)
    except CallbackOutcomeUnknown as doubt:
        log.error("%s may have been called, and is not called again: %s", key, doubt.reason)  # noqa: TRY400  # a doubt has no traceback that helps
    except (ConnectionFailed, RateLimited, BadCredentials, PermissionDenied, NotSent) as error:
        log.warning("%s was not called, and will be: %s", key, error)
        await pause(calls, getattr(error, "retry_after", None))
        await place.kiq(key, number)
    except ApiError as refusal:
        log.error("%s was not called: %s", key, refusal)  # noqa: TRY400
    except LedgerFailed:
        await place.kiq(key, number)
        start_anew()
    else:
        if key not in handed_over and not (callback.status and callback.status.is_terminal):
            handed_over.add(key)
            await follow.kiq(key, callback.to_json())


@watches.task
async def follow(key: str, token: str, tenios: TeniosClient = TENIOS) -> None:
    """Follows a call to its end, or until this worker is told to stop: then another goes on where it stopped.

    The token is `Callback.to_json()`.
    """
    watch = tenios.watch_callback(Callback.from_json(token))
    try:
        with watches.until_told_to_stop():
            async for transition in watch:
                with anyio.CancelScope(shield=True):  # what was seen is told
                    await saw.kiq(key, transition.status)
            return
    except WatchInterrupted as interruption:
        if isinstance(interruption, WatchTimeout) or isinstance(interruption.cause, NotFound):
            log.error("the end of %s was not seen: %s", key, interruption)  # noqa: TRY400
            return
        log.warning("%s cannot be followed now: %s", key, interruption)
        await pause(watches)
    await follow.kiq(key, watch.callback.to_json())


@calls.task
async def saw(key: str, status: str, ledger: Ledger = LEDGER, handed_over: set[str] = HANDED_OVER) -> None:
    """Writes down what was seen of a call. Twice is as good as once, and nothing follows an end."""
    try:
        await ledger.saw(key, CallbackStatus(status))
    except LedgerFailed:
        await saw.kiq(key, status)
        start_anew()
        return
    if CallbackStatus(status).is_terminal:
        handed_over.discard(key)
    log.info("%s: %s", key, status)  # here your application learns of it


@calls.task
async def follow_all(ledger: Ledger = LEDGER) -> None:
    """Has every call followed that has not ended. For the day on which Redis has lost its queues."""
    for row in await ledger.followed():
        if row.callback is not None:
            await follow.kiq(row.key, row.callback.to_json())


def request_to(number: str) -> CallbackRequest:
    """What is asked of TENIOS. Raises `ValueError` for a number that is none."""
    return CallbackRequest(os.environ["TENIOS_CALLBACK_CONFIG_ID"], number)


async def pause(stream: Stream, seconds: float | None = None) -> None:
    """Waits, unless the worker is told to stop."""
    with stream.until_told_to_stop():
        await anyio.sleep(PAUSE if seconds is None else seconds)


def start_anew() -> None:
    """Ends this process, which whoever runs it starts again: a ledger that failed must be opened anew."""
    log.critical("the ledger failed: nothing more is placed until it can be opened again")
    os.kill(os.getpid(), signal.SIGTERM)

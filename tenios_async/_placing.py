"""Rule 1: one call to `init_callback` rings a phone at most once, and says what it knows.

The POST runs in a task of its own, behind a shield: a caller who is cancelled after a byte has left stays for up to the
grace to learn the id, and then goes on being cancelled.
"""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from tenios_async._errors import ApiError, CallbackOutcomeUnknown, ClientMisuse, ConnectionFailed, TeniosError
from tenios_async._exchange import ExchangeFailed, Progress, without_frames
from tenios_async._models import AttemptOutcome, Callback, refuse_awaitable
from tenios_async._wire import INIT_PATH, init_body, parse_init

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenios_async._exchange import Exchange
    from tenios_async._models import CallbackAttempt, CallbackRequest
    from tenios_async._wire import AccessKey, Reply

RECONNECTS = 3
"""Further tries to connect after a fault; urllib3's and botocore's defaults are 3 and 4 tries."""
RECONNECT_AFTER = 0.5
"""Seconds before the first of them, doubling."""
_NOT_SENT = "no connection to TENIOS, nothing was sent and no phone rang"


class Placing:
    """One call on its way.

    Args:
        exchange: sends it.
        key: the access key.
        request: whom to call.
        attempt: told what became of it.
        deadline: on anyio's clock.
        grace: seconds for an answer after a cancellation.
        chance: gives random numbers from 0 to 1.
        permits: of calls that are written down before they leave: no more of them are under way than connections.
    """

    def __init__(
        self,
        exchange: Exchange,
        key: AccessKey,
        request: CallbackRequest,
        attempt: CallbackAttempt,
        *,
        deadline: float,
        grace: float,
        chance: Callable[[], float],
        permits: anyio.Semaphore | None,
    ) -> None:
        self._exchange = exchange
        self._request = request
        self._body = init_body(key, request)
        self._attempt = attempt
        self._deadline = deadline
        self._grace = grace
        self._chance = chance
        self._permits = permits if attempt.before_send is not None else None
        self._permit: anyio.Semaphore | None = None  # once there is one
        self._asked = False
        self._departed = False
        self._stopping = self._is_cancelled = False
        self._asks_in: int | None = None  # the task in which before_send runs
        self._scope = anyio.CancelScope(shield=True)
        self._over = anyio.Event()
        self._error: BaseException | None = None
        self._objection: Exception | None = None

    async def run(self) -> Callback:
        """Places the call; the attempt is settled on every way out."""
        try:
            await self._run()
        finally:  # in the step in which whoever awaits this is told: it writes that down before the next one begins
            if self._permit is not None:
                self._permit.release()
        if self._error is not None:
            raise self._error
        assert self._attempt.callback is not None  # noqa: S101  # PLACED has one
        return self._attempt.callback

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._work)
            try:
                await self._over.wait()
            except anyio.get_cancelled_exc_class():
                self._is_cancelled = True
                with anyio.CancelScope(shield=True):
                    await self.stop()
                raise
            finally:
                self._scope.cancel()

    async def stop(self) -> None:
        """Nothing new leaves; an answer under way may still come within the grace."""
        self._stopping = True
        if self._departed:
            with anyio.move_on_after(self._grace):
                await self._over.wait()
        self._scope.cancel()
        await self._over.wait()

    def stop_from_within(self) -> bool:
        """Where `before_send` itself closes the client, which would wait for itself: then it need only return."""
        if self._asks_in != anyio.get_current_task().id:
            return False
        self._stopping = True
        return True

    async def _work(self) -> None:
        try:
            with self._scope:
                try:
                    callback = await self._place()
                    self._attempt.settle(AttemptOutcome.PLACED, callback=callback)
                except Exception as error:  # before_send may raise anything
                    is_told = isinstance(error, TeniosError) or error is self._objection
                    self._fail(error if is_told or not self._departed else self._unexpected(error))
                except BaseException as error:
                    if self._departed or self._stopping or self._scope.cancel_called:
                        raise
                    self._fail(error)  # raised by before_send, though nobody has cancelled it from here
        finally:
            if self._attempt.outcome is AttemptOutcome.IN_FLIGHT:
                self._fail(
                    CallbackOutcomeUnknown("it was given up before the answer came")
                    if self._departed
                    else ClientMisuse("the client was closed before the call was sent; nothing was sent")
                )
            self._over.set()

    def _fail(self, error: BaseException) -> None:
        outcome = AttemptOutcome.NOT_SENT
        if isinstance(error, CallbackOutcomeUnknown):
            outcome = AttemptOutcome.UNKNOWN
        elif isinstance(error, ApiError):
            outcome = AttemptOutcome.REFUSED
        self._error = error
        is_reason = not (self._is_cancelled and isinstance(error, ClientMisuse))
        self._attempt.settle(outcome, error=error if is_reason else None)

    def _unexpected(self, error: Exception) -> CallbackOutcomeUnknown:
        """What nobody foresaw proves nothing of a call that may have left."""
        doubt = CallbackOutcomeUnknown(f"an unexpected {type(error).__name__} came while it was placed")
        doubt.__cause__ = without_frames(error, self._body.redact)
        return doubt

    async def _place(self) -> Callback:
        await self._take_permit()
        for pause in range(RECONNECTS + 1):
            try:
                reply = await self._exchange.post(
                    INIT_PATH, self._body, deadline=self._deadline, before_send=self._before_send
                )
            except ExchangeFailed as failure:
                self._departed = failure.progress is not Progress.NOT_SENT
                error = self._verdict(failure)
                wait = RECONNECT_AFTER * 2**pause * (0.75 + self._chance() / 2)
                is_last = pause == RECONNECTS or anyio.current_time() + wait >= self._deadline
                if not isinstance(error, ConnectionFailed) or not failure.is_fault or is_last:
                    raise error from failure.__cause__
            else:
                return self._placed(reply)
            await anyio.sleep(wait)
        raise AssertionError("the last try returns or raises")  # where a promise is broken

    async def _take_permit(self) -> None:
        if self._permits is None:
            return
        with anyio.CancelScope(deadline=self._deadline) as scope:
            await self._permits.acquire()
            self._permit = self._permits
        if scope.cancelled_caught:
            raise ConnectionFailed(f"{_NOT_SENT}: no connection was free in time")

    def _placed(self, reply: Reply) -> Callback:
        return Callback(
            id=parse_init(reply, self._body),
            callback_config_id=self._request.callback_config_id,
            delay=self._request.delay,
            placed_at=datetime.now(UTC),
        )

    def _verdict(self, failure: ExchangeFailed) -> TeniosError:
        if failure.progress is Progress.NOT_SENT:
            return ConnectionFailed(f"{_NOT_SENT}: {failure}")
        return CallbackOutcomeUnknown(str(failure))

    async def _before_send(self) -> None:
        try:
            await self._last_words()
        except Exception as objection:
            self._objection = objection
            raise
        self._departed = True

    async def _last_words(self) -> None:
        if self._attempt.before_send is not None and not self._asked:
            self._asks_in = anyio.get_current_task().id
            answer = self._attempt.before_send()
            if not inspect.isawaitable(answer):
                raise ValueError("before_send must be async: what it gave cannot be awaited; nothing was sent")
            await answer
            self._asks_in = None
            self._asked = True
        if self._stopping and not self._departed:
            raise ClientMisuse("the client was closed before the call was sent; nothing was sent")
        if self._attempt.at_send is not None:
            complaint = "at_send must be a plain function: what it gave would never be awaited; no phone rang"
            refuse_awaitable(self._attempt.at_send(), complaint)

"""Works a campaign: places what is queued, follows what is placed, writes down what is seen."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from tenios_async import (
    BadCredentials,
    CallbackStatus,
    ConnectionFailed,
    PermissionDenied,
    Polling,
    RateLimited,
    TeniosError,
    Transition,
)
from tenios_async.batch.arguments import check_concurrency, check_limit, check_rate
from tenios_async.batch.breakers import Breaker
from tenios_async.batch.errors import LedgerFailed
from tenios_async.batch.numbers import OPTED_OUT
from tenios_async.batch.placing import NotSent, place
from tenios_async.batch.progress import Progress
from tenios_async.batch.recording import LAST_WORDS, Recorder, raise_what_matters, why_lost
from tenios_async.batch.standing import IllegalMove, RowState, exclude

if TYPE_CHECKING:
    from collections.abc import Collection

    from tenios_async import CallbackMonitor, TeniosClient, WatchInterrupted
    from tenios_async.batch.hours import Hours
    from tenios_async.batch.ledger import Ledger
    from tenios_async.batch.recording import Hook
    from tenios_async.batch.row import Row
    from tenios_async.batch.standing import Standing

MAX_PLACING = 50
"""Calls being placed at once: half of the client's connections, the others are for polls."""
FETCH = 500
"""Rows read from the ledger at once."""
BACKOFF, BACKOFF_MAX = 1.0, 30.0
"""Seconds without a new call where the network is away or TENIOS asks for fewer, doubling."""
RESOLUTION = 0.001
"""Seconds too short to sleep: what event loops round to."""
LOOK_FOR_FILE = 1.0
"""Seconds between two looks for the stop file, beside the one before each call."""
LOOK_AT_CLOCK = 30.0
"""Seconds after which a wait for the hours looks again: clocks are set, and machines are suspended."""


class Runner:
    """One run of a campaign; for one use.

    Args:
        ledger: open.
        client: places and follows.
        concurrency: calls under way at once, from being placed to their end.
        rate: calls placed a second, evenly spaced.
        limit: calls placed in this run.
        hours: when a phone may begin to ring.
        stop_file: while it is there, nothing is placed.
        max_unknown: the share of the last 500 calls that may be in doubt.
        opt_outs: numbers that must not be called.
        polling: the schedule; None looks where the end of a call matters.
        hook: called with each transition after it was written down; may be async, and then it is awaited.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: TeniosClient,
        *,
        concurrency: int = 100,
        rate: float = math.inf,
        limit: float = math.inf,
        hours: Hours | None = None,
        stop_file: Path | str | None = None,
        max_unknown: float = 0.05,
        opt_outs: Collection[str] = (),
        polling: Polling | None = None,
        hook: Hook | None = None,
    ) -> None:
        check_concurrency(concurrency)
        check_rate(rate)
        check_limit(limit)
        if hours is not None and not (hasattr(hours, "is_open") and hasattr(hours, "opens_at")):
            raise ValueError('hours must be Hours, for instance Hours.parse("9-18", tz="Europe/Berlin"), or None')
        self.progress: Progress = Progress(left=limit)
        self._ledger = ledger
        self._client = client
        self._interval = 1 / rate
        self._hours = hours
        self._stop_file = None if stop_file is None else Path(stop_file)
        self._breaker = Breaker(max_unknown)
        self._opt_outs = frozenset(opt_outs)
        self._polling = polling or Polling().for_the_end()
        self._recorder = Recorder(ledger, hook)
        self._calls = _Slots(concurrency)
        self._placings = anyio.Semaphore(min(concurrency, MAX_PLACING))
        self._next_at = -math.inf
        self._pause_ends = -math.inf
        self._pause = BACKOFF
        self._pause_reason: str | None = None
        self._dispatching = anyio.CancelScope()
        self._is_dispatched = anyio.CancelScope()
        self._being_placed: set[int] = set()
        self._landed = anyio.Event()
        self._followed: dict[str, Row] = {}
        self._began = 0.0

    async def run(self) -> Progress:
        """Places and follows until all have ended, or placing was stopped and what is open has ended.

        Raises `LedgerFailed` where nothing can be written down any more; a cancellation keeps what is open.
        """
        self.progress.count(await self._ledger.tally())
        self._began = anyio.current_time()
        try:
            async with self._client.monitor(polling=self._polling) as monitor, anyio.create_task_group() as group:
                for row in await self._ledger.followed():
                    self._calls.take()
                    self._follow(monitor, row)
                group.start_soon(self._place_all, monitor)
                group.start_soon(self._recorder.run)
                async for result in monitor:
                    await self._take(monitor, result)
                self._recorder.end()
        except BaseExceptionGroup as group:
            raise_what_matters(group)
            raise
        finally:
            with anyio.move_on_after(LAST_WORDS, shield=True), contextlib.suppress(LedgerFailed):
                await self._recorder.write()
                self.progress.count(await self._ledger.tally())
            self._tick()
        return self.progress

    def stop(self, reason: str, cause: TeniosError | None = None) -> None:
        """Places nothing more from now on; what is open is followed to its end."""
        if self.progress.stopped is None:
            self.progress.stopped, self.progress.cause, self.progress.waiting_for = reason, cause, None
        self._dispatching.cancel()

    async def _place_all(self, monitor: CallbackMonitor) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._look_for_stop_file)
            with self._dispatching:
                await self._dispatch(monitor, group)
            self._is_dispatched.cancel()
        monitor.seal()

    async def _look_for_stop_file(self) -> None:
        """Also while there is nothing to place, so that who waits for the run to end does not wait for that."""
        with self._is_dispatched:
            while self._stop_file is not None:
                self._stop_for_file()
                await anyio.sleep(LOOK_FOR_FILE)

    def _stop_for_file(self) -> None:
        if self.progress.stopped is None and self._stop_file is not None and self._stop_file.exists():
            self.stop(f"the stop file {self._stop_file} is there")

    async def _dispatch(self, monitor: CallbackMonitor, group: anyio.abc.TaskGroup) -> None:
        rows: deque[Row] = deque()
        while (row := await self._next(rows)) is not None:
            if row.request.callback_number in self._opt_outs:
                await self._ledger.change(row.id, exclude(OPTED_OUT, datetime.now(UTC)))
                self.progress.queued -= 1
                self.progress.refused += 1
                continue
            await self._calls.free()
            self._calls.take()
            await self._placings.acquire()
            await self._may_ring(row)
            await self._turn()
            self._being_placed.add(row.id)
            self.progress.left -= 1
            self.progress.queued -= 1
            self.progress.placing += 1
            group.start_soon(self._place, monitor, row)

    async def _next(self, rows: deque[Row]) -> Row | None:
        """The next row to dial; None when all were, and none of those under way comes back."""
        while self.progress.left > 0 or self._being_placed:
            landed = self._landed
            if self.progress.left > 0:
                if not rows:
                    rows += await self._ledger.queued(FETCH + len(self._being_placed))
                while rows:
                    row = rows.popleft()
                    if row.id not in self._being_placed:
                        return row
            if not self._being_placed:
                break
            await landed.wait()
        if self.progress.left <= 0 and self.progress.queued:
            self.stop("as many were placed as this run may")
        return None

    async def _may_ring(self, row: Row) -> None:
        """Returns when the phone may begin to ring, were this placed now."""
        while (opens_at := self._opens_at(row)) is not None:
            self.progress.waiting_for = f"the hours: from {opens_at:%Y-%m-%d %H:%M %Z} on"
            left = (opens_at - datetime.now(UTC)).total_seconds()
            await anyio.sleep(min(max(left, 0.1), LOOK_AT_CLOCK))
        self.progress.waiting_for = None

    def _opens_at(self, row: Row) -> datetime | None:
        """When to place it, where that is not now."""
        if self._hours is None:
            return None
        delay = timedelta(seconds=row.request.delay)
        rings_at = datetime.now(UTC) + delay
        return None if self._hours.is_open(rings_at) else self._hours.opens_at(rings_at) - delay

    async def _turn(self) -> None:
        """Returns at the next even moment that is not in a pause."""
        while True:
            now = anyio.current_time()
            until = max(self._next_at, self._pause_ends)  # a pause may grow meanwhile
            if until - now < RESOLUTION:
                break
            if self._pause_ends > now:
                self.progress.waiting_for = self._pause_reason
            await anyio.sleep_until(until)
        self.progress.waiting_for = None
        self._next_at = max(self._next_at, now) + self._interval

    async def _place(self, monitor: CallbackMonitor, row: Row) -> None:
        standing = row.standing
        try:
            standing = await place(self._ledger, self._client, row, check=lambda: self._check(row))
            self._pause = BACKOFF
        except (NotSent, IllegalMove):
            pass  # a person moved it, or it is placed later
        except (ConnectionFailed, RateLimited) as trouble:
            self._wait_out(trouble)
        except (BadCredentials, PermissionDenied) as refusal:
            self.stop(f"{refusal}. The call was given back; nobody was rung by it", refusal)
        finally:
            self._being_placed.discard(row.id)
            self._placings.release()
            self._settle(standing)
            landed, self._landed = self._landed, anyio.Event()
            landed.set()
        if standing.state is RowState.PLACED:
            self._follow(monitor, row.at(standing))

    def _check(self, row: Row) -> None:
        self._stop_for_file()
        if self.progress.stopped is not None:
            raise NotSent(self.progress.stopped)
        if self._opens_at(row) is not None:
            raise NotSent("the hours are over")

    def _wait_out(self, trouble: ConnectionFailed | RateLimited) -> None:
        """No new call for a while; each further trouble doubles it."""
        asked = trouble.retry_after if isinstance(trouble, RateLimited) else None
        self._pause_reason = "TENIOS, which asks for fewer calls" if asked else f"TENIOS: {trouble}"
        self._pause_ends = max(self._pause_ends, anyio.current_time() + max(asked or 0.0, self._pause))
        self._pause = min(2 * self._pause, BACKOFF_MAX)

    def _settle(self, standing: Standing) -> None:
        """Counts what became of a call that was being placed."""
        progress = self.progress
        progress.placing -= 1
        match standing.state:
            case RowState.PLACED:
                progress.placed_now += 1
                progress.following[standing.status] += 1
            case RowState.REFUSED:
                progress.refused += 1
            case RowState.UNKNOWN:
                progress.unknown += 1
            case _:
                progress.queued += 1
                self.progress.left += 1
        if standing.state is not RowState.PLACED:
            self._calls.release()
        if standing.state is not RowState.QUEUED:
            trip = self._breaker.note(is_unknown=standing.state is RowState.UNKNOWN)
            if trip is not None:
                self.stop(f"{trip}; look into the TENIOS customer portal, then `tenios batch resolve`")
        self._tick()

    def _follow(self, monitor: CallbackMonitor, row: Row) -> None:
        callback = row.callback
        assert callback is not None  # noqa: S101  # PLACED has one
        if callback.key in self._followed:
            self._recorder.lost(row, "TENIOS gave its id to two calls")
            self._count_end(callback.status, None)
            self._calls.release()
            return
        self._followed[callback.key] = row
        monitor.add(callback)

    async def _take(self, monitor: CallbackMonitor, result: Transition | WatchInterrupted) -> None:
        row = self._followed[result.callback.key]
        if isinstance(result, Transition):
            self._seen(row, result)
        elif isinstance(result.cause, (BadCredentials, PermissionDenied)):
            del self._followed[result.callback.key]
            self._calls.release()
            self.stop(f"{result.cause}. What is open is kept", result.cause)
        elif (why := why_lost(result)) is not None:
            del self._followed[result.callback.key]
            self._calls.release()
            self._count_end(result.callback.status, None)
            self._recorder.lost(row, why)
        elif isinstance(result.cause, TeniosError) and not self._client.is_closed:
            monitor.add(result.callback)  # an outage: the calls go on, and it ends some time
        else:
            raise result
        self._tick()
        await self._recorder.catch_up()

    def _seen(self, row: Row, transition: Transition) -> None:
        status = transition.status
        if status.is_terminal:
            self.progress.polls += transition.polls
            del self._followed[transition.callback.key]
            self._calls.release()
            self._count_end(transition.previous, status)
        else:
            self.progress.following[transition.previous] -= 1
            self.progress.following[status] += 1
        self._recorder.saw(row, transition)

    def _count_end(self, last_seen: CallbackStatus | None, status: CallbackStatus | None) -> None:
        self.progress.following[last_seen] -= 1
        self.progress.finished[status] += 1

    def _tick(self) -> None:
        self.progress.seconds = anyio.current_time() - self._began


class _Slots:
    """How many calls may be under way. More may be, that an earlier run has left."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._freed = anyio.Event()

    async def free(self) -> None:
        """Returns when there is one. For one waiter at a time."""
        while self._left <= 0:
            self._freed = anyio.Event()
            await self._freed.wait()

    def take(self) -> None:
        self._left -= 1

    def release(self) -> None:
        self._left += 1
        self._freed.set()

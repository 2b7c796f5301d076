"""One of the workers that share a campaign: it places calls and follows shards, as jobs come, until all has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from tenios_async import (
    BadCredentials,
    ClientMisuse,
    ConnectionFailed,
    PermissionDenied,
    Polling,
    RateLimited,
    WatchInterrupted,
)
from tenios_async.batch import controls
from tenios_async.batch.arguments import check_concurrency
from tenios_async.batch.controls import Controls
from tenios_async.batch.engine import Engine, Postponed
from tenios_async.batch.errors import LedgerError, LedgerFailed, LedgerRefused
from tenios_async.batch.following import ShardWatch
from tenios_async.batch.placing import NotSent, awake, place
from tenios_async.batch.postgres import LEFT_ALONE
from tenios_async.batch.progress import Progress
from tenios_async.batch.runner import BACKOFF, BACKOFF_MAX, MAX_PLACING
from tenios_async.batch.shared import Shared
from tenios_async.batch.standing import IllegalMove, RowState
from tenios_async.batch.turns import Turns

if TYPE_CHECKING:
    from procrastinate.jobs import Job

    from tenios_async import TeniosClient, TeniosError
    from tenios_async.batch.hours import Hours
    from tenios_async.batch.postgres import PostgresLedger
    from tenios_async.batch.recording import Hook
    from tenios_async.batch.row import Row
    from tenios_async.batch.standing import Standing
    from tenios_async.batch.turns import Turn

_log = logging.getLogger("tenios_async.batch")

ATTEND_EVERY: Final = 0.5
"""Seconds after which the ledger is asked what holds for all, and which calls have ended."""
COUNT_EVERY: Final = 5.0
"""Seconds after which all rows are counted, where somebody wants to see it."""
HEARTBEAT: Final = 10.0
"""Seconds."""
ORPHANS: Final = 1000
"""Rows without a job that get one at once."""
ENGINES: Final = 2
"""As which one worker is known to the engine: one for each queue."""
BEGIN_ANEW: Final = 1.0
"""Seconds after trouble with the database."""
TRY_ELSEWHERE: Final = 1.0
"""Seconds after which a shard that is more than this worker's share is offered again."""
STALE: Final = 3.0
"""Seconds after which what was said to hold for all is not relied on: nothing is placed until it is known again."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which somebody who waits looks again: clocks are set, machines are suspended, people change things."""


class Worker:
    """One worker of a campaign in PostgreSQL; for one use.

    Args:
        ledger: open, of a campaign.
        client: places and follows.
        concurrency: calls under way at once of those that this worker places, from being placed to their end.
        stop_file: while it is there, nothing is placed by anybody.
        polling: the schedule; None looks where the end of a call matters.
        hook: called with each transition that this worker saw, after it was written down; may be async.
        heartbeat: seconds; a worker that was silent for three of them counts as dead.
        left_alone: seconds after its intent from which on a call that is being placed counts as left by a dead worker.
        counting: whether `progress` shows the whole campaign, which costs a look at every row now and then.
    """

    def __init__(
        self,
        ledger: PostgresLedger,
        client: TeniosClient,
        *,
        concurrency: int = 100,
        stop_file: Path | str | None = None,
        polling: Polling | None = None,
        hook: Hook | None = None,
        heartbeat: float = HEARTBEAT,
        left_alone: float = LEFT_ALONE,
        counting: bool = False,
    ) -> None:
        check_concurrency(concurrency)
        self.progress: Progress = Progress()
        self._ledger = ledger
        self._client = client
        self._concurrency = concurrency
        self._stop_file = None if stop_file is None else Path(stop_file)
        self._polling = polling or Polling().for_the_end()
        self._hook = hook
        self._heartbeat = heartbeat
        self._left_alone = left_alone
        self._counting = counting
        self._controls = Controls()
        self._known_at = -math.inf
        self._being_placed: set[int] = set()
        self._ringing = 0
        self._placed: set[int] = set()  # and under way still, for all that is known
        self._freed = asyncio.Event()
        self._pause = BACKOFF
        self._pause_ends = -math.inf
        self._leaving = False
        self._is_over = False
        self._failure: BaseException | None = None
        self._ready: set[anyio.CancelScope] = set()
        self._watches: dict[int, anyio.CancelScope] = {}
        self._share = self._shards = 0
        self._engine: Engine | None = None
        self._shared: Shared
        self._turns: Turns

    async def run(self) -> Progress:
        """Places and follows until all calls of the campaign have ended, or placing was stopped and what is open has.

        Raises `LedgerRefused`, `LedgerFailed`, and the refusal where TENIOS lets this client see nothing. A
        cancellation gives what is open back to the other workers.
        """
        async with Shared(self._ledger) as shared:
            if not await shared.has_jobs():
                raise LedgerRefused(f"{self._ledger.url} is no campaign; it was made for place_once")
            self._shared, self._turns = shared, Turns(shared)
            self._shards = self._share = await shared.shards()
            began = anyio.current_time()
            beside = [asyncio.ensure_future(each()) for each in (self._attend, self._keep_informed)]
            try:
                await self._work()
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside)
                with contextlib.suppress(LedgerError), anyio.move_on_after(BACKOFF, shield=True):
                    await self._turns.tidy()
                    self.progress.count(await self._ledger.tally())
                self.progress.seconds = anyio.current_time() - began
        if self._failure is not None:
            raise self._failure
        return self.progress

    def leave(self) -> None:
        """Begins nothing more, and gives what is open back to the other workers."""
        self._leaving = True
        self._give_back()
        if self._engine is not None:
            self._engine.stop()

    def _give_back(self) -> None:
        for scope in [*self._ready, *self._watches.values()]:
            scope.cancel()

    async def _work(self) -> None:
        """Under one name after another."""
        former: set[int] = set()
        while not self._leaving:
            self._engine = Engine(
                self._ledger.url,
                place=self._place,
                watch=self._watch,
                mend=self._mend,
                ending=self._give_back,
                placing=min(self._concurrency, MAX_PLACING),
                shards=self._shards,
                heartbeat=self._heartbeat,
            )
            running = asyncio.ensure_future(self._engine.run(former, self._mend))
            try:
                is_trouble = await asyncio.shield(running)
            except asyncio.CancelledError:
                self.leave()
                await asyncio.wait([running])
                raise
            former |= self._engine.names
            if is_trouble and not self._leaving:
                _log.warning("the database did not answer, or took this worker for dead: it begins anew")
                await asyncio.sleep(BEGIN_ANEW)

    # What goes on beside the jobs

    async def _attend(self) -> None:
        counted = -math.inf
        while not self._is_over:
            try:
                await self._look_around()
                if self._counting and anyio.current_time() - counted >= COUNT_EVERY:
                    self.progress.count(await self._ledger.tally())
                    counted = anyio.current_time()
            except Exception as error:  # without this nobody would notice that all has ended
                self._fail(error)
                return
            await asyncio.sleep(ATTEND_EVERY)

    async def _keep_informed(self) -> None:
        """However long it takes to look around."""
        while True:
            with contextlib.suppress(Exception):  # whoever looks around asks the same, and tells of it
                await self._learn()
            await asyncio.sleep(ATTEND_EVERY)

    async def _learn(self) -> None:
        """What holds for all."""
        asked = awake()
        self._controls = await self._shared.controls()
        self._known_at = asked

    async def _look_around(self) -> None:
        has_turns = self._has_turns()
        await self._learn()
        await self._turns.tidy()
        if self._stop_file is not None and self._stop_file.exists():
            await self.stop(f"the stop file {self._stop_file} is there")
        self.progress.stopped = self._controls.stopped
        if self._placed:
            self._placed.difference_update(await self._shared.ended(self._placed))
            self._tell_freed()
        assert self._engine is not None  # noqa: S101  # this goes on beside it
        live = await self._shared.live(self._engine.stalled_after) // ENGINES
        self._share = math.ceil(self._shards / max(1, live))
        for scope in list(self._watches.values())[self._share :]:
            scope.cancel()
        queued, sending, placed = await self._shared.is_open()
        is_used_up = self._controls.turns_left <= 0 and not (has_turns or self._has_turns())
        if placed or sending or (queued and self._controls.stopped is None and not is_used_up):
            return
        if queued and self._controls.stopped is None:
            self.progress.stopped = (
                "as many were placed as the limit allows; `tenios batch control` with --limit allows more"
            )
        self._is_over = True
        self.leave()

    def _has_turns(self) -> bool:
        """Whether this worker may use turns, or give them back, that do not count as left any more."""
        return self._ringing > 0 or self._turns.is_holding

    async def stop(self, reason: str, cause: TeniosError | None = None) -> None:
        """Places nothing more, by any worker; what is open is followed to its end."""
        await self._shared.change(controls.stopped(reason))
        await self._learn()
        if self._controls.stopped == reason:
            self.progress.cause = cause

    def _fail(self, error: BaseException) -> None:
        if isinstance(self._failure, LedgerFailed):  # whatever follows, what it could not write down is told
            rows = error.rows if isinstance(error, LedgerFailed) else ()
            error = LedgerFailed(str(self._failure), *self._failure.rows, *rows)
        self._failure = error
        self.leave()

    async def _mend(self) -> None:
        """What workers that are gone have left."""
        engine = self._engine
        if engine is None or self._leaving:
            return
        await self._shared.sweep(self._left_alone)
        await engine.replace_stalled()
        queued, sending, placed = await self._shared.is_open()
        if queued or sending or placed:
            for shard in set(range(self._shards)) - await engine.watched():
                await engine.defer_watching(shard)
        if queued:
            await engine.defer_placing(await self._shared.orphans(ORPHANS))

    # The job of following one shard

    async def _watch(self, job: Job, shard: int) -> None:
        if self._is_ending() or len(self._watches) >= self._share:
            raise Postponed(TRY_ELSEWHERE)
        assert job.id is not None  # noqa: S101  # it was fetched
        watch = ShardWatch(self._ledger, self._shared, self._client, shard, polling=self._polling, hook=self._hook)
        with anyio.CancelScope() as scope:
            self._watches[job.id] = scope
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._guard, job, scope)
                    await self._follow(watch)
            finally:
                del self._watches[job.id]
                self.progress.polls += watch.polls
        if not self._is_over:
            raise Postponed

    async def _guard(self, job: Job, scope: anyio.CancelScope) -> None:
        """A worker that was suspended may have been taken for dead: then somebody else follows the shard."""
        while True:
            await asyncio.sleep(self._heartbeat)
            if self._engine is None or not await self._engine.is_mine(job):
                scope.cancel()

    async def _follow(self, watch: ShardWatch) -> None:
        try:
            await watch.run()
        except (BadCredentials, PermissionDenied) as refusal:
            await self.stop(f"{refusal}. What is open is kept", refusal)
            self._fail(refusal)
        except (LedgerError, ClientMisuse, WatchInterrupted) as error:
            self._fail(error)

    # The job of placing one call

    async def _place(self, row_id: int) -> None:
        if row_id in self._being_placed or row_id in self._placed:
            return  # delivered twice
        turn: tuple[Row, Turn | None] | None = None
        try:
            with anyio.CancelScope() as scope:
                self._ready.add(scope)
                try:
                    turn = await self._next_to_ring(row_id)
                finally:
                    self._ready.discard(scope)
            if scope.cancelled_caught:
                raise Postponed
            if turn is not None:
                self._ringing += 1
                try:
                    await self._ring(*turn)
                finally:
                    self._ringing -= 1
        finally:
            self._being_placed.discard(row_id)
            self._tell_freed()

    async def _next_to_ring(self, row_id: int) -> tuple[Row, Turn | None] | None:
        """Returns when this row's call must be begun, with its turn, or None where it needs none.

        None alone where it is not to be dialled by this job.
        """
        if self._is_ending():
            raise Postponed
        (row,) = await self._ledger.load([row_id])
        if row is None or row.standing.state is not RowState.QUEUED:
            return None  # it is followed, in doubt or over; or another worker places it
        while len(self._being_placed) + len(self._placed) >= self._concurrency:
            await self._freed.wait()
        self._being_placed.add(row_id)
        while True:
            while (seconds := self._has_to_wait(row)) is not None:  # noqa: ASYNC110  # clocks and people change it
                await asyncio.sleep(min(max(seconds, 0.1), LOOK_AGAIN))
            if not self._controls.is_metered:
                return row, None
            if (turn := await self._turns.take()) is not None:
                return row, turn

    def _has_to_wait(self, row: Row) -> float | None:
        """Seconds until the phone may begin to ring, for all that is known now; None where it may."""
        held = self._controls
        if awake() - self._known_at > STALE:  # also where this machine was suspended
            self.progress.waiting_for = "the database, to say what holds for all"
            return ATTEND_EVERY
        if held.stopped is not None or held.is_paused or held.turns_left <= 0:
            self.progress.waiting_for = "somebody to end the pause" if held.is_paused and not held.stopped else None
            return LOOK_AGAIN
        if (left := max(self._pause_ends - anyio.current_time(), held.pause)) > 0:
            return left
        opens_at = opening(held.hours, row.request.delay)
        if opens_at is None:
            self.progress.waiting_for = None
            return None
        self.progress.waiting_for = f"the hours: from {opens_at:%Y-%m-%d %H:%M %Z} on"
        return (opens_at - datetime.now(UTC)).total_seconds()

    async def _ring(self, row: Row, turn: Turn | None) -> None:
        """Raises `Postponed` where the row is to be dialled still, by whoever comes next."""
        standing, began, unused = row.standing, anyio.current_time(), turn
        may_be_used = False

        async def ready() -> None:
            nonlocal unused, may_be_used
            if turn is not None and (unused := await self._turns.arrive(turn, began)) is None:
                raise NotSent("its turn has passed, and there was no other")
            may_be_used = True

        def check() -> None:
            self._check(row, turn)

        try:
            standing = await place(self._ledger, self._client, row, check=check, ready=ready)
            self._pause = BACKOFF
        except NotSent:
            pass  # it is placed later
        except IllegalMove:  # somebody else has moved it, perhaps after it had left
            unused = None if may_be_used else unused
        except (ConnectionFailed, RateLimited) as trouble:
            await self._wait_out(trouble)
        except (BadCredentials, PermissionDenied) as refusal:
            await self.stop(f"{refusal}. The call was given back; nobody was rung by it", refusal)
        except (LedgerError, ClientMisuse) as error:
            unused = None if isinstance(error, LedgerError) else unused  # which tells nothing of the call
            self._fail(error)
        await self._settle(row, standing, unused)

    async def _settle(self, row: Row, standing: Standing, unused: Turn | None) -> None:
        if standing.state is RowState.QUEUED:
            if unused is not None:
                await self._shared.change(controls.given_back(1, unused.limit))
            raise Postponed
        if standing.state is RowState.PLACED:
            self._placed.add(row.id)
            self.progress.placed_now += 1
        if standing.state is RowState.UNKNOWN:
            trip = await self._shared.trip(self._controls.max_unknown)
            if trip is not None:
                await self.stop(f"{trip}; look into the TENIOS customer portal, then `tenios batch resolve`")

    def _check(self, row: Row, turn: Turn | None) -> None:
        if self._stop_file is not None and self._stop_file.exists():
            raise NotSent(f"the stop file {self._stop_file} is there")
        if awake() - self._known_at > STALE:
            raise NotSent("whether it is stopped is not known at the moment")
        if self._controls.stopped is not None or self._controls.is_paused:
            raise NotSent(self._controls.stopped or "it is paused")
        if turn is None and self._controls.is_metered:
            raise NotSent("it needs a turn by now")
        if opening(self._controls.hours, row.request.delay) is not None:
            raise NotSent("the hours are over")

    async def _wait_out(self, trouble: ConnectionFailed | RateLimited) -> None:
        """No new call for a while, by anybody where TENIOS says so; each further trouble doubles it."""
        asked = (trouble.retry_after or 0.0) if isinstance(trouble, RateLimited) else 0.0
        pause = max(asked, self._pause)
        self._pause_ends = max(self._pause_ends, anyio.current_time() + pause)
        self._pause = min(2 * self._pause, BACKOFF_MAX)
        if isinstance(trouble, RateLimited):
            await self._shared.change(controls.left_alone(pause))

    def _is_ending(self) -> bool:
        return self._leaving or self._engine is None or self._engine.is_ending

    def _tell_freed(self) -> None:
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()


def opening(hours: Hours | None, delay: int) -> datetime | None:
    """When a call with this delay (seconds) may be placed, where that is not now."""
    if hours is None:
        return None
    rings_at = datetime.now(UTC) + timedelta(seconds=delay)
    return None if hours.is_open(rings_at) else hours.opens_at(rings_at) - timedelta(seconds=delay)

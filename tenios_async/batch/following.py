"""Follows the calls of one shard of a campaign to their ends, whoever places them."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio

from tenios_async import (
    BadCredentials,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    TeniosError,
    Transition,
    WatchInterrupted,
    WatchTimeout,
)
from tenios_async.batch.errors import LedgerError
from tenios_async.batch.runner import LAST_WORDS, UNWRITTEN, _attempt, _raise_what_matters, _why
from tenios_async.batch.standing import IllegalMove, RowState, lose, see

if TYPE_CHECKING:
    from tenios_async import CallbackMonitor, Polling, TeniosClient
    from tenios_async.batch.ledger import Change
    from tenios_async.batch.postgres import PostgresLedger
    from tenios_async.batch.row import Row
    from tenios_async.batch.runner import Hook
    from tenios_async.batch.shared import Shared
    from tenios_async.batch.standing import Move

_log = logging.getLogger("tenios_async.batch")

LOOK_EVERY: Final = 1.0
"""Seconds after which the ledger is asked who was placed since."""


class ShardWatch:
    """One shard, for one use.

    Args:
        ledger: where it is written down.
        shared: says who belongs to the shard.
        client: asks TENIOS.
        shard: which.
        polling: the schedule.
        hook: called with each transition after it was written down.
    """

    def __init__(
        self,
        ledger: PostgresLedger,
        shared: Shared,
        client: TeniosClient,
        shard: int,
        *,
        polling: Polling,
        hook: Hook | None = None,
    ) -> None:
        self._ledger = ledger
        self._shared = shared
        self._client = client
        self._shard = shard
        self._polling = polling
        self._hook = hook
        self._rows: dict[str, Row] = {}
        self._ended: set[int] = set()  # and not written down yet
        self._unwritten: deque[tuple[Change, Row, Transition | None]] = deque()
        self._to_write = anyio.Event()
        self._written = anyio.Event()
        self.polls: int = 0
        """Those of the calls that have ended."""

    async def run(self) -> None:
        """Follows until it is cancelled; what was seen by then is written down.

        Raises the refusal where TENIOS lets this client see nothing at all, and `LedgerError`.
        """
        try:
            async with self._client.monitor(polling=self._polling) as monitor, anyio.create_task_group() as group:
                group.start_soon(self._look_for_more, monitor)
                group.start_soon(self._write_all)
                async for result in monitor:
                    await self._take(monitor, result)
        except BaseExceptionGroup as group:
            _raise_what_matters(group)
            raise
        finally:
            with anyio.move_on_after(LAST_WORDS, shield=True), contextlib.suppress(LedgerError):
                await self._write()

    async def _look_for_more(self, monitor: CallbackMonitor) -> None:
        while True:
            there = await self._shared.placed(self._shard)
            followed = {row.id: key for key, row in self._rows.items()}
            for row_id in followed.keys() - there:  # a person, or another worker, has settled it
                monitor.discard(followed[row_id])
                del self._rows[followed[row_id]]
            new = there - followed.keys() - self._ended
            for row in await self._ledger.load(new) if new else ():
                if row is not None and row.standing.state is RowState.PLACED:
                    self._follow(monitor, row)
            await anyio.sleep(LOOK_EVERY)

    def _follow(self, monitor: CallbackMonitor, row: Row) -> None:
        callback = row.callback
        assert callback is not None  # noqa: S101  # PLACED has one
        if callback.key in self._rows:
            self._end(row, lose(_attempt(row), "TENIOS gave its id to two calls", datetime.now(UTC)), None)
            return
        self._rows[callback.key] = row
        monitor.add(callback)

    async def _take(self, monitor: CallbackMonitor, result: Transition | WatchInterrupted) -> None:
        row = self._rows[result.callback.key]
        if isinstance(result, Transition):
            self._seen(row, result)
        elif isinstance(result.cause, (BadCredentials, PermissionDenied)):
            raise result.cause
        elif isinstance(result, WatchTimeout) or isinstance(result.cause, (NotFound, InvalidRequest)):
            del self._rows[result.callback.key]
            self._end(row, lose(_attempt(row), _why(result), datetime.now(UTC)), None)
        elif isinstance(result.cause, TeniosError) and not self._client.is_closed:
            monitor.add(result.callback)  # an outage: the calls go on, and it ends some time
        else:
            raise result
        while len(self._unwritten) >= UNWRITTEN:
            self._written = anyio.Event()
            await self._written.wait()

    def _seen(self, row: Row, transition: Transition) -> None:
        polls = row.standing.polls + transition.polls  # those of earlier watches too
        move = see(_attempt(row), transition.status, transition.observed_at, polls)
        if transition.is_terminal:
            del self._rows[transition.callback.key]
            self.polls += transition.polls
            self._end(row, move, transition)
        else:
            self._write_later(row, move, transition)

    def _end(self, row: Row, move: Move, transition: Transition | None) -> None:
        self._ended.add(row.id)
        self._write_later(row, move, transition)

    def _write_later(self, row: Row, move: Move, transition: Transition | None) -> None:
        self._unwritten.append(((row.id, move), row, transition))
        self._to_write.set()

    async def _write_all(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write = anyio.Event()
            await self._write()
            self._written.set()

    async def _write(self) -> None:
        """Writes down all that was seen, in one piece, and then tells of it."""
        seen = list(self._unwritten)
        self._unwritten.clear()
        if not seen:
            return
        standings = await self._ledger.change_all([change for change, _, _ in seen])
        for (_, row, transition), standing in zip(seen, standings, strict=True):
            self._ended.discard(row.id)
            if self._hook is None or transition is None or isinstance(standing, IllegalMove):
                continue
            try:
                answer = self._hook(row.at(standing), transition)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:  # a hook must not end a campaign
                _log.exception("a hook raised", extra={"tenios_event": "hook_failed"})

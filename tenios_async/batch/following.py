"""Follows the calls of one shard of a campaign to their ends, whoever places them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import anyio

from tenios_async import BadCredentials, PermissionDenied, TeniosError, Transition
from tenios_async.batch.errors import LedgerError
from tenios_async.batch.recording import LAST_WORDS, Recorder, raise_what_matters, why_lost
from tenios_async.batch.standing import RowState

if TYPE_CHECKING:
    from tenios_async import CallbackMonitor, Polling, TeniosClient, WatchInterrupted
    from tenios_async.batch.postgres import PostgresLedger
    from tenios_async.batch.recording import Hook
    from tenios_async.batch.row import Row
    from tenios_async.batch.shared import Shared

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
        self._rows: dict[str, Row] = {}
        self._ended: set[int] = set()  # and not written down yet
        self._recorder = Recorder(ledger, hook, ended=self._ended.discard)
        self.polls: int = 0
        """Those of the calls that have ended."""

    async def run(self) -> None:
        """Follows until it is cancelled; what was seen by then is written down.

        Raises the refusal where TENIOS lets this client see nothing at all, and `LedgerError`.
        """
        try:
            async with self._client.monitor(polling=self._polling) as monitor, anyio.create_task_group() as group:
                group.start_soon(self._look_for_more, monitor)
                group.start_soon(self._recorder.run)
                async for result in monitor:
                    await self._take(monitor, result)
        except BaseExceptionGroup as group:
            raise_what_matters(group)
            raise
        finally:
            with anyio.move_on_after(LAST_WORDS, shield=True), contextlib.suppress(LedgerError):
                await self._recorder.write()

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
            self._lose(row, "TENIOS gave its id to two calls")
            return
        self._rows[callback.key] = row
        monitor.add(callback)

    async def _take(self, monitor: CallbackMonitor, result: Transition | WatchInterrupted) -> None:
        row = self._rows[result.callback.key]
        if isinstance(result, Transition):
            if result.is_terminal:
                del self._rows[result.callback.key]
                self._ended.add(row.id)
                self.polls += result.polls
            self._recorder.saw(row, result)
        elif isinstance(result.cause, (BadCredentials, PermissionDenied)):
            raise result.cause
        elif (why := why_lost(result)) is not None:
            del self._rows[result.callback.key]
            self._lose(row, why)
        elif isinstance(result.cause, TeniosError) and not self._client.is_closed:
            monitor.add(result.callback)  # an outage: the calls go on, and it ends some time
        else:
            raise result
        await self._recorder.catch_up()

    def _lose(self, row: Row, why: str) -> None:
        self._ended.add(row.id)
        self._recorder.lost(row, why)

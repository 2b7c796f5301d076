"""What watches see of the calls of a ledger, on its way into it: many changes in one piece, then the hook is told."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import anyio

from tenios_async import InvalidRequest, NotFound, TeniosError, WatchTimeout
from tenios_async.batch.errors import LedgerError, LedgerFailed
from tenios_async.batch.standing import IllegalMove, RowState, lose, see

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tenios_async import Transition, WatchInterrupted
    from tenios_async.batch.ledger import Change, Ledger
    from tenios_async.batch.row import Row
    from tenios_async.batch.standing import Move

    Hook: TypeAlias = Callable[[Row, Transition], Awaitable[None] | None]

_log = logging.getLogger("tenios_async.batch")

UNWRITTEN: Final = 2000
"""Results that may wait to be written before the monitor has to wait too."""
LAST_WORDS: Final = 5.0
"""Seconds for what was seen to be written when it is cancelled. What is not is seen again by whoever follows next."""


class Recorder:
    """Writes down what is seen, in order.

    Args:
        ledger: where.
        hook: called with each transition after it was written down; may be async, and then it is awaited.
        ended: called with the number of each row whose end is written down, before the hook.
    """

    def __init__(self, ledger: Ledger, hook: Hook | None, ended: Callable[[int], None] = lambda _: None) -> None:
        self._ledger = ledger
        self._hook = hook
        self._ended = ended
        self._unwritten: deque[tuple[Change, Row, Transition | None]] = deque()
        self._to_write = anyio.Event()
        self._written = anyio.Event()
        self._is_over = False

    def saw(self, row: Row, transition: Transition) -> None:
        """A call has gone on, or ended."""
        polls = row.standing.polls + transition.polls  # those of earlier watches too
        self._add(row, see(row.standing.attempt, transition.status, transition.observed_at, polls), transition)

    def lost(self, row: Row, why: str) -> None:
        """A call cannot be followed to its end."""
        self._add(row, lose(row.standing.attempt, why, datetime.now(UTC)), None)

    def _add(self, row: Row, move: Move, transition: Transition | None) -> None:
        self._unwritten.append(((row.id, move), row, transition))
        self._to_write.set()

    async def catch_up(self) -> None:
        """Returns when not too much is left to write."""
        while len(self._unwritten) >= UNWRITTEN:
            self._written = anyio.Event()
            await self._written.wait()

    async def run(self) -> None:
        """Writes until it is cancelled, or `end` was called and all of it is written."""
        while self._unwritten or not self._is_over:
            await self._to_write.wait()
            self._to_write = anyio.Event()
            await self.write()
            self._written.set()

    def end(self) -> None:
        """Nothing more will be seen."""
        self._is_over = True
        self._to_write.set()

    async def write(self) -> None:
        """Writes down all that was seen, in one piece, and then tells of it."""
        seen = list(self._unwritten)
        self._unwritten.clear()
        if not seen:
            return
        cancellations = _cancellations()
        standings = await self._ledger.change_all([change for change, _, _ in seen])
        for (_, row, transition), standing in zip(seen, standings, strict=True):
            if isinstance(standing, IllegalMove) or standing.state is not RowState.PLACED:
                self._ended(row.id)
            if self._hook is None or transition is None or isinstance(standing, IllegalMove):
                continue
            try:
                answer = self._hook(row.at(standing), transition)
                if inspect.isawaitable(answer):
                    await answer
            except (Exception, asyncio.CancelledError):  # a hook must not end a campaign
                if _cancellations() > cancellations:
                    raise
                _log.exception("a hook raised", extra={"tenios_event": "hook_failed"})


def _cancellations() -> int:
    """How often this task was cancelled, from wherever; what a hook awaits may be cancelled without."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # this is awaited
    return task.cancelling()


def why_lost(error: WatchInterrupted) -> str | None:
    """Why a call cannot be followed to its end by anybody, or None."""
    if isinstance(error, WatchTimeout) or isinstance(error.cause, (NotFound, InvalidRequest)):
        return "not followed to its end: " + ("its time was up" if error.cause is None else str(error.cause))
    return None


def raise_what_matters(group: BaseExceptionGroup[BaseException]) -> None:
    """Of many tasks that the same thing has ended, once; and of every call that could not be written down."""
    leaves = list(_leaves(group))
    if failures := [leaf for leaf in leaves if isinstance(leaf, LedgerFailed)]:
        raise LedgerFailed(str(failures[0]), *(row for failure in failures for row in failure.rows)) from None
    if isinstance(leaves[0], (TeniosError, LedgerError)):
        raise leaves[0] from leaves[0].__cause__


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error

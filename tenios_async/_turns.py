"""Turns under a rate limit, for the requests of one client, whichever room they take."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from tenios_async._exchange import ExchangeFailed, Progress
from tenios_async._limits import SLOW_DOWN, Errand, Pace
from tenios_async._wire import retry_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from tenios_async._exchange import Exchange
    from tenios_async._limits import Rate
    from tenios_async._wire import Body, Reply


class Turns:
    """Where requests wait for their turn, and what refusals do to all of them.

    Args:
        rate: of the whole client.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._waiting: set[anyio.CancelScope] = set()
        self._pace: Pace | None = None  # begins with the first request: before it there is no clock

    def over(self, exchange: Exchange, *, has_turn: bool = False) -> Exchange:
        """The same room, entered when it is one's turn, which it may be already."""
        return _PacedExchange(exchange, self, has_turn=has_turn)

    @property
    def pace(self) -> Pace:
        """The queue, which begins with the first request."""
        if self._pace is None:
            self._pace = Pace(self._rate, anyio.current_time())
        return self._pace

    @contextmanager
    def waiting(self, deadline: float) -> Generator[anyio.CancelScope]:
        """Waits no longer than until the deadline, or until all of this is given up."""
        with anyio.CancelScope(deadline=deadline) as scope:
            self._waiting.add(scope)
            try:
                yield scope
            finally:
                self._waiting.discard(scope)

    def give_up(self) -> None:
        """Nobody who waits will get a turn."""
        for scope in self._waiting:
            scope.cancel()

    async def take_for_a_look(self, patience: float) -> bool:
        """Waits for the turn of a look, and says whether it came within so many seconds."""
        with anyio.CancelScope(deadline=anyio.current_time() + patience):
            await self.take(Errand.LOOK)
            return True
        return False

    async def take(self, errand: Errand) -> None:
        """Returns when it is this request's turn; the place of one who is cancelled is given up."""
        pace, ticket = self.pace, _Ticket()
        pace.join(ticket, errand, anyio.current_time())
        try:
            while (turn := _turn(pace, ticket)) > (now := anyio.current_time()):
                with anyio.CancelScope(deadline=turn):
                    await ticket.called.wait()
                ticket.called = anyio.Event()
            pace.go(now)
        finally:
            pace.leave(ticket)
            if isinstance(first := pace.first(), _Ticket):
                first.called.set()


class _PacedExchange:
    """One request's way: its turn first, then the room."""

    def __init__(self, exchange: Exchange, turns: Turns, *, has_turn: bool) -> None:
        self.name = exchange.name
        self._exchange = exchange
        self._turns = turns
        self._has_turn = has_turn

    async def post(
        self, path: str, body: Body, *, deadline: float, before_send: Callable[[], Awaitable[None]] | None = None
    ) -> Reply:
        if not self._has_turn:
            with self._turns.waiting(deadline) as scope:
                await self._turns.take(Errand.CALL if body.dials else Errand.LOOK)
            if scope.cancelled_caught:
                reason = "no turn came in time under the client's rate limit"
                raise ExchangeFailed(reason, Progress.NOT_SENT, timed_out=True)
        sent_at = anyio.current_time()
        reply = await self._exchange.post(path, body, deadline=deadline, before_send=before_send)
        if reply.status_code in SLOW_DOWN:
            self._turns.pace.refused(anyio.current_time(), retry_after(reply.headers), sent_at=sent_at)
        return reply


class _Ticket:
    """A place in the queue."""

    def __init__(self) -> None:
        self.called = anyio.Event()


def _turn(pace: Pace, ticket: _Ticket) -> float:
    """When to go; infinite for one who is not first and will be called."""
    return pace.turn_at(anyio.current_time()) if pace.first() is ticket else math.inf

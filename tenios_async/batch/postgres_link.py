"""Connections to PostgreSQL that outlive it: made anew where they are lost, and checked each time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import attrs
import psycopg

from tenios_async.batch.errors import LedgerError, LedgerFailed
from tenios_async.batch.postgres_session import MARK, STATE_OF_SERVER, Server, connecting, failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from tenios_async.batch.postgres_url import PostgresURL

    Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

_T = TypeVar("_T")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

PAUSE, PAUSE_MAX = 0.05, 1.0
"""Seconds before a lost connection is made anew, doubling."""
LARGEST = 1000
"""Items that are served in one piece."""


class Link:
    """One connection, and who waits for it.

    Args:
        url: where to.
        patience: seconds for which a database that is away is waited for, from each question on.
    """

    def __init__(self, url: PostgresURL, patience: float) -> None:
        self._url = url
        self._conninfo = connecting(url)
        self._patience = patience
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    async def open(self) -> None:
        """Connects, without patience. Raises `LedgerRefused` and `LedgerFailed`."""
        try:
            await self._connected(is_patient=False)
        except psycopg.Error as error:
            raise failure(self._url, error) from None

    async def run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Does it, again where the connection was lost: work must be such that twice is as good as once.

        A waiter who is cancelled leaves the work to go on. Raises `LedgerFailed`, and `LedgerRefused` where what was
        connected to anew is not the ledger it was.
        """
        if self._is_closing:
            raise LedgerFailed(f"{self._url} is closed")
        task: asyncio.Task[_T] = asyncio.ensure_future(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def ask(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """What a statement gives."""

        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query.encode(), values)).fetchall()

        return await self.run(work)

    async def tell(self, query: str, values: Sequence[Any] = (), *, only_once: bool) -> int:
        """How many rows a statement has changed.

        What is made `only_once` is not made again where its connection was lost: it may have been made, and 0 is said.
        """
        is_made = False

        async def work(connection: Connection) -> int:
            nonlocal is_made
            if is_made:
                return 0
            is_made = only_once
            return (await connection.execute(query.encode(), values)).rowcount

        return await self.run(work)

    async def close(self) -> None:
        """Ends when all that was asked is done. May be called twice."""
        self._is_closing = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._drop()

    async def _run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        async with self._turn:
            give_up, pause = time.monotonic() + self._patience, PAUSE
            while True:
                try:
                    return await work(await self._connected())
                except (psycopg.OperationalError, _Away) as error:
                    await self._drop()
                    if time.monotonic() >= give_up or self._is_closing:
                        raise failure(self._url, error) from None
                except psycopg.Error as error:
                    raise failure(self._url, error) from None
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX)

    async def _connected(self, *, is_patient: bool = True) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        try:
            await self._check(connection, is_patient=is_patient)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return connection

    async def _check(self, connection: Connection, *, is_patient: bool) -> None:
        server = Server(*(await _only(connection, STATE_OF_SERVER)))
        if is_patient and server.is_standby:
            raise _Away(f"{self._url} is a standby")  # perhaps on its way to become the primary
        server.check_writable(self._url)
        if not server.has_ledger:
            raise server.no_ledger(self._url)
        version, timeline = await _only(connection, MARK)
        server.check_ledger(self._url, (version, timeline), writing=True)

    async def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                await self._connection.close()


class _Away(LedgerError):
    """For the moment, perhaps."""


async def _only(connection: Connection, query: str) -> tuple[Any, ...]:
    found = await (await connection.execute(query.encode())).fetchone()
    assert found is not None  # noqa: S101  # one row
    return found


class Gathering(Generic[_Item, _Result]):
    """Many who ask at once are served in one piece: while one is under way, the questions for the next gather.

    Args:
        serve: gives a result for each item, in order.
    """

    def __init__(self, serve: Callable[[list[_Item]], Coroutine[Any, Any, list[_Result]]]) -> None:
        self._serve = serve
        self._waiting = deque[_Asked[_Item, _Result]]()
        self._last: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, items: list[_Item]) -> asyncio.Future[list[_Result]]:
        """Queues them at once, and not when it is awaited: what follows a cancellation comes after it."""
        loop = asyncio.get_running_loop()
        asked = _Asked[_Item, _Result](items, loop.create_future(), loop.create_future())
        self._waiting.append(asked)
        self._last = asked.is_over
        if self._task is None:
            self._task = loop.create_task(self._serve_all())
        return asked.results

    async def settle(self) -> None:
        """Returns when all that was asked so far is done, well or badly, whether or not somebody waits for it still."""
        if self._last is not None and not self._last.done():
            await asyncio.wait([self._last])

    async def _serve_all(self) -> None:
        try:
            while self._waiting:
                some = self._take()
                try:
                    results = await self._serve([item for asked in some for item in asked.items])
                except Exception as error:  # whatever it is, none of this is known to be done
                    for asked in some:
                        asked.fail(error)
                else:
                    for asked in some:
                        asked.succeed(results[: len(asked.items)])
                        results = results[len(asked.items) :]
        finally:
            self._task = None

    def _take(self) -> list[_Asked[_Item, _Result]]:
        first = self._waiting.popleft()
        some, count = [first], len(first.items)
        while self._waiting and count + len(self._waiting[0].items) <= LARGEST:
            asked = self._waiting.popleft()
            some.append(asked)
            count += len(asked.items)
        return some


@attrs.frozen
class _Asked(Generic[_Item, _Result]):
    """What somebody asked; they may be gone when the answer comes."""

    items: list[_Item]
    results: asyncio.Future[list[_Result]]
    is_over: asyncio.Future[None]

    def succeed(self, results: list[_Result]) -> None:
        self.is_over.set_result(None)
        if not self.results.done():
            self.results.set_result(results)

    def fail(self, error: Exception) -> None:
        self.is_over.set_result(None)
        if not self.results.done():
            self.results.set_exception(error)

"""The ledger in PostgreSQL, for asyncio: many programs on many machines write, and many changes share a commit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

from tenios_async import CallbackOutcomeUnknown, CallbackStatus
from tenios_async.batch.errors import LedgerFailed, LedgerRefused
from tenios_async.batch.ledger import Change, Ledger, check_count, check_key
from tenios_async.batch.postgres_link import Gathering, Link
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_tables import (
    CHANGE,
    INSERT,
    ROW,
    Changes,
    check_text,
    request_columns,
    row_of,
    standing_from,
)
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.batch.standing import IllegalMove, RowState, Standing, crash
from tenios_async.batch.tables import STANDING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tenios_async import Callback, TeniosClient
    from tenios_async.batch.postgres_link import Connection
    from tenios_async.batch.row import NewRow, Row
    from tenios_async.batch.standing import Move

KIND: Final = "keyed"
PATIENCE: Final = 60.0
"""Seconds for which a database that is away is waited for."""
LEFT_ALONE: Final = 60.0
"""Seconds after its intent from which on a row in SENDING counts as left by somebody who is gone.

More than a request may take (`SEND_WITHIN`, the client's 30 s and its grace). One who is late all the same settles the
row by its attempt.
"""
REMEMBERED: Final = 20_000
"""Rows whose standing is remembered, so that a change need not ask for it."""
ASK_AGAIN: Final = (0.05, 0.5)
"""Seconds after which a call that somebody else is placing is looked at again, doubling up to the second."""

_IS_LEFT: Final = """
SELECT 1 FROM calls WHERE id = %s AND state = 'SENDING' AND changed_at < clock_timestamp() - make_interval(secs => %s)
"""
_Known = tuple[Standing, int]
_Results = list[Standing | IllegalMove]


class PostgresLedger(Ledger):
    """A ledger in PostgreSQL: `async with PostgresLedger("postgresql://user@host/database") as ledger`.

    Any number of programs on any number of machines may have it open. Made by `PostgresLedger.create`, once. Whoever
    loses the database waits for it to come back; a change whose acknowledgement is lost is looked up, and not guessed.

    Args:
        url: where; libpq's own, and `?schema=NAME` (`tenios` by default) for several ledgers in one database.
        patience: seconds for which a database that is away is waited for.

    Entering raises `LedgerRefused` and `LedgerFailed`; a URL that cannot be read raises `ValueError`.
    """

    def __init__(self, url: PostgresURL | str, *, patience: float = PATIENCE) -> None:
        super().__init__()
        self.url: PostgresURL = PostgresURL.parse(url) if isinstance(url, str) else url
        self._patience = patience
        self._writing: Link | None = None
        self._reading: Link | None = None
        self._changes = Gathering(self._change_all)
        self._loads = Gathering(self._load_all)
        self._known: dict[int, _Known] = {}

    @staticmethod
    def create(url: PostgresURL | str) -> None:
        """Makes the ledger, for `place_once`. Raises `LedgerRefused` where there is one, and `LedgerFailed`."""
        PostgresSession.create(PostgresURL.parse(url) if isinstance(url, str) else url, {"kind": KIND})

    async def __aenter__(self) -> Self:
        writing = self.link()
        await writing.open()
        self._writing, self._reading = writing, self.link()
        return self

    def link(self) -> Link:
        """A further connection to where this ledger is."""
        return Link(self.url, self._patience)

    async def put(self, new: NewRow) -> Row:
        check_key(new.key)
        await self._ask(INSERT, request_columns([new]))
        row = await self.by_key(new.key)
        assert row is not None  # noqa: S101  # it was put, or was there
        return row

    async def by_key(self, key: str) -> Row | None:
        check_key(key)
        check_text(key)
        return next(iter(await self._select("key = %s", [key])), None)

    async def queued(self, limit: int, after: int = 0) -> list[Row]:
        check_count("limit", limit)
        check_count("after", after)
        return await self._select("state = 'QUEUED' AND id > %s ORDER BY id LIMIT %s", [after, limit])

    async def followed(self) -> list[Row]:
        return await self._select("state = 'PLACED' ORDER BY id")

    async def load(self, row_ids: Collection[int]) -> list[Row | None]:
        """The rows of these numbers, together with those that others ask for."""
        return await self._loads.ask(list(row_ids))

    async def counts(self) -> dict[RowState, int]:
        found = await self._ask("SELECT state, count(*) FROM calls GROUP BY state")
        return dict.fromkeys(RowState, 0) | {RowState(state): count for state, count in found}

    async def tally(self) -> dict[tuple[RowState, CallbackStatus | None], int]:
        found = await self._ask("SELECT state, status, count(*) FROM calls GROUP BY state, status")
        return {
            (RowState(state), None if status is None else CallbackStatus(status)): count
            for state, status, count in found
        }

    async def change_all(self, changes: Sequence[Change]) -> list[Standing | IllegalMove]:
        return await self._changes.ask(list(changes))

    async def give_up_on(self, row_id: int, seconds: float = LEFT_ALONE) -> bool:
        """Puts a row that has been in SENDING for so long in doubt: whoever placed it is gone. Whether that was so."""
        if not await self._ask(_IS_LEFT, [row_id, seconds]):
            return False
        (result,) = await self.change_all([(row_id, crash())])
        return not isinstance(result, IllegalMove)

    async def _close(self) -> None:
        await self._changes.settle()
        for link in (self._writing, self._reading):
            if link is not None:
                await link.close()
        self._writing = self._reading = None

    async def _place_once(self, client: TeniosClient, new: NewRow, timeout: float | None) -> Callback:
        """As for one program, and whoever finds that another one is placing it waits for what becomes of it."""
        pause, longest = ASK_AGAIN
        while True:
            try:
                return await super()._place_once(client, new, timeout)
            except (CallbackOutcomeUnknown, IllegalMove):
                row = await self.by_key(new.key)
                assert row is not None  # noqa: S101  # it was put
                if row.standing.state not in (RowState.SENDING, RowState.QUEUED):
                    return await super()._place_once(client, new, timeout)
                if row.standing.state is RowState.SENDING and not await self.give_up_on(row.id):
                    if self._is_closing:
                        raise CallbackOutcomeUnknown("it is being placed by somebody else") from None
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, longest)

    def _open(self) -> Link:
        if self._writing is None:
            raise LedgerFailed("the ledger is not open: use `async with PostgresLedger(url) as ledger`")
        return self._writing

    async def _ask(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Asks, after the changes that were asked for before."""
        self._open()
        await self._changes.settle()
        if self._reading is None:
            raise LedgerFailed("the ledger is closed")
        return await self._reading.ask(query, values)

    async def _select(self, where: str, values: Sequence[Any] = ()) -> list[Row]:
        found = await self._ask(f"SELECT {ROW} FROM calls WHERE {where}", values)  # noqa: S608  # our own words
        return [row_of(columns)[0] for columns in found]

    async def _load_all(self, row_ids: list[int]) -> list[Row | None]:
        found = await self._ask(f"SELECT {ROW} FROM calls WHERE id = ANY(%s)", [row_ids])  # noqa: S608  # our own words
        rows: dict[int, Row] = {}
        for columns in found:
            row, changes = row_of(columns)
            rows[row.id] = row
            self._remember(row.id, (row.standing, changes))
        return [rows.get(row_id) for row_id in row_ids]

    def _remember(self, row_id: int, known: _Known) -> None:
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[row_id] = known

    async def _change_all(self, changes: list[Change]) -> _Results:
        batch = _Batch(changes, {row_id: self._known[row_id] for row_id, _ in changes if row_id in self._known})
        await self._open().run(batch.write)
        for row_id, known in batch.known.items():
            self._remember(row_id, known)
        return batch.results()


class _Batch:
    """Changes on their way into the ledger, from what is remembered of their rows or else from what is there.

    May be written again where nobody knows whether it was: a row that stands exactly where a change of this batch would
    have brought it, one change later, was brought there by it.
    """

    def __init__(self, changes: list[Change], remembered: dict[int, _Known]) -> None:
        self._moves: dict[int, list[tuple[int, Move]]] = {}
        for index, (row_id, move) in enumerate(changes):
            self._moves.setdefault(row_id, []).append((index, move))
        self.known = remembered
        self._results: dict[int, Standing | IllegalMove] = {}
        self._tried: dict[int, tuple[_Known, _Results]] = {}
        self._lost: dict[int, tuple[_Known, _Results]] = {}  # tried, and its acknowledgement never came
        self._open = set(self._moves)

    def results(self) -> _Results:
        """In the order of the changes."""
        return [self._results[index] for index in range(len(self._results))]

    async def write(self, connection: Connection) -> None:
        """Returns when each change is made, durably, or is known not to be open."""
        self._lost |= self._tried
        fresh = await self._look(connection, self._open) if self._lost else set[int]()
        while self._open:
            if missing := self._open - self.known.keys():
                fresh |= await self._look(connection, missing)
            change, doubted = self._compute(fresh)
            if change:
                await self._write(connection, change)
            for row_id in doubted:
                del self.known[row_id]

    async def _look(self, connection: Connection, row_ids: set[int]) -> set[int]:
        query = f"SELECT id, {STANDING}, changes FROM calls WHERE id = ANY(%s)"  # noqa: S608  # our own words
        found = await (await connection.execute(query.encode(), [sorted(row_ids)])).fetchall()
        for row_id, *standing, changes in found:
            self.known[row_id] = (standing_from(standing), changes)
        if lost := row_ids - {row_id for row_id, *_ in found}:
            raise LedgerRefused(f"the ledger has no row {min(lost)}")
        for row_id, (became, results) in self._lost.items():
            if self.known[row_id] == became:
                self._settle(row_id, results)
        return set(row_ids)

    def _compute(self, fresh: set[int]) -> tuple[Changes, set[int]]:
        """What to write, and which rows must be looked at: what is remembered proves no refusal."""
        change, doubted = Changes(), set[int]()
        for row_id in sorted(self._open):
            before, changes = self.known[row_id]
            results, steps = _made(before, [move for _, move in self._moves[row_id]])
            is_sure = row_id in fresh
            if not is_sure and any(isinstance(result, IllegalMove) for result in results):
                doubted.add(row_id)
            elif steps and steps[-1] != before:
                change.add(row_id, (before, changes), steps)
                self._tried[row_id] = ((steps[-1], changes + 1), results)
            elif is_sure:
                self._settle(row_id, results)
            else:
                doubted.add(row_id)
        return change, doubted

    async def _write(self, connection: Connection, change: Changes) -> None:
        found = await (await connection.execute(CHANGE.encode(), change.columns())).fetchall()
        if any(setting != "on" for _, setting in found):
            raise LedgerRefused("synchronous_commit is not on: what the ledger acknowledges may be forgotten")
        made = {row_id for row_id, _ in found}
        for row_id in self._open & self._tried.keys():
            became, results = self._tried.pop(row_id)
            if row_id in made:
                self.known[row_id] = became
                self._settle(row_id, results)
            else:  # somebody else has moved it, or this batch when it was written before: a commit may take its time
                self.known.pop(row_id, None)

    def _settle(self, row_id: int, results: _Results) -> None:
        for (index, _), result in zip(self._moves[row_id], results, strict=True):
            self._results[index] = result
        self._open.discard(row_id)


def _made(before: Standing, moves: Sequence[Move]) -> tuple[_Results, list[Standing]]:
    """What each of the moves gives, one after another, and where the row stands after those that were open."""
    results: _Results = []
    steps: list[Standing] = []
    for move in moves:
        try:
            before = move(before)
        except IllegalMove as refusal:
            results.append(refusal)
        else:
            results.append(before)
            steps.append(before)
    return results, steps

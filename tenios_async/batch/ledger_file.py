"""The ledger as one SQLite file: plain synchronous access to it.

Write-ahead logging with `synchronous=FULL`: a commit that has returned survives a power cut
(https://www.sqlite.org/pragma.html#pragma_synchronous). One writer, by a lock on a file beside it; readers are welcome.
Every transaction counts the commits, and a second witness of that count stands beside the file: `beside.py` says why.
"""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tenios_async import CallbackStatus
from tenios_async.batch.beside import Beside, record_beside
from tenios_async.batch.checks import check_commits, check_header, check_tables, check_whole, damaged
from tenios_async.batch.errors import LedgerError, LedgerRefused, reading, refused_or_failed, sqlites_as_ours
from tenios_async.batch.figures import mask_numbers
from tenios_async.batch.making import appearing, sync_folder
from tenios_async.batch.opening import connect, connect_to_look
from tenios_async.batch.row import Resolution
from tenios_async.batch.standing import IllegalMove, Move, RowState, Standing, called, crash, not_called
from tenios_async.batch.tables import (
    APPLICATION_ID,
    INSERT,
    LOAD,
    ROW,
    SAVE,
    SCHEMA,
    VERSION,
    Damaged,
    row_of,
    standing_of,
    values_of_request,
    values_of_standing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from tenios_async import Callback
    from tenios_async.batch.row import NewRow, Row

    _Record = Callable[[bytes, int], None]


class LedgerFile:
    """An open ledger. Made by `create`, `write` and `read`; not for more than one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: Beside | None, record: _Record) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._record = record
        self._has_failed = False
        self.facts: dict[str, Any]
        """What was laid down when it was made, and counts of what was rejected."""
        try:
            (self._identity,) = connection.execute(
                "SELECT identity FROM mark WHERE typeof(identity) = 'blob'"
            ).fetchone()
            self.facts = _facts(connection)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def create(
        cls, path: Path | str, facts: Mapping[str, Any], fill: Callable[[LedgerFile], None] | None = None
    ) -> None:
        """Makes a ledger, readable by its owner only. It appears whole or not at all.

        Args:
            path: must not exist.
            facts: any values that JSON can hold.
            fill: writes its first rows.

        Raises `LedgerRefused` where the file exists, and `LedgerFailed`.
        """
        path = Path(path)
        with appearing(path) as part:
            with refused_or_failed(path):
                ledger = cls(part, _begun(part, facts), None, _record_nowhere)
            try:
                if fill is not None:
                    fill(ledger)
            finally:
                ledger.close()

    @classmethod
    def write(cls, path: Path | str, *, even_moved: bool = False) -> Self:
        """Opens it for the one writer there may be. Raises `LedgerRefused`, for one that is in use too.

        Args:
            path: the file.
            even_moved: also where it has moved to a database, for whoever moves it.
        """
        path = Path(path).resolve()
        check_header(path)
        with refused_or_failed(path):
            check_commits(path)  # before the file beside it is made, by whose absence a copy is known
            lock = Beside(path)
            try:
                check_commits(path)
                check_tables(path)
                check_whole(path)
                ledger = cls(path, _connect(path), lock, lock.record)
            except BaseException:
                lock.release()
                raise
            try:
                if not even_moved:
                    ledger._check_here()
                ledger._begin()
            except BaseException:
                ledger._has_failed = True
                ledger.close()
                raise
            return ledger

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Opens it to look, and to `resolve`, also while somebody writes. Raises `LedgerRefused`."""
        path = Path(path).resolve()
        check_header(path)
        with refused_or_failed(path):
            check_commits(path)
            check_tables(path)
            return cls(path, _connect(path), None, functools.partial(record_beside, path))

    def close(self) -> None:
        """Closes it and lets the next writer in. May be called twice."""
        lock, self._lock = self._lock, None
        try:
            if lock is not None and not self._has_failed:
                with contextlib.suppress(sqlite3.Error):  # then it is only not known that all of it is in one file
                    self._connection.execute("UPDATE mark SET is_open = 0")
            if self._has_failed:
                self._close_as_it_is()
            else:
                self._connection.close()
        finally:
            if lock is not None:
                lock.release()

    def _close_as_it_is(self) -> None:
        """After a failure: the last to close would move the log into the file, and sync again what could not be synced.

        One who looks meanwhile keeps it from that, and does not do so itself.
        """
        with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(connect_to_look(self.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT commits FROM mark").fetchone()
            self._connection.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """All of it or nothing, durable when it is left. Raises `LedgerFailed` where the disk does."""
        commits = None
        try:
            with sqlites_as_ours(self.path), _transaction(self._connection):
                before = self._connection.total_changes
                yield
                if self._connection.total_changes > before:
                    self._connection.execute("UPDATE mark SET commits = commits + 1")
                    (commits,) = self._connection.execute("SELECT commits FROM mark").fetchone()
            if commits is not None:
                with refused_or_failed(self.path):
                    self._record(self._identity, commits)
        except LedgerError:
            self._has_failed = True
            raise

    @property
    def changes(self) -> int:
        """How much was written since it was opened, whether it was committed or not."""
        return self._connection.total_changes

    @contextlib.contextmanager
    def snapshot(self) -> Generator[None]:
        """What is read within it is as of one moment."""
        with sqlites_as_ours(self.path):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    @property
    def identity(self) -> str:
        """What no other ledger has."""
        return bytes(self._identity).hex()

    @property
    def name(self) -> str:
        """What people call it."""
        return self.path.stem

    @property
    def where(self) -> str:
        """Where it is, as it may be shown."""
        return str(self.path)

    def put_facts(self, facts: Mapping[str, Any]) -> None:
        """Changes facts, within a transaction."""
        _put_facts(self._connection, facts)
        self.facts = {**self.facts, **facts}

    def put(self, new: NewRow) -> bool:
        """Writes a row, QUEUED, within a transaction; false where its key is there already."""
        values = (*values_of_request(new), *values_of_standing(Standing()))
        return self._connection.execute(INSERT, values).rowcount > 0

    def put_all(self, rows: Sequence[NewRow]) -> list[bool]:
        """The same for several."""
        return [self.put(row) for row in rows]

    def change(self, row_id: int, move: Move) -> Standing:
        """Makes a move, within a transaction. Raises `IllegalMove`, and then nothing has changed."""
        try:
            before = standing_of(self._connection.execute(LOAD, (row_id,)).fetchone())
        except Damaged:
            raise LedgerRefused(damaged(self.path, row_id)) from None
        after = move(before)
        if after == before:
            return after
        self._connection.execute(SAVE, (*values_of_standing(after), row_id))
        if after.status is not None and after.status != before.status and after.since is not None:
            lasted = None if before.since is None else (after.since - before.since).total_seconds()
            values = (row_id, after.status, after.since.timestamp(), before.status, lasted)
            self._connection.execute("INSERT INTO transitions VALUES (?, ?, ?, ?, ?)", values)
        return after

    def resolve(self, row: Row, at: datetime, *, who: str, was_called: bool, callback: Callback | None = None) -> None:
        """Writes down what a person says became of a row in doubt, within a transaction. Raises `IllegalMove`."""
        self._check_here()
        if callback is not None:
            self._check_id_is_new(callback)
        self.change(row.id, called(who, at, callback) if was_called else not_called(who, at))
        verdict = "called" if was_called else "not called"
        values = (row.id, row.standing.attempt, verdict, who, at.timestamp())
        self._connection.execute("INSERT INTO resolutions VALUES (?, ?, ?, ?, ?)", values)

    def resolutions(self) -> dict[int, Resolution]:
        """What was said last of each row, by its number."""
        with reading(self.path):
            found = self._connection.execute("SELECT call, verdict, who, max(at) FROM resolutions GROUP BY call")
            return {call: Resolution(verdict, who, datetime.fromtimestamp(at, UTC)) for call, verdict, who, at in found}

    def recover(self) -> int:
        """After a crash: whatever was being placed is in doubt. Gives how many, for the writer who has the lock."""
        with self.transaction():
            left = self._connection.execute("SELECT id FROM calls WHERE state = 'SENDING'").fetchall()
            for (row_id,) in left:
                self.change(row_id, crash())
        return len(left)

    def queued(self, limit: int, after: int = 0) -> list[Row]:
        """The next rows to dial, by their number."""
        return list(self._select("state = 'QUEUED' AND id > ? ORDER BY id LIMIT ?", (after, limit)))

    def last(self) -> int:
        """The number of its last row, 0 where there is none."""
        ((found,),) = self.query("SELECT coalesce(max(id), 0) FROM calls")
        return int(found)

    def rows(self, *states: RowState) -> Iterator[Row]:
        """All rows, or those in some states."""
        marks = ", ".join("?" * len(states))
        return self._select(f"state IN ({marks}) ORDER BY id" if states else "1 ORDER BY id", states)

    def extras(self) -> list[str]:
        """The names of all further columns that its contacts have."""
        names: dict[str, None] = {}
        with reading(self.path):
            for (text,) in self._connection.execute("SELECT DISTINCT extra FROM calls WHERE extra IS NOT NULL"):
                names.update(dict.fromkeys(json.loads(text)))
        return list(names)

    def by_key(self, key: str) -> Row | None:
        """The row of a key, or None."""
        return next(self._select("key = ?", (key,)), None)

    def counts(self) -> dict[RowState, int]:
        """How many rows are in each state."""
        with reading(self.path):
            found = self._connection.execute("SELECT state, count(*) FROM calls GROUP BY state")
            return dict.fromkeys(RowState, 0) | {RowState(state): count for state, count in found}

    def tally(self) -> dict[tuple[RowState, CallbackStatus | None], int]:
        """The same, by the last state of the call that was seen too."""
        with reading(self.path):
            found = self._connection.execute("SELECT state, status, count(*) FROM calls GROUP BY state, status")
            return {
                (RowState(state), None if status is None else CallbackStatus(status)): count
                for state, status, count in found
            }

    def query(self, sql: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Reads; for figures. `?` stands for a value."""
        with sqlites_as_ours(self.path):
            found = self._connection.execute(sql, tuple(values))  # values that it cannot take are no damage
        with reading(self.path):
            yield from found

    @staticmethod
    def whole(sql: str) -> str:
        """The whole part of a number of 0 or more, in SQL."""
        return f"CAST({sql} AS INTEGER)"

    def _check_here(self) -> None:
        """Raises `LedgerRefused` where it has moved: two ledgers that are run would call everybody twice."""
        if moved_to := self.facts.get("moved_to"):
            raise LedgerRefused(f"{self.path} has moved to {moved_to}, or is on its way there; use that one")

    def _check_id_is_new(self, callback: Callback) -> None:
        for row in self._select("callback_id IN (?, ?)", (callback.key, json.dumps(callback.key))):
            which = f"key {mask_numbers(row.key)}" if row.line is None else f"line {row.line}"
            raise IllegalMove(f"callback {callback.id} is that of {which}; was another id meant?")

    def _begin(self) -> None:
        """Says in the file itself that it is not all there is, so that a copy of it alone is known for what it is."""
        assert self._lock is not None  # noqa: S101  # only the writer begins
        (commits,) = self._connection.execute("SELECT commits FROM mark").fetchone()
        self._record(self._identity, commits)
        self._lock.sync()
        sync_folder(self.path.parent)
        with self.transaction():
            self._connection.execute("UPDATE mark SET is_open = 1")
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _select(self, where: str, given: Iterable[Any]) -> Iterator[Row]:
        for values in self.query(f"SELECT {ROW} FROM calls WHERE {where}", given):  # noqa: S608  # our own words
            try:
                yield row_of(values)
            except Damaged:
                raise LedgerRefused(damaged(self.path, values[0])) from None


def _connect(path: Path) -> sqlite3.Connection:
    connection = connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = 1")  # macOS: fsync alone leaves it in the disk's own cache
        connection.execute("PRAGMA checkpoint_fullfsync = 1")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _begun(path: Path, facts: Mapping[str, Any]) -> sqlite3.Connection:
    """An empty file as a ledger without rows."""
    connection = _connect(path)
    try:
        connection.executescript(SCHEMA)
        with _transaction(connection):
            connection.execute("INSERT INTO mark VALUES (?, 0, 0)", (secrets.token_bytes(8),))
            _put_facts(connection, facts)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _facts(connection: sqlite3.Connection) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM facts")}


def _put_facts(connection: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
    values = [(name, json.dumps(value)) for name, value in facts.items()]
    connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", values)


def _record_nowhere(_: bytes, __: int) -> None:
    """For a ledger that is being made: nobody else knows of it yet."""

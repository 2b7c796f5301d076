"""The ledger as one SQLite file: its format, its lock, and the plain synchronous access to it.

Write-ahead logging with `synchronous=FULL`: a commit that has returned survives a power cut
(https://www.sqlite.org/pragma.html#pragma_synchronous). One writer, by a lock on a file beside it; readers are welcome.

What is damaged is refused and not guessed at. Every transaction counts the commits, and a second witness of that count
stands beside the file: `beside.py` says why. SQLite checks the shape of its pages and not what is in them: so every row
has checksums of its own, of what is asked for and of where it stands.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import sqlite3
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tenios_async import CallbackRequest, CallbackStatus
from tenios_async.batch.beside import Beside, record_beside, witnessed
from tenios_async.batch.errors import LedgerFailed, LedgerRefused
from tenios_async.batch.row import NewRow, Row
from tenios_async.batch.standing import Move, RowState, Standing, called, crash, not_called

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from tenios_async import Callback

    _Record = Callable[[bytes, int], None]

VERSION: Final = 1
APPLICATION_ID: Final = 0x7E41_05CB
"""In the header of the file (https://www.sqlite.org/fileformat.html, 1.3): no other database is taken for one."""

_SCHEMA = """
CREATE TABLE mark (identity BLOB NOT NULL, commits INTEGER NOT NULL, is_open INTEGER NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    line INTEGER,
    callback_config_id TEXT NOT NULL,
    callback_number TEXT NOT NULL,
    delay INTEGER NOT NULL,
    agent_announcement TEXT,
    dtmf_key TEXT,
    extra TEXT,
    request_sum INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt TEXT,
    past TEXT,
    intended_at REAL,
    callback_id TEXT,
    placed_at REAL,
    status TEXT,
    since REAL,
    ended_at REAL,
    reason TEXT,
    stray_id TEXT,
    polls INTEGER NOT NULL DEFAULT 0,
    standing_sum INTEGER NOT NULL
);
CREATE INDEX queued ON calls (id) WHERE state = 'QUEUED';
CREATE INDEX unsettled ON calls (state, id) WHERE state IN ('SENDING', 'PLACED', 'UNKNOWN');
CREATE TABLE transitions (call INTEGER NOT NULL, status TEXT NOT NULL, at REAL NOT NULL, previous TEXT, lasted REAL);
CREATE TABLE resolutions (
    call INTEGER NOT NULL, attempt TEXT, verdict TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL
);
"""
_REQUEST = "key, line, extra, callback_config_id, callback_number, delay, agent_announcement, dtmf_key"
_STANDING = (
    "state, attempt, past, intended_at, callback_id, placed_at, status, since, ended_at, reason, stray_id, polls"
)
_ROW = f"id, {_REQUEST}, request_sum, {_STANDING}, standing_sum"
_INSERT = f"INSERT OR IGNORE INTO calls ({_ROW}) VALUES (NULL{', ?' * _ROW.count(',')})"  # noqa: S608
_LOAD = f"SELECT {_STANDING}, standing_sum FROM calls WHERE id = ?"  # noqa: S608
_SAVE = f"UPDATE calls SET {_STANDING.replace(',', ' = ?,')} = ?, standing_sum = ? WHERE id = ?"  # noqa: S608


class LedgerFile:
    """An open ledger. Made by `create`, `write` and `read`; not for more than one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: Beside | None, record: _Record) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._record = record
        (self._identity,) = connection.execute("SELECT identity FROM mark").fetchone()
        self._has_failed = False
        self.facts = _facts(connection)
        """What was laid down when it was made, and counts of what was rejected."""

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
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        with _refused_or_failed(path):
            if path.exists() or path.is_symlink():
                raise LedgerRefused(f"{path} exists already; it is not overwritten. `tenios batch add` adds to it")
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            try:
                connection = _connect(part)
                connection.executescript(_SCHEMA)
                with _transaction(connection):
                    connection.execute("INSERT INTO mark VALUES (?, 0, 0)", (secrets.token_bytes(8),))
                    _put_facts(connection, facts)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
                ledger = cls(part, connection, None, _record_nowhere)
                try:
                    if fill is not None:
                        fill(ledger)
                finally:
                    ledger.close()
                _link(part, path)
                _sync_folder(path.parent)
            except FileExistsError:
                raise LedgerRefused(f"{path} exists already; it is not overwritten") from None
            finally:
                for leftover in (part, *_siblings(part)):
                    leftover.unlink(missing_ok=True)

    @classmethod
    def write(cls, path: Path | str, *, even_moved: bool = False) -> Self:
        """Opens it for the one writer there may be. Raises `LedgerRefused`, for one that is in use too.

        Args:
            path: the file.
            even_moved: also where it has moved to a database, for whoever moves it.
        """
        path = Path(path).resolve()
        _check_header(path)
        with _refused_or_failed(path):
            _check_commits(path)  # before the file beside it is made, by whose absence a copy is known
            lock = Beside(path)
            try:
                _check_commits(path)
                _check_whole(path)
                ledger = cls(path, _connect(path), lock, lock.record)
            except BaseException:
                lock.release()
                raise
            try:
                if not even_moved:
                    ledger._check_here()
                ledger._begin()
            except BaseException:
                ledger.close()
                raise
            return ledger

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Opens it to look, and to `resolve`, also while somebody writes. Raises `LedgerRefused`."""
        path = Path(path).resolve()
        _check_header(path)
        with _refused_or_failed(path):
            _check_commits(path)
            return cls(path, _connect(path), None, functools.partial(record_beside, path))

    def close(self) -> None:
        """Closes it and lets the next writer in. May be called twice."""
        lock, self._lock = self._lock, None
        try:
            if lock is not None and not self._has_failed:
                with contextlib.suppress(sqlite3.Error):  # then it is only not known that all of it is in one file
                    self._connection.execute("UPDATE mark SET is_open = 0")
            self._connection.close()
        finally:
            if lock is not None:
                lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """All of it or nothing, durable when it is left. Raises `LedgerFailed` where the disk does."""
        with _refused_or_failed(self.path), self._noting_failure():
            commits = None
            before = self._connection.total_changes
            with _transaction(self._connection):
                yield
                if self._connection.total_changes > before:
                    self._connection.execute("UPDATE mark SET commits = commits + 1")
                    (commits,) = self._connection.execute("SELECT commits FROM mark").fetchone()
            if commits is not None:
                self._record(self._identity, commits)

    @contextlib.contextmanager
    def snapshot(self) -> Generator[None]:
        """What is read within it is as of one moment."""
        with _refused_or_failed(self.path):
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
        request, extra = new.request, json.dumps(new.extra) if new.extra else None
        about = (new.key, new.line, extra, request.callback_config_id, request.callback_number, request.delay)
        options = (request.agent_announcement, request.dtmf_key_to_trigger_customer_call)
        values = (*_summed(about + options), *_summed(_columns(Standing())))
        return self._connection.execute(_INSERT, values).rowcount > 0

    def put_all(self, rows: Sequence[NewRow]) -> list[bool]:
        """The same for several."""
        return [self.put(row) for row in rows]

    def change(self, row_id: int, move: Move) -> Standing:
        """Makes a move, within a transaction. Raises `IllegalMove`, and then nothing has changed."""
        before = self._standing(row_id, self._connection.execute(_LOAD, (row_id,)).fetchone())
        after = move(before)
        if after == before:
            return after
        self._connection.execute(_SAVE, (*_summed(_columns(after)), row_id))
        if after.status is not None and after.status != before.status and after.since is not None:
            lasted = None if before.since is None else (after.since - before.since).total_seconds()
            values = (row_id, after.status, after.since.timestamp(), before.status, lasted)
            self._connection.execute("INSERT INTO transitions VALUES (?, ?, ?, ?, ?)", values)
        return after

    def resolve(self, row: Row, at: datetime, *, who: str, was_called: bool, callback: Callback | None = None) -> None:
        """Writes down what a person says became of a row in doubt, within a transaction. Raises `IllegalMove`."""
        self._check_here()
        self.change(row.id, called(who, at, callback) if was_called else not_called(who, at))
        verdict = "called" if was_called else "not called"
        values = (row.id, row.standing.attempt, verdict, who, at.timestamp())
        self._connection.execute("INSERT INTO resolutions VALUES (?, ?, ?, ?, ?)", values)

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

    def rows(self, *states: RowState) -> Iterator[Row]:
        """All rows, or those in some states."""
        marks = ", ".join("?" * len(states))
        return self._select(f"state IN ({marks}) ORDER BY id" if states else "1 ORDER BY id", states)

    def extras(self) -> list[str]:
        """The names of all further columns that its contacts have."""
        found = self._connection.execute("SELECT DISTINCT extra FROM calls WHERE extra IS NOT NULL")
        names: dict[str, None] = {}
        for (text,) in found:
            names.update(dict.fromkeys(json.loads(text)))
        return list(names)

    def by_key(self, key: str) -> Row | None:
        """The row of a key, or None."""
        return next(self._select("key = ?", (key,)), None)

    def counts(self) -> dict[RowState, int]:
        """How many rows are in each state."""
        found = self._connection.execute("SELECT state, count(*) FROM calls GROUP BY state")
        return dict.fromkeys(RowState, 0) | {RowState(state): count for state, count in found}

    def tally(self) -> dict[tuple[RowState, CallbackStatus | None], int]:
        """The same, by the last state of the call that was seen too."""
        found = self._connection.execute("SELECT state, status, count(*) FROM calls GROUP BY state, status")
        return {
            (RowState(state), None if status is None else CallbackStatus(status)): count
            for state, status, count in found
        }

    def query(self, sql: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Reads; for figures. `?` stands for a value."""
        yield from self._connection.execute(sql, tuple(values))

    @staticmethod
    def whole(sql: str) -> str:
        """The whole part of a number of 0 or more, in SQL."""
        return f"CAST({sql} AS INTEGER)"

    @contextlib.contextmanager
    def _noting_failure(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.Error, OSError):
            self._has_failed = True
            raise

    def _check_here(self) -> None:
        """Raises `LedgerRefused` where it has moved: two ledgers that are run would call everybody twice."""
        if moved_to := self.facts.get("moved_to"):
            raise LedgerRefused(f"{self.path} has moved to {moved_to}, or is on its way there; use that one")

    def _begin(self) -> None:
        """Says in the file itself that it is not all there is, so that a copy of it alone is known for what it is."""
        assert self._lock is not None  # noqa: S101  # only the writer begins
        (commits,) = self._connection.execute("SELECT commits FROM mark").fetchone()
        self._record(self._identity, commits)
        self._lock.sync()
        _sync_folder(self.path.parent)
        with self.transaction():
            self._connection.execute("UPDATE mark SET is_open = 1")
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _select(self, where: str, values: Iterable[Any]) -> Iterator[Row]:
        for row_id, *columns in self._connection.execute(f"SELECT {_ROW} FROM calls WHERE {where}", tuple(values)):  # noqa: S608
            key, line, extra, config_id, number, delay, announcement, dtmf_key = self._checked(row_id, columns[:9])
            request = CallbackRequest(config_id, number, delay, announcement, dtmf_key)
            standing = self._standing(row_id, columns[9:])
            yield Row(row_id, key, request, standing, line, json.loads(extra) if extra else {})

    def _standing(self, row_id: int, columns: Sequence[Any]) -> Standing:
        return _standing(self._checked(row_id, columns))

    def _checked(self, row_id: int, columns: Sequence[Any]) -> Sequence[Any]:
        """The columns before their checksum. Raises `LedgerRefused` where they are not what was written."""
        values = columns[:-1]
        if _sum(values) != columns[-1]:
            raise LedgerRefused(
                f"{self.path} is damaged in row {row_id}, or another program changed it. Restore it, or ask before you "
                "dial again"
            )
        return values


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = 1")  # macOS: fsync alone leaves it in the disk's own cache
        connection.execute("PRAGMA checkpoint_fullfsync = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_header(path: Path) -> None:
    """Reads what the file says it is, without opening it as a database, which would touch it."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        raise LedgerRefused(f"there is no ledger {path}; `tenios batch create` makes one") from None
    except OSError as error:
        raise LedgerRefused(f"{path} cannot be read: {error.strerror}") from None
    if not header.startswith(b"SQLite format 3\0") or int.from_bytes(header[68:72]) != APPLICATION_ID:
        raise LedgerRefused(f"{path} is not a ledger of this library; it was not touched")
    if (version := int.from_bytes(header[60:64])) != VERSION:
        raise LedgerRefused(f"{path} is a ledger of version {version}, and this release writes {VERSION}")


def _check_whole(path: Path) -> None:
    """Without changing anything: damage is refused, not guessed at."""
    with _looking_at(path) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LedgerRefused(
            f"{path} is damaged ({verdict}); it was not touched. Restore it, or ask before you dial again"
        )


def _check_commits(path: Path) -> None:
    """Without changing anything: a ledger that has forgotten something would ring somebody twice."""
    name = path.name
    with _looking_at(path) as connection:
        (identity,) = connection.execute("SELECT identity FROM mark").fetchone()
        known = witnessed(path, identity)  # before what is compared with it, for somebody may be writing
        commits, is_open = connection.execute("SELECT commits, is_open FROM mark").fetchone()
    if known is None and is_open:
        raise LedgerRefused(
            f"{path} was in use when its program ended or when it was copied, and {name}.lock beside it is missing or "
            f"damaged: nobody can tell whether {name} is complete, and it was not touched. Copy {name}, {name}-wal and "
            f"{name}.lock together. If you know that none of them is missing or older, empty {name}.lock and go on"
        )
    if known is not None and commits < known:
        raise LedgerRefused(
            f"{path} lacks what was recorded last ({known - commits} of {known} commits): it or {name}-wal is damaged, "
            f"missing or older. It was not touched. Restore them: whoever was called since would be called again"
        )


@contextlib.contextmanager
def _looking_at(path: Path) -> Generator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        yield connection


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


@contextlib.contextmanager
def _refused_or_failed(path: Path) -> Generator[None]:
    """SQLite's and the system's errors as ours."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise LedgerFailed(f"{path} cannot be written or read: {error}. Nothing more was dialled") from None
    except sqlite3.DatabaseError as error:
        raise LedgerRefused(f"{path} is damaged ({error}); it was not touched") from None


def _link(part: Path, path: Path) -> None:
    """Gives it its name. Raises `FileExistsError` where somebody else took that meanwhile; a rename would not."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as FAT
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        part.replace(path)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # which has no such thing
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _siblings(path: Path) -> Iterator[Path]:
    for suffix in ("-wal", "-shm", "-journal"):
        yield path.with_name(path.name + suffix)


def _facts(connection: sqlite3.Connection) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM facts")}


def _put_facts(connection: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
    values = [(name, json.dumps(value)) for name, value in facts.items()]
    connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", values)


def _record_nowhere(_: bytes, __: int) -> None:
    """For a ledger that is being made: nobody else knows of it yet."""


def _summed(values: Sequence[Any]) -> tuple[Any, ...]:
    return (*values, _sum(values))


def _sum(values: Sequence[Any]) -> int:
    return zlib.crc32("\x1f".join(map(str, values)).encode())


def _columns(row: Standing) -> tuple[Any, ...]:
    return (
        row.state,
        row.attempt,
        " ".join(row.past) or None,
        _seconds(row.intended_at),
        _dumped(row.callback_id),
        _seconds(row.placed_at),
        row.status,
        _seconds(row.since),
        _seconds(row.ended_at),
        row.reason,
        _dumped(row.stray_id),
        row.polls,
    )


def _standing(columns: Any) -> Standing:
    state, attempt, past, intended, callback_id, placed, status, since, ended, reason, stray_id, polls = columns
    return Standing(
        RowState(state),
        attempt,
        tuple(past.split()) if past else (),
        _moment(intended),
        _loaded(callback_id),
        _moment(placed),
        None if status is None else CallbackStatus(status),
        _moment(since),
        _moment(ended),
        reason,
        _loaded(stray_id),
        polls,
    )


def _dumped(callback_id: int | str | None) -> str | None:
    """As JSON: 10 and "10" are not the same on the wire, and TENIOS sets no bound to the number."""
    return None if callback_id is None else json.dumps(callback_id)


def _loaded(text: str | None) -> int | str | None:
    found: int | str | None = None if text is None else json.loads(text)
    return found


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

"""A ledger in PostgreSQL as plain synchronous programs use it: `access.Access`, and how it is connected to and made.

What the database must promise is asked at every connection: that it keeps what it acknowledges, and that it is still
the one the ledger was made on. A database that was promoted from a standby, or restored to an earlier moment, goes on
in a new timeline (https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES), and may have
forgotten who was called.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from tenios_async.batch import controls, jobs
from tenios_async.batch.errors import LedgerFailed, LedgerRefused
from tenios_async.batch.figures import mask_numbers
from tenios_async.batch.postgres_tables import (
    CHANGE,
    INSERT,
    ROW,
    SCHEMA,
    SHARDS,
    VERSION,
    Changes,
    request_columns,
    row_of,
)
from tenios_async.batch.row import Resolution
from tenios_async.batch.standing import SEND_WITHIN, IllegalMove, RowState, called, exclude, not_called

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from tenios_async import Callback
    from tenios_async.batch.controls import Controls, Setting
    from tenios_async.batch.postgres_url import PostgresURL
    from tenios_async.batch.row import NewRow, Row

_DEFAULTS: Final = {
    "connect_timeout": "10",
    # A connection whose other end is gone is known to be dead after some 20 s, and not after two hours.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
    "application_name": "tenios",
}
STATE_OF_SERVER: Final = """
SELECT current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on', pg_is_in_recovery(),
    to_regclass('mark') IS NOT NULL AND to_regclass('calls') IS NOT NULL,
    CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END
"""
MARK: Final = "SELECT version, timeline FROM mark"


def connecting(url: PostgresURL, *, durably: bool = True) -> str:
    """What libpq connects by. Raises `ValueError`, which quotes nothing of the URL.

    Args:
        url: where to.
        durably: whether a commit that has returned must survive a crash of the server.
    """
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url.conninfo).items() if value is not None}
        commit = "on" if durably else "off"
        options = f"{given.get('options', '')} -c search_path={url.schema} -c synchronous_commit={commit}"
        return make_conninfo("", **{**_DEFAULTS, **given, "options": options.strip()})
    except psycopg.Error:
        raise ValueError(
            "this postgresql:// URL is none that libpq can read: user and password must be percent-encoded, and its "
            "options be known ones"
        ) from None


@contextlib.contextmanager
def refused_or_failed(where: object) -> Generator[None]:
    """PostgreSQL's errors as ours."""
    try:
        yield
    except psycopg.Error as error:
        raise failure(where, error) from None


def failure(where: object, error: Exception) -> LedgerFailed:
    """One of PostgreSQL's errors as ours. What the server quotes of a row (its detail) is left out."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = said or " ".join(str(error).split()) or type(error).__name__
    return LedgerFailed(f"{where} cannot be written or read: {text}. Nothing more was dialled")


@attrs.frozen
class Server:
    """What a connection leads to."""

    keeps: bool
    is_standby: bool
    has_ledger: bool
    timeline: str

    def check_writable(self, where: object) -> None:
        """Raises `LedgerRefused` where it is no place for a ledger."""
        if self.is_standby:
            raise LedgerRefused(f"{where} is a standby and cannot be written; name its primary in the URL")
        if not self.keeps:
            raise LedgerRefused(
                f"{where} may forget what it acknowledges (fsync or full_page_writes is off): whoever was called would "
                "be called again. It was not touched"
            )

    def check_ledger(self, where: object, mark: tuple[int, str], *, writing: bool) -> None:
        """Raises `LedgerRefused` where the ledger is another version's, or may have forgotten something."""
        version, timeline = mark
        if version != VERSION:
            raise LedgerRefused(f"{where} is a ledger of version {version}, and this release writes {VERSION}")
        if writing and timeline != self.timeline:
            raise LedgerRefused(
                f"{where} was promoted from a standby or restored since the ledger was made (timeline {self.timeline}, "
                f"not {timeline}): it may have forgotten who was called. Nothing was dialled. If you know that "
                "nothing is missing, as after a failover to a synchronous standby, say so: `tenios batch control "
                "LEDGER --accept-failover`"
            )

    def no_ledger(self, where: object) -> LedgerRefused:
        """That there is none."""
        return LedgerRefused(f"there is no ledger in {where}; `tenios batch create` makes one")


class PostgresSession:
    """An open ledger in PostgreSQL. Made by `create`, `write` and `read`; for one thread at a time."""

    def __init__(self, url: PostgresURL, connection: psycopg.Connection[tuple[Any, ...]], server: Server) -> None:
        self._url = url
        self.connection = connection
        self._server = server
        self.facts: Mapping[str, Any] = _facts(connection)

    @classmethod
    def create(
        cls,
        url: PostgresURL,
        facts: Mapping[str, Any],
        fill: Callable[[PostgresSession], None] | None = None,
        *,
        with_jobs: bool = False,
    ) -> None:
        """Makes a ledger. It appears whole or not at all. Arguments and errors as of `LedgerFile.create`.

        Args:
            url: where; its schema must hold no ledger.
            facts: any values that JSON can hold.
            fill: writes its first rows.
            with_jobs: whether workers will share its calls.
        """
        with _connected(url) as (connection, server), refused_or_failed(url):
            server.check_writable(url)
            if server.has_ledger:
                raise LedgerRefused(
                    f"{url} exists already; it is not overwritten. `tenios batch add` adds to it, and ?schema=NAME in "
                    "the URL names another"
                )
            try:
                with connection.transaction():
                    found = connection.execute(
                        "SELECT 1 FROM pg_namespace WHERE nspname = %s", (url.schema,)
                    ).fetchone()
                    if found is None:
                        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(url.schema)))
                    connection.execute(SCHEMA)
                    if with_jobs:
                        jobs.lay_down(connection)
                    connection.execute("INSERT INTO mark VALUES (%s, %s, %s)", (VERSION, SHARDS, server.timeline))
                    _put_facts(connection, facts)
                    session = cls(url, connection, server)
                    if fill is not None:
                        fill(session)
            except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation):
                raise LedgerRefused(f"{url}: there are such tables already; nothing was changed") from None

    @classmethod
    @contextlib.contextmanager
    def write(cls, url: PostgresURL) -> Generator[Self]:
        """Opens it to change it, also while it is worked. Raises `LedgerRefused` and `LedgerFailed`."""
        with cls.read(url) as session:
            session._check_writable()  # noqa: SLF001  # its own
            yield session

    @classmethod
    @contextlib.contextmanager
    def read(cls, url: PostgresURL) -> Generator[Self]:
        """Opens it to look, and to `resolve`. Raises `LedgerRefused` and `LedgerFailed`."""
        with _connected(url) as (connection, server), refused_or_failed(url):
            if not server.has_ledger:
                raise server.no_ledger(url)
            server.check_ledger(url, _mark(connection), writing=False)
            yield cls(url, connection, server)

    @property
    def name(self) -> str:
        """What people call it."""
        return self._url.name

    @property
    def where(self) -> str:
        """Where it is, without user and password."""
        return str(self._url)

    @property
    def has_jobs(self) -> bool:
        """Whether workers share its calls."""
        return bool(self._one("SELECT to_regclass('procrastinate_jobs') IS NOT NULL"))

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """All of it or nothing, durable when it is left. Raises `LedgerFailed`."""
        self._check_writable()
        with refused_or_failed(self._url), self.connection.transaction():
            yield
            if self._one("SELECT current_setting('synchronous_commit')") != "on":
                raise LedgerRefused(f"{self._url}: synchronous_commit is not on; nothing was changed")

    @contextlib.contextmanager
    def snapshot(self) -> Generator[None]:
        """What is read within it is as of one moment."""
        with refused_or_failed(self._url), self.connection.transaction():
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield

    def put_facts(self, facts: Mapping[str, Any]) -> None:
        """Changes facts, within a transaction."""
        _put_facts(self.connection, facts)
        self.facts = {**self.facts, **facts}

    def put_all(self, rows: Sequence[NewRow]) -> list[bool]:
        """Writes rows, QUEUED, and the jobs of calling them; false where its key is there already."""
        added = self.connection.execute(INSERT, request_columns(rows)).fetchall()
        if added and self.has_jobs:
            jobs.defer_placing(self.connection, [row_id for row_id, _ in added])
        new = {key for _, key in added}
        results: list[bool] = []
        for row in rows:  # of those that are twice in it, the first is new
            results.append(row.key in new)
            new.discard(row.key)
        return results

    def resolve(self, row: Row, at: datetime, *, who: str, was_called: bool, callback: Callback | None = None) -> None:
        """Writes down what a person says became of a row in doubt, within a transaction. Raises `IllegalMove`."""
        self.connection.execute("SET LOCAL idle_in_transaction_session_timeout = '10s'")
        found = self.connection.execute(
            f"SELECT {ROW}, changed_at < clock_timestamp() - make_interval(secs => %s), shard FROM calls "  # noqa: S608  # our own words
            "WHERE id = %s FOR UPDATE",
            (SEND_WITHIN, row.id),
        ).fetchone()
        assert found is not None  # noqa: S101  # rows stay
        *columns, is_old, shard = found
        now, changes = row_of(columns)
        after = (called(who, at, callback) if was_called else not_called(who, at))(now.standing)
        if not was_called and not is_old:  # by the clock of the database: those of the machines may differ
            raise IllegalMove(f"it may still be on its way; say so again in {SEND_WITHIN:.0f} s")
        if callback is not None:
            self._check_id_is_new(callback)
        change = Changes()
        change.add(row.id, (now.standing, changes), [after])
        self.connection.execute(CHANGE, change.columns())
        verdict = "called" if was_called else "not called"
        values = (row.id, now.standing.attempt, verdict, who, at.timestamp())
        self.connection.execute("INSERT INTO resolutions VALUES (%s, %s, %s, %s, %s)", values)
        if self.has_jobs and after.state is RowState.QUEUED:
            jobs.defer_placing(self.connection, [row.id])
        if self.has_jobs and after.state is RowState.PLACED:
            jobs.defer_watching(self.connection, [shard])

    def exclude(self, numbers: Sequence[str], reason: str, at: datetime) -> int:
        """Takes those of these numbers that are QUEUED off the list, within a transaction, and gives how many."""
        columns = f"SELECT {ROW} FROM calls WHERE key = ANY(%s) AND state = 'QUEUED' FOR UPDATE"  # noqa: S608  # our own words
        change = Changes()
        count = 0
        for found in self.connection.execute(columns, (list(numbers),)).fetchall():
            row, changes = row_of(found)
            change.add(row.id, (row.standing, changes), [exclude(reason, at)(row.standing)])
            count += 1
        if change:
            self.connection.execute(CHANGE, change.columns())
        return count

    def set(self, *settings: Setting) -> None:
        """Changes what holds for all workers."""
        with refused_or_failed(self._url), self.connection.transaction():
            for setting in settings:
                self.connection.execute(setting.statement.encode(), setting.values)

    def controls(self) -> Controls:
        """What holds for all workers at present."""
        (columns,) = self.query(controls.READ)
        return controls.controls_of(columns)

    @property
    def timeline(self) -> str:
        """That of the database: another after each promotion of a standby, and each restoration."""
        return self._server.timeline

    def queued(self, limit: int, after: int = 0) -> list[Row]:
        """The next rows to dial, by their number."""
        return list(self._select("state = 'QUEUED' AND id > ? ORDER BY id LIMIT ?", (after, limit)))

    def rows(self, *states: RowState) -> Iterator[Row]:
        """All rows, or those in some states."""
        return self._select("(? OR state = ANY(?)) ORDER BY id", (not states, [str(state) for state in states]))

    def last(self) -> int:
        """The number of its last row, 0 where there is none."""
        return int(self._one("SELECT coalesce(max(id), 0) FROM calls"))

    def resolutions(self) -> dict[int, Resolution]:
        """What was said last of each row, by its number."""
        found = self.query("SELECT DISTINCT ON (call) call, verdict, who, at FROM resolutions ORDER BY call, at DESC")
        return {call: Resolution(verdict, who, datetime.fromtimestamp(at, UTC)) for call, verdict, who, at in found}

    def extras(self) -> list[str]:
        """The names of all further columns that its contacts have."""
        names: dict[str, None] = {}
        for (text,) in self.query("SELECT DISTINCT extra FROM calls WHERE extra IS NOT NULL"):
            names.update(dict.fromkeys(json.loads(text)))
        return list(names)

    def counts(self) -> dict[RowState, int]:
        """How many rows are in each state."""
        found = self.query("SELECT state, count(*) FROM calls GROUP BY state")
        return dict.fromkeys(RowState, 0) | {RowState(state): count for state, count in found}

    def query(self, sql: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Reads, as it comes; for figures. `?` stands for a value."""
        with refused_or_failed(self._url), self.connection.cursor() as cursor:
            yield from cursor.stream(sql.replace("?", "%s").encode(), tuple(values), size=_in_pieces())

    @staticmethod
    def whole(sql: str) -> str:
        """The whole part of a number of 0 or more, in SQL."""
        return f"CAST(trunc({sql}) AS bigint)"

    def _check_id_is_new(self, callback: Callback) -> None:
        for row in self._select("callback_id = ANY(?)", ([callback.key, json.dumps(callback.key)],)):
            which = f"key {mask_numbers(row.key)}" if row.line is None else f"line {row.line}"
            raise IllegalMove(f"callback {callback.id} is that of {which}; was another id meant?")

    def _check_writable(self) -> None:
        self._server.check_writable(self._url)
        self._server.check_ledger(self._url, _mark(self.connection), writing=True)

    def _select(self, where: str, values: Iterable[Any]) -> Iterator[Row]:
        for columns in self.query(f"SELECT {ROW} FROM calls WHERE {where}", values):  # noqa: S608  # our own words
            yield row_of(columns)[0]

    def _one(self, sql: str) -> Any:
        ((value,),) = self.connection.execute(sql.encode()).fetchall()
        return value


def _in_pieces() -> int:
    """Rows that come at once where a result is streamed: older versions of libpq have them one by one."""
    return 500 if psycopg.capabilities.has_stream_chunked() else 1


@contextlib.contextmanager
def _connected(url: PostgresURL) -> Generator[tuple[psycopg.Connection[tuple[Any, ...]], Server]]:
    conninfo = connecting(url)
    with refused_or_failed(url):
        connection = psycopg.connect(conninfo, autocommit=True)
    with contextlib.closing(connection):
        with refused_or_failed(url):
            found = connection.execute(STATE_OF_SERVER).fetchone()
        assert found is not None  # noqa: S101  # one row
        yield connection, Server(*found)


def _mark(connection: psycopg.Connection[tuple[Any, ...]]) -> tuple[int, str]:
    found = connection.execute(MARK).fetchone()
    if found is None:
        raise LedgerRefused("the ledger has no mark; it is damaged")
    return found[0], found[1]


def _facts(connection: psycopg.Connection[tuple[Any, ...]]) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM facts")}


def _put_facts(connection: psycopg.Connection[tuple[Any, ...]], facts: Mapping[str, Any]) -> None:
    upsert = "INSERT INTO facts VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    with connection.cursor() as cursor:
        cursor.executemany(upsert, [(name, json.dumps(value)) for name, value in facts.items()])

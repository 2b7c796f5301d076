"""Campaigns in PostgreSQL: made, added to, and moved there from a file."""

from __future__ import annotations

import math
import zlib
from datetime import UTC, datetime
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tenios_async.batch import jobs
from tenios_async.batch.campaign import KIND, Taken, campaign_facts, facts_of, take
from tenios_async.batch.errors import LedgerError, LedgerRefused
from tenios_async.batch.files import check_replaceable
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.numbers import OPTED_OUT, Numbers, read_opt_outs
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_tables import SHARDS, columns_of, request_columns
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.batch.row import NewRow
from tenios_async.batch.standing import RowState
from tenios_async.batch.tables import REQUEST, STANDING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from tenios_async.batch.row import Row

AT_ONCE: Final = 1000
"""Rows that are moved in one piece."""
_BESIDE: Final = {
    "transitions": "call, status, at, previous, lasted",
    "resolutions": "call, attempt, verdict, who, at",
}


def create(
    url: PostgresURL | str,
    contacts: Path | str,
    *,
    callback_config_id: str,
    region: str | None = None,
    prefixes: Collection[str] = (),
    columns: Mapping[str, str] | None = None,
    opt_out: Path | str | None = None,
    rejects: Path | str | None = None,
    max_bad: float = math.inf,
) -> Taken:
    """Makes a campaign that workers share: every contact's row and job in one transaction.

    Its place is a URL, whose schema must hold no ledger yet; the other arguments, and errors, are those of
    `Campaign.create`. Raises `LedgerFailed` where the database cannot be reached.
    """
    numbers = Numbers(region, prefixes)
    if rejects is not None:
        check_replaceable(Path(rejects), contacts, opt_out)
    taken = Taken()

    def fill(session: PostgresSession) -> None:
        nonlocal taken
        taken, source = take(
            session,
            Path(contacts),
            numbers,
            columns=columns or {},
            opt_out=opt_out,
            rejects=rejects,
            max_bad=max_bad,
        )
        session.put_facts(source)

    PostgresSession.create(_parsed(url), facts_of(callback_config_id, region, prefixes), fill, with_jobs=True)
    return taken


def add(
    url: PostgresURL | str,
    contacts: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    opt_out: Path | str | None = None,
    rejects: Path | str | None = None,
    max_bad: float = math.inf,
) -> Taken:
    """Adds contacts, by the rules of the campaign, also while it is worked. Arguments and errors as of `create`."""
    if rejects is not None:
        check_replaceable(Path(rejects), contacts, opt_out)
    with PostgresSession.write(_parsed(url)) as session:
        facts = campaign_facts(session)
        numbers = Numbers(facts["region"], facts["prefixes"])
        with session.transaction():
            after = session.last()
            taken, source = take(
                session,
                Path(contacts),
                numbers,
                columns=columns or {},
                opt_out=opt_out,
                rejects=rejects,
                max_bad=max_bad,
            )
            session.put_facts({"added": [*facts.get("added", []), {"after": after, **source}]})
        return taken


def leave_out(session: PostgresSession, opt_out: Path) -> int:
    """Takes whoever is on an opt-out list off the campaign's, unless they were called already, and gives how many."""
    numbers = iter(read_opt_outs(opt_out, Numbers(session.facts["region"], session.facts["prefixes"])))
    count = 0
    with session.transaction():
        while some := list(islice(numbers, AT_ONCE)):
            count += session.exclude(some, OPTED_OUT, datetime.now(UTC))
    return count


def migrate(path: Path | str, url: PostgresURL | str) -> int:
    """Moves a ledger from a file into PostgreSQL, and gives how many rows it has. The file is not run any more.

    All of it, or nothing: rows as they stand, what was seen of each call, and what people said. What has arrived is
    read back and compared before it counts. Broken off, it is done again.

    Args:
        path: the ledger; nobody may be running it, and none of its calls be on its way.
        url: where to; its schema must hold no ledger yet.

    Raises `LedgerRefused`, `LedgerFailed` and `ValueError`.
    """
    target = _parsed(url)
    with LedgerFile.write(path, even_moved=True) as source:
        identity, moved_to = source.identity, source.facts.get("moved_to")
        if moved_to and _holds(target, identity):
            raise LedgerRefused(f"{path} has moved to {moved_to} already")
        if moved_to and moved_to != str(target):
            raise LedgerRefused(f"{path} was on its way to {moved_to}: name that, where it may have arrived")
        if on_their_way := source.counts()[RowState.SENDING]:
            raise LedgerRefused(
                f"{path} was left while {on_their_way} calls were being placed: `tenios batch run LEDGER --limit 0` "
                "finds out which are in doubt; then migrate"
            )
        _mark(source, str(target))  # first, and durably: two ledgers that may be run would call everybody twice
        # A program that was killed while it committed may have left a commit on its way, until the tables are ours.
        is_alone, is_filled = not moved_to, False

        def fill(session: PostgresSession) -> None:
            nonlocal is_alone, is_filled
            is_alone = True
            _copy(source, session)
            _compare(source, session)
            is_filled = True

        facts = {**source.facts, "moved_to": None, "moved_from": identity}
        try:
            PostgresSession.create(target, facts, fill, with_jobs=source.facts.get("kind") == KIND)
        except BaseException:
            if is_alone and not is_filled:  # else nobody knows whether it has arrived, and the mark stays
                _mark(source, None)
            raise
        return sum(source.counts().values())


def _mark(source: LedgerFile, moved_to: str | None) -> None:
    with source.transaction():
        source.put_facts({"moved_to": moved_to})


def _holds(url: PostgresURL, identity: str) -> bool:
    try:
        with PostgresSession.read(url) as session:
            return session.facts.get("moved_from") == identity
    except LedgerRefused:
        return False


def _copy(source: LedgerFile, session: PostgresSession) -> None:
    connection = session.connection
    with connection.cursor() as cursor:
        statement = f"COPY calls (id, {REQUEST}, shard, {STANDING}) FROM STDIN"
        with cursor.copy(statement.encode()) as copy:
            for row in source.rows():
                copy.write_row(_values(row))
        for name, columns in _BESIDE.items():
            with cursor.copy(f"COPY {name} ({columns}) FROM STDIN".encode()) as copy:
                for values in source.query(f"SELECT {columns} FROM {name}"):  # noqa: S608  # our own words
                    copy.write_row(values)
    connection.execute("SELECT setval(pg_get_serial_sequence('calls', 'id'), max(id)) FROM calls HAVING max(id) > 0")
    if session.has_jobs:
        queued = (row.id for row in source.rows(RowState.QUEUED))
        while some := list(islice(queued, AT_ONCE)):
            jobs.defer_placing(connection, some)
        jobs.defer_watching(connection, range(SHARDS))


def _values(row: Row) -> tuple[Any, ...]:
    *request, hashed = (column[0] for column in request_columns([NewRow(row.key, row.request, row.line, row.extra)]))
    return (row.id, *request, hashed % SHARDS, *columns_of(row.standing))


def _compare(source: LedgerFile, session: PostgresSession) -> None:
    """Raises `LedgerError` where what has arrived is not what was sent."""
    for sent, arrived in zip_longest(source.rows(), session.rows()):
        if sent != arrived:
            row = sent or arrived
            assert row is not None  # noqa: S101  # one of them is longer
            raise LedgerError(f"row {row.id} did not arrive as it was; nothing was moved")
    for name, columns in _BESIDE.items():
        query = f"SELECT {columns} FROM {name}"  # noqa: S608  # our own words
        if _digest(source.query(query)) != _digest(session.query(query)):
            raise LedgerError(f"the {name} did not arrive as they were; nothing was moved")


def _digest(rows: Iterable[tuple[Any, ...]] | Iterator[tuple[Any, ...]]) -> tuple[int, int]:
    """How many, and a sum over them that does not depend on their order."""
    count = total = 0
    for values in rows:
        count += 1
        total += zlib.crc32(repr(tuple(values)).encode())
    return count, total


def _parsed(url: PostgresURL | str) -> PostgresURL:
    return PostgresURL.parse(url) if isinstance(url, str) else url

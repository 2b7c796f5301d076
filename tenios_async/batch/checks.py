"""Whether a file is a ledger, whole, and all there is; found out without touching it.

What is damaged is refused and not guessed at.
"""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tenios_async.batch.beside import witnessed
from tenios_async.batch.errors import LedgerRefused
from tenios_async.batch.opening import connect_to_look, header
from tenios_async.batch.tables import APPLICATION_ID, DAMAGED, SCHEMA, VERSION, checksum

if TYPE_CHECKING:
    from pathlib import Path

_COUNTS = """
SELECT (SELECT count(*) FROM calls NOT INDEXED), (SELECT count(*) FROM calls INDEXED BY sqlite_autoindex_calls_1)
"""
"""At one moment, for somebody may be writing."""


def is_ledger(path: Path) -> bool:
    """Whether it says that it is one, of whatever version."""
    try:
        return path.is_file() and _says_so(header(path))  # whoever reads a pipe waits
    except OSError:
        return False


def check_header(path: Path) -> None:
    """Reads what the file says it is, without opening it as a database, which would touch it."""
    try:
        says = header(path)
    except FileNotFoundError:
        made = "`tenios batch create` makes one of a list, `SQLiteLedger.create` one for place_once"
        raise LedgerRefused(f"there is no ledger {path}; {made}") from None
    except OSError as error:
        raise LedgerRefused(f"{path} cannot be read: {error.strerror}") from None
    if not _says_so(says):
        raise LedgerRefused(f"{path} is not a ledger of this library; it was not touched")
    if (version := int.from_bytes(says[60:64])) != VERSION:
        raise LedgerRefused(f"{path} is a ledger of version {version}, and this release writes {VERSION}")


def _says_so(header: bytes) -> bool:
    return header.startswith(b"SQLite format 3\0") and int.from_bytes(header[68:72]) == APPLICATION_ID


def check_tables(path: Path) -> None:
    """Raises `LedgerRefused` where what it says of its tables is damaged, or rows are missing. For who only looks too.

    The words of the schema are in the file, and SQLite believes them; 100,000 rows take 10 ms.
    """
    with closing(connect_to_look(path)) as connection:
        if not _schema() <= set(connection.execute("SELECT name, sql FROM sqlite_schema")):
            raise LedgerRefused(f"{path} is damaged (its tables are not those of a ledger); it was not touched")
        rows, keys = connection.execute(_COUNTS).fetchone()
    if rows != keys:
        raise LedgerRefused(f"{path} is damaged ({rows} rows, and {keys} keys); it was not touched")


@functools.cache
def _schema() -> frozenset[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return frozenset(connection.execute("SELECT name, sql FROM sqlite_schema"))


def check_whole(path: Path) -> None:
    """Raises `LedgerRefused` for damage. Reads all of it: 100,000 rows take half a second."""
    with closing(connect_to_look(path)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise LedgerRefused(
                f"{path} is damaged ({verdict}); it was not touched. Restore it, or ask before you dial again"
            )
        connection.create_function("checksum", -1, checksum, deterministic=True)
        row = connection.execute(DAMAGED).fetchone()
    if row is not None:
        raise LedgerRefused(damaged(path, *row))


def damaged(path: Path, row_id: int) -> str:
    """What to say of a row that is not what was written."""
    return f"{path} is damaged in row {row_id}, or another program changed it. Restore it, or ask before you dial again"


def check_commits(path: Path) -> None:
    """Raises `LedgerRefused` for a ledger that has forgotten something: it would ring somebody twice."""
    name = path.name
    with closing(connect_to_look(path)) as connection:
        (identity,) = connection.execute("SELECT identity FROM mark").fetchone()
        known = witnessed(path, identity)  # before what is compared with it, for somebody may be writing
        commits, is_open = connection.execute("SELECT commits, is_open FROM mark").fetchone()
    if known is None and is_open:
        raise LedgerRefused(
            f"{path} was in use when its program ended or when it was copied, and {name}.lock beside it is missing or "
            f"damaged: nobody can tell whether {name} is complete, and it was not touched. Copy {name}, {name}-wal and "
            f"{name}.lock together. If you know that none of them is missing or older, make {name}.lock an empty file "
            "and go on"
        )
    if known is not None and commits < known:
        raise LedgerRefused(
            f"{path} lacks what was recorded last ({known - commits} of {known} commits): it or {name}-wal is damaged, "
            f"missing or older. It was not touched. Restore them: whoever was called since would be called again"
        )

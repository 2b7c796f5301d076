"""Opens files as databases, and reads what a file says it is, of which neither may disturb the other.

On POSIX a process that closes a file loses all its locks on it, also those of SQLite, which has it open by another
descriptor (https://www.sqlite.org/howtocorrupt.html, 2.2). The next program to close the ledger would then take itself
for the last, and remove the log into which this one goes on writing. So what SQLite has open here is not opened again.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from pathlib import Path

_LENGTH = 100
"""Bytes of the header (https://www.sqlite.org/fileformat2.html#the_database_header)."""


@attrs.define
class _Open:
    """A file that SQLite has open, by how many connections, and what it said it was before."""

    header: bytes
    connections: int = 0


_open: dict[tuple[int, int], _Open] = {}
"""By device and inode, for a file may have several names."""
_turn = threading.RLock()


class Connection(sqlite3.Connection):
    """That of a file which is counted."""

    file: tuple[int, int] | None = None

    def close(self) -> None:
        """As that of SQLite. May be called twice."""
        super().close()
        file, self.file = self.file, None
        if file is not None:
            _closed(file)


def connect(path: Path, **options: Any) -> sqlite3.Connection:
    """As `sqlite3.connect`; the file must be there. Raises `OSError` too. Whoever has it closes it."""
    return _connect(path, path, **options)


def connect_to_look(path: Path) -> sqlite3.Connection:
    """The same for a reader who writes nothing into the file or its log, also when it is closed."""
    return _connect(path, f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)


def header(path: Path) -> bytes:
    """The first 100 bytes of a file, fewer if there are no more. Raises `OSError`."""
    with _turn:
        known = _open.get(_identity(path))
        return _read(path) if known is None else known.header


def _connect(path: Path, database: Path | str, **options: Any) -> sqlite3.Connection:
    with _turn:
        file = _identity(path)
        if file not in _open:
            _open[file] = _Open(_read(path))
        _open[file].connections += 1
    try:
        connection = sqlite3.connect(database, factory=Connection, **options)
    except BaseException:
        _closed(file)
        raise
    connection.file = file
    return connection


def _closed(file: tuple[int, int]) -> None:
    with _turn:
        _open[file].connections -= 1
        if not _open[file].connections:
            del _open[file]


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LENGTH)

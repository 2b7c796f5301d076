"""What can go wrong with a ledger, as one tree; and SQLite's errors, and the system's, as those."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tenios_async.batch.row import Row


class LedgerError(Exception):
    """The base of what a ledger raises. Nothing is dialled that it could not write down."""


class LedgerRefused(LedgerError):
    """This file is not opened: missing, there already, another version, damaged, or in use. It was not touched."""


class LedgerInUse(LedgerRefused):
    """Another program is writing to this file."""


class LedgerFailed(LedgerError):
    """The disk is full or fails. Nothing more is written or dialled; open the ledger again when it is mended.

    Attributes:
        rows: calls that were placed and could not be written down, with their callbacks: they will be in doubt.
    """

    def __init__(self, message: str, *rows: Row) -> None:
        super().__init__(message)
        self.rows = rows


@contextlib.contextmanager
def sqlites_as_ours(path: Path) -> Generator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LedgerFailed(_failed(path, error)) from None
    except sqlite3.DatabaseError as error:
        raise LedgerRefused(f"{path} is damaged ({error}); it was not touched") from None


@contextlib.contextmanager
def reading(path: Path) -> Generator[None]:
    """And as damage what is not as it was written: no text, no JSON, nothing; SQLite's words quote such text too."""
    try:
        with sqlites_as_ours(path):
            yield
    except (TypeError, ValueError):
        raise LedgerRefused(f"{path} is damaged: it does not hold what was written; it was not touched") from None


@contextlib.contextmanager
def refused_or_failed(path: Path) -> Generator[None]:
    """And the system's, where they are about the ledger and not about what is being read or written beside it."""
    try:
        with reading(path):
            yield
    except OSError as error:
        raise LedgerFailed(_failed(path, error)) from None


def _failed(path: Path, error: Exception) -> str:
    return f"{path} cannot be written or read: {error}. Nothing more was dialled"

"""What can go wrong with a ledger, as one tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

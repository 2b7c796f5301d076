"""Campaigns and ledgers: a call is placed at most once, across crashes."""

from tenios_async.batch.campaign import Campaign, Taken, TooManyRejects
from tenios_async.batch.errors import LedgerError, LedgerFailed, LedgerInUse, LedgerRefused
from tenios_async.batch.hours import Hours
from tenios_async.batch.ledger import Ledger
from tenios_async.batch.placing import NotSent
from tenios_async.batch.progress import Progress
from tenios_async.batch.row import NewRow, Row
from tenios_async.batch.sqlite import SQLiteLedger
from tenios_async.batch.standing import IllegalMove, RowState, Standing

__all__ = [
    "Campaign",
    "Hours",
    "IllegalMove",
    "Ledger",
    "LedgerError",
    "LedgerFailed",
    "LedgerInUse",
    "LedgerRefused",
    "NewRow",
    "NotSent",
    "Progress",
    "Row",
    "RowState",
    "SQLiteLedger",
    "Standing",
    "Taken",
    "TooManyRejects",
]

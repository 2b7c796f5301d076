"""What stands in the tables of a ledger's file: their columns, and a row as values with checksums. Pure.

SQLite checks the shape of its pages and not what is in them. Hence every row has checksums of its own, of what is asked
for and of where it stands.
"""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tenios_async import CallbackRequest, CallbackStatus
from tenios_async.batch.row import Row
from tenios_async.batch.standing import RowState, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenios_async.batch.row import NewRow

VERSION: Final = 1
APPLICATION_ID: Final = 0x7E41_05CB
"""In the header of the file (https://www.sqlite.org/fileformat.html, 1.3): no other database is taken for one."""

SCHEMA: Final = """
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
REQUEST: Final = "key, line, extra, callback_config_id, callback_number, delay, agent_announcement, dtmf_key"
STANDING: Final = (
    "state, attempt, past, intended_at, callback_id, placed_at, status, since, ended_at, reason, stray_id, polls"
)
ROW: Final = f"id, {REQUEST}, request_sum, {STANDING}, standing_sum"
INSERT: Final = f"INSERT OR IGNORE INTO calls ({ROW}) VALUES (NULL{', ?' * ROW.count(',')})"  # noqa: S608  # names of columns, of this file
LOAD: Final = f"SELECT {STANDING}, standing_sum FROM calls WHERE id = ?"  # noqa: S608  # names of columns, of this file
SAVE: Final = f"UPDATE calls SET {STANDING.replace(',', ' = ?,')} = ?, standing_sum = ? WHERE id = ?"  # noqa: S608  # names of columns, of this file
DAMAGED: Final = (
    f"SELECT id FROM calls WHERE checksum({REQUEST}) != request_sum OR checksum({STANDING}) != standing_sum"  # noqa: S608  # names of columns, of this file
)
"""Where the function is known to SQLite: the rows that are not what was written."""


class Damaged(Exception):
    """These values are not what was written."""


def checksum(*values: Any) -> int:
    """Of columns as SQLite gives them back."""
    return zlib.crc32("\x1f".join(map(str, values)).encode())


def values_of_request(new: NewRow) -> tuple[Any, ...]:
    """What is asked for, and its checksum."""
    request, extra = new.request, json.dumps(new.extra) if new.extra else None
    about = (new.key, new.line, extra, request.callback_config_id, request.callback_number, request.delay)
    return _summed(*about, request.agent_announcement, request.dtmf_key_to_trigger_customer_call)


def values_of_standing(row: Standing) -> tuple[Any, ...]:
    """Where it stands, and its checksum."""
    return _summed(
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


def row_of(values: Sequence[Any]) -> Row:
    """The row of values in the order of `ROW`. Raises `Damaged`."""
    end = 1 + len(REQUEST.split(",")) + 1
    key, line, extra, config_id, number, delay, announcement, dtmf_key = _intact(values[1:end])
    request = CallbackRequest(config_id, number, delay, announcement, dtmf_key)
    standing = standing_of(values[end:])
    return Row(values[0], key, request, standing, line, json.loads(extra) if extra else {})


def standing_of(values: Sequence[Any]) -> Standing:
    """Where a row stands, of values in the order of `LOAD`. Raises `Damaged`."""
    (
        state, attempt, past, intended, callback_id, placed, status, since, ended, reason, stray_id, polls,
    ) = _intact(values)  # fmt: skip
    return Standing(
        RowState(state),
        attempt,
        tuple(past.split()) if past else (),
        moment(intended),
        _loaded(callback_id),
        moment(placed),
        None if status is None else CallbackStatus(status),
        moment(since),
        moment(ended),
        reason,
        _loaded(stray_id),
        polls,
    )


def moment(seconds: float | None) -> datetime | None:
    """A time as it stands in the file."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _summed(*values: Any) -> tuple[Any, ...]:
    return (*values, checksum(*values))


def _intact(values: Sequence[Any]) -> Sequence[Any]:
    *columns, its_sum = values
    if checksum(*columns) != its_sum:
        raise Damaged
    return columns


def _dumped(callback_id: int | str | None) -> str | None:
    """As JSON: 10 and "10" are not the same on the wire, and TENIOS sets no bound to the number."""
    return None if callback_id is None else json.dumps(callback_id)


def _loaded(text: str | None) -> int | str | None:
    found: int | str | None = None if text is None else json.loads(text)
    return found


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()

"""Every contact and what became of it, as a file for other programs."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from tenios_async.batch.cells import line_of
from tenios_async.batch.contacts import OURS, is_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from tenios_async.batch.row import Resolution, Row

_REQUEST = (
    "callback_number",
    "callback_config_id",
    "delay",
    "agent_announcement",
    "dtmf_key_to_trigger_customer_call",
)
_RESULT = ("line", "state", "status", "callback_id", "intended_at", "placed_at", "ended_at", "reason", "polls")
_RESOLUTION = ("verdict", "verdict_by", "verdict_at")
_ALL_RESULTS = tuple(OURS + name for name in (*_RESULT, *_RESOLUTION))


def write_rows(
    path: Path,
    file: IO[str],
    rows: Iterable[Row],
    extras: Iterable[str],
    resolutions: Mapping[int, Resolution] | None = None,
) -> int:
    """Writes them and says how many there were. The result can be read again as a contacts file.

    Args:
        path: its name says whether it is CSV or JSON lines.
        file: open, without translation of line ends.
        rows: in order.
        extras: the names of all further columns.
        resolutions: what people have said, by the number of the row.
    """
    count = 0
    extras = list(extras)
    if not is_json(path):
        file.write(line_of([*_REQUEST, *extras, *_ALL_RESULTS]))
    for row in rows:
        count += 1
        fields = {**_request(row), **row.extra, **_result(row, (resolutions or {}).get(row.id))}
        if is_json(path):
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
        else:
            file.write(line_of(_text(fields.get(name)) for name in (*_REQUEST, *extras, *_ALL_RESULTS)))
    return count


def _request(row: Row) -> dict[str, Any]:
    return {name: getattr(row.request, name) for name in _REQUEST}


def _result(row: Row, resolution: Resolution | None) -> dict[str, Any]:
    standing = row.standing
    values = (
        row.line,
        str(standing.state),
        None if standing.status is None else str(standing.status),
        standing.callback_id,
        _moment(standing.intended_at),
        _moment(standing.placed_at),
        _moment(standing.ended_at),
        standing.reason,
        standing.polls,
        *((None,) * 3 if resolution is None else (resolution.verdict, resolution.who, _moment(resolution.at))),
    )
    return dict(zip(_ALL_RESULTS, values, strict=True))


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""The figures of a campaign, read from its ledger at one moment, also while it runs."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tenios_async.batch.campaign import list_names, list_of
from tenios_async.batch.figures import Doubt, Figures, Funnel, Histogram, Rows, TimeAxis, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenios_async.batch.access import Access

DOUBTS = 200
"""Calls in doubt that are named one by one."""

_SETTLED = (
    "FROM calls WHERE state IN ('FINISHED', 'REFUSED', 'UNKNOWN') AND coalesce(ended_at, intended_at) IS NOT NULL"
)


def read_figures(ledger: Access, now: datetime) -> Figures:
    """All of them, as of one moment.

    Args:
        ledger: of a campaign.
        now: the present (aware), in the time zone that the report is written in.
    """
    facts = ledger.facts
    with ledger.snapshot():
        groups = list(_query(ledger, "SELECT state, status, count(*) FROM calls GROUP BY state, status"))
        ((first, polls),) = _query(ledger, "SELECT min(placed_at), sum(polls) FROM calls")
        refusals = dict(_query(ledger, "SELECT reason, count(*) FROM calls WHERE state = 'REFUSED' GROUP BY reason"))
        return Figures(
            name=ledger.name,
            ledger=ledger.where,
            source=" and ".join(list_names(facts)),
            callback_config_id=facts.get("callback_config_id"),
            created_at=datetime.fromisoformat(facts["created_at"]),
            first_placed_at=_moment(first),
            generated_at=now,
            rows=Rows.of(groups),
            rejected=facts.get("rejected", 0),
            funnel=Funnel.of(groups),
            time_in_state=_times(ledger),
            timeline=_timeline(ledger, now),
            refusals={reason or "no reason given": count for reason, count in refusals.items()},
            doubts=tuple(_doubts(ledger)),
            polls=polls or 0,
        )


def _times(ledger: Access) -> dict[str, Histogram]:
    durations: defaultdict[str, list[float]] = defaultdict(list)
    histograms: dict[str, Histogram] = {}
    found = _query(ledger, "SELECT previous, lasted FROM transitions WHERE lasted >= 0 ORDER BY previous")
    for status, lasted in found:
        durations[status].append(lasted)
        if len(durations) > 1:  # they come one state after another
            done = next(iter(durations))
            histograms[done] = Histogram.of(durations.pop(done))
    return histograms | {status: Histogram.of(lasted) for status, lasted in durations.items()}


def _timeline(ledger: Access, now: datetime) -> Timeline | None:
    moments = f"SELECT min(coalesce(ended_at, intended_at)), max(coalesce(ended_at, intended_at)) {_SETTLED}"
    ((first, last),) = _query(ledger, moments)
    if first is None:
        return None
    axis = TimeAxis.over(datetime.fromtimestamp(first, now.tzinfo), datetime.fromtimestamp(last, now.tzinfo))
    bucket = ledger.whole("(coalesce(ended_at, intended_at) - ?) / ?")
    sql = f"SELECT {bucket}, state, status, count(*) {_SETTLED} GROUP BY 1, 2, 3"
    groups = _query(ledger, sql, axis.start.timestamp(), axis.width)
    return Timeline.of(axis, ((min(number, axis.count - 1), *rest) for number, *rest in groups))


def _doubts(ledger: Access) -> Iterator[Doubt]:
    columns = "id, line, callback_number, intended_at, reason"
    found = _query(ledger, f"SELECT {columns} FROM calls WHERE state = 'UNKNOWN' ORDER BY id LIMIT {DOUBTS}")  # noqa: S608  # our own words
    for row, line, number, at, reason in found:
        source = list_of(ledger.facts, row) if ledger.facts.get("added") else ""
        yield Doubt(line, number, _moment(at), reason or "", source)


def _query(ledger: Access, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    return ledger.query(sql, values)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The face of `tenios_async.batch`, as type checkers see it. Checked by `make check`, never run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

from tenios_async import Callback, CallbackRequest, CallbackStatus, Polling, TeniosClient, TeniosError, Transition
from tenios_async.batch import (
    Campaign,
    Hours,
    IllegalMove,
    Ledger,
    LedgerError,
    LedgerFailed,
    LedgerInUse,
    LedgerRefused,
    NewRow,
    NotSent,
    Progress,
    Row,
    RowState,
    SQLiteLedger,
    Standing,
    Taken,
    TooManyRejects,
)


def making() -> None:
    taken = Campaign.create(
        "campaign.db",
        Path("contacts.csv"),
        callback_config_id="config",
        region="DE",
        prefixes=["+49"],
        columns={"callback_number": "Telefon"},
        opt_out="opt-out.txt",
        rejects=Path("rejects.csv"),
        max_bad=10,
    )
    assert_type(taken, Taken)
    assert_type(Campaign.add("campaign.db", "more.csv", columns=None, opt_out=None, rejects=None, max_bad=0), Taken)
    assert_type([taken.taken, taken.repeated, taken.opted_out, taken.bad, taken.rejected], list[int])
    Campaign.create("campaign.db", "contacts.csv")  # type: ignore[call-arg]


async def running(client: TeniosClient, hours: Hours) -> None:
    async def awaited(row: Row, transition: Transition) -> None: ...

    def called(row: Row, transition: Transition) -> None: ...

    async with Campaign("campaign.db") as campaign:
        assert_type(campaign, Campaign)
        progress = await campaign.run(
            client,
            concurrency=100,
            rate=5,
            limit=1000,
            hours=hours,
            stop_file="stop",
            max_unknown=0.05,
            opt_out=Path("opt-out.txt"),
            polling=Polling(),
            hook=awaited,
        )
        assert_type(progress, Progress)
        await campaign.run(client, hook=called)
        assert_type(campaign.progress, Progress)
        assert_type(campaign.ledger, SQLiteLedger)
        campaign.stop("enough")
    assert_type([progress.queued, progress.placing, progress.refused, progress.unknown], list[int])
    assert_type([progress.placed_now, progress.polls, progress.total], list[int])
    assert_type(progress.following, Counter[CallbackStatus | None])
    assert_type(progress.finished, Counter[CallbackStatus | None])
    assert_type(progress.seconds, float)
    assert_type(progress.seconds_left, float | None)
    assert_type(progress.waiting_for, str | None)
    assert_type(progress.stopped, str | None)
    assert_type(progress.cause, TeniosError | None)


def when(now: datetime) -> None:
    hours = Hours.parse("Mon-Fri 9-18", tz="Europe/Berlin")
    assert_type(hours, Hours)
    assert_type(hours.is_open(now), bool)
    assert_type(hours.opens_at(now), datetime)


async def once(client: TeniosClient, request: CallbackRequest) -> None:
    SQLiteLedger.create("calls.db")
    async with SQLiteLedger(Path("calls.db")) as ledger:
        assert_type(ledger, SQLiteLedger)
        base: Ledger = ledger
        assert_type(await base.place_once(client, request, key="order 4711", timeout=30), Callback)
        assert_type(await base.put(NewRow("order 4711", request)), Row)
        assert_type(await base.by_key("order 4711"), Row | None)
        assert_type(await base.queued(10, after=0), list[Row])
        assert_type(await base.followed(), list[Row])
        assert_type(await base.counts(), dict[RowState, int])
        assert_type(await base.tally(), dict[tuple[RowState, CallbackStatus | None], int])
        assert_type(await base.change_all([]), list[Standing | IllegalMove])
        await base.place_once(client, request)  # type: ignore[call-arg]
        await base.aclose()


def rows(row: Row) -> None:
    assert_type(row.id, int)
    assert_type(row.key, str)
    assert_type(row.request, CallbackRequest)
    assert_type(row.standing, Standing)
    assert_type(row.line, int | None)
    assert_type(row.extra, Mapping[str, Any])
    assert_type(row.callback, Callback | None)
    standing = row.standing
    assert_type(standing.state, RowState)
    assert_type(standing.attempt, str | None)
    assert_type(standing.past, tuple[str, ...])
    assert_type(standing.intended_at, datetime | None)
    assert_type(standing.callback_id, int | str | None)
    assert_type(standing.placed_at, datetime | None)
    assert_type(standing.status, CallbackStatus | None)
    assert_type(standing.since, datetime | None)
    assert_type(standing.ended_at, datetime | None)
    assert_type(standing.reason, str | None)
    assert_type(standing.stray_id, int | str | None)
    assert_type(standing.polls, int)


known: list[RowState] = [
    RowState.QUEUED,
    RowState.SENDING,
    RowState.PLACED,
    RowState.REFUSED,
    RowState.UNKNOWN,
    RowState.FINISHED,
]
ledger_errors: list[type[LedgerError]] = [LedgerRefused, LedgerInUse, LedgerFailed]
errors: list[type[Exception]] = [IllegalMove, NotSent]
bad_lists: type[ValueError] = TooManyRejects


def lost(error: LedgerFailed) -> None:
    assert_type(error.rows, tuple[Row, ...])

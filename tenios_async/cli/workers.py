"""What `tenios batch ...` does with a campaign in PostgreSQL, which several machines work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tenios_async.batch import LedgerError, LedgerFailed, controls
from tenios_async.batch.files import check_writable
from tenios_async.cli.campaigns import (
    parse_hours,
    report_at_the_end,
    show_figures,
    shown,
    shown_number,
    tell_end,
    tell_unrecorded,
)
from tenios_async.cli.ledgers import check_extra, in_postgres
from tenios_async.cli.outcome import Exit
from tenios_async.cli.output import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenios_async import TeniosClient, Transition
    from tenios_async.batch import Row
    from tenios_async.batch.controls import Setting
    from tenios_async.batch.postgres_url import PostgresURL
    from tenios_async.cli.ledgers import Where
    from tenios_async.cli.output import Output

for _name in ("procrastinate", "psycopg"):
    logging.getLogger(_name).addHandler(logging.NullHandler())  # the command says itself what there is to say


@attrs.frozen
class Hands:
    """What one worker is told; the rest stands in the ledger, for all."""

    concurrency: int
    stop_file: Path | None


async def work(
    output: Output,
    ledger: Where,
    hands: Hands,
    make_client: Callable[[], TeniosClient],
    *,
    report: Path | None,
    show_numbers: bool,
) -> Exit:
    """Works a campaign with others until it is done or stopped."""
    url = in_postgres(ledger)
    if report is not None:
        check_writable(report)
    from tenios_async.batch.distributed import Worker  # noqa: PLC0415  # an extra
    from tenios_async.batch.postgres import PostgresLedger  # noqa: PLC0415

    def tell(row: Row, transition: Transition) -> None:
        if output.as_json:
            number = shown_number(row, in_full=show_numbers)
            try:
                output.transition(transition, row=row.id, line=row.line, number=number)
            except BrokenPipeError:
                worker.leave()

    client = make_client()
    try:
        async with PostgresLedger(url) as opened, client:
            worker = Worker(opened, client, hook=tell, counting=True, **attrs.asdict(hands))
            async with shown(output, worker, worker.leave):
                progress = await worker.run()
    except LedgerFailed as failure:
        for row in failure.rows:
            tell_unrecorded(output, url, row)
        raise
    except asyncio.CancelledError:
        output.note("tenios: stopped; what is open is left to the other workers. The same command goes on")
        raise
    finally:
        report_at_the_end(output, url, report)
    code = tell_end(output, progress)
    with contextlib.suppress(LedgerError):  # whatever becomes of it, the run is over
        show_figures(output, url)
    return code


async def run(
    output: Output,
    url: PostgresURL,
    hands: Hands,
    make_client: Callable[[], TeniosClient],
    *,
    settings: list[Setting],
    opt_out: Path | None,
    report: Path | None,
    show_numbers: bool,
) -> Exit:
    """The same, and lays down before what holds for all workers."""
    check_extra()
    from tenios_async.batch.campaign import campaign_facts  # noqa: PLC0415
    from tenios_async.batch.postgres_campaign import leave_out  # noqa: PLC0415  # an extra
    from tenios_async.batch.postgres_session import PostgresSession  # noqa: PLC0415

    with PostgresSession.write(url) as session:
        campaign_facts(session)
        if opt_out is not None and (count := leave_out(session, opt_out)):
            output.say(f"{count} contacts are on the opt-out list and will not be called")
        session.set(*settings, controls.going_on())
    return await work(output, url, hands, make_client, report=report, show_numbers=show_numbers)


def brakes(*, pause: bool, resume: bool, stop: bool) -> list[Setting]:
    """Whether and how anything is placed."""
    if pause:
        return [controls.paused(is_paused=True)]
    if resume:
        return [controls.going_on()]
    return [controls.stopped("it was stopped for all workers")] if stop else []


def settings_of(
    *,
    rate: float | None,
    limit: float | None,
    hours: str | None,
    tz: str | None,
    max_unknown: float | None,
) -> list[Setting]:
    """What was given, for all workers; what was not stays as it is. Raises `ValueError`."""
    settings: list[Setting] = []
    if rate is not None:
        settings.append(controls.at_rate(rate))
    if limit is not None:
        settings.append(controls.with_limit(limit))
    parsed = parse_hours(hours, tz)
    if hours is not None:
        settings.append(controls.within_hours(None if parsed is None else parsed.text, tz))
    if max_unknown is not None:
        settings.append(controls.allowing_doubts(max_unknown))
    return settings


def control(output: Output, ledger: Where, settings: list[Setting], *, accept_failover: bool) -> Exit:
    """Changes what holds for all workers, also while they work, and shows it."""
    url = in_postgres(ledger)
    from tenios_async.batch.campaign import campaign_facts  # noqa: PLC0415
    from tenios_async.batch.postgres_session import PostgresSession  # noqa: PLC0415

    with PostgresSession.read(url) as session:
        campaign_facts(session)
        if accept_failover:
            settings = [controls.accepting(session.timeline), *settings]
        session.set(*settings)
        held = session.controls()
    fields: dict[str, Any] = {
        "rate": None if math.isinf(held.rate) else held.rate,
        "limit": None if math.isinf(held.turns_left) else held.turns_left,
        "is_paused": held.is_paused,
        "stopped": held.stopped,
        "hours": None if held.hours is None else held.hours.text,
        "tz": None if held.hours is None else str(held.hours.zone),
        "max_unknown": held.max_unknown,
    }
    output.emit("controls", **fields)
    pace = "as fast as it goes" if math.isinf(held.rate) else f"{held.rate:g} calls a second"
    state = f"stopped: {held.stopped}" if held.stopped is not None else "paused" if held.is_paused else "going on"
    left = "" if math.isinf(held.turns_left) else f", {held.turns_left:g} calls may be placed yet"
    when = "" if held.hours is None else f", in the hours {held.hours.text} ({held.hours.zone})"
    output.say(plain(f"{state}; {pace}, over all workers{left}{when}"))
    return Exit.OK


def migrate(output: Output, path: Path, ledger: Where) -> Exit:
    """Moves a campaign from a file into PostgreSQL."""
    url = in_postgres(ledger)
    from tenios_async.batch import postgres_campaign  # noqa: PLC0415  # an extra

    count = postgres_campaign.migrate(path, url)
    output.emit("migrated", rows=count, ledger=str(url))
    output.say(f"{count} contacts are in {plain(str(url))}, as they were; {plain(str(path))} is not run any more")
    return Exit.OK

"""What `tenios batch ...` does."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from rich.live import Live
from rich.text import Text

from tenios_async import CallbackStatus, mask_number
from tenios_async.batch import Campaign, Hours, LedgerError, LedgerFailed, Progress, RowState
from tenios_async.batch.campaign import campaign_facts, read_campaign_opt_outs
from tenios_async.batch.contacts import is_json
from tenios_async.batch.export import write_rows
from tenios_async.batch.files import check_writable, replacing
from tenios_async.batch.hours import time_zone
from tenios_async.batch.reading import read_figures
from tenios_async.batch.report import html, table
from tenios_async.batch.words import are, plural
from tenios_async.cli import ledgers
from tenios_async.cli.ledgers import reading
from tenios_async.cli.outcome import Exit, exit_for
from tenios_async.cli.output import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenios_async import TeniosClient, Transition
    from tenios_async.batch import Row, Taken
    from tenios_async.batch.figures import Figures
    from tenios_async.cli.ledgers import Where
    from tenios_async.cli.output import Output

TOLD_EVERY = 10.0
"""Seconds between two lines where nothing may change in place."""
SHOWN_EVERY = 0.25
"""Seconds between two pictures where it may."""


@attrs.frozen
class Source:
    """Where contacts come from, and what is done with those that are not taken."""

    contacts: Path
    columns: dict[str, str]
    opt_out: Path | None
    rejects: Path | None
    max_bad: float


@attrs.frozen
class Run:
    """How a campaign is run; see `Campaign.run`."""

    rate: float
    concurrency: int
    limit: float
    hours: Hours | None
    stop_file: Path | None
    max_unknown: float
    opt_out: Path | None


def parse_hours(text: str | None, tz: str | None) -> Hours | None:
    """The hours, None for always. Raises `ValueError`."""
    if text is None or text == "always":
        if tz is not None:
            raise ValueError("--tz says in which zone hours such as --hours 9-18 are; give both or neither")
        return None
    if tz is None:
        raise ValueError("--hours need --tz, for instance --tz Europe/Berlin")
    return Hours.parse(text, tz=tz)


def create(
    output: Output, ledger: Where, source: Source, *, config_id: str, region: str | None, prefixes: tuple[str, ...]
) -> Exit:
    """Makes a campaign."""
    taken = ledgers.create(
        ledger,
        callback_config_id=config_id,
        region=region,
        prefixes=prefixes,
        **attrs.asdict(source),
    )
    return _tell_taken(output, taken, ledger, source)


def add(output: Output, ledger: Where, source: Source) -> Exit:
    """Adds to one."""
    return _tell_taken(output, ledgers.add(ledger, **attrs.asdict(source)), ledger, source)


def _tell_taken(output: Output, taken: Taken, ledger: Where, source: Source) -> Exit:
    output.emit("taken", ledger=str(ledger), rejected=taken.rejected, **attrs.asdict(taken))
    output.say(f"{are(taken.taken, 'contact')} taken into {plain(str(ledger))}; nobody was called yet")
    for count, what in (
        (taken.repeated, f"{are(taken.repeated)} in it already"),
        (taken.opted_out, f"{are(taken.opted_out)} on the opt-out list"),
        (taken.bad, f"{taken.bad} cannot be read, or may not be called"),
    ):
        if count:
            output.say(f"  {what}")
    if taken.rejected:
        where = "give --rejects FILE to see them" if source.rejects is None else f"they are in {source.rejects}"
        output.say(f"  {plain(where)}")
    return Exit.OK


async def run(
    output: Output,
    ledger: Path,
    options: Run,
    make_client: Callable[[], TeniosClient],
    *,
    report: Path | None,
    show_numbers: bool,
) -> Exit:
    """Works a campaign until it is done or stopped."""

    def tell(row: Row, transition: Transition) -> None:
        if output.as_json:
            number = shown_number(row, in_full=show_numbers)
            try:
                output.transition(transition, row=row.id, line=row.line, number=number)
            except BrokenPipeError:
                nobody_reads()

    def nobody_reads() -> None:
        campaign.stop("nobody reads what it says")

    if report is not None:
        check_writable(report)
    client = make_client()
    try:
        async with Campaign(ledger) as campaign, client, shown(output, campaign, nobody_reads):
            progress = await campaign.run(client, hook=tell, **attrs.asdict(options, recurse=False))
    except LedgerFailed as failure:
        for row in failure.rows:
            tell_unrecorded(output, ledger, row)
        raise
    except asyncio.CancelledError:
        output.note("tenios: stopped; nothing more is placed, what is open is kept. The same command goes on")
        raise
    finally:
        report_at_the_end(output, ledger, report)
    code = tell_end(output, progress)
    with contextlib.suppress(LedgerError):  # whatever becomes of it, the run is over
        show_figures(output, ledger)
    return code


def tell_unrecorded(output: Output, ledger: Where, row: Row) -> None:
    """A call that only this program knows of."""
    assert row.callback is not None  # noqa: S101  # it was placed
    id_ = row.callback.id
    with contextlib.suppress(BrokenPipeError):
        output.emit("unrecorded", row=row.id, line=row.line, id=id_, token=row.callback.to_json())
    command = f"tenios batch resolve {shlex.quote(str(ledger))} --line {row.line} --called {shlex.quote(str(id_))}"
    output.note(f"tenios: line {row.line} was placed and is not written down; once the disk is mended: {command}")


def report_at_the_end(output: Output, ledger: Where, report: Path | None) -> None:
    """Whatever ended the run, and without hiding it."""
    if report is None:
        return
    try:
        _write(report, _report(ledger, None))
    except (OSError, LedgerError) as problem:
        output.note(f"tenios: the report was not written: {problem}")
    else:
        with contextlib.suppress(BrokenPipeError):
            output.say(f"the report is in {plain(str(report))}")


def shown_number(row: Row, *, in_full: bool) -> str:
    """The number, or what may be shown of it."""
    number = row.request.callback_number
    return number if in_full else mask_number(number)


def tell_end(output: Output, progress: Progress) -> Exit:
    """Says how a run ended, and gives the code that tells it apart."""
    open_ = progress.queued + progress.placing + progress.following.total()
    if progress.cause is not None:
        code = exit_for(progress.cause)
    else:
        code = Exit.TIMED_OUT if open_ else Exit.UNKNOWN if progress.unknown else Exit.OK
    output.emit("ended", stopped=progress.stopped, exit_code=int(code), **_counts(progress))
    output.say(_line(progress))
    if progress.stopped is not None:
        output.note(f"tenios: placing was stopped: {progress.stopped}")
    if progress.unknown:
        output.note(f"tenios: {are(progress.unknown, 'call')} in doubt: see `tenios batch resolve`")
    return code


class HasProgress(Protocol):
    """What is at work."""

    @property
    def progress(self) -> Progress:
        """How far it is."""
        ...


class shown:  # noqa: N801  # a context manager
    """Shows how far a campaign is for as long as it runs; calls `nobody_reads` where that is so."""

    def __init__(self, output: Output, campaign: HasProgress, nobody_reads: Callable[[], None]) -> None:
        self._output = output
        self._campaign = campaign
        self._nobody_reads = nobody_reads
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._show_while_somebody_reads())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None  # noqa: S101  # entered
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _show_while_somebody_reads(self) -> None:
        try:
            await self._show()
        except BrokenPipeError:
            self._nobody_reads()

    async def _show(self) -> None:
        output, campaign = self._output, self._campaign
        if not output.is_live:
            while True:
                await asyncio.sleep(TOLD_EVERY)
                output.emit("progress", **_counts(campaign.progress))
                output.say(_line(campaign.progress))
        with Live(console=output.console, transient=True, auto_refresh=False) as live:
            while True:
                line = _line(campaign.progress) if campaign.progress.total else ""  # before the ledger was read
                live.update(_wrapped(line), refresh=True)
                await asyncio.sleep(SHOWN_EVERY)


def _wrapped(markup: str) -> Text:
    """What is drawn over has to end at the edge of the terminal, unlike lines that the terminal may wrap itself."""
    text = Text.from_markup(markup, overflow="fold")
    text.no_wrap = False
    return text


def _counts(progress: Progress) -> dict[str, Any]:
    return {
        "total": progress.total,
        "queued": progress.queued,
        "placing": progress.placing,
        "following": {str(status or "PLACED"): count for status, count in progress.following.items() if count},
        "finished": {str(status or "UNOBSERVED"): count for status, count in progress.finished.items() if count},
        "refused": progress.refused,
        "unknown": progress.unknown,
        "placed_now": progress.placed_now,
        "polls": progress.polls,
        "seconds": round(progress.seconds, 3),
        "waiting_for": progress.waiting_for,
    }


def _line(progress: Progress) -> str:
    """How far it is, in one line of rich markup."""
    following, finished = progress.following, progress.finished
    ringing = following[CallbackStatus.CALLING_A] + following[CallbackStatus.CALLING_B]
    failed = finished[CallbackStatus.CALL_A_FAILED] + finished[CallbackStatus.CALL_B_FAILED]
    done = progress.total - progress.queued - progress.placing
    parts = [
        f"[bold]{done}[/] of {progress.total} placed",
        f"[cyan]{ringing} ringing[/]",
        f"[bold green]{following[CallbackStatus.CONNECTED]} talking[/]",
        f"[green]{finished[CallbackStatus.DISCONNECTED]} talked[/]",
        f"[red]{failed} not reached[/]",
        f"{progress.refused} refused",
        f"[yellow]{progress.unknown} in doubt[/]" if progress.unknown else "none in doubt",
    ]
    if progress.stopped is not None:
        return " · ".join([*parts, "[yellow]placing was stopped[/]"])
    if progress.seconds and progress.placed_now and (progress.queued or progress.placing):
        parts.append(f"{progress.placed_now / progress.seconds:.1f}/s")
    if progress.queued and (left := progress.seconds_left) is not None:
        parts.append(f"{_lasting(left)} left")
    if progress.waiting_for is not None:
        parts.append(f"waiting for {plain(progress.waiting_for)}")
    return " · ".join(parts)


def _lasting(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rehearse(
    output: Output, ledger: Where, options: Run, *, report: Path | None = None, show_numbers: bool = False
) -> Exit:
    """Says what a run would do."""
    if report is not None:
        check_writable(report)
    with reading(ledger) as file, file.snapshot():
        opt_outs = read_campaign_opt_outs(campaign_facts(file), options.opt_out)
        counts = file.counts()
        first = [row for row in file.queued(5 + len(opt_outs)) if row.request.callback_number not in opt_outs][:5]
        opted_out = (
            sum(row.request.callback_number in opt_outs for row in file.rows(RowState.QUEUED)) if opt_outs else 0
        )
    queued, placed = counts[RowState.QUEUED], counts[RowState.PLACED]
    now = min(queued - opted_out, options.limit)
    seconds = None if math.isinf(options.rate) else now / options.rate
    opens_at = None
    if options.hours is not None and not options.hours.is_open(datetime.now(UTC)):
        opens_at = options.hours.opens_at(datetime.now(UTC))
    is_stopped = options.stop_file is not None and options.stop_file.exists()
    output.emit(
        "rehearsed",
        would_call=now,
        queued=queued,
        opted_out=opted_out,
        would_follow=placed,
        in_doubt=counts[RowState.UNKNOWN] + counts[RowState.SENDING],
        seconds=seconds,
        opens_at=None if opens_at is None else opens_at.isoformat(),
        is_stopped=is_stopped,
    )
    follow = plural(placed, "call")
    output.say(f"would call {plural(int(now), 'contact')}, and follow {follow} placed before; nobody was called")
    if opted_out:
        output.say(f"{are(opted_out, 'other')} on the opt-out list")
    for row in first[: int(min(now, len(first)))]:
        output.say(f"  {shown_number(row, in_full=show_numbers)}")
    if seconds is not None:
        output.say(f"in {_lasting(seconds)} at least, by the rate")
    if opens_at is not None:
        output.say(f"not before {opens_at:%Y-%m-%d %H:%M %Z}, by the hours")
    if is_stopped:
        output.say("nothing while the stop file is there")
    return Exit.OK


def status(output: Output, ledger: Where) -> Exit:
    """Shows the figures."""
    figures = show_figures(output, ledger)
    output.emit("status", **{str(outcome).lower(): count for outcome, count in figures.outcomes.items()})
    return Exit.OK


def show_figures(output: Output, ledger: Where) -> Figures:
    """Shows them, and gives them."""
    with reading(ledger) as file:
        campaign_facts(file)
        figures = read_figures(file, datetime.now().astimezone())
    output.columns(table(figures))
    return figures


def report(output: Output, ledger: Where, file: Path, *, tz: str | None) -> Exit:
    """Writes the HTML report."""
    _write(file, _report(ledger, tz))
    output.emit("reported", file=str(file))
    output.say(f"the report is in {plain(str(file))}")
    return Exit.OK


def _report(ledger: Where, tz: str | None) -> str:
    now = datetime.now().astimezone()
    if tz is not None:
        now = now.astimezone(time_zone(tz))
    with reading(ledger) as file:
        campaign_facts(file)
        return html(read_figures(file, now))


def export(output: Output, ledger: Where, file: Path) -> Exit:
    """Writes every row."""
    count = _export(ledger, file)
    output.emit("exported", file=str(file), rows=count)
    output.say(f"{are(count, 'contact')} in {plain(str(file))}, with whole numbers")
    return Exit.OK


def _export(ledger: Where, file: Path) -> int:
    if not is_json(file) and file.suffix.lower() != ".csv":
        raise ValueError(f"{file.name} says neither .csv nor .jsonl")
    with reading(ledger) as source, source.snapshot(), replacing(file) as part:
        return write_rows(file, part, source.rows(), source.extras(), source.resolutions())


def _write(file: Path, text: str) -> None:
    with replacing(file) as part:
        part.write(text)

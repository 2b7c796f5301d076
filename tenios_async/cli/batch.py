"""`tenios batch ...`: the commands and their options."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.cli import campaigns, doubts, teaching, workers
from tenios_async.cli.connection import Connection
from tenios_async.cli.ledgers import Ledger
from tenios_async.cli.options import ConfigId, Flag, Json, Whole, whole_number
from tenios_async.cli.output import Output
from tenios_async.cli.running import run_command, run_plainly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import Token

batch: App = App(
    name="batch",
    help="Call everybody on a list, each at most once, and follow each call to its end.",
    help_epilogue=teaching.BATCH,
)

_PERIODS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def _rate(_: Any, tokens: Sequence[Token]) -> float:
    """5/s, 300/m, 5000/h, or calls a second; or none."""
    if tokens[0].value == "none":
        return math.inf
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:/(s|m|min|h))?", tokens[0].value)
    if not found or not float(found[1]):
        raise ValueError(f"{tokens[0].value!r} is not a rate such as 5/s, 300/m or 5000/h, and not none")
    return float(found[1]) / _PERIODS[found[2] or "s"]


def _limit(kind: Any, tokens: Sequence[Token]) -> float:
    """How many calls; or none for as many as there are."""
    return math.inf if tokens[0].value == "none" else whole_number(kind, tokens)


def _share(_: Any, tokens: Sequence[Token]) -> float:
    """5%, or 0.05."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", tokens[0].value)
    share = float(found[1]) / (100 if found[2] else 1) if found else math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"{tokens[0].value!r} is not a share such as 5% or 0.05")
    return share


_Rate = Annotated[float | None, Parameter(converter=_rate, metavar="RATE")]
_Limit = Annotated[float | None, Parameter(converter=_limit, metavar="COUNT")]
_Share = Annotated[float | None, Parameter(converter=_share, metavar="SHARE")]
_Hours = Annotated[str | None, Parameter(metavar="HOURS")]
_Zone = Annotated[str | None, Parameter(metavar="ZONE")]
_Region = Annotated[str | None, Parameter(metavar="REGION")]
_Columns = Annotated[list[str] | None, Parameter(name="--column", negative=(), metavar="FIELD=COLUMN")]
_Prefixes = Annotated[
    list[str] | None, Parameter(name="--prefix", negative=(), allow_leading_hyphen=False, metavar="PREFIX")
]
_Called = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=(), metavar="[ID]")]
_Lines = Annotated[list[int] | None, Parameter(name="--line", negative=(), metavar="LINE")]
_Numbers = Annotated[list[str] | None, Parameter(name="--number", negative=(), metavar="NUMBER")]
_Keys = Annotated[list[str] | None, Parameter(name="--key", negative=(), metavar="KEY")]
_Who = Annotated[str | None, Parameter(metavar="NAME")]
_CONNECTION = Connection()


def _columns(given: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    for name, _, column in pairs:
        if not name or not column:
            raise ValueError("--column takes FIELD=COLUMN, for instance --column callback_number=Telefon")
    return {name: column for name, _, column in pairs}


@batch.command(help_epilogue=teaching.BATCH_CREATE)
def create(
    contacts: Path,
    ledger: Ledger,
    /,
    *,
    config_id: ConfigId = None,
    region: _Region = None,
    prefix: _Prefixes = None,
    column: _Columns = None,
    opt_out: Path | None = None,
    rejects: Path | None = None,
    max_bad: Whole | None = None,
    json: Json = False,
) -> int:
    """Make a campaign of a list of contacts. Nobody is called yet.

    Args:
        contacts: A CSV file with a header, or JSON lines.
        ledger: The file to make. From now on it is the campaign: keep it, and do not copy it.
        config_id: The callback configuration id from the customer portal; it names the agent.
        region: Two letters, for instance DE: numbers may be written as they are there, and must belong there.
        prefix: A country that may be called, for instance +49. May be given several times.
        column: What a column of the file means, for instance callback_number=Telefon. May be given several times.
        opt_out: A file with numbers that must not be called, one a line.
        rejects: A file for the lines that were not taken, with the reason; mend it and give it to `tenios batch add`.
        max_bad: How many bad lines there may be; with more nothing is taken.
        json: One JSON object a line.
    """
    if not config_id:
        raise ValueError("a callback configuration id is needed: --config-id, or TENIOS_CALLBACK_CONFIG_ID")
    options = campaigns.Source(contacts, _columns(column), opt_out, rejects, math.inf if max_bad is None else max_bad)
    output = Output(as_json=json)
    return run_plainly(
        output,
        lambda: campaigns.create(
            output, ledger, options, config_id=config_id, region=region, prefixes=tuple(prefix or ())
        ),
    )


@batch.command(help_epilogue=teaching.BATCH_ADD)
def add(
    ledger: Ledger,
    contacts: Path,
    /,
    *,
    column: _Columns = None,
    opt_out: Path | None = None,
    rejects: Path | None = None,
    max_bad: Whole | None = None,
    json: Json = False,
) -> int:
    """Add contacts to a campaign that is not running. Who is in it already is not taken again.

    Args:
        ledger: The campaign.
        contacts: A CSV file with a header, or JSON lines.
        column: What a column of the file means, for instance callback_number=Telefon. May be given several times.
        opt_out: A file with numbers that must not be called, one a line.
        rejects: A file for the lines that were not taken, with the reason.
        max_bad: How many bad lines there may be; with more nothing is taken.
        json: One JSON object a line.
    """
    options = campaigns.Source(contacts, _columns(column), opt_out, rejects, math.inf if max_bad is None else max_bad)
    output = Output(as_json=json)
    return run_plainly(output, lambda: campaigns.add(output, ledger, options))


@batch.command(help_epilogue=teaching.BATCH_RUN)
def run(
    ledger: Ledger,
    /,
    *,
    rate: _Rate = None,
    concurrency: Whole = 100,
    limit: _Limit = None,
    hours: _Hours = None,
    tz: _Zone = None,
    stop_file: Path | None = None,
    max_unknown: _Share = None,
    opt_out: Path | None = None,
    report: Path | None = None,
    dry_run: Flag = False,
    show_numbers: Flag = False,
    json: Json = False,
    connection: Connection = _CONNECTION,
) -> int:
    """Call everybody who was not called yet, and follow each call to its end. Ctrl-C stops; the same command goes on.

    In PostgreSQL what was given here holds for all workers, and for the next run, until something else is laid down:
    --rate none, --limit none and --hours always take it off.

    Args:
        ledger: The campaign.
        rate: Calls placed at most, evenly spaced: 5/s, 300/m or 5000/h.
        concurrency: Calls under way at once, from being placed to their end; agents can take no more.
        limit: Place so many calls in this run and no more; in PostgreSQL from now on, by whatever run.
        hours: When a phone may begin to ring, for instance "Mon-Fri 9-18; Sat 10-14". Needs --tz.
        tz: The time zone of the hours, for instance Europe/Berlin.
        stop_file: While this file is there, no call is placed.
        max_unknown: The share of the last 500 calls that may be in doubt, 5% by default; with more placing stops.
        opt_out: A file with numbers that must not be called: those that were added since the campaign was made.
        report: Write the HTML report there when the run ends.
        dry_run: Say what would happen, and call nobody.
        show_numbers: Show whole phone numbers.
        json: One JSON object a line.
    """
    output = Output(as_json=json)
    options = campaigns.Run(
        rate=math.inf if rate is None else rate,
        concurrency=concurrency,
        limit=math.inf if limit is None else limit,
        hours=campaigns.parse_hours(hours, tz),
        stop_file=stop_file,
        max_unknown=0.05 if max_unknown is None else max_unknown,
        opt_out=opt_out,
    )
    if dry_run:
        return run_plainly(
            output, lambda: campaigns.rehearse(output, ledger, options, report=report, show_numbers=show_numbers)
        )
    if isinstance(ledger, PostgresURL):
        settings = workers.settings_of(rate=rate, limit=limit, hours=hours, tz=tz, max_unknown=max_unknown)
        return run_command(
            output,
            lambda: workers.run(
                output,
                ledger,
                workers.Hands(concurrency, stop_file),
                connection.client,
                settings=settings,
                opt_out=opt_out,
                report=report,
                show_numbers=show_numbers,
            ),
        )
    return run_command(
        output,
        lambda: campaigns.run(output, ledger, options, connection.client, report=report, show_numbers=show_numbers),
    )


@batch.command(help_epilogue=teaching.BATCH_WORKER)
def worker(
    ledger: Ledger,
    /,
    *,
    concurrency: Whole = 100,
    stop_file: Path | None = None,
    show_numbers: Flag = False,
    json: Json = False,
    connection: Connection = _CONNECTION,
) -> int:
    """Work a campaign in PostgreSQL with others, on as many machines as wanted, until all its calls have ended.

    Rate, hours, limit and share of doubts are those that `tenios batch run` and `tenios batch control` have laid down.

    Args:
        ledger: The campaign: postgresql://user@host/database. Leave the password to PGPASSWORD or ~/.pgpass.
        concurrency: Calls under way at once of those that this worker places, from being placed to their end.
        stop_file: While this file is there, no call is placed by any worker.
        show_numbers: Show whole phone numbers.
        json: One JSON object a line.
    """
    output = Output(as_json=json)
    hands = workers.Hands(concurrency, stop_file)
    return run_command(
        output,
        lambda: workers.work(output, ledger, hands, connection.client, report=None, show_numbers=show_numbers),
    )


@batch.command(help_epilogue=teaching.BATCH_CONTROL)
def control(
    ledger: Ledger,
    /,
    *,
    rate: _Rate = None,
    limit: _Limit = None,
    hours: _Hours = None,
    tz: _Zone = None,
    max_unknown: _Share = None,
    pause: Flag = False,
    resume: Flag = False,
    stop: Flag = False,
    accept_failover: Flag = False,
    json: Json = False,
) -> int:
    """Show and change what holds for all workers of a campaign in PostgreSQL, also while they work.

    Args:
        ledger: The campaign.
        rate: Calls placed at most by all together, evenly spaced: 5/s, 300/m or 5000/h; none for as many as can be.
        limit: Place so many calls from now on and no more; none takes the limit off.
        hours: When a phone may begin to ring, for instance "Mon-Fri 9-18; Sat 10-14". Needs --tz; or always.
        tz: The time zone of the hours, for instance Europe/Berlin.
        max_unknown: The share of the last 500 calls that may be in doubt, for instance 5%; with more placing stops.
        pause: Place nothing for the moment; the workers wait.
        resume: Neither paused nor stopped any longer.
        stop: Place nothing more; the workers follow what is open to its end, and end.
        accept_failover: The database was promoted or restored, and you know that nothing is missing from it.
        json: One JSON object a line.
    """
    if pause + resume + stop > 1:
        raise ValueError("--pause, --resume and --stop exclude each other")
    output = Output(as_json=json)
    settings = workers.settings_of(rate=rate, limit=limit, hours=hours, tz=tz, max_unknown=max_unknown)
    settings += workers.brakes(pause=pause, resume=resume, stop=stop)
    return run_plainly(output, lambda: workers.control(output, ledger, settings, accept_failover=accept_failover))


@batch.command(help_epilogue=teaching.BATCH_MIGRATE)
def migrate(path: Path, ledger: Ledger, /, *, json: Json = False) -> int:
    """Move a campaign from a file into PostgreSQL, where several machines can work it. Nothing is lost or called.

    Args:
        path: The file. It is kept, and not run any more.
        ledger: Where to: postgresql://user@host/database.
        json: One JSON object a line.
    """
    output = Output(as_json=json)
    return run_plainly(output, lambda: workers.migrate(output, path, ledger))


@batch.command(help_epilogue=teaching.BATCH_STATUS)
def status(ledger: Ledger, /, *, json: Json = False) -> int:
    """Show how far a campaign is, also while it runs.

    Args:
        ledger: The campaign.
        json: One JSON object a line.
    """
    output = Output(as_json=json)
    return run_plainly(output, lambda: campaigns.status(output, ledger))


@batch.command(help_epilogue=teaching.BATCH_REPORT)
def report(ledger: Ledger, file: Path, /, *, tz: _Zone = None, json: Json = False) -> int:
    """Write a campaign's report: one HTML file that needs no network.

    Args:
        ledger: The campaign.
        file: The file to write; an existing one is replaced.
        tz: The time zone it is written in; the default is that of this machine.
        json: One JSON object a line.
    """
    output = Output(as_json=json)
    return run_plainly(output, lambda: campaigns.report(output, ledger, file, tz=tz))


@batch.command(help_epilogue=teaching.BATCH_RESOLVE)
def resolve(
    ledger: Ledger,
    /,
    *,
    line: _Lines = None,
    number: _Numbers = None,
    key: _Keys = None,
    all_: Annotated[bool, Parameter(name="--all", negative=(), show_default=False)] = False,
    called: _Called = None,
    not_called: Flag = False,
    who: _Who = None,
    show_numbers: Flag = False,
    json: Json = False,
) -> int:
    """List the calls in doubt, or say what became of some. A call in doubt is never placed again by itself.

    Args:
        ledger: The campaign.
        line: The line of the contacts file it is about. May be given several times.
        number: The phone number it is about. May be given several times.
        key: The key it is about, in a ledger of `place_once`. May be given several times.
        all_: All that are in doubt.
        called: It was called. With the id of the callback it is followed by the next run; without, it counts as ended.
        not_called: It was not called: it is queued again.
        who: Who says so; the default is your user name. It is written down with the time.
        show_numbers: Show whole phone numbers.
        json: One JSON object a line.
    """
    if called is not None and not_called:
        raise ValueError("--called and --not-called exclude each other")
    if called is not None and len(called) > 1:
        raise ValueError("--called takes one id")
    which = doubts.Which(tuple(line or ()), tuple(number or ()), tuple(key or ()), is_all=all_)
    if called and not which.is_one:
        raise ValueError("an id belongs to one call: name one --line, --number or --key")
    output = Output(as_json=json)
    if called is None and not not_called:
        if which != doubts.Which((), (), (), is_all=False) or who is not None:
            raise ValueError("say what became of it: --called, --called ID or --not-called")
        return run_plainly(output, lambda: doubts.list_doubts(output, ledger, show_numbers=show_numbers))
    verdict = doubts.Verdict(called is not None, called[0] if called else None, who)
    return run_plainly(output, lambda: doubts.resolve(output, ledger, which, verdict))


@batch.command(help_epilogue=teaching.BATCH_EXPORT)
def export(ledger: Ledger, file: Path, /, *, json: Json = False) -> int:
    """Write every contact and what became of it, as CSV or JSON lines by the name of the file. Numbers stand in full.

    Args:
        ledger: The campaign.
        file: The file to write, ending in .csv, .jsonl or .ndjson; an existing one is replaced.
        json: One JSON object a line.
    """
    output = Output(as_json=json)
    return run_plainly(output, lambda: campaigns.export(output, ledger, file))

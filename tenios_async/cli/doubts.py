"""What `tenios batch resolve` does: the calls in doubt, and what a person says became of them."""

from __future__ import annotations

import contextlib
import getpass
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tenios_async import mask_number
from tenios_async.batch import LedgerInUse, RowState
from tenios_async.batch.campaign import KIND, list_of
from tenios_async.batch.figures import mask_numbers
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.numbers import Numbers
from tenios_async.cli.calls import read_callback
from tenios_async.cli.ledgers import reading
from tenios_async.cli.outcome import Exit
from tenios_async.cli.output import plain

if TYPE_CHECKING:
    from tenios_async.batch import Row
    from tenios_async.batch.access import Access
    from tenios_async.cli.ledgers import Where
    from tenios_async.cli.output import Output


@attrs.frozen
class Which:
    """The rows a person speaks of."""

    lines: tuple[int, ...]
    numbers: tuple[str, ...]
    keys: tuple[str, ...]
    is_all: bool

    @property
    def is_one(self) -> bool:
        """Whether it names one row and no more."""
        return not self.is_all and len(self.lines) + len(self.numbers) + len(self.keys) == 1


@attrs.frozen
class Verdict:
    """What a person says became of a call."""

    was_called: bool
    callback_id: str | None
    who: str | None


def list_doubts(output: Output, ledger: Where, *, show_numbers: bool) -> Exit:
    """Lists the calls in doubt."""
    _recover(ledger)
    with reading(ledger) as file:
        rows = list(file.rows(RowState.UNKNOWN))
        facts = file.facts
    is_campaign = facts.get("kind") == KIND
    where = "line" if is_campaign else "key"
    shown = [(where, "number", "about to leave at", "why")]
    for row in rows:
        number = row.request.callback_number if show_numbers else mask_number(row.request.callback_number)
        at, reason = row.standing.intended_at, row.standing.reason or ""
        name: dict[str, Any] = {"key": row.key if show_numbers else mask_numbers(row.key)}
        if is_campaign:
            name = {"line": row.line, "source": list_of(facts, row.id)}
        output.emit("doubt", **name, number=number, at=None if at is None else at.isoformat(), reason=reason)
        when = "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
        place = f"{row.line} of {list_of(facts, row.id)}" if facts.get("added") else str(name[where])
        shown.append((place, number, when, reason))
    if rows:
        output.columns(shown)
        output.say(f"say what became of them: --{where} {where.upper()} --called [ID], or --not-called")
    else:
        output.say("nothing is in doubt")
    return Exit.OK


def resolve(output: Output, ledger: Where, which: Which, verdict: Verdict) -> Exit:
    """Writes down what a person says."""
    callback = None if verdict.callback_id is None else read_callback(verdict.callback_id)
    who = verdict.who or _user()
    _recover(ledger)
    with reading(ledger) as file:
        rows = _chosen(file, which)
        now = datetime.now(UTC)
        with file.transaction():
            for row in rows:
                file.resolve(row, now, who=who, was_called=verdict.was_called, callback=callback)
    what = "called" if verdict.was_called else "not called, and queued again"
    output.emit("resolved", rows=[row.id for row in rows], was_called=verdict.was_called, who=who)
    output.say(f"{len(rows)} written down as {what}, by {plain(who)}")
    return Exit.OK


def _recover(ledger: Where) -> None:
    """What a program was placing that has ended is in doubt from now on, and not only at the next run."""
    if not isinstance(ledger, Path):
        return  # its workers find that themselves, and others may be placing it
    with LedgerFile.read(ledger) as file:
        if not file.counts()[RowState.SENDING]:
            return
    with contextlib.suppress(LedgerInUse), LedgerFile.write(ledger) as file:  # it has not ended
        file.recover()


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):  # by the version and the system
        return getpass.getuser()
    raise ValueError("you have no user name here; say who you are: --who NAME")


def _chosen(file: Access, which: Which) -> list[Row]:
    """Those in doubt that a person speaks of. Raises `ValueError` where that is not one in doubt each."""
    rows = list(file.rows(RowState.UNKNOWN))
    if which.is_all:
        return rows
    named: defaultdict[tuple[str, object], list[Row]] = defaultdict(list)
    for row in rows:
        for name in (("line", row.line), ("number", row.request.callback_number), ("key", row.key)):
            named[name].append(row)
    wanted = [(f"line {line}", named["line", line]) for line in which.lines]
    wanted += [(mask_number(number), named["number", _read(file, number)]) for number in which.numbers]
    wanted += [(f"key {mask_numbers(key)}", named["key", key]) for key in which.keys]
    if not wanted:
        raise ValueError("say which: --line LINE, --number NUMBER, --key KEY or --all")
    if missing := [name for name, found in wanted if not found]:
        raise ValueError(f"not in doubt, or not in this ledger: {', '.join(missing)}")
    if several := [name for name, found in wanted if len(found) > 1]:
        how = "--number" if "line" in several[0] else "--key"
        raise ValueError(f"there are several calls in doubt of {', '.join(several)}; say which by {how}")
    return list({row.id: row for _, (row,) in wanted}.values())


def _read(file: Access, number: str) -> str:
    """A number as the ledger writes it, where it can be read by the campaign's rules."""
    with contextlib.suppress(ValueError, KeyError):  # another way of writing; a ledger that is no campaign
        return Numbers(file.facts["region"], file.facts["prefixes"]).read(number)
    return number

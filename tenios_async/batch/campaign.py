"""A campaign: a list of people to call back, each at most once, and what became of them. It is its ledger."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from tenios_async import CallbackRequest
from tenios_async.batch.arguments import check_max_bad
from tenios_async.batch.contacts import OURS, BadRow, Contact, is_json, read_contacts, writing_rejects
from tenios_async.batch.errors import LedgerRefused
from tenios_async.batch.files import check_replaceable
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.numbers import OPTED_OUT, Numbers, read_opt_outs
from tenios_async.batch.progress import Progress
from tenios_async.batch.row import NewRow
from tenios_async.batch.runner import Runner
from tenios_async.batch.sqlite import SQLiteLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from tenios_async import Polling, TeniosClient
    from tenios_async.batch.access import Access
    from tenios_async.batch.hours import Hours
    from tenios_async.batch.recording import Hook

KIND = "campaign"
AT_ONCE = 1000
"""Lines of a list that are read and written in one piece."""


class TooManyRejects(ValueError):
    """More lines of the contacts file are bad than were allowed; nothing was taken."""


@attrs.frozen
class Taken:
    """What came of a contacts file.

    Attributes:
        taken: contacts that are new.
        repeated: contacts whose number is in the campaign already.
        opted_out: contacts on the opt-out list.
        bad: lines that are not a contact that may be called.
    """

    taken: int = 0
    repeated: int = 0
    opted_out: int = 0
    bad: int = 0

    @property
    def rejected(self) -> int:
        """All that were not taken."""
        return self.repeated + self.opted_out + self.bad


class Campaign:
    """`async with Campaign("campaign.db") as campaign: await campaign.run(client)`.

    Args:
        path: a ledger that `create` has made.

    Entering raises `LedgerRefused` and `LedgerFailed`.
    """

    def __init__(self, path: Path | str) -> None:
        self.ledger: SQLiteLedger = SQLiteLedger(path)
        """Where everything is written down."""
        self._runner: Runner | None = None
        self._is_running = False

    @staticmethod
    def create(
        path: Path | str,
        contacts: Path | str,
        *,
        callback_config_id: str,
        region: str | None = None,
        prefixes: Collection[str] = (),
        columns: Mapping[str, str] | None = None,
        opt_out: Path | str | None = None,
        rejects: Path | str | None = None,
        max_bad: float = math.inf,
    ) -> Taken:
        """Makes a campaign of a contacts file, CSV or JSON lines.

        Args:
            path: the ledger, which must not exist.
            contacts: the file.
            callback_config_id: for all that do not name one themselves.
            region: two letters (`DE`): numbers may be written as people there do, and must belong there.
            prefixes: of countries that may be called (`+49`), instead of or beside the region's.
            columns: the API's names of fields, and the file's of its columns.
            opt_out: a file with numbers that are not called, one a line.
            rejects: a file that gets what was not taken, with line and reason.
            max_bad: bad lines after which nothing is taken.

        Raises `LedgerRefused`, `ValueError` for arguments that are none and for a file that cannot be read, and
        `TooManyRejects`.
        """
        numbers = Numbers(region, prefixes)
        if rejects is not None:
            check_replaceable(Path(rejects), path, contacts, opt_out)
        taken = Taken()

        def fill(ledger: LedgerFile) -> None:
            nonlocal taken
            with ledger.transaction():
                taken, source = take(
                    ledger,
                    Path(contacts),
                    numbers,
                    columns=columns or {},
                    opt_out=opt_out,
                    rejects=rejects,
                    max_bad=max_bad,
                )
                ledger.put_facts(source)

        LedgerFile.create(path, facts_of(callback_config_id, region, prefixes), fill)
        return taken

    @staticmethod
    def add(
        path: Path | str,
        contacts: Path | str,
        *,
        columns: Mapping[str, str] | None = None,
        opt_out: Path | str | None = None,
        rejects: Path | str | None = None,
        max_bad: float = math.inf,
    ) -> Taken:
        """Adds contacts, by the rules of the campaign. Not while it runs. Arguments and errors as of `create`."""
        if rejects is not None:
            check_replaceable(Path(rejects), path, contacts, opt_out)
        with LedgerFile.write(path) as ledger:
            facts = campaign_facts(ledger)
            numbers = Numbers(facts["region"], facts["prefixes"])
            with ledger.transaction():
                after = ledger.last()
                taken, source = take(
                    ledger,
                    Path(contacts),
                    numbers,
                    columns=columns or {},
                    opt_out=opt_out,
                    rejects=rejects,
                    max_bad=max_bad,
                )
                ledger.put_facts({"added": [*facts.get("added", []), {"after": after, **source}]})
            return taken

    async def __aenter__(self) -> Self:
        await self.ledger.__aenter__()
        if self.ledger.facts.get("kind") != KIND:
            await self.ledger.aclose()
            raise LedgerRefused("this ledger is no campaign; it was made for place_once")
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.ledger.aclose()

    @property
    def progress(self) -> Progress:
        """How far it is, live while it runs."""
        return Progress() if self._runner is None else self._runner.progress

    async def run(
        self,
        client: TeniosClient,
        *,
        concurrency: int = 100,
        rate: float = math.inf,
        limit: float = math.inf,
        hours: Hours | None = None,
        stop_file: Path | str | None = None,
        max_unknown: float = 0.05,
        opt_out: Path | str | None = None,
        polling: Polling | None = None,
        hook: Hook | None = None,
    ) -> Progress:
        """Places what is queued and follows what is placed, until all has ended or placing was stopped.

        Args:
            client: with at least 100 connections, half of them for polls.
            concurrency: calls under way at once, from being placed to their end.
            rate: calls placed a second, evenly spaced.
            limit: calls placed in this run.
            hours: when a phone may begin to ring; None is always.
            stop_file: while it is there, nothing is placed.
            max_unknown: the share of the last 500 calls that may be in doubt.
            opt_out: a file with numbers that are not called, one a line: those that were added since `create`.
            polling: the schedule; None looks where the end of a call matters.
            hook: called with the row and each transition once that is written down; may be async.

        Raises `ValueError` for arguments that are none, before anybody is called, and `LedgerFailed` where nothing can
        be written down any more. A cancellation keeps what is open, and the
        next run goes on with it.
        """
        if self._is_running:
            raise RuntimeError("this campaign is running already")
        opt_outs = read_campaign_opt_outs(self.ledger.facts, opt_out)
        self._runner = Runner(
            self.ledger,
            client,
            concurrency=concurrency,
            rate=rate,
            limit=limit,
            hours=hours,
            stop_file=stop_file,
            max_unknown=max_unknown,
            opt_outs=opt_outs,
            polling=polling,
            hook=hook,
        )
        self._is_running = True
        try:
            return await self._runner.run()
        finally:
            self._is_running = False

    def stop(self, reason: str = "it was stopped") -> None:
        """Places nothing more in this run; what is open is followed to its end."""
        if self._runner is not None:
            self._runner.stop(reason)


def facts_of(callback_config_id: str, region: str | None, prefixes: Collection[str]) -> dict[str, Any]:
    """What is laid down about a campaign before its list is read. Raises `ValueError` for what is no configuration."""
    CallbackRequest(callback_config_id, "+491234567890")  # its own check
    return {
        "kind": KIND,
        "created_at": datetime.now(UTC).isoformat(),
        "callback_config_id": callback_config_id,
        "region": region,
        "prefixes": list(prefixes),
    }


def campaign_facts(ledger: Access) -> Mapping[str, Any]:
    """What a campaign was made of. Raises `LedgerRefused` for a ledger that is none."""
    if ledger.facts.get("kind") != KIND:
        raise LedgerRefused(f"{ledger.where} is no campaign; it was made for place_once")
    return ledger.facts


def read_campaign_opt_outs(facts: Mapping[str, Any], opt_out: Path | str | None) -> Collection[str]:
    """The numbers in an opt-out list, by the rules of the campaign. Raises `ValueError`."""
    return () if opt_out is None else read_opt_outs(Path(opt_out), Numbers(facts["region"], facts["prefixes"]))


def take(
    ledger: Access,
    contacts: Path,
    numbers: Numbers,
    *,
    columns: Mapping[str, str],
    opt_out: Path | str | None,
    rejects: Path | str | None,
    max_bad: float,
) -> tuple[Taken, dict[str, str]]:
    """Reads a list into a ledger, within a transaction, and gives the facts about the file too.

    Arguments and errors as of `Campaign.create`.
    """
    check_max_bad(max_bad)
    digest = hashlib.sha256()
    config_id = ledger.facts["callback_config_id"]
    opted_out: Collection[str] = () if opt_out is None else read_opt_outs(Path(opt_out), numbers)
    counts: Counter[str] = Counter()

    def is_opted_out(found: Contact) -> bool:
        return found.request.callback_number in opted_out or found.fields.get(f"{OURS}reason") == OPTED_OUT

    with ExitStack() as stack:
        reject: Callable[[BadRow], None] = _forget
        if rejects is not None:
            reject = stack.enter_context(writing_rejects(Path(rejects), as_json=is_json(contacts)))
        everybody = read_contacts(
            contacts, callback_config_id=config_id, numbers=numbers, columns=columns, digest=digest
        )
        while some := list(islice(everybody, AT_ONCE)):
            wanted = [
                NewRow(found.request.callback_number, found.request, found.line, found.extra)
                for found in some
                if isinstance(found, Contact) and not is_opted_out(found)
            ]
            are_new = iter(ledger.put_all(wanted))
            for found in some:
                if isinstance(found, BadRow):
                    counts["bad"] += 1
                    reject(found)
                    if counts["bad"] > max_bad:
                        raise TooManyRejects(
                            f"more than {max_bad:g} lines are bad, the last is line {found.line}: {found.reason}."
                            " Nothing was taken"
                        )
                elif is_opted_out(found):
                    counts["opted_out"] += 1
                    reject(found.rejected(OPTED_OUT))
                elif next(are_new):
                    counts["taken"] += 1
                else:
                    counts["repeated"] += 1
                    reject(found.rejected("this number is in the campaign already"))
    result = Taken(**counts)
    ledger.put_facts({"rejected": ledger.facts.get("rejected", 0) + result.rejected})
    return result, {"source": contacts.name, "source_sha256": digest.hexdigest()}


def list_of(facts: Mapping[str, Any], row_id: int) -> str:
    """The name of the file that a row came from."""
    added = [found["source"] for found in facts.get("added", []) if found["after"] < row_id]
    return str(added[-1] if added else facts.get("source", ""))


def list_names(facts: Mapping[str, Any]) -> list[str]:
    """The names of all files that a campaign was made of."""
    return [str(facts.get("source", "")), *(str(found["source"]) for found in facts.get("added", []))]


def _forget(_: BadRow) -> None:
    """For those who want no list of what was rejected."""

"""Where a campaign is, as the commands are told: a file, or a URL of PostgreSQL."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from tenios_async.batch import Campaign
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.postgres_url import PostgresURL, is_postgres_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from cyclopts import Token

    from tenios_async.batch import Taken
    from tenios_async.batch.access import Access


def _where(_: Any, tokens: Sequence[Token]) -> Path | PostgresURL:
    """A path would lose one of the slashes."""
    text = tokens[0].value
    return PostgresURL.parse(text) if is_postgres_url(text) else Path(text)


Where: TypeAlias = Path | PostgresURL
Ledger = Annotated[Where, Parameter(converter=_where, accepts_keys=False, n_tokens=1)]


def reading(ledger: Where) -> AbstractContextManager[Access]:
    """Opens it to look, and to `resolve`."""
    if isinstance(ledger, Path):
        return LedgerFile.read(ledger)
    check_extra()
    from tenios_async.batch.postgres_session import PostgresSession  # noqa: PLC0415  # an extra

    return PostgresSession.read(ledger)


def create(ledger: Where, contacts: Path, **options: Any) -> Taken:
    """Makes a campaign; see `Campaign.create`."""
    if isinstance(ledger, Path):
        return Campaign.create(ledger, contacts, **options)
    check_extra()
    from tenios_async.batch import postgres_campaign  # noqa: PLC0415  # an extra

    return postgres_campaign.create(ledger, contacts, **options)


def add(ledger: Where, contacts: Path, **options: Any) -> Taken:
    """Adds to one; see `Campaign.add`."""
    if isinstance(ledger, Path):
        return Campaign.add(ledger, contacts, **options)
    check_extra()
    from tenios_async.batch import postgres_campaign  # noqa: PLC0415  # an extra

    return postgres_campaign.add(ledger, contacts, **options)


def check_extra() -> None:
    """Raises `ValueError` where what PostgreSQL needs is not installed."""
    if any(find_spec(name) is None for name in ("procrastinate", "psycopg", "psycopg_pool")):
        raise ValueError('a ledger in PostgreSQL needs: pip install "tenios_async[distributed]"')


def in_postgres(ledger: Where) -> PostgresURL:
    """The URL. Raises `ValueError` for a file, which one program works alone."""
    if isinstance(ledger, Path):
        raise ValueError(  # noqa: TRY004  # of a command
            f"{ledger} is a file, which one program works alone; `tenios batch migrate` moves it into PostgreSQL"
        )
    check_extra()
    return ledger

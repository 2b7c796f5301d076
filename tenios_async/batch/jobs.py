"""The jobs that workers share, in Procrastinate (https://procrastinate.readthedocs.io): their names and how they arise.

A job says which row or which shard it is about, and nothing else: what is to be done, the ledger says when it is done.
So a job may be delivered twice, late, or to somebody who was thought dead. Jobs live in the ledger's own schema, so
that a row and its job are written in one transaction.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final

from procrastinate import App, SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued
from procrastinate.schema import SchemaManager

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg
    from procrastinate.types import JSONValue

PLACE: Final = "tenios.place"
"""Place the call of one `row`: over when it is placed, refused or in doubt."""
WATCH: Final = "tenios.watch"
"""Follow the calls of one `shard` to their ends: over when the campaign is. At most one runs for each shard."""
MEND: Final = "tenios.mend"
"""Find what was left lying by workers that are gone."""

PLACING: Final = "tenios-placing"
KEEPING: Final = "tenios-keeping"
"""The queues: calls that wait for their turn must not keep anybody from following the others."""

AT_ONCE: Final = 1000
"""Jobs that are written in one piece."""


def lock_of(shard: int) -> str:
    """What at most one running job may hold, and at most one waiting job."""
    return f"tenios.watch.{shard}"


def options_of_watching(shard: int) -> dict[str, Any]:
    """How the job for a shard is deferred."""
    return {"queue": KEEPING, "lock": lock_of(shard), "queueing_lock": lock_of(shard)}


def lay_down(connection: psycopg.Connection[Any]) -> None:
    """Makes the engine's tables, within a transaction."""
    connection.execute(SchemaManager.get_schema())
    # A worker that ends is taken out of all its jobs: https://github.com/procrastinate-org/procrastinate/issues/1454
    connection.execute(
        "CREATE INDEX tenios_jobs_of_worker ON procrastinate_jobs (worker_id) WHERE worker_id IS NOT NULL"
    )


def defer_placing(connection: psycopg.Connection[Any], rows: Sequence[int]) -> None:
    """Writes the jobs of calling these rows, within the transaction that writes the rows."""
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        deferrer = _app().configure_task(PLACE, queue=PLACING, connection=connection)
        each: list[dict[str, JSONValue]] = [{"row": row_id} for row_id in some]
        deferrer.batch_defer(*each)


def defer_watching(connection: psycopg.Connection[Any], shards: Iterable[int]) -> None:
    """Writes the jobs of following these shards, where none is waiting already."""
    for shard in shards:
        # A savepoint: one that is there already undoes this and nothing else.
        with contextlib.suppress(AlreadyEnqueued), connection.transaction():
            deferrer = _app().configure_task(WATCH, connection=connection, **options_of_watching(shard))
            deferrer.defer(shard=shard)


@functools.cache
def _app() -> App:
    """An engine that only writes jobs, on connections it is handed."""
    return App(connector=SyncPsycopgConnector())

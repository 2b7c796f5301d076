"""What the workers of one campaign ask of its ledger in PostgreSQL, beyond what any ledger promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from tenios_async.batch import controls, jobs
from tenios_async.batch.breakers import WINDOW, Breaker
from tenios_async.batch.standing import IllegalMove, RowState, Standing, crash

if TYPE_CHECKING:
    from collections.abc import Collection

    from tenios_async.batch.controls import Controls, Setting
    from tenios_async.batch.postgres import PostgresLedger

CRASHED: Final = crash()(Standing(RowState.SENDING)).reason
"""Why a row is in doubt whose worker has died: that says nothing about TENIOS."""
SWEPT: Final = 500
"""Rows that are put in doubt at once."""

_OPEN: Final = """
SELECT EXISTS (SELECT 1 FROM calls WHERE state = 'QUEUED'), EXISTS (SELECT 1 FROM calls WHERE state = 'SENDING'),
    EXISTS (SELECT 1 FROM calls WHERE state = 'PLACED')
"""
_LEFT: Final = """
SELECT id FROM calls WHERE state = 'SENDING' AND changed_at < clock_timestamp() - make_interval(secs => %s) LIMIT %s
"""
_LATEST: Final = """
SELECT state = 'UNKNOWN' FROM calls
WHERE attempt IS NOT NULL AND state <> 'SENDING' AND reason IS DISTINCT FROM %s
    AND intended_at > (SELECT since FROM controls)
ORDER BY intended_at DESC LIMIT %s
"""
_ORPHANS: Final = """
SELECT calls.id FROM calls
WHERE state = 'QUEUED' AND NOT EXISTS (
    SELECT 1 FROM procrastinate_jobs AS job
    WHERE job.status IN ('todo', 'doing') AND job.task_name = %s AND (job.args ->> 'row')::bigint = calls.id
) LIMIT %s
"""
_IS_WAITING: Final = """
SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND task_name = %s)
"""
_LIVE: Final = """
SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > clock_timestamp() - make_interval(secs => %s)
"""


class Shared:
    """A campaign that several workers share. Use it as `async with Shared(ledger) as shared`.

    Args:
        ledger: open.
    """

    def __init__(self, ledger: PostgresLedger) -> None:
        self._ledger = ledger
        self._link = ledger.link()
        self._turns = ledger.link()  # whoever draws waits for others who do
        self._holding = ledger.link()  # no long question keeps a stop from being heard of

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.close()
        await self._turns.close()
        await self._holding.close()

    async def shards(self) -> int:
        """Into how many parts its calls are divided for following."""
        ((count,),) = await self._link.ask("SELECT shards FROM mark")
        return int(count)

    async def has_jobs(self) -> bool:
        """Whether it was made to be shared."""
        ((found,),) = await self._link.ask("SELECT to_regclass('procrastinate_jobs') IS NOT NULL")
        return bool(found)

    async def controls(self) -> Controls:
        """How it is worked at present."""
        (columns,) = await self._holding.ask(controls.READ)
        return controls.controls_of(columns)

    async def change(self, setting: Setting) -> bool:
        """Changes that for everybody. Whether there was anything to change."""
        return await self._holding.tell(setting.statement, setting.values, only_once=setting.adds) > 0

    async def draw(self, wanted: int) -> tuple[int, float, float, float, int] | None:
        """Turns, as `controls.DRAW` gives them; times are seconds since 1970. None for the moment."""
        values: dict[str, Any] = {"wanted": wanted, "ahead": controls.AHEAD, "horizon": controls.HORIZON}
        found = await self._turns.ask(controls.DRAW, values)
        if not found:
            return None
        count, first, gap, now, limit = found[0]
        return count, first, gap, now, limit

    async def is_open(self) -> tuple[bool, bool, bool]:
        """Whether any row is QUEUED, is SENDING, is PLACED."""
        ((queued, sending, placed),) = await self._link.ask(_OPEN)
        return queued, sending, placed

    async def placed(self, shard: int) -> set[int]:
        """The rows of a shard that are PLACED."""
        found = await self._link.ask("SELECT id FROM calls WHERE state = 'PLACED' AND shard = %s", [shard])
        return {row_id for (row_id,) in found}

    async def ended(self, row_ids: Collection[int]) -> list[int]:
        """Those of some rows that are no longer under way."""
        query = "SELECT id FROM calls WHERE id = ANY(%s) AND state NOT IN ('SENDING', 'PLACED')"
        return [row_id for (row_id,) in await self._link.ask(query, [list(row_ids)])]

    async def sweep(self, seconds: float) -> int:
        """Puts in doubt what has been in SENDING for so long, and gives how many rows that were."""
        left = [row_id for (row_id,) in await self._link.ask(_LEFT, [seconds, SWEPT])]
        results = await self._ledger.change_all([(row_id, crash()) for row_id in left])
        return sum(not isinstance(result, IllegalMove) for result in results)

    async def trip(self, max_unknown: float) -> str | None:
        """What is wrong with the last calls of all workers, once placing should stop."""
        breaker = Breaker(max_unknown)
        latest = await self._link.ask(_LATEST, [CRASHED, WINDOW])
        trips = [breaker.note(is_unknown=is_unknown) for (is_unknown,) in reversed(latest)]
        return next((trip for trip in trips if trip is not None), None)

    async def live(self, seconds: float) -> int:
        """The engine's workers that have been heard of in the last so many seconds."""
        ((count,),) = await self._link.ask(_LIVE, [seconds])
        return int(count)

    async def orphans(self, limit: int) -> list[int]:
        """Rows to be dialled for which there is no job, once no other job waits. There should be none."""
        ((is_waiting,),) = await self._link.ask(_IS_WAITING, [jobs.PLACE])
        if is_waiting:
            return []
        return [row_id for (row_id,) in await self._link.ask(_ORPHANS, [jobs.PLACE, limit])]

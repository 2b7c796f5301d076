"""Procrastinate, run so that a worker which lost its database, or was thought dead, begins anew under another name.

The engine fetches, locks, retries, beats its heart and says whose jobs are stalled. What it does not do: a worker whose
question was not answered goes on under the same name, and a job it was given with that answer is nobody's for as long
as it lives; and a worker that was suspended and came back may end a job that another one has taken over, since the
engine asks for the job's number and not for its worker. So any trouble with the database ends this worker's name, and
a stalled job is not taken over itself, but replaced by a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import psycopg
from procrastinate import App, BaseRetryStrategy, PsycopgConnector, RetryDecision
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException, UniqueViolation
from procrastinate.jobs import Status
from procrastinate.manager import JobManager
from procrastinate.worker import Worker
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from tenios_async.batch import jobs
from tenios_async.batch.postgres_session import connecting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable

    from procrastinate.jobs import Job
    from procrastinate.types import JSONValue

    from tenios_async.batch.postgres_url import PostgresURL

_log = logging.getLogger("tenios_async.batch")

CONNECTIONS: Final = 4
"""Of the engine's own, beside two that listen."""
STALLED_AFTER: Final = 3
"""Heartbeats that a worker may miss."""
GRACE: Final = 5.0
"""Seconds for jobs under way when a worker ends; then they are cancelled, and keep the grace of their own."""
POLLED_EVERY: Final = 1.0
"""Seconds after which the engine looks for jobs nobody told it of: those that are done again."""

Place: TypeAlias = "Callable[[int], Awaitable[None]]"
Watch: TypeAlias = "Callable[[Job, int], Awaitable[None]]"
Mend: TypeAlias = "Callable[[], Awaitable[None]]"


class Postponed(Exception):
    """A job is given back, to be done again by whoever comes next.

    Attributes:
        seconds: not before.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("given back")
        self.seconds = seconds


class _Again(BaseRetryStrategy):
    """Every job is done again until it has ended by itself: what is to be done, the ledger says."""

    AFTER_ERROR = 10.0

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:  # noqa: ARG002
        seconds = 0.0
        if isinstance(exception, Postponed):
            seconds = exception.seconds
        elif isinstance(exception, Exception):
            _log.error("a job failed and is done again: %s", type(exception).__name__)
            seconds = self.AFTER_ERROR
        return RetryDecision(retry_at=datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC))


class _Connector(PsycopgConnector):
    """Says when the database did not answer, or not as a worker's with this name."""

    def __init__(self, trouble: asyncio.Event) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # its JSON functions have no types
        self._trouble = trouble

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        """What ends a job, or gives it back: what cannot be written is found by the others, once this name is over."""
        try:
            await super().execute_query_async(query, **arguments)
        except UniqueViolation:  # it is given back, and another one that does the same waits already
            await JobManager(self).finish_job_by_id_async(arguments["job_id"], Status.SUCCEEDED, delete_job=True)
        except ConnectorException:  # a job that another worker has taken over is refused too
            self._trouble.set()

    async def execute_query_one_async(self, query: Any, **arguments: Any) -> dict[str, Any]:
        with self._noticed():
            found: dict[str, Any] = await super().execute_query_one_async(query, **arguments)
            return found

    async def execute_query_all_async(self, query: Any, **arguments: Any) -> list[dict[str, Any]]:
        with self._noticed():
            found: list[dict[str, Any]] = await super().execute_query_all_async(query, **arguments)
            return found

    @contextlib.contextmanager
    def _noticed(self) -> Generator[None]:
        try:
            yield
        except UniqueViolation:  # such a job waits already
            raise
        except ConnectorException:
            self._trouble.set()
            raise


class Engine:
    """One worker under one name. Use `run` once.

    Args:
        url: the ledger.
        place, watch, mend: what the jobs do. They raise `Postponed` to give theirs back.
        ending: called when its jobs are to be given back.
        placing: calls that are placed at once.
        shards: that are followed at once, at the most.
        heartbeat: seconds.
    """

    def __init__(
        self,
        url: PostgresURL,
        *,
        place: Place,
        watch: Watch,
        mend: Mend,
        ending: Callable[[], None],
        placing: int,
        shards: int,
        heartbeat: float,
    ) -> None:
        self._url = url
        self._ending = ending
        self._sizes = (placing, shards + 2)
        self._heartbeat = heartbeat
        self._trouble = asyncio.Event()
        self._stopping = asyncio.Event()
        self.names: set[int] = set()
        """The engine's numbers for this worker, as far as its jobs have told them."""
        self._placing, self._keeping = (
            App(connector=_Connector(self._trouble)),
            App(connector=_Connector(self._trouble)),
        )
        self._asking = App(connector=PsycopgConnector())  # whose failures are those of the one who asks
        self._add_tasks(place, watch, mend)

    def _add_tasks(self, place: Place, watch: Watch, mend: Mend) -> None:
        async def place_row(context: Any, *, row: int) -> None:
            self._note(context.job)
            await place(row)

        async def watch_shard(context: Any, *, shard: int) -> None:
            self._note(context.job)
            await watch(context.job, shard)

        async def mend_all(timestamp: int) -> None:  # noqa: ARG001
            await mend()

        again: dict[str, Any] = {"retry": _Again(), "pass_context": True}
        placing, keeping = cast("Any", self._placing), cast("Any", self._keeping)  # whose types are for decorators
        placing.task(name=jobs.PLACE, queue=jobs.PLACING, **again)(place_row)
        keeping.task(name=jobs.WATCH, queue=jobs.KEEPING, **again)(watch_shard)
        mending = self._keeping.task(name=jobs.MEND, queue=jobs.KEEPING, queueing_lock=jobs.MEND)(mend_all)
        every = max(1, min(59, round(self._heartbeat)))
        self._keeping.periodic(cron=f"* * * * * */{every}")(mending)

    def _note(self, job: Job) -> None:
        assert job.worker_id is not None  # noqa: S101  # it was fetched
        self.names.add(job.worker_id)

    @property
    def is_ending(self) -> bool:
        """Whether jobs are to be given back."""
        return self._trouble.is_set() or self._stopping.is_set()

    def stop(self) -> None:
        """Ends it: no further job is begun."""
        self._stopping.set()

    async def run(self, former: Iterable[int], started: Callable[[], Awaitable[None]]) -> bool:
        """Works until it is stopped, or until there is trouble; whether there was trouble.

        Args:
            former: names this worker had before: what was theirs is nobody's any more.
            started: called once it is connected.
        """
        try:
            async with self._connected():
                for name in former:
                    await self._asking.job_manager.unregister_worker(name)
                await started()
                await self._work()
        except (ConnectorException, PoolTimeout, psycopg.OperationalError):
            return True
        return self._trouble.is_set() and not self._stopping.is_set()

    async def _work(self) -> None:
        workers = [
            self._worker(app, queue, size)
            for app, queue, size in zip(
                (self._placing, self._keeping), (jobs.PLACING, jobs.KEEPING), self._sizes, strict=True
            )
        ]
        running = [asyncio.ensure_future(worker.run()) for worker in workers]
        signs = [asyncio.ensure_future(event.wait()) for event in (self._trouble, self._stopping)]
        try:
            await asyncio.wait([*running, *signs], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not self._stopping.is_set():
                self._trouble.set()  # a worker that ended by itself is trouble too
            for sign in signs:
                sign.cancel()
            for worker in workers:  # told and not cancelled: while it registers, a cancellation may be lost
                worker.stop()
            self._ending()
            await asyncio.wait(running)
        for task in running:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _worker(self, app: App, queue: str, size: int) -> Any:  # whose methods have no types
        return Worker(
            app,
            queues=[queue],
            concurrency=size,
            fetch_job_polling_interval=POLLED_EVERY,
            shutdown_graceful_timeout=GRACE,
            delete_jobs="always",
            install_signal_handlers=False,
            update_heartbeat_interval=self._heartbeat,
            stalled_worker_timeout=self.stalled_after,
        )

    @property
    def stalled_after(self) -> float:
        """Seconds without a heartbeat after which a worker counts as dead."""
        return STALLED_AFTER * self._heartbeat

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[None]:
        pool = AsyncConnectionPool(
            # What a crash of the server makes it forget of the jobs, it does again; the ledger forgets nothing.
            connecting(self._url, durably=False),
            min_size=1,
            max_size=CONNECTIONS,
            open=False,
            timeout=10.0,
            configure=_without_transactions,
            check=AsyncConnectionPool.check_connection,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(pool.close)
            await pool.open(wait=True, timeout=10.0)
            for app in (self._placing, self._keeping, self._asking):
                await app.connector.open_async(pool)
            yield

    async def is_mine(self, job: Job) -> bool:
        """Whether a job that was begun here has not been taken over by somebody else since."""
        try:
            found = await self._asking.job_manager.list_jobs_async(id=job.id, status=Status.DOING.value)
        except ConnectorException:
            self._trouble.set()
            return False
        return any(there.worker_id == job.worker_id for there in found)

    async def replace_stalled(self) -> None:
        """New jobs for those whose worker is gone."""
        manager = self._asking.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=self.stalled_after):
            # First the new one: whoever dies in between leaves a job too many, and not one too few.
            if job.task_name == jobs.PLACE:
                await self.defer_placing([int(str(job.task_kwargs["row"]))])
            elif job.task_name == jobs.WATCH:
                await self.defer_watching(int(str(job.task_kwargs["shard"])))
            assert job.id is not None  # noqa: S101  # it was read
            with _ended_by_somebody_else():
                await manager.finish_job_by_id_async(job.id, Status.FAILED, delete_job=True)

    async def watched(self) -> set[int]:
        """The shards for which there is a job."""
        found = await self._asking.job_manager.list_jobs_async(task=jobs.WATCH)
        return {int(str(job.task_kwargs["shard"])) for job in found}

    async def defer_placing(self, rows: Iterable[int]) -> None:
        """Jobs for calling these rows."""
        each: list[dict[str, JSONValue]] = [{"row": row_id} for row_id in rows]
        if each:
            await self._asking.configure_task(jobs.PLACE, queue=jobs.PLACING).batch_defer_async(*each)

    async def defer_watching(self, shard: int) -> None:
        """A job for following a shard, where none is waiting already."""
        with contextlib.suppress(AlreadyEnqueued):
            deferrer = self._asking.configure_task(jobs.WATCH, **jobs.options_of_watching(shard))
            await deferrer.defer_async(shard=shard)


async def _without_transactions(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.set_autocommit(True)


@contextlib.contextmanager
def _ended_by_somebody_else() -> Generator[None]:
    try:
        yield
    except ConnectorException as error:
        if not isinstance(error.__cause__, psycopg.errors.RaiseException):
            raise

"""The ledger in one SQLite file, for asyncio: one thread writes, and many changes share a commit."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from tenios_async.batch.errors import LedgerError, LedgerFailed
from tenios_async.batch.ledger import Change, Ledger, check_count, check_key
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.standing import IllegalMove, RowState, Standing

if TYPE_CHECKING:
    from tenios_async import CallbackStatus
    from tenios_async.batch.row import NewRow, Row

_T = TypeVar("_T")

_KIND = "keyed"


class SQLiteLedger(Ledger):
    """A ledger in one file: `async with SQLiteLedger("calls.db") as ledger`.

    Made by `SQLiteLedger.create`, once: a path that is mistyped must not ring everybody again. A program that opens it
    after a crash finds what was being placed in UNKNOWN. One program writes at a time.

    Args:
        path: the file.

    Entering raises `LedgerRefused` and `LedgerFailed`.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self._path = Path(path)
        self._writer: _Writer | None = None

    @staticmethod
    def create(path: Path | str) -> None:
        """Makes the file, for `place_once`. Raises `LedgerRefused` where it exists."""
        LedgerFile.create(path, {"kind": _KIND})

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(asyncio.to_thread(_Writer.start, self._path, asyncio.get_running_loop()))
        try:
            self._writer = await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(LedgerError):  # a thread cannot be cancelled, and would keep the lock
                await asyncio.to_thread((await opening).stop)
            raise
        return self

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was laid down when it was made."""
        return self._open().file.facts

    async def put(self, new: NewRow) -> Row:
        check_key(new.key)

        def work(file: LedgerFile) -> Row:
            file.put(new)
            row = file.by_key(new.key)
            assert row is not None  # noqa: S101  # it was put, or was there
            return row

        return await self._do(work)

    async def by_key(self, key: str) -> Row | None:
        check_key(key)
        return await self._do(lambda file: file.by_key(key))

    async def queued(self, limit: int, after: int = 0) -> list[Row]:
        check_count("limit", limit)
        check_count("after", after)
        return await self._do(lambda file: file.queued(limit, after))

    async def followed(self) -> list[Row]:
        return await self._do(lambda file: list(file.rows(RowState.PLACED)))

    async def counts(self) -> dict[RowState, int]:
        return await self._do(lambda file: file.counts())

    async def tally(self) -> dict[tuple[RowState, CallbackStatus | None], int]:
        return await self._do(lambda file: file.tally())

    async def change_all(self, changes: Sequence[Change]) -> list[Standing | IllegalMove]:
        def work(file: LedgerFile) -> list[Standing | IllegalMove]:
            results: list[Standing | IllegalMove] = []
            for row_id, move in changes:
                try:
                    results.append(file.change(row_id, move))
                except IllegalMove as refusal:
                    results.append(refusal)
            return results

        return await self._do(work)

    async def _close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await asyncio.to_thread(writer.stop)

    def _do(self, work: Callable[[LedgerFile], _T]) -> asyncio.Future[_T]:
        """Queues it at once, and not when it is awaited: what follows a cancellation comes after it."""
        return self._open().queue(work)

    def _open(self) -> _Writer:
        if self._writer is None:
            raise LedgerFailed("the ledger is not open: use `async with SQLiteLedger(path) as ledger`")
        return self._writer


@attrs.define
class _Job:
    work: Callable[[LedgerFile], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class _Writer:
    """The thread that has the file. While one commit is on its way to the disk, the jobs for the next gather."""

    def __init__(self, file: LedgerFile, loop: asyncio.AbstractEventLoop) -> None:
        self.file = file
        self._loop = loop
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._failure: LedgerFailed | None = None
        self._thread = threading.Thread(target=self._run, name="tenios-ledger", daemon=True)

    @classmethod
    def start(cls, path: Path, loop: asyncio.AbstractEventLoop) -> _Writer:
        file = LedgerFile.write(path)
        try:
            file.recover()
            writer = cls(file, loop)
        except BaseException:
            file.close()
            raise
        writer._thread.start()
        return writer

    def queue(self, work: Callable[[LedgerFile], _T]) -> asyncio.Future[_T]:
        if asyncio.get_running_loop() is not self._loop:
            raise LedgerFailed("the ledger was opened on another event loop; close it, and open it on this one")
        future: asyncio.Future[_T] = self._loop.create_future()
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._jobs.append(_Job(work, future))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Does what is queued, and closes the file."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()
        self.file.close()

    def _run(self) -> None:
        while jobs := self._take():
            failure: Exception | None = None
            try:
                with self.file.transaction():
                    for job in jobs:
                        self._do(job)
            except Exception as error:  # whatever it is, none of this is known to be on the disk
                failure = error if isinstance(error, LedgerFailed) else LedgerFailed(_told(error, self.file.path))
                with self._changed:
                    # After a failed fsync nobody knows what the disk holds: a second one that succeeds proves nothing.
                    self._failure = failure
                    jobs += self._jobs
                    self._jobs.clear()
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(_deliver, jobs, failure)

    def _do(self, job: _Job) -> None:
        before = self.file.changes
        try:
            job.result = job.work(self.file)
        except Exception as error:
            is_misuse = isinstance(error, (sqlite3.InterfaceError, sqlite3.ProgrammingError))  # a value it cannot take
            if isinstance(error, (LedgerError, sqlite3.Error)) and not is_misuse:
                raise
            if self.file.changes != before:
                raise
            job.error = error  # it could not even be tried: the others have nothing to do with it

    def _take(self) -> list[_Job]:
        """All that is queued; empty once this is to stop, or has failed."""
        with self._changed:
            while not self._jobs and not self._is_stopping and self._failure is None:
                self._changed.wait()
            jobs = list(self._jobs)
            self._jobs.clear()
            return jobs


def _told(error: Exception, path: Path) -> str:
    return str(error) if isinstance(error, LedgerError) else f"{path}: {error!r}"


def _deliver(jobs: list[_Job], failure: Exception | None) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None and failure is None:
            job.future.set_exception(job.error)
        elif failure is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(failure)

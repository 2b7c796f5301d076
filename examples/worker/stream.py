"""A queue in Redis whose jobs outlive the worker that had them: taskiq's broker, and what it leaves to its user."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisSilent
from taskiq import AckableMessage
from taskiq_redis import RedisStreamBroker

_log = logging.getLogger("worker")

_AT_ONCE = 100


class Stream(RedisStreamBroker):
    """Delivers each job at least once, in order of arrival; a job is done when its function has ended.

    A worker says several times within `redeliver_after` that it is alive. Once it has been silent for that long, and no
    sooner however long a job takes, its jobs go to the others. While Redis is away, everybody waits.

    Args:
        url: of Redis.
        name: of the queue.
        redeliver_after: seconds.
    """

    def __init__(self, url: str, name: str, *, redeliver_after: float = 30.0) -> None:
        away: list[type[Exception]] = [RedisAway, RedisSilent, OSError]
        super().__init__(
            url,
            queue_name=name,
            consumer_id="0",  # also jobs that were there before the first worker
            idle_timeout=round(redeliver_after * 1000),
            xread_count=10,
            retry=Retry(ExponentialBackoff(cap=5), retries=-1),
            retry_on_error=away,
        )
        self._beat = redeliver_after / 4
        self._keeper: tuple[asyncio.Task[None], anyio.CancelScope] | None = None
        self._scopes: set[anyio.CancelScope] = set()
        self._is_told_to_stop = False

    async def startup(self) -> None:
        """Also begins to say that this worker is alive."""
        await super().startup()
        if self.is_worker_process:
            scope = anyio.CancelScope()
            self._keeper = asyncio.create_task(self._keep(scope)), scope

    async def shutdown(self) -> None:
        """Ends that."""
        if self._keeper is not None:
            task, scope = self._keeper
            scope.cancel()  # again and again until it has ended: a cancellation may get lost, see `listen`
            await asyncio.wait([task])
        await super().shutdown()

    @contextlib.contextmanager
    def until_told_to_stop(self) -> Generator[anyio.CancelScope]:
        """What runs in it is cancelled when the worker is told to stop, which then waits for what the job does next."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._is_told_to_stop:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Jobs as they come. taskiq cancels and closes this first when the worker is told to stop.

        A cancellation that comes just when Redis has been asked gets lost before Python 3.12
        (https://github.com/python/cpython/issues/86296), so it is looked for once Redis has answered.
        """
        try:
            async with Redis(connection_pool=self.connection_pool) as redis:
                while not _is_cancelled():
                    for message_id, fields in await self._read(redis):
                        yield AckableMessage(data=fields[b"data"], ack=self._ack_generator(message_id, self.queue_name))
        finally:
            self._is_told_to_stop = True
            for scope in tuple(self._scopes):
                scope.cancel()

    async def _read(self, redis: Redis) -> list[tuple[str, dict[bytes, bytes]]]:
        found: Any = await redis.xreadgroup(
            self.consumer_group_name, self.consumer_name, {self.queue_name: ">"}, count=self.count, block=self.block
        )
        return [job for _, jobs in found for job in jobs]

    async def _keep(self, scope: anyio.CancelScope) -> None:
        with scope:
            async with Redis(connection_pool=self.connection_pool) as redis:
                while True:
                    try:
                        await self._say_alive(redis)
                        await self._take_from_the_dead(redis)
                        await self._forget_what_is_done(redis)
                    except RedisError:
                        _log.exception("the queue %s was not looked after", self.queue_name)
                    await asyncio.sleep(self._beat)

    async def _say_alive(self, redis: Redis) -> None:
        """Claiming a job that is one's own sets its idle time back to 0 (https://redis.io/docs/latest/commands/xclaim/)."""
        queue, group, me = self.queue_name, self.consumer_group_name, self.consumer_name
        after = "-"
        while mine := await redis.xpending_range(queue, group, after, "+", _AT_ONCE, me):
            ids: list[Any] = [job["message_id"] for job in mine]
            await redis.xclaim(queue, group, me, 0, ids, justid=True)
            after = f"({ids[-1].decode()}"

    async def _take_from_the_dead(self, redis: Redis) -> None:
        """Puts jobs of silent workers at the end of the queue. The broker itself looks only when a new job comes."""
        queue, group = self.queue_name, self.consumer_group_name
        _, orphans, *_ = await redis.xautoclaim(queue, group, self.consumer_name, self.idle_timeout, count=_AT_ONCE)
        for message_id, fields in orphans:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.xadd(queue, fields)
                pipe.xack(queue, group, message_id)
                await pipe.execute()

    async def _forget_what_is_done(self, redis: Redis) -> None:
        """A stream keeps every entry; those before the first that is not done are deleted."""
        groups: list[dict[str, Any]] = await redis.xinfo_groups(self.queue_name)
        (ours,) = (group for group in groups if group["name"].decode() == self.consumer_group_name)
        # After the above, so that what is delivered between the two stays.
        pending = await redis.xpending(self.queue_name, self.consumer_group_name)
        first = _after(ours["last-delivered-id"].decode())
        if pending["min"] is not None:
            first = min(first, _parts(pending["min"].decode()))
        await redis.xtrim(self.queue_name, minid="{}-{}".format(*first), approximate=False)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _parts(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def _after(entry: str) -> tuple[int, int]:
    milliseconds, number = _parts(entry)
    return milliseconds, number + 1

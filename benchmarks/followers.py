"""The clients that `watching.py` compares: each follows the same callbacks to their ends, from the same instants on.

Run as a program it is one of them: it reads a line of JSON, says that it is ready, is told the instant at which
everything begins, and says at the end what it spent since then.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from responder import ACCESS_KEY, HOST, PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Poll = Callable[[int], Awaitable[str]]
    Follow = Callable[["Arrivals"], Awaitable[int]]

CONNECTIONS = 100
"""That each client may open: the default of all of them."""
INTERVAL = 2.0
"""Seconds from an answer to the next poll of a hand-written loop, before everything is sped up."""
TERMINAL = {"CALL_A_FAILED", "CALL_B_FAILED", "DISCONNECTED"}


@dataclass(frozen=True)
class Task:
    """What a client is told.

    Attributes:
        port: of the responder.
        starts: seconds after the beginning at which each callback is placed, in their order.
        speed: how many times faster than real calls everything happens.
        cost: of the schedule, for those that have one.
    """

    port: int
    starts: list[float]
    speed: float
    cost: float

    @property
    def origin(self) -> str:
        """The URL without a path."""
        return f"http://{HOST}:{self.port}"


class Arrivals:
    """The ids of the callbacks, from 1, each at the instant at which it is placed."""

    def __init__(self, starts: list[float], begin: float) -> None:
        self._starts = starts
        self._begin = begin

    async def __aiter__(self) -> AsyncIterator[int]:
        for callback_id, start in enumerate(self._starts, start=1):
            await asyncio.sleep(self._begin + start - time.monotonic())
            yield callback_id


@asynccontextmanager
async def httpx_loop(task: Task) -> AsyncIterator[tuple[Poll, Follow]]:
    """One `httpx.AsyncClient`, and a task for each callback that asks again and again."""
    import httpx  # noqa: PLC0415  # a client is not to carry the others

    async with httpx.AsyncClient(base_url=task.origin, limits=httpx.Limits(max_connections=CONNECTIONS)) as client:

        async def poll(callback_id: int) -> str:
            response = await client.post(PATH, json={"access_key": ACCESS_KEY, "id": callback_id})
            response.raise_for_status()
            return response.json()["status"]

        yield poll, _each_by(_asking_every(INTERVAL / task.speed, poll))


@asynccontextmanager
async def aiohttp_loop(task: Task) -> AsyncIterator[tuple[Poll, Follow]]:
    """The same with one `aiohttp.ClientSession`."""
    import aiohttp  # noqa: PLC0415  # a client is not to carry the others

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(task.origin, connector=connector) as session:

        async def poll(callback_id: int) -> str:
            async with session.post(PATH, json={"access_key": ACCESS_KEY, "id": callback_id}) as response:
                response.raise_for_status()
                return (await response.json())["status"]

        yield poll, _each_by(_asking_every(INTERVAL / task.speed, poll))


@asynccontextmanager
async def watches(task: Task) -> AsyncIterator[tuple[Poll, Follow]]:
    """`TeniosClient.watch_callback`, in a task for each callback."""
    from tenios_async import TeniosClient  # noqa: PLC0415  # a client is not to carry the others

    async with TeniosClient(ACCESS_KEY, base_url=task.origin, polling=schedule(task.cost, task.speed)) as client:

        async def follow(callback_id: int) -> str:
            return [transition.status async for transition in client.watch_callback(callback_id)][-1]

        yield client.callback_status, _each_by(follow)


@asynccontextmanager
async def monitor(task: Task) -> AsyncIterator[tuple[Poll, Follow]]:
    """One `CallbackMonitor` for all."""
    from tenios_async import TeniosClient, Transition  # noqa: PLC0415  # a client is not to carry the others

    async with TeniosClient(ACCESS_KEY, base_url=task.origin, polling=schedule(task.cost, task.speed)) as client:

        async def follow(arrivals: Arrivals) -> int:
            async with client.monitor() as callbacks, asyncio.TaskGroup() as group:

                async def add() -> None:
                    async for callback_id in arrivals:
                        callbacks.add(callback_id)
                    callbacks.seal()

                group.create_task(add())
                return sum([isinstance(event, Transition) and event.is_terminal async for event in callbacks])

        yield client.callback_status, follow


HTTPX, AIOHTTP, WATCHES, MONITOR = "httpx loop", "aiohttp loop", "ours, watches", "ours, monitor"

FOLLOWERS: dict[str, Callable[[Task], AbstractAsyncContextManager[tuple[Poll, Follow]]]] = {
    HTTPX: httpx_loop,
    AIOHTTP: aiohttp_loop,
    WATCHES: watches,
    MONITOR: monitor,
}


def schedule(cost: float, speed: float) -> Any:
    """The default schedule but for its cost, sped up."""
    from tenios_async import Polling  # noqa: PLC0415  # a client is not to carry the others

    usual = Polling()
    shortest, longest = usual.min_interval / speed, usual.max_interval / speed
    return Polling(cost=cost, min_interval=shortest, max_interval=longest, speed=speed)


def _asking_every(interval: float, poll: Poll) -> Callable[[int], Awaitable[str]]:
    """What a user writes."""

    async def follow(callback_id: int) -> str:
        while (status := await poll(callback_id)) not in TERMINAL:  # noqa: ASYNC110  # nobody says when
            await asyncio.sleep(interval)
        return status

    return follow


def _each_by(follow: Callable[[int], Awaitable[str]]) -> Follow:
    """A task for each callback."""

    async def follow_all(arrivals: Arrivals) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow(callback_id)) async for callback_id in arrivals]
        return sum(task.result() in TERMINAL for task in tasks)

    return follow_all


async def _run(name: str, task: Task) -> None:
    async with FOLLOWERS[name](task) as (poll, follow):
        await asyncio.gather(*(poll(len(task.starts) + 1) for _ in range(3)))
        gc.collect()
        print(json.dumps("ready"), flush=True)
        begin = json.loads(sys.stdin.readline())
        cpu = time.process_time()
        ended = await follow(Arrivals(task.starts, begin))
        cpu, end = time.process_time() - cpu, time.monotonic()
    print(json.dumps({"cpu": cpu, "wall": end - begin, "end": end, "ended": ended}), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], Task(**json.loads(sys.stdin.readline()))))

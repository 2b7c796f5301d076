"""Stands for your web process. Each line it reads is a request, a key and a number: `order-4711 +491234567890`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncGenerator

from taskiq.receiver import Receiver

from worker.tasks import calls, log, place, request_to


async def call_back(key: str, number: str) -> str:
    """What a request handler does. Once this has returned the job is in Redis; who asks twice is called once."""
    try:
        request_to(number)
    except ValueError as error:
        return f"{key}: not accepted: {error}"
    await place.kiq(key, number)
    return f"{key}: accepted"


@contextlib.asynccontextmanager
async def asking() -> AsyncGenerator[None]:
    """The lifespan of a web application: a `taskiq worker` elsewhere has the ledger and places."""
    await calls.startup()
    try:
        yield
    finally:
        await calls.shutdown()


@contextlib.asynccontextmanager
async def placing() -> AsyncGenerator[None]:
    """The lifespan of a web application that is one process: it has the ledger and places."""
    calls.is_worker_process = True
    stop = asyncio.Event()
    await calls.startup()
    try:
        receiver = asyncio.create_task(Receiver(calls, max_async_tasks=100, run_startup=False).listen(stop))
        try:
            yield
        finally:
            stop.set()
            await receiver
    finally:
        await calls.shutdown()


async def main() -> None:
    """Reads requests until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--placing", action="store_true", help="place in this process")
    lifespan = placing if parser.parse_args().placing else asking
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    async with lifespan():
        while line := await asyncio.to_thread(sys.stdin.readline):
            key, number = line.split()
            print(await call_back(key, number), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

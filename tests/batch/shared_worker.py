"""A program that starts workers of a campaign in PostgreSQL, to be killed. It forks, so that a new one is there at once.

Each line on standard input starts one; its process id is written to standard output, and how it ended to a file.
"""

import asyncio
import os
import signal
import sys

from tenios_async import Polling, TeniosClient
from tenios_async.batch.distributed import Worker
from tenios_async.batch.postgres import PostgresLedger

KEY = "CANARY-KEY-0123456789"


async def work(url: str, base_url: str, heartbeat: float, left_alone: float) -> None:
    async with PostgresLedger(url, patience=30) as ledger, TeniosClient(KEY, base_url=base_url, timeout=1) as client:
        polling = Polling.fixed(0.5)
        await Worker(ledger, client, concurrency=40, polling=polling, heartbeat=heartbeat, left_alone=left_alone).run()


def main(url: str, base_url: str, heartbeat: str, left_alone: str, log: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are taken away by the system
    ends = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                asyncio.run(work(url, base_url, float(heartbeat), float(left_alone)))
            except BaseException as error:
                os.write(ends, f"{os.getpid()} {error!r}\n".encode())
                os._exit(1)
            os.write(ends, f"{os.getpid()} over\n".encode())
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A program that works a campaign, to be killed. It forks, so that a new one is there in a millisecond.

Each line on standard input starts one; its process id is written, and how it ended once it has.
"""

import asyncio
import os
import sys

from tenios_async import TeniosClient
from tenios_async.batch import SQLiteLedger
from tenios_async.batch.runner import Runner

KEY = "CANARY-KEY-0123456789"


async def work(ledger_path: str, base_url: str, told: int) -> None:
    def tell(row, transition):
        os.write(told, f"{transition.callback.id}\n".encode())

    async with SQLiteLedger(ledger_path) as ledger, TeniosClient(KEY, base_url=base_url, timeout=1) as client:
        await Runner(ledger, client, concurrency=5, max_unknown=1, hook=tell).run()


def main(ledger_path: str, base_url: str, told_path: str) -> None:
    told = os.open(told_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(work(ledger_path, base_url, told))
            except BaseException as error:
                print(f"{error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

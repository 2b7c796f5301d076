"""A program that works a campaign to its end: a ledger and a base URL; then `descriptors=N`, how many more files it may open.

It prints `refused` where the ledger is another's, `stopped` where too many calls are in doubt, else `ended`; then how many
connections found no descriptor.
"""

import asyncio
import errno
import os
import resource
import sys

from tenios_async import TeniosClient
from tenios_async.batch import LedgerRefused, SQLiteLedger
from tenios_async.batch.runner import Runner

from .rooms import KEY


class Connecting(asyncio.SelectorEventLoop):
    """Counts the connections that found no descriptor."""

    refused = 0

    async def create_connection(self, *arguments, **options):
        try:
            return await super().create_connection(*arguments, **options)
        except OSError as failure:
            self.refused += failure.errno == errno.EMFILE
            raise


async def main(path: str, url: str, *more: str) -> str:
    try:
        async with (
            SQLiteLedger(path) as ledger,
            TeniosClient(KEY, base_url=url, timeout=2, allow_insecure_http=True) as client,
        ):
            for option in more:
                count = int(option.removeprefix("descriptors="))
                free = os.dup(0)  # the lowest that is
                os.close(free)
                resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, free + count))
            progress = await Runner(ledger, client, concurrency=30, max_unknown=1).run()
    except LedgerRefused:
        return "refused"
    return "ended" if progress.stopped is None else "stopped"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=Connecting) as runner:
        print(runner.run(main(*sys.argv[1:])), runner.get_loop().refused, flush=True)

"""The application as a program of its own, to be killed: program.py PORT LEDGER URL. It says when it is ready."""

import asyncio
import sys

from tenios_async import Polling, TeniosClient
from tenios_async.batch import SQLiteLedger
from web_callback.app import create_app
from web_callback.numbers import Numbers
from web_callback.server import Server


class Told(Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def main(port, path, url):
    app = create_app(
        "config",
        ledger=lambda: SQLiteLedger(path),
        numbers=Numbers(["DE"]),
        tenios=lambda: TeniosClient("key", base_url=url, polling=Polling.fixed(0.05)),
    )
    asyncio.run(Told(app, port=int(port), log_level="warning").serve())


if __name__ == "__main__":
    main(*sys.argv[1:])

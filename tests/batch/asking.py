"""A backend that places calls once: each line on standard input is a key and a number, and each answer a line."""

import asyncio
import json
import sys

from tenios_async import CallbackOutcomeUnknown, CallbackRequest, TeniosClient
from tenios_async.batch.postgres import PostgresLedger


async def main(url: str, base_url: str) -> None:
    async with PostgresLedger(url) as ledger, TeniosClient("CANARY-KEY-0123456789", base_url=base_url) as client:
        print("open", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            key, number = line.split()
            try:
                callback = await ledger.place_once(client, CallbackRequest("config", number), key=key)
                answer = callback.to_json()
            except CallbackOutcomeUnknown as doubt:
                answer = {"in doubt": doubt.reason}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

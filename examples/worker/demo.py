"""The example beside a simulated TENIOS, with a worker that is killed in the middle: `make example-worker`."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tenios_async.batch import RowState, SQLiteLedger
from tenios_async.simulator import Fault, Script, Service, SimulatorServer
from worker.programs import Program, Worker, redis_server

CALLS: dict[str, tuple[str, Script | Fault]] = {
    "order-1": ("+49221123451", Script.talk(ringing=2, seconds=3)),
    "order-2": ("+49221123452", Script.customer_silent(ringing=2, ring_duration=5)),
    "order-3": ("+49221123453", Script.agent_silent(ring_duration=4)),
    "order-4": ("+49221123454", Fault.lost()),
}
"""Whom is called, and how it goes."""

_OURS = r"^worker: (.*)"


async def play() -> bool:
    """Plays it; whether every call was placed once and its end, or the doubt about it, is written down."""
    service = Service()
    for number, fate in CALLS.values():
        if isinstance(fate, Script):
            service.script(number, fate)
        else:
            service.fail_init(fate, number=number)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        env = {
            "REDIS_URL": await stack.enter_async_context(redis_server(folder)),
            "TENIOS_BASE_URL": (await stack.enter_async_context(SimulatorServer(service))).base_url,
            "TENIOS_ACCESS_KEY": "simulated",
            "TENIOS_CALLBACK_CONFIG_ID": "simulated",
            "CALLBACK_LEDGER": str(folder / "calls.db"),
            "CALLBACK_REDELIVER_AFTER": "3",
            "NO_PROXY": "127.0.0.1",  # no proxy leads to this machine itself
        }
        SQLiteLedger.create(env["CALLBACK_LEDGER"])
        print("Starting Redis, a simulated TENIOS and three workers. No phone rings.\n", flush=True)
        calls = await stack.enter_async_context(Worker("calls", env=env, echo=_OURS))
        watchers = [await stack.enter_async_context(Worker("watches", env=env, echo=_OURS)) for _ in range(2)]
        web = await stack.enter_async_context(Program(sys.executable, "-m", "worker.web", env=env, echo=".*accepted"))
        await asyncio.gather(*(worker.listens() for worker in (calls, *watchers)))
        for key, (number, _) in CALLS.items():
            web.tell(f"{key} {number}")
            web.tell(f"{key} {number}")  # a double click
        await calls.says("order-1: CALLING_A")
        print("-- kill -9 for a worker that follows calls", flush=True)
        await watchers[0].kill()
        for key, end in (("order-1", "DISCONNECTED"), ("order-2", "CALL_B_FAILED"), ("order-3", "CALL_A_FAILED")):
            await calls.says(f"{key}: {end}")
        calls.stop()
        await calls.end()
        async with SQLiteLedger(env["CALLBACK_LEDGER"]) as ledger:
            counts = {state: count for state, count in (await ledger.counts()).items() if count}
    print("\nIn the ledger:", ", ".join(f"{count} {state}" for state, count in counts.items()))
    print("Calls that TENIOS was asked for:", dict(service.inits))
    once = dict.fromkeys((number for number, _ in CALLS.values()), 1)
    return dict(service.inits) == once and counts == {RowState.UNKNOWN: 1, RowState.FINISHED: 3}


async def main() -> int:
    """Plays it, unless it is told to stop; what it has started ends with it."""
    playing = asyncio.ensure_future(play())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    return 0 if await playing else 1


if __name__ == "__main__":
    if shutil.which("redis-server") is None:
        sys.exit("this example needs redis-server; on Debian and Ubuntu: apt-get install redis-server")
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(asyncio.run(main()))

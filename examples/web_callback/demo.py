"""The application beside a simulated TENIOS, to be tried without an account and without a phone: `make example-web`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

from tenios_async import TeniosClient
from tenios_async.batch import SQLiteLedger
from tenios_async.simulator import Fault, Script, Service, SimulatorServer
from web_callback.app import create_app
from web_callback.limits import Limit, Limits
from web_callback.numbers import Numbers
from web_callback.server import Server

_TRIES = 99

ENDINGS: dict[str, tuple[str, Script | Fault]] = {
    "0221 123451": ("you talk for half a minute", Script.talk(ringing=5)),
    "0221 123452": ("nobody on our side picks up", Script.agent_silent(ring_duration=8)),
    "0221 123453": ("you do not pick up", Script.customer_silent(ringing=4, ring_duration=8)),
    "0221 123454": ("TENIOS never answers, so that a phone may ring", Fault.lost()),
    "0221 123455": ("TENIOS refuses the number", Fault(400)),
}
"""What a number leads to; every other one leads to a talk."""


async def serve(host: str, port: int) -> None:
    """Serves both until Ctrl-C."""
    numbers, service = Numbers(["DE"]), Service(script=Script.talk(ringing=5))
    for written, (_, ending) in ENDINGS.items():
        if isinstance(ending, Script):
            service.script(numbers.read(written), ending)
        else:
            service.fail_init(*[ending] * _TRIES, number=numbers.read(written))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"  # no proxy leads to this machine itself
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calls.db")
        SQLiteLedger.create(path)
        async with SimulatorServer(service) as tenios:
            app = create_app(
                "simulated",
                ledger=lambda: SQLiteLedger(path),
                numbers=numbers,
                limits=Limits(address=Limit((30, 600)), number=Limit((1, 30))),  # to be tried more than once
                tenios=lambda: TeniosClient("simulated", base_url=tenios.base_url),
            )
            print(
                f"http://{host}:{port} places calls at a simulated TENIOS; no phone rings. Ctrl-C ends it.\n",
                flush=True,
            )
            for written, (what, _) in ENDINGS.items():
                print(f"  {written}  {what}", flush=True)
            await Server(app, host=host, port=port, log_level="warning").serve()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.host, arguments.port))


if __name__ == "__main__":
    main()

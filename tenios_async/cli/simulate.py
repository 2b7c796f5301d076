"""`tenios simulate`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tenios_async.cli.outcome import Exit
from tenios_async.simulator import Service, SimulatorServer

if TYPE_CHECKING:
    from tenios_async.cli.output import Output


async def serve(output: Output, *, host: str, port: int, speed: float, seed: int, allow_remote: bool) -> Exit:
    """Serves until Ctrl-C, which is its way to end well."""
    service = Service(speed=speed, seed=seed)
    async with SimulatorServer(service, host=host, port=port, allow_remote=allow_remote) as server:
        output.emit("listening", base_url=server.base_url)
        output.say(f"simulating TENIOS at {server.base_url}, {speed:.15g} times as fast as life; Ctrl-C ends it")
        output.say(
            f"in another shell: export TENIOS_BASE_URL={server.base_url}"
            " TENIOS_ACCESS_KEY=any TENIOS_CALLBACK_CONFIG_ID=any"
        )
        if speed != 1:
            output.say(f"to look as much faster: tenios init NUMBER --watch --speed {speed:.15g}")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            inits, polls = sum(service.inits.values()), sum(service.polls.values())
            output.emit("ended", inits=inits, polls=polls)
            output.say(f"{inits} calls were asked for, with {polls} polls")
    return Exit.OK

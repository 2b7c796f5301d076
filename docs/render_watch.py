"""Renders docs/watch.svg: `tenios watch` against the simulator, on virtual time and so the same each time."""

from __future__ import annotations

import asyncio
import io
import random
import re
import sys
from pathlib import Path

import looptime
from rich.console import Console

from tenios_async import Callback
from tenios_async.cli import calls
from tenios_async.cli.output import Output
from tenios_async.simulator import Script
from tenios_async.simulator.fixture import Simulator

_CALLBACK_ID = 10  # as on the vendor's page


async def _watch(output: Output) -> None:
    simulator = Simulator()
    simulator.script("+491234567890", Script.talk(ringing=8.0, seconds=95.0))
    async with simulator.client() as tenios:
        placed = await tenios.init_callback("config-id", "+491234567890")
    if placed.id != _CALLBACK_ID:
        raise RuntimeError(f"the picture shows callback {_CALLBACK_ID}, and the simulator placed {placed.id}")
    await calls.follow(simulator.client(), Callback(placed.id), output, timeout=None)


def render() -> str:
    """The picture."""
    random.seed(1)  # the schedule's jitter
    console = Console(record=True, file=io.StringIO(), width=72, highlight=False, color_system="truecolor")
    console.print(f"[dim]$[/] tenios watch {_CALLBACK_ID}")
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0.0)) as runner:
        runner.run(_watch(Output(console=console)))
    svg = console.export_svg(title="tenios watch", unique_id="tenios-watch")
    return re.sub(r"\s*@font-face \{[^}]*\}", "", svg)  # a picture that fetches nothing


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")

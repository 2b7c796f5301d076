"""`tenios demo`: every way a call can end, over real HTTP, without ringing anybody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import attrs
from rich.live import Live
from rich.table import Table

from tenios_async import CallbackRequest, Polling, TeniosClient, Transition, mask_number
from tenios_async.cli.outcome import MEANINGS, STYLES, Exit
from tenios_async.simulator import Script, Service, SimulatorServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from tenios_async.cli.outcome import Output

_CONFIG_ID = "XXXXX-XXXX-XXXXXX"  # as on the vendor's page
_ANNOUNCEMENT = "Customer Peter Müller is being called now, please press 1 to start the call."


@attrs.define
class _Call:
    """One call of the demo: what is asked for, how it should end, and what was seen."""

    title: str
    request: CallbackRequest
    script: Script
    expected: str
    seen: list[Transition] = attrs.field(factory=list[Transition])

    @property
    def status(self) -> str:
        return str(self.seen[-1].status) if self.seen else "..."

    @property
    def went_as_expected(self) -> bool:
        return self.status == self.expected


def _calls() -> list[_Call]:
    talk = Script.talk
    page = CallbackRequest(_CONFIG_ID, "+491234567890", 30)
    return [
        _Call("with a delay of 30 s", page, talk(), "DISCONNECTED"),
        _Call(
            "with announcement and DTMF key",
            CallbackRequest(_CONFIG_ID, "+491234567891", 30, _ANNOUNCEMENT, "1"),
            talk(seconds=20),
            "DISCONNECTED",
        ),
        _Call("at once", CallbackRequest(_CONFIG_ID, "+491234567892"), talk(ringing=4), "DISCONNECTED"),
        _Call(
            "the agent is away",
            CallbackRequest(_CONFIG_ID, "+491234567893"),
            Script.agent_silent(),
            "CALL_A_FAILED",
        ),
        _Call(
            "the customer is away",
            CallbackRequest(_CONFIG_ID, "+491234567894"),
            Script.customer_silent(),
            "CALL_B_FAILED",
        ),
    ]


async def play(output: Output, *, speed: float) -> Exit:
    """Plays the demo; OK where every call ended as it should and nobody was called twice."""
    calls = _calls()
    service = Service(speed=speed)
    for call in calls:
        service.script(call.request.callback_number, call.script)
    # States `speed` times as short are looked at as much more often; by the square-root law `cost` goes by its square.
    usual = Polling()
    polling = Polling(
        cost=usual.cost / speed**2, min_interval=usual.min_interval / speed, max_interval=usual.max_interval / speed
    )
    async with (
        SimulatorServer(service) as server,
        TeniosClient("a-simulated-key", base_url=server.base_url, polling=polling) as tenios,
    ):
        output.say(f"A simulated TENIOS at {server.base_url}, {speed:g} times as fast as life. No phone rings.\n")
        if output.console.is_terminal:
            with Live(_table(calls), console=output.console, refresh_per_second=12) as live:
                await _all(tenios, calls, speed, lambda _call, _seen: live.update(_table(calls)))
        else:
            await _all(tenios, calls, speed, lambda call, seen: output.say(_line(call, seen)))
            output.say("")
            output.console.print(_table(calls))
    service.assert_nobody_called_twice()
    output.say(f"\n{len(calls)} calls, each placed once, followed to the end with {sum(service.polls.values())} polls.")
    wrong = [call.title for call in calls if not call.went_as_expected]
    if wrong:
        output.say(f"[red]not as expected: {', '.join(wrong)}[/]")
    return Exit.CALL_FAILED if wrong else Exit.OK


async def _all(
    tenios: TeniosClient, calls: list[_Call], speed: float, tell: Callable[[_Call, Transition], None]
) -> None:
    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(_one(tenios, call, speed, tell))


async def _one(tenios: TeniosClient, call: _Call, speed: float, tell: Callable[[_Call, Transition], None]) -> None:
    callback = await tenios.init_callback(call.request)
    # The simulated delay passes `speed` times as fast, so the watch is told how long it really is.
    callback = attrs.evolve(callback, delay=round((callback.delay or 0) / speed))
    async for transition in tenios.watch_callback(callback):
        call.seen.append(transition)
        tell(call, transition)


def _line(call: _Call, seen: Transition) -> str:
    style = STYLES.get(seen.status, "cyan")
    number = mask_number(call.request.callback_number)
    return f"{seen.elapsed:5.1f} s  {number}  [{style}]{seen.status:<13}[/]  [dim]{MEANINGS.get(seen.status, '')}[/]"


def _table(calls: list[_Call]) -> RenderableType:
    table = Table()
    for name in ("call", "number", "state", "polls", "seconds"):
        table.add_column(name, justify="right" if name in ("polls", "seconds") else "left")
    for call in calls:
        last = call.seen[-1] if call.seen else None
        table.add_row(
            call.title,
            mask_number(call.request.callback_number),
            f"[{STYLES.get(last.status, 'cyan') if last else 'dim'}]{call.status}[/]",
            str(last.polls) if last else "",
            f"{last.elapsed:.1f}" if last else "",
        )
    return table

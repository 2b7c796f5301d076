"""`tenios demo`: every way a call can end, over real HTTP, without ringing anybody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import attrs
import httpx
from rich.live import Live
from rich.table import Table

from tenios_async import CallbackRequest, CallbackStatus, Polling, TeniosClient, TeniosError, Transition, mask_number
from tenios_async.cli.outcome import Exit, meaning_of, style_of
from tenios_async.cli.output import plain
from tenios_async.simulator import Script, Service, SimulatorServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from tenios_async.cli.output import Output

_CONFIG_ID = "XXXXX-XXXX-XXXXXX"  # as on the vendor's page
_ANNOUNCEMENT = "Customer Peter Müller is being called now, please press 1 to start the call."


@attrs.define
class _Call:
    """One call of the demo: what is asked for, how it should end, and what was seen."""

    title: str
    request: CallbackRequest
    script: Script
    expected: CallbackStatus
    seen: list[Transition] = attrs.field(factory=list[Transition])
    problem: TeniosError | None = None

    @property
    def status(self) -> str:
        return str(self.seen[-1].status) if self.seen else "..."


def _calls() -> list[_Call]:
    talk, page = Script.talk, CallbackRequest(_CONFIG_ID, "+491234567890", 30)
    announced = CallbackRequest(_CONFIG_ID, "+491234567891", 30, _ANNOUNCEMENT, "1")
    return [
        _Call("a delay of 30 s", page, talk(), CallbackStatus.DISCONNECTED),
        _Call("announcement, DTMF key", announced, talk(seconds=20), CallbackStatus.DISCONNECTED),
        _Call("at once", CallbackRequest(_CONFIG_ID, "+491234567892"), talk(ringing=4), CallbackStatus.DISCONNECTED),
        _Call(
            "the agent is away",
            CallbackRequest(_CONFIG_ID, "+491234567893"),
            Script.agent_silent(),
            CallbackStatus.CALL_A_FAILED,
        ),
        _Call(
            "the customer is away",
            CallbackRequest(_CONFIG_ID, "+491234567894"),
            Script.customer_silent(),
            CallbackStatus.CALL_B_FAILED,
        ),
    ]


async def play(output: Output, *, speed: float) -> Exit:
    """Plays the demo; OK where every call ended as it should and nobody was called twice."""
    calls, service = _calls(), Service(speed=speed)
    for call in calls:
        service.script(call.request.callback_number, call.script)
    async with (
        SimulatorServer(service) as server,
        httpx.AsyncClient(trust_env=False) as direct,  # no proxy leads to this machine itself
        TeniosClient("simulated", base_url=server.base_url, http_client=direct, polling=Polling(speed=speed)) as tenios,
    ):
        output.say(f"A simulated TENIOS at {server.base_url}, {speed:g} times as fast as life. No phone rings.\n")
        await _show(tenios, calls, output)
    wrong = [_complaint(call) for call in calls if call.status != call.expected]
    wrong += [f"{mask_number(number)} was asked for {n} times" for number, n in service.inits.items() if n > 1]
    polls = sum(service.polls.values())
    output.emit("ended", calls=sum(service.inits.values()), polls=polls, wrong=wrong)
    if wrong:
        output.note(f"tenios: not as expected: {'; '.join(wrong)}")
        return Exit.CALL_FAILED
    output.say(f"\n{len(calls)} calls, each placed once and followed to its end with {polls} polls in all.")
    return Exit.OK


async def _show(tenios: TeniosClient, calls: list[_Call], output: Output) -> None:
    if output.is_live:
        with Live(_table(calls), console=output.console, auto_refresh=False) as live:

            def redraw(call: _Call, seen: Transition) -> None:
                output.say(_line(call, seen))
                live.update(_table(calls), refresh=True)

            await _all(tenios, calls, redraw)
        return

    def write(call: _Call, seen: Transition) -> None:
        output.emit("transition", call=call.title, status=str(seen.status), elapsed=round(seen.elapsed, 3))
        output.say(_line(call, seen))

    await _all(tenios, calls, write)
    output.say("")
    output.columns([_COLUMNS, *map(_cells, calls)])


async def _all(tenios: TeniosClient, calls: list[_Call], tell: Callable[[_Call, Transition], None]) -> None:
    await asyncio.gather(*(_one(tenios, call, tell) for call in calls))


async def _one(tenios: TeniosClient, call: _Call, tell: Callable[[_Call, Transition], None]) -> None:
    try:
        callback = await tenios.init_callback(call.request)
        async for transition in tenios.watch_callback(callback):
            call.seen.append(transition)
            tell(call, transition)
    except TeniosError as error:
        call.problem = error


def _complaint(call: _Call) -> str:
    return f"{call.title}: {call.problem or call.status}"


def _line(call: _Call, seen: Transition) -> str:
    number, state = mask_number(call.request.callback_number), plain(seen.status)
    style = style_of(seen.status)
    return f"{seen.elapsed:5.1f} s  {number}  [{style}]{state:<13}[/]  [dim]{meaning_of(seen.status)}[/]"


_COLUMNS = ("call", "number", "state", "polls", "seconds")


def _cells(call: _Call) -> tuple[str, ...]:
    last = call.seen[-1] if call.seen else None
    seen = ("", "") if last is None else (str(last.polls), f"{last.elapsed:.1f}")
    return call.title, mask_number(call.request.callback_number), call.status, *seen


def _table(calls: list[_Call]) -> RenderableType:
    table = Table()
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in ("polls", "seconds") else "left")
    for call in calls:
        title, number, status, *seen = _cells(call)
        style = style_of(status) if call.seen else "dim"
        table.add_row(title, number, f"[{style}]{plain(status)}[/]", *seen)
    return table

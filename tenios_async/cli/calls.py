"""`tenios init`, `status` and `watch`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tenios_async import (
    AttemptOutcome,
    Callback,
    CallbackAttempt,
    CallbackRequest,
    Polling,
    TeniosClient,
    mask_number,
)
from tenios_async.cli.outcome import MEANINGS, STYLES, Exit, Output, exit_for_status

if TYPE_CHECKING:
    from rich.status import Status

_LARGEST_TOKEN = 4096


def read_callback(text: str) -> Callback:
    """A callback from an id, a resume token, `@file` or `-`. Raises `ValueError` or `OSError`."""
    if text == "-":
        text = sys.stdin.read(_LARGEST_TOKEN)
    elif text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    text = text.strip()
    if text.startswith("{"):
        return Callback.from_json(text)
    return Callback(int(text) if text.isascii() and text.isdigit() and str(int(text[:64])) == text else text)


async def place(
    client: TeniosClient, request: CallbackRequest, output: Output, *, watch: bool, timeout: float | None
) -> Exit:
    """Places one call, and follows it if asked to."""
    attempt = CallbackAttempt()
    async with client:
        try:
            callback = await client.init_callback(request, timeout=timeout, attempt=attempt)
        except asyncio.CancelledError:
            _say_after_interrupt(attempt, output)
            raise
        token = callback.to_json()
        output.emit("placed", id=callback.id, token=token)
        number = mask_number(request.callback_number)
        output.say(f"callback [bold]{callback.id}[/] to {number} is placed")
        if watch:
            return await _follow(client, callback, output, polling=None, timeout=None)
        if not output.as_json:
            output.console.print(f"watch it with: tenios watch '{token}'", markup=False)
    return Exit.OK


def _say_after_interrupt(attempt: CallbackAttempt, output: Output) -> None:
    outcome = str(attempt.outcome or AttemptOutcome.NOT_SENT)
    callback = attempt.callback
    output.emit("interrupted", outcome=outcome, id=callback and callback.id, token=callback and callback.to_json())
    if callback is not None:
        output.say(f"interrupted, but callback {callback.id} is placed")
        output.token(callback.to_json())
    elif attempt.outcome is AttemptOutcome.UNKNOWN:
        output.say("interrupted: the callback may have been placed and a phone may ring; check the TENIOS portal")
    else:
        output.say("interrupted: nothing was placed and no phone rings")


async def ask(client: TeniosClient, callback: Callback, output: Output, *, timeout: float | None) -> Exit:
    """One poll."""
    async with client:
        status = await client.callback_status(callback, timeout=timeout)
    output.emit("status", id=callback.id, status=str(status), is_terminal=status.is_terminal)
    meaning = MEANINGS.get(status, "a state this version does not know")
    if not output.as_json:
        output.console.print(str(status), style=STYLES.get(status, "cyan"), markup=False, end="")
        output.console.print(f"  {meaning}", style="dim", markup=False)
    return exit_for_status(status)


async def follow(
    client: TeniosClient, callback: Callback, output: Output, *, polling: Polling | None, timeout: float | None
) -> Exit:
    """Every transition until the end."""
    async with client:
        return await _follow(client, callback, output, polling=polling, timeout=timeout)


async def _follow(
    client: TeniosClient, callback: Callback, output: Output, *, polling: Polling | None, timeout: float | None
) -> Exit:
    watch = client.watch_callback(callback, polling=polling, timeout=timeout)
    spinner: Status | None = None
    if output.console.is_terminal and not output.as_json:
        spinner = output.console.status(f"callback {callback.key}")
        spinner.start()
    try:
        async for transition in watch:
            output.transition(transition)
            if spinner is not None:
                spinner.update(f"callback {callback.key}: {MEANINGS.get(transition.status, str(transition.status))}")
    except asyncio.CancelledError:
        if spinner is not None:
            spinner.stop()
        output.token(watch.callback.to_json())
        raise
    finally:
        if spinner is not None:
            spinner.stop()
    status = watch.callback.status
    if watch.last is None and status is not None:
        output.emit("ended", id=callback.id, status=str(status))
        output.say(f"callback {callback.key} had ended before: {status}")
    return Exit.OK if status is None else exit_for_status(status)

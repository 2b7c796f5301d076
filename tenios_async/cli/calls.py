"""`tenios init`, `status` and `watch`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tenios_async import (
    AttemptOutcome,
    Callback,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    CallbackRequest,
    Polled,
    TeniosClient,
    WatchInterrupted,
    mask_number,
)
from tenios_async.cli.outcome import Exit, exit_for_status, is_lasting_refusal, meaning_of, style_of
from tenios_async.cli.output import plain

if TYPE_CHECKING:
    from tenios_async import Event, Observer
    from tenios_async.cli.output import Output

_LARGEST_TOKEN = 64 * 1024


def read_callback(text: str) -> Callback:
    """A callback from an id, a resume token, `@file` or `-`. Raises `ValueError` or `OSError`.

    A file, or standard input, may also be what `--json` wrote: its last line counts.
    """
    if text == "-":
        text = _last_line(sys.stdin.read(_LARGEST_TOKEN), "standard input")
    elif text.startswith("@"):
        with Path(text[1:]).open(encoding="utf-8") as file:
            text = _last_line(file.read(_LARGEST_TOKEN), text[1:])
    text = text.strip()
    if not text:
        raise ValueError("an id or a resume token is needed, and this is empty")
    if text.startswith("{"):
        return Callback.from_json(_token_in(text))
    if len(text.split()) != 1:
        raise ValueError("an id has no white space in it; a resume token is a line that begins with {")
    is_number = text.isascii() and text.isdigit() and str(int(text[:64])) == text
    return Callback(int(text) if is_number else text)


def _last_line(text: str, name: str) -> str:
    lines = text.strip().splitlines()
    if not lines:
        raise ValueError(f"there is no id and no resume token in {name}")
    return lines[-1]


def _token_in(text: str) -> str:
    """The token in an event that `--json` wrote, else the text itself."""
    try:
        event: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    token = cast("dict[str, Any]", event).get("token") if isinstance(event, dict) else None
    return token if isinstance(token, str) else text


def telling_failures(output: Output) -> Observer:
    """An observer that says when polls begin to fail; a watch goes on for two minutes of that."""
    is_failing = False

    def tell(event: Event) -> None:
        nonlocal is_failing
        if not isinstance(event, Polled):
            return
        error = event.error
        if error is not None and not is_lasting_refusal(error) and not is_failing:
            output.emit("poll_failed", id=event.callback.id, error=type(error).__name__, message=str(error))
            output.note(f"tenios: {error}; trying again")
        is_failing = error is not None

    return tell


async def place(
    client: TeniosClient, request: CallbackRequest, output: Output, *, watch: bool, timeout: float | None
) -> Exit:
    """Places one call, and follows it if asked to; `timeout` bounds both together."""
    attempt, began = CallbackAttempt(), time.monotonic()
    async with client:
        try:
            callback = await client.init_callback(request, timeout=timeout, attempt=attempt)
        except asyncio.CancelledError:
            if _say_after_interrupt(attempt, output) is Exit.UNKNOWN:
                return Exit.UNKNOWN
            raise
        try:
            output.emit("placed", id=callback.id, token=callback.to_json())
            number = mask_number(request.callback_number)
            output.say(f"callback [bold]{plain(callback.key)}[/] to {number} is placed")
            output.say(f"resume token: {plain(callback.to_json())}")
        except BrokenPipeError:
            output.token(callback)
            raise
        if not watch:
            return Exit.OK
        if timeout is not None:
            timeout = max(0.001, timeout - (time.monotonic() - began))
        try:
            return await _follow(client, callback, output, timeout=timeout)
        except WatchInterrupted as error:  # whatever TENIOS refuses to say: a phone rings
            output.error(error, code=Exit.TIMED_OUT)
            output.token(error.callback)
            return Exit.TIMED_OUT


def _say_after_interrupt(attempt: CallbackAttempt, output: Output) -> Exit:
    """What the attempt knows; a phone that may ring outweighs the Ctrl-C."""
    outcome, callback = attempt.outcome or AttemptOutcome.NOT_SENT, attempt.callback
    if outcome is AttemptOutcome.UNKNOWN:
        error = attempt.error if isinstance(attempt.error, CallbackOutcomeUnknown) else None
        output.error(error or CallbackOutcomeUnknown("it was interrupted"), code=Exit.UNKNOWN)
        return Exit.UNKNOWN
    output.emit("interrupted", outcome=str(outcome), exit_code=int(Exit.INTERRUPTED))
    if callback is not None:
        output.note(f"tenios: interrupted, but callback {callback.key} is placed")
        output.token(callback)
    else:
        output.note("tenios: interrupted; nothing was placed and no phone rings")
    return Exit.INTERRUPTED


async def ask(client: TeniosClient, callback: Callback, output: Output, *, timeout: float | None) -> Exit:
    """One poll."""
    async with client:
        status = await client.callback_status(callback, timeout=timeout)
    output.emit("status", id=callback.id, status=str(status), is_terminal=status.is_terminal)
    output.say(f"[{style_of(status)}]{plain(status)}[/]  [dim]{meaning_of(status)}[/]")
    return exit_for_status(status)


async def follow(client: TeniosClient, callback: Callback, output: Output, *, timeout: float | None) -> Exit:
    """Every transition until the end."""
    async with client:
        return await _follow(client, callback, output, timeout=timeout)


async def _follow(client: TeniosClient, callback: Callback, output: Output, *, timeout: float | None) -> Exit:
    watch = client.watch_callback(callback, timeout=timeout)
    try:
        with output.spinner(f"callback {callback.key}") as show:
            async for transition in watch:
                output.transition(transition)
                show(f"callback {callback.key}: {meaning_of(transition.status)}")
    except (asyncio.CancelledError, BrokenPipeError):
        output.token(watch.callback)
        raise
    status = watch.callback.status
    assert status is not None  # noqa: S101  # a watch that ends without an error has seen a terminal state
    if watch.last is None:
        output.say(f"callback {plain(callback.key)} had ended before: {plain(status)}")
    code = exit_for_status(status)
    token = watch.callback.to_json()
    output.emit("ended", id=callback.id, status=str(status), exit_code=int(code), token=token)
    return code

"""From a command to its exit code: signals, errors, a closed pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from tenios_async import Callback, TeniosError
from tenios_async.batch import IllegalMove, LedgerError, LedgerFailed
from tenios_async.cli.outcome import Exit, exit_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from tenios_async.cli.output import Output


def run_command(output: Output, command: Callable[[], Coroutine[Any, Any, Exit]]) -> Exit:
    """Runs a command to its exit code; whatever goes wrong is one line on standard error."""

    async def guarded() -> Exit:
        with _cancelled_by_signals():
            return await command()

    return _run(output, lambda: asyncio.run(guarded()))


def run_plainly(output: Output, command: Callable[[], Exit]) -> Exit:
    """The same for one that needs no event loop."""

    def guarded() -> Exit:
        with _interrupted_by_signals():
            return command()

    return _run(output, guarded)


def _run(output: Output, command: Callable[[], Exit]) -> Exit:
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # as Python has it where it is closed
        output.note("tenios: standard output is closed; nothing was done")
        return Exit.USAGE
    try:
        return command()
    except TeniosError as error:
        code = exit_for(error)
        output.error(error, code=code)
        callback = getattr(error, "callback", None)
        if isinstance(callback, Callback):
            output.token(callback)
        return code
    except BrokenPipeError:
        return nobody_reads()
    except (ValueError, OSError, LedgerError, IllegalMove) as error:
        code = Exit.LEDGER_FAILED if isinstance(error, LedgerFailed) else Exit.USAGE
        output.error(error, code=code)
        return code
    except (KeyboardInterrupt, asyncio.CancelledError):
        return Exit.INTERRUPTED


def nobody_reads() -> Exit:
    """Standard output is closed or full: the interpreter flushes it at its end and would complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.BROKEN_PIPE


@contextlib.contextmanager
def _interrupted_by_signals() -> Generator[None]:
    """Ctrl-C and SIGTERM break into it alike, so that what it has begun is undone."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not in the main thread
            former[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _cancelled_by_signals() -> Generator[None]:
    """Ctrl-C and SIGTERM cancel the command, each time they come, and never break into the event loop itself."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  # asyncio.run made it
    caught: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows and threads have no such handlers; there Ctrl-C is a KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, task.cancel)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)

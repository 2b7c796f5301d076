"""Where a command writes: lines for people, or one JSON object a line for scripts."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner

from tenios_async import ApiError, Callback, TeniosError, Transition
from tenios_async.cli.outcome import Exit, meaning_of, style_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence


class _Pipe(Console):
    """A console that leaves a closed pipe to the command, which may have a token to hand out first."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


class HelpConsole(_Pipe):
    """Where help is printed: whatever keeps it from being written is a closed pipe."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's."""
        with _unwritten():
            super().print(*objects, **options)


@contextlib.contextmanager
def _unwritten() -> Generator[None]:
    """A full disk is to a call that was placed what a closed pipe is: nobody reads what is said of it."""
    try:
        yield
    except OSError as error:
        raise BrokenPipeError(str(error)) from error


class Output:
    """Results go to standard output; errors, notes and the resume token of a broken-off watch to standard error.

    Args:
        as_json: standard output is for scripts.
        console: for people, instead of standard output.
    """

    def __init__(self, *, as_json: bool = False, console: Console | None = None) -> None:
        self.as_json = as_json
        self.console: Console = console or _Pipe(highlight=False, soft_wrap=True, emoji=False)
        self.is_screen: bool = self.console.is_terminal and not self.console.is_dumb_terminal
        """Whether this is a terminal that can do more than print. A pipe is none, whatever FORCE_COLOR says."""
        if console is None:
            self.is_screen = self.is_screen and sys.stdout is not None and sys.stdout.isatty()
        self._errors = _Pipe(stderr=True, highlight=False, soft_wrap=True, emoji=False)

    @property
    def is_live(self) -> bool:
        """Whether what is shown may change in place."""
        return self.is_screen and not self.as_json

    def emit(self, event: str, **fields: Any) -> None:
        """One JSON object, where those are wanted."""
        if self.as_json:
            with _unwritten():
                print(json.dumps({"event": event, **fields}), flush=True)

    def say(self, markup: str) -> None:
        """One line of rich markup for people. What came from elsewhere goes through `plain` first."""
        if not self.as_json:
            with _unwritten():
                self.console.print(markup)

    def columns(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of plain text for people, in columns. A long line stays one, which a terminal wraps by itself."""
        rows = [[_one_line(cell) for cell in row] for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
            self.say(escape(line.rstrip()))

    def raw(self, text: str) -> Exit:
        """A file's worth of text, as it is."""
        with _unwritten():
            print(text, flush=True)
        return Exit.OK

    def note(self, text: str) -> None:
        """One line of plain text on standard error."""
        with contextlib.suppress(OSError):
            self._errors.print(_one_line(text), markup=False)

    def transition(self, transition: Transition, **fields: Any) -> None:
        """One change of state."""
        self.emit(
            "transition",
            id=transition.callback.id,
            status=str(transition.status),
            previous=None if transition.previous is None else str(transition.previous),
            skipped=[str(status) for status in transition.skipped],
            observed_at=transition.observed_at.isoformat(),
            not_before=None if transition.not_before is None else transition.not_before.isoformat(),
            elapsed=round(transition.elapsed, 3),
            polls=transition.polls,
            is_terminal=transition.is_terminal,
            is_regression=transition.is_regression,
            token=transition.callback.to_json(),
            **fields,
        )
        self.say(describe(transition))

    def token(self, callback: Callback) -> None:
        """The resume token of a watch that ends before the call does."""
        token = callback.to_json()
        with contextlib.suppress(BrokenPipeError):
            self.emit("token", id=callback.id, token=token)
        self.note(f"resume with: tenios watch {shlex.quote(token)}")

    def error(self, error: Exception, *, code: Exit) -> None:
        """One line that says what happened and what to do, and an event for scripts."""
        message = _one_line(_in_words_of_the_shell(_message(error)) if code is Exit.USAGE else str(error))
        self.emit(
            "error",
            error=type(error).__name__,
            message=message,
            error_code=error.error_code if isinstance(error, ApiError) else None,
            exit_code=int(code),
            may_have_dialled=isinstance(error, TeniosError) and error.may_have_dialled,
        )
        self.note(f"tenios: {message}")

    @contextlib.contextmanager
    def spinner(self, text: str) -> Generator[Callable[[str], None]]:
        """Something that moves below the lines while they come, on a terminal; gives what changes its text."""
        if not self.is_live:
            yield lambda _: None
            return
        spinner = Spinner("dots", text=plain(text))
        with Live(spinner, console=self.console, transient=True, redirect_stderr=sys.stderr.isatty()):
            yield lambda changed: spinner.update(text=plain(changed))


def plain(text: str) -> str:
    """Text from elsewhere as rich markup that shows it and does nothing else."""
    return escape(_one_line(text))


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def describe(transition: Transition) -> str:
    """One line of rich markup for one transition."""
    notes = [meaning_of(transition.status)]
    if transition.skipped:
        notes.append("passed unseen: " + ", ".join(transition.skipped))
    if transition.is_regression:
        notes.append(f"after {transition.previous}")
    name = plain(f"{transition.status}")
    padding = " " * (13 - len(transition.status))
    style = style_of(transition.status)
    return f"{transition.elapsed:7.1f} s  [{style}]{name}[/]{padding}  [dim]{plain('; '.join(notes))}[/]"


def _message(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the file is not UTF-8 text"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


_NAMES = (
    ("allow_insecure_http=True", "--allow-insecure-http"),
    ("allow_remote=True", "--allow-remote"),
    ("base_url", "--base-url (or TENIOS_BASE_URL)"),
)
_FIELDS = {
    "callback_config_id": "--config-id",
    "callback_number": "the number",
    "agent_announcement": "--announcement",
    "dtmf_key_to_trigger_customer_call": "--dtmf-key",
}
"""An error begins with the field that was an argument; elsewhere it is that of a file, which --column takes too."""


def _in_words_of_the_shell(message: str) -> str:
    for name, option in _NAMES:
        message = message.replace(name, option)
    first, space, rest = message.partition(" ")
    return _FIELDS.get(first, first) + space + rest

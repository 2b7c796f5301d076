"""Exit codes, and one line for everything that can go wrong."""

from __future__ import annotations

import enum
import json
from typing import Any

from rich.console import Console

from tenios_async import (
    ApiError,
    CallbackOutcomeUnknown,
    CallbackResult,
    CallbackStatus,
    ConnectionFailed,
    TeniosError,
    Transition,
    WatchInterrupted,
    WatchTimeout,
)


class Exit(enum.IntEnum):
    """What a script can tell apart."""

    OK = 0
    CALL_FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNKNOWN = 4
    TIMED_OUT = 5
    NO_CONNECTION = 6
    INTERRUPTED = 130


EXIT_CODES = """\
Exit codes: 0 the call reached CONNECTED or DISCONNECTED, or the command is done; 1 the call failed (CALL_A_FAILED,
CALL_B_FAILED); 2 bad usage or configuration; 3 refused by TENIOS, no phone rings; 4 outcome unknown, a phone may ring;
5 timed out or given up watching, the resume token is printed; 6 no connection, nothing was sent; 130 Ctrl-C."""


def exit_for(error: TeniosError) -> Exit:
    """The code that tells this error apart."""
    if isinstance(error, CallbackOutcomeUnknown):
        return Exit.UNKNOWN
    if isinstance(error, WatchTimeout):
        return Exit.TIMED_OUT
    cause = error.cause if isinstance(error, WatchInterrupted) else error
    if isinstance(cause, ApiError):
        return Exit.REFUSED
    if isinstance(error, WatchInterrupted):
        return Exit.TIMED_OUT
    return Exit.NO_CONNECTION if isinstance(error, ConnectionFailed) else Exit.TIMED_OUT


def exit_for_status(status: CallbackStatus) -> Exit:
    """The code for a call that has ended."""
    failed = (CallbackStatus.CALL_A_FAILED, CallbackStatus.CALL_B_FAILED)
    return Exit.CALL_FAILED if status in failed else Exit.OK


MEANINGS = {
    CallbackStatus.REQUESTED: "requested",
    CallbackStatus.ACCEPTED: "accepted by TENIOS",
    CallbackStatus.CALLING_A: "the agent's phone rings",
    CallbackStatus.CALL_A_FAILED: "the agent did not answer",
    CallbackStatus.CALLING_B: "the customer's phone rings",
    CallbackStatus.CALL_B_FAILED: "the customer did not answer",
    CallbackStatus.CONNECTED: "both are talking",
    CallbackStatus.DISCONNECTED: "the call is over",
}
STYLES = {
    CallbackStatus.CALL_A_FAILED: "red",
    CallbackStatus.CALL_B_FAILED: "red",
    CallbackStatus.CONNECTED: "bold green",
    CallbackStatus.DISCONNECTED: "green",
}


class Output:
    """Where a command writes: lines for people, or one JSON object a line for scripts.

    Args:
        as_json: which of the two.
        console: for people, on standard output.
    """

    def __init__(self, *, as_json: bool = False, console: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def emit(self, event: str, **fields: Any) -> None:
        """One JSON object, where those are wanted."""
        if self.as_json:
            print(json.dumps({"event": event, **fields}), flush=True)

    def say(self, text: str) -> None:
        """One line for people."""
        if not self.as_json:
            self.console.print(text)

    def transition(self, transition: Transition) -> None:
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
        )
        self.say(describe(transition))

    def token(self, token: str) -> None:
        """The resume token, on standard error: standard output stays the transitions."""
        self.emit("token", token=token)
        if not self.as_json:
            self.errors.print(f"resume with: tenios watch '{token}'", markup=False)

    def error(self, error: Exception, *, code: Exit) -> None:
        """One line that says what happened and what to do."""
        self.emit(
            "error",
            error=type(error).__name__,
            message=str(error),
            exit_code=int(code),
            may_have_dialled=isinstance(error, TeniosError) and error.may_have_dialled,
        )
        if not self.as_json:
            self.errors.print(f"tenios: {error}", markup=False)

    def result(self, result: CallbackResult) -> None:
        """How a call ended, for scripts."""
        self.emit(
            "result", id=result.callback.id, status=str(result.status), connected=result.connected,
            failed_party=result.failed_party,
        )  # fmt: skip


def describe(transition: Transition) -> str:
    """One line of rich markup for one transition."""
    style = STYLES.get(transition.status, "cyan")
    notes = [MEANINGS.get(transition.status, "a state this version does not know")]
    if transition.skipped:
        notes.append("passed unseen: " + ", ".join(transition.skipped))
    if transition.is_regression:
        notes.append(f"after {transition.previous}")
    name = f"{transition.status!s:<13}".replace("[", r"\[")
    return f"{transition.elapsed:7.1f} s  [{style}]{name}[/]  [dim]{'; '.join(notes)}[/]"

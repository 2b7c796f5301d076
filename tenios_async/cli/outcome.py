"""Exit codes, and what the states of a call mean to people."""

from __future__ import annotations

import enum

from tenios_async import (
    ApiError,
    CallbackOutcomeUnknown,
    CallbackStatus,
    ClientMisuse,
    ConnectionFailed,
    RateLimited,
    RequestTimeout,
    ServerError,
    TeniosError,
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
    NO_ANSWER = 7
    LEDGER_FAILED = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: dict[Exit, str] = {
    Exit.OK: "the call reached CONNECTED or DISCONNECTED, or the command is done",
    Exit.CALL_FAILED: "the call failed: CALL_A_FAILED (the agent) or CALL_B_FAILED (the customer)",
    Exit.USAGE: "bad usage or configuration",
    Exit.REFUSED: "refused by TENIOS; no phone rings",
    Exit.UNKNOWN: "outcome unknown: a phone may ring; do not simply run it again. Of a campaign: calls are in doubt",
    Exit.TIMED_OUT: "timed out, or gave up watching; a resume token is printed. Of a campaign: stopped before its end",
    Exit.NO_CONNECTION: "no connection; nothing was sent",
    Exit.NO_ANSWER: "no usable answer to a question about a call",
    Exit.LEDGER_FAILED: "the ledger of a campaign cannot be written any more; nothing further was placed",
    Exit.INTERRUPTED: "ended by Ctrl-C or SIGTERM (`tenios simulate` ends that way with 0)",
    Exit.BROKEN_PIPE: "the output cannot be written or is not read any more; a resume token is on standard error",
}
"""What each code says. docs/command.md says the same."""


_CODES: tuple[tuple[type[TeniosError], Exit], ...] = (
    (CallbackOutcomeUnknown, Exit.UNKNOWN),
    (RequestTimeout, Exit.TIMED_OUT),
    (ConnectionFailed, Exit.NO_CONNECTION),
    (ClientMisuse, Exit.USAGE),
    (ServerError, Exit.NO_ANSWER),
    (ApiError, Exit.REFUSED),
)


def exit_for(error: TeniosError) -> Exit:
    """The code that tells this error apart."""
    if isinstance(error, WatchTimeout):
        return Exit.TIMED_OUT
    if isinstance(error, WatchInterrupted):
        return Exit.REFUSED if is_lasting_refusal(error.cause) else Exit.TIMED_OUT
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.NO_ANSWER)


def is_lasting_refusal(error: TeniosError | None) -> bool:
    """Whether TENIOS says no, and would say it again."""
    return isinstance(error, ApiError) and not isinstance(error, (ServerError, RateLimited))


def exit_for_status(status: CallbackStatus) -> Exit:
    """The code for a call that is in this state."""
    failed = (CallbackStatus.CALL_A_FAILED, CallbackStatus.CALL_B_FAILED)
    return Exit.CALL_FAILED if status in failed else Exit.OK


_STATES: dict[str, str] = {
    CallbackStatus.REQUESTED: "requested",
    CallbackStatus.ACCEPTED: "accepted by TENIOS",
    CallbackStatus.CALLING_A: "the agent's phone rings",
    CallbackStatus.CALL_A_FAILED: "the agent was not reached",
    CallbackStatus.CALLING_B: "the customer's phone rings",
    CallbackStatus.CALL_B_FAILED: "the customer was not reached",
    CallbackStatus.CONNECTED: "both are talking",
    CallbackStatus.DISCONNECTED: "the call is over",
}
_STYLES: dict[str, str] = {
    CallbackStatus.CALL_A_FAILED: "red",
    CallbackStatus.CALL_B_FAILED: "red",
    CallbackStatus.CONNECTED: "bold green",
    CallbackStatus.DISCONNECTED: "green",
}


def meaning_of(status: str) -> str:
    """The state in words."""
    return _STATES.get(status, "a state this version does not know")


def style_of(status: str) -> str:
    """The rich style the state is shown in."""
    return _STYLES.get(status, "cyan")

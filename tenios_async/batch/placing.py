"""One row's call, at most once across crashes: written down before it leaves, settled on every way out."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import attrs

from tenios_async import (
    ApiError,
    AttemptOutcome,
    BadCredentials,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    PermissionDenied,
    RateLimited,
)
from tenios_async.batch.errors import LedgerError, LedgerFailed
from tenios_async.batch.standing import SEND_WITHIN, IllegalMove, RowState, doubt, intend, refuse, withdraw
from tenios_async.batch.standing import place as placed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenios_async import TeniosClient
    from tenios_async.batch.ledger import Ledger
    from tenios_async.batch.row import Row
    from tenios_async.batch.standing import Move, Standing


class NotSent(Exception):
    """It was not sent, by a decision of ours: no phone rings, and the row is as it was."""


async def place(
    ledger: Ledger,
    client: TeniosClient,
    row: Row,
    *,
    timeout: float | None = None,
    keep_refusals: bool = True,
    check: Callable[[], None] = lambda: None,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> Standing:
    """Places the call of a row that is QUEUED, and gives where it stands then. Nothing leaves that is not written down.

    Args:
        ledger: where.
        client: places it.
        row: which.
        timeout: seconds for the request.
        keep_refusals: whether a refusal ends the row. One that concerns all rows alike never does.
        check: called before the intent is written and before the request leaves; what it raises keeps it from leaving.
        ready: awaited once the intent is written; the request leaves when it returns, and not where it raises.

    Raises what `TeniosClient.init_callback` raises unless the row has ended in it, what `check` and
    `ready` raise, and `LedgerFailed`. A row that somebody else has moved raises `IllegalMove`, and nothing is sent.
    """
    name = secrets.token_hex(8)
    is_intended, began = False, 0.0

    async def before_send() -> None:
        nonlocal is_intended, began
        check()
        began = awake()
        with anyio.CancelScope(shield=True):
            is_intended = True
            try:
                await ledger.change(row.id, intend(name, datetime.now(UTC)))
            except IllegalMove:
                is_intended = False
                raise
        if ready is not None:
            await ready()

    def at_send() -> None:
        check()
        if awake() - began > SEND_WITHIN:
            raise NotSent(f"more than {SEND_WITHIN:.0f} s have passed since it was written down; was this suspended?")

    attempt = CallbackAttempt(before_send, at_send=at_send)
    try:
        await client.init_callback(row.request, attempt=attempt, timeout=timeout)
    except CallbackOutcomeUnknown:
        pass
    except ApiError as error:
        if not keep_refusals or concerns_all(error):
            raise
    finally:
        settled = await _settle(ledger, row, name, attempt, keep_refusals=keep_refusals) if is_intended else None
    return settled or row.standing


def concerns_all(error: BaseException | None) -> bool:
    """Whether a refusal is about the credentials, or the pace, and not about this call."""
    return isinstance(error, (BadCredentials, PermissionDenied, RateLimited))


async def _settle(ledger: Ledger, row: Row, name: str, attempt: CallbackAttempt, *, keep_refusals: bool) -> Standing:
    standing = row.standing
    try:
        with anyio.CancelScope(shield=True):
            standing = await ledger.change(row.id, _settled(name, attempt, keep_refusals=keep_refusals))
    except LedgerError as failure:
        if attempt.callback is None:
            raise
        which = "--key KEY" if row.line is None else f"--line {row.line}"
        called = f"`tenios batch resolve LEDGER {which} --called {shlex.quote(attempt.callback.key)}`"
        sent = attrs.evolve(row.standing, state=RowState.SENDING, attempt=name)
        raise LedgerFailed(
            f"{failure}. The call before that was placed as callback {attempt.callback.key}, a phone rings, and it is "
            f"not written down: do not place it again, and once the ledger can be opened, say so: {called}",
            row.at(placed(name, attempt.callback)(sent)),
        ) from failure
    return standing


def _settled(name: str, attempt: CallbackAttempt, *, keep_refusals: bool) -> Move:
    if attempt.callback is not None:
        return placed(name, attempt.callback)
    if attempt.outcome is AttemptOutcome.REFUSED and keep_refusals and not concerns_all(attempt.error):
        return refuse(name, _reason(attempt.error), datetime.now(UTC))
    if attempt.outcome in (AttemptOutcome.REFUSED, AttemptOutcome.NOT_SENT):
        return withdraw(name)
    return doubt(name, _reason(attempt.error))


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ApiError):
        return str(error.error_code)  # there is one, or it would prove no refusal
    return error.reason if isinstance(error, CallbackOutcomeUnknown) else "it was given up before the answer came"


def awake() -> float:
    """Seconds on a clock that goes on while the machine is suspended, where the system has one."""
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)  # unlike time.monotonic() there
    if sys.platform != "linux":
        return time.monotonic()  # Windows counts suspension in it
    return time.clock_gettime(time.CLOCK_BOOTTIME)

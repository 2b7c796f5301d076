"""Where a row of the ledger stands, and the moves there are. Pure: no clock, no disk, no network.

```
QUEUED ──> SENDING ──> PLACED ──> FINISHED     (from QUEUED straight to REFUSED: on an opt-out list)
   ^          │ │ └──> REFUSED       ^
   │          │ └────> UNKNOWN ──────┤ a person: it was called (with its id: PLACED)
   └──────────┴───────────┘          │
     proof that no phone rings, or a person: it was not called
```

Every move after the first names the random `attempt` that made it, so that whoever lost a row cannot move it. A row
that was given back and turned out to have been called has none: what is seen of it then names none.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

import attrs

from tenios_async import Callback, CallbackStatus

SEND_WITHIN = 10.0
"""Seconds after its intent in which a request may leave; later it does not."""


class RowState(enum.StrEnum):
    """What is known of one call."""

    QUEUED = "QUEUED"
    """Not dialled yet."""
    SENDING = "SENDING"
    """About to be dialled: written down, durably, before the first byte leaves."""
    PLACED = "PLACED"
    """TENIOS took it and gave it an id; it is followed to its end."""
    REFUSED = "REFUSED"
    """TENIOS answered no, or it is on an opt-out list. No phone rang."""
    UNKNOWN = "UNKNOWN"
    """It may have been dialled. It never is again, until a person says that it was not."""
    FINISHED = "FINISHED"
    """The call has ended; without a status, nobody saw how."""


class IllegalMove(Exception):
    """This move is not open to this attempt; nothing was changed."""


@attrs.frozen
class Standing:
    """Where one row stands.

    Attributes:
        state: what is known of the call.
        attempt: the attempt that owns the row, from its intent on.
        past: attempts that a person declared not called.
        intended_at: when the intent was written down.
        callback_id: the id TENIOS gave it.
        placed_at: when that arrived.
        status: the last state of the call that was seen.
        since: when it was first seen.
        ended_at: when its end was seen, or it was refused.
        reason: why it is REFUSED or UNKNOWN, or FINISHED without a status.
        stray_id: an id that one of the past attempts turned out to have. Such a row is never dialled again.
        polls: status polls that were spent on it.
    """

    state: RowState = RowState.QUEUED
    attempt: str | None = None
    past: tuple[str, ...] = ()
    intended_at: datetime | None = None
    callback_id: int | str | None = None
    placed_at: datetime | None = None
    status: CallbackStatus | None = None
    since: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    stray_id: int | str | None = None
    polls: int = 0


Move: TypeAlias = Callable[[Standing], Standing]
"""Gives where the row stands after it. Raises `IllegalMove`."""


def intend(attempt: str, at: datetime) -> Move:
    """A connection is in hand and the request is about to leave: QUEUED to SENDING."""

    def move(row: Standing) -> Standing:
        _require(row.state is RowState.QUEUED, f"a row that is {row.state} is not dialled")
        return attrs.evolve(row, state=RowState.SENDING, attempt=attempt, intended_at=at, reason=None)

    return move


def exclude(reason: str, at: datetime) -> Move:
    """It is not to be dialled after all: QUEUED to REFUSED."""

    def move(row: Standing) -> Standing:
        _require(row.state is RowState.QUEUED, f"a row that is {row.state} cannot be left out")
        return attrs.evolve(row, state=RowState.REFUSED, reason=reason, ended_at=at)

    return move


def withdraw(attempt: str) -> Move:
    """The live owner has proof that no phone rings: SENDING back to QUEUED."""

    def move(row: Standing) -> Standing:
        if row.state is RowState.QUEUED and row.attempt is None:
            return row  # the intent was never written
        _require_owner(row, attempt, RowState.SENDING)
        row = attrs.evolve(row, attempt=None, intended_at=None)
        return _frozen(row) if row.stray_id is not None else attrs.evolve(row, state=RowState.QUEUED)

    return move


def place(attempt: str, callback: Callback) -> Move:
    """The id has come: SENDING, and late also UNKNOWN, to PLACED. The id of a past attempt is kept as a stray."""

    def move(row: Standing) -> Standing:
        if attempt in row.past:
            row = attrs.evolve(row, stray_id=callback.id)
            return _frozen(row) if row.state is RowState.QUEUED else row
        if row.attempt == attempt and row.callback_id == callback.id:
            return row
        open_states = [RowState.SENDING, RowState.UNKNOWN]
        if row.callback_id is None:  # it was declared called before its id came
            open_states.append(RowState.FINISHED)
        _require_owner(row, attempt, *open_states)
        return _placed(row, callback)

    return move


def refuse(attempt: str, reason: str, at: datetime) -> Move:
    """TENIOS has answered no: SENDING, and late also UNKNOWN, to REFUSED."""

    def move(row: Standing) -> Standing:
        _require_owner(row, attempt, RowState.SENDING, RowState.UNKNOWN)
        return attrs.evolve(row, state=RowState.REFUSED, reason=reason, ended_at=at)

    return move


def doubt(attempt: str, reason: str) -> Move:
    """A byte may have left and no answer proves what became of it: SENDING, or UNKNOWN since `crash`, to UNKNOWN."""

    def move(row: Standing) -> Standing:
        _require_owner(row, attempt, RowState.SENDING, RowState.UNKNOWN)
        return attrs.evolve(row, state=RowState.UNKNOWN, reason=reason)

    return move


def crash() -> Move:
    """Whoever owned it is gone: SENDING to UNKNOWN. For the one who holds the lock now."""

    def move(row: Standing) -> Standing:
        _require(row.state is RowState.SENDING, f"a row that is {row.state} was not being dialled")
        return attrs.evolve(row, state=RowState.UNKNOWN, reason="the program ended while it was being placed")

    return move


def see(attempt: str | None, status: CallbackStatus, at: datetime, polls: int) -> Move:
    """A watch has seen a state: PLACED stays PLACED, or is FINISHED by a terminal one. The terminal one stays."""

    def move(row: Standing) -> Standing:
        if row.attempt == attempt and row.state is RowState.FINISHED:
            return row
        _require_owner(row, attempt, RowState.PLACED)
        state, ended_at = (RowState.FINISHED, at) if status.is_terminal else (RowState.PLACED, None)
        since = row.since if status == row.status else at
        return attrs.evolve(row, state=state, status=status, since=since, ended_at=ended_at, polls=polls)

    return move


def lose(attempt: str | None, reason: str, at: datetime) -> Move:
    """The call cannot be followed to its end: PLACED to FINISHED, unobserved."""

    def move(row: Standing) -> Standing:
        if row.attempt == attempt and row.state is RowState.FINISHED:
            return row
        _require_owner(row, attempt, RowState.PLACED)
        return attrs.evolve(row, state=RowState.FINISHED, reason=reason, ended_at=at)

    return move


def called(who: str, at: datetime, callback: Callback | None) -> Move:
    """A person says that it was called: UNKNOWN to PLACED, or without an id to FINISHED, unobserved."""

    def move(row: Standing) -> Standing:
        _require(row.state is RowState.UNKNOWN, f"there is no doubt about this row: it is {row.state}")
        if callback is not None:
            return _placed(row, callback)
        return attrs.evolve(row, state=RowState.FINISHED, reason=f"called, says {who}", ended_at=at)

    return move


def not_called(who: str, at: datetime) -> Move:
    """A person says that it was not called: UNKNOWN back to QUEUED, once the attempt can no longer send."""

    def move(row: Standing) -> Standing:
        _require(row.state is RowState.UNKNOWN, f"there is no doubt about this row: it is {row.state}")
        _require(row.stray_id is None, f"an earlier attempt at it was placed as callback {row.stray_id}")
        assert row.attempt is not None  # noqa: S101  # only a stray id leaves a doubt without one
        assert row.intended_at is not None  # noqa: S101  # nor without this
        left = row.intended_at + timedelta(seconds=SEND_WITHIN) - at
        _require(left < timedelta(0), f"it may still be on its way; say so again in {SEND_WITHIN:.0f} s")
        past = (*row.past, row.attempt)
        reason = f"not called, says {who}"
        return attrs.evolve(row, state=RowState.QUEUED, attempt=None, intended_at=None, past=past, reason=reason)

    return move


def _placed(row: Standing, callback: Callback) -> Standing:
    return attrs.evolve(
        row,
        state=RowState.PLACED,
        callback_id=callback.id,
        placed_at=callback.placed_at,
        status=callback.status,
        reason=None,
        ended_at=None,
    )


def _frozen(row: Standing) -> Standing:
    reason = f"an attempt that was declared not called was placed as callback {row.stray_id}"
    return attrs.evolve(row, state=RowState.UNKNOWN, reason=reason)


def _require_owner(row: Standing, attempt: str | None, *states: RowState) -> None:
    _require(row.attempt == attempt, "another attempt owns this row")
    _require(row.state in states, f"a row that is {row.state} cannot go there")


def _require(condition: bool, why: str) -> None:  # noqa: FBT001
    if not condition:
        raise IllegalMove(why)

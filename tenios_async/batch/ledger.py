"""What a ledger promises, whatever it is written on, and `place_once` on top of it."""

from __future__ import annotations

import abc
import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import anyio
from anyio.lowlevel import current_token

from tenios_async import CallbackOutcomeUnknown, CallbackRequest, CallbackStatus, TeniosClient
from tenios_async.batch.errors import LedgerFailed
from tenios_async.batch.placing import place
from tenios_async.batch.row import NewRow, Row
from tenios_async.batch.standing import IllegalMove, Move, RowState, Standing, see

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from tenios_async import Callback

MAX_KEY = 256
"""Characters."""
MAX_COUNT = 2**63 - 1
"""What a column of either database can hold."""

Change: TypeAlias = tuple[int, Move]
"""The number of a row, and the move to make there."""


class Ledger(abc.ABC):
    """Where it is written down who is dialled, durably, before it happens. Use it as `async with ... as ledger`.

    A method that has returned has made its change durable. One that is cancelled may still have done so: the change is
    made or refused in the order of the calls, and what comes later sees it.
    """

    def __init__(self) -> None:
        self._being_placed: dict[str, _Shared] = {}
        self._is_closing = False

    @abc.abstractmethod
    async def put(self, new: NewRow) -> Row:
        """The row of this key, which is written if there is none. Raises `ValueError` for what is no key."""

    @abc.abstractmethod
    async def by_key(self, key: str) -> Row | None:
        """The row of a key, or None. Raises `ValueError` for what is no key."""

    @abc.abstractmethod
    async def queued(self, limit: int, after: int = 0) -> list[Row]:
        """Rows to be dialled, by their number, from the one after `after` on.

        Raises `ValueError` where one is not a whole number of 0 or more.
        """

    @abc.abstractmethod
    async def followed(self) -> list[Row]:
        """The rows in PLACED."""

    @abc.abstractmethod
    async def counts(self) -> dict[RowState, int]:
        """How many rows are in each state."""

    @abc.abstractmethod
    async def tally(self) -> dict[tuple[RowState, CallbackStatus | None], int]:
        """The same, by the last state of the call that was seen too."""

    @abc.abstractmethod
    async def change_all(self, changes: Sequence[Change]) -> list[Standing | IllegalMove]:
        """Makes each move, or says that it is not open. Raises `LedgerFailed`: then none of them is known to hold."""

    async def aclose(self) -> None:
        """Closes it, once the calls that `place_once` has under way are written down. May be called twice.

        Cancelled, it closes at once, and what those calls become cannot be written down any more.
        """
        self._is_closing = True
        try:
            while here := [shared for shared in self._being_placed.values() if shared.loop == current_token()]:
                await here[0].over.wait()
        finally:
            try:
                await self._close()
            finally:
                self._is_closing = False

    @abc.abstractmethod
    async def _close(self) -> None:
        """Closes it, whatever is under way. May be called twice."""

    async def change(self, row_id: int, move: Move) -> Standing:
        """Makes one move. Raises `IllegalMove` and `LedgerFailed`."""
        (result,) = await self.change_all([(row_id, move)])
        if isinstance(result, IllegalMove):
            raise result
        return result

    async def place_once(
        self, client: TeniosClient, request: CallbackRequest, *, key: str, timeout: float | None = None
    ) -> Callback:
        """Places this call unless it was placed before: a key is dialled at most once, however often this is called.

        Whoever asks while it is being placed, and whoever asks later, gets the same `Callback` or the same doubt. What
        TENIOS refused, or what was not sent, has rung nobody: the next to ask tries again.

        Args:
            client: places it.
            request: whom to call.
            key: of your own, 1 to 256 characters, for instance the number of the order this is about.
            timeout: seconds for the request; None is the client's.

        Raises what `TeniosClient.init_callback` raises, `CallbackOutcomeUnknown` again for a key that is in doubt,
        `NotSent` where it would have left too late (nobody was called), `LedgerFailed`, and `ValueError` for a key that
        belongs to another request and for arguments that are none.
        """
        check_key(key)
        if not isinstance(client, TeniosClient):
            raise ValueError(f"client must be a TeniosClient, not {type(client).__name__}")  # noqa: TRY004  # as any argument
        if not isinstance(request, CallbackRequest):
            raise ValueError(f"request must be a CallbackRequest, not {type(request).__name__}")  # noqa: TRY004  # as any argument
        if self._is_closing:
            raise LedgerFailed("the ledger is being closed; nothing was sent. Open it again, and ask again")
        while (shared := self._being_placed.get(key)) is not None:
            await shared.over.wait()
            if shared.error is not None:
                raise copy.copy(shared.error)
            # Else it was placed, and is read below; or whoever placed it was cancelled in time, and it is our turn.
        shared = self._being_placed[key] = _Shared()
        try:
            return await self._place_once(client, NewRow(key, request), timeout)
        except ValueError:  # about what this one asked for, and not about the call
            raise
        except Exception as error:
            shared.error = error
            raise
        finally:
            del self._being_placed[key]
            shared.over.set()

    async def _place_once(self, client: TeniosClient, new: NewRow, timeout: float | None) -> Callback:
        row = await self.put(new)
        if row.request != new.request:
            raise ValueError("this key belongs to another request; use one key for each call that is meant")
        if row.standing.state is RowState.QUEUED:
            standing = await place(self, client, row, timeout=timeout, keep_refusals=False)
            row = row.at(standing)
        if row.callback is not None:
            return row.callback
        raise CallbackOutcomeUnknown(row.standing.reason or "it is being placed by somebody else")

    async def saw(self, key: str, status: CallbackStatus) -> None:
        """Writes down a state that a watch has seen: `(await by_key(key)).callback` is the token that goes on from it.

        Once the call has ended nothing changes any more. Raises `ValueError` for a key whose call was never placed, and
        for what is no key or no state.
        """
        status = CallbackStatus(status)
        row = await self.by_key(key)
        if row is None or row.callback is None:
            raise ValueError("no call was placed with this key")
        await self.change(row.id, see(row.standing.attempt, status, datetime.now(UTC), row.standing.polls))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.aclose()


def check_key(key: object) -> None:
    """Raises `ValueError` for what no ledger can hold as a key."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or any("\ud800" <= c <= "\udfff" for c in key):
        raise ValueError(f"key must be a text of 1 to {MAX_KEY} characters, each of them whole")


def check_count(name: str, value: object) -> None:
    """Raises `ValueError` for what is not a whole number of 0 or more that a database can hold."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"{name} must be a whole number of 0 or more")


class _Shared:
    """A call that is being placed, for those who ask for it meanwhile."""

    def __init__(self) -> None:
        self.loop = current_token()
        self.over = anyio.Event()
        self.error: Exception | None = None

"""Calls, each under a handle of ours: placed once, and followed by one poll loop for as long as a page is open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncGenerator
from typing import Self

import attrs

from tenios_async import (
    Callback,
    CallbackOutcomeUnknown,
    CallbackRequest,
    CallbackStatus,
    TeniosClient,
    TeniosError,
    Transition,
)
from tenios_async.batch import Ledger, LedgerFailed, NotSent, Row, RowState
from web_callback.limits import Limits
from web_callback.words import State, view_of

_log = logging.getLogger("web_callback")

_HANDLE = re.compile(r"[A-Za-z0-9_-]{22}")
_MOST_TABS = 20
"""That follow one call."""

Tab = asyncio.Queue[str | None]
"""The states that one open page has still to be told; None is the end of the program."""


class TooManyTabs(Exception):
    """Nobody looks at one call in so many places."""


@attrs.define(eq=False)
class _Followed:
    """A call that somebody looks at."""

    handle: str
    callback: Callback
    states: list[str]
    tabs: set[Tab] = attrs.field(factory=set[Tab])

    def tell(self, state: str) -> None:
        if state == self.states[-1]:
            return  # as was assumed before the first look
        self.states.append(state)
        for tab in self.tabs:
            tab.put_nowait(state)


class Calls:
    """The calls of this application: `async with Calls(tenios, ledger, Limits()) as calls`.

    A handle is a random text that stands for one call: whoever has it may see how the call goes, and nothing else. The
    ledger has it as the key under which a call is placed once, and beside it the token that resumes the watch.
    """

    def __init__(self, tenios: TeniosClient, ledger: Ledger, limits: Limits) -> None:
        self._tenios = tenios
        self._ledger = ledger
        self._limits = limits
        self._monitor = tenios.monitor()
        self._followed: dict[str, _Followed] = {}  # by the id that TENIOS gave
        self._placing: dict[str, asyncio.Task[None]] = {}  # by handle
        self._tabs: set[Tab] = set()  # all of them
        self._is_ending = False
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._monitor.__aenter__()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._placing.values(), return_exceptions=True)
        await self._monitor.__aexit__(None, None, None)
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def place(self, handle: str, request: CallbackRequest, address: str) -> None:
        """Places the call of this handle, unless it was placed before or is being placed. Who leaves does not stop it.

        Args:
            handle: the form's.
            request: whom to call.
            address: of the visitor.

        A doubt is no error but a state, which the page shows. Raises `TooMany`, and what `Ledger.place_once` raises:
        no phone rings then, unless it is a `CallbackOutcomeUnknown`, which could not be written down.
        """
        task = self._placing.get(handle)
        if task is None:
            task = self._placing[handle] = asyncio.create_task(self._place(handle, request, address))
            task.add_done_callback(lambda _: self._placing.pop(handle))
        await asyncio.shield(task)

    async def _place(self, handle: str, request: CallbackRequest, address: str) -> None:
        row = await self._ledger.by_key(handle)
        if row is None or row.standing.state is RowState.QUEUED:
            self._limits.take(address, request.callback_number)
        try:
            await self._ledger.place_once(self._tenios, request, key=handle, timeout=10)
        except CallbackOutcomeUnknown:
            pass
        except LedgerFailed as failure:
            raise CallbackOutcomeUnknown("the ledger failed while the call was placed") from failure
        except (TeniosError, NotSent):  # no phone rings
            self._limits.give_back(request.callback_number)
            raise

    async def state(self, handle: str) -> str | None:
        """How the call goes; None for a handle that stands for none.

        TENIOS is asked once where no page follows the call, as without JavaScript.
        """
        row = await self._find(handle)
        if row is None or row.callback is None or row.standing.state is not RowState.PLACED:
            return None if row is None else _state_of(row)
        if (call := self._followed.get(row.callback.key)) is not None:
            return call.states[-1]
        try:
            status = await self._tenios.callback_status(row.callback, timeout=3)
        except TeniosError:
            return _state_of(row)
        await self._write(handle, status)
        return status

    @contextlib.asynccontextmanager
    async def follow(self, handle: str, last_seen: str | None = None) -> AsyncGenerator[Tab | None, None]:
        """Tells one page how the call goes: its present state, or what came after `last_seen`, and what is to come.

        The first to follow a call starts the polling, and the last to leave stops it. Gives None for a handle that
        stands for no call. Raises `TooManyTabs`.
        """
        row = await self._find(handle)
        if row is None:
            yield None
            return
        tab, call = Tab(), self._join(row)
        for state in _since(last_seen, call.states):
            tab.put_nowait(state)
        call.tabs.add(tab)
        self._tabs.add(tab)
        if self._is_ending:
            tab.put_nowait(None)
        try:
            yield tab
        finally:
            self._tabs.discard(tab)
            call.tabs.discard(tab)
            if not call.tabs and self._followed.get(call.callback.key) is call:
                del self._followed[call.callback.key]
                self._monitor.discard(call.callback)

    def let_go(self) -> None:
        """Ends what open pages are sent. Their browsers come back, to the program that is started next."""
        self._is_ending = True
        for tab in self._tabs:
            tab.put_nowait(None)

    def _join(self, row: Row) -> _Followed:
        if row.callback is None or row.standing.state is not RowState.PLACED:
            return _Followed(row.key, Callback(row.key), [_state_of(row)])  # nothing to follow
        call = self._followed.get(row.callback.key)
        if call is None:
            self._monitor.add(row.callback)
            call = self._followed[row.callback.key] = _Followed(row.key, row.callback, [_state_of(row)])
        if len(call.tabs) >= _MOST_TABS:
            raise TooManyTabs
        return call

    async def _find(self, handle: str) -> Row | None:
        if not is_handle(handle):
            return None  # whatever else is a key in the ledger may be easy to guess
        if (task := self._placing.get(handle)) is not None:
            await asyncio.wait([task])
        return await self._ledger.by_key(handle)

    async def _read(self) -> None:
        """Passes on what the monitor sees. It is written down first: no page shows less after a restart than before."""
        async for seen in self._monitor:
            call = self._followed.get(seen.callback.key)
            if call is None:
                continue
            state = seen.status if isinstance(seen, Transition) else State.LOST
            if isinstance(seen, Transition):
                await self._write(call.handle, seen.status)
            if view_of(state).is_over and self._followed.get(seen.callback.key) is call:
                del self._followed[seen.callback.key]
            call.tell(state)

    async def _write(self, handle: str, status: CallbackStatus) -> None:
        try:
            await self._ledger.saw(handle, status)
        except Exception:  # whatever it is, the page is told
            _log.exception("what was seen of a call could not be written down")


def new_handle() -> str:
    """128 bits, which nobody guesses."""
    return secrets.token_urlsafe(16)


def is_handle(text: str) -> bool:
    """Whether it looks like one of ours."""
    return _HANDLE.fullmatch(text) is not None


def _state_of(row: Row) -> str:
    standing = row.standing
    if standing.state in (RowState.SENDING, RowState.UNKNOWN):
        return State.UNKNOWN
    if row.callback is not None:
        return row.callback.status or "REQUESTED"
    return "DISCONNECTED" if standing.state is RowState.FINISHED else State.NOT_SENT


def _since(last_seen: str | None, states: list[str]) -> list[str]:
    if last_seen in states:
        return states[len(states) - states[::-1].index(last_seen) :]
    return states[-1:]

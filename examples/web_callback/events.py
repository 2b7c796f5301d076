"""What one open page is sent (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from web_callback.calls import Calls, Tab, TooManyTabs
from web_callback.words import view_of

HEARTBEAT = 15.0
"""Seconds; proxies close what is silent for 30 to 60."""
RETRY = 1000
"""Milliseconds until a browser asks again after the connection broke."""


class CallEvents(Response):
    """A stream that ends when the call is over, the page is closed or the program ends.

    Its events have the state as their id: a browser that comes back, also after a restart, says what it has seen.

    Args:
        calls: where the call is.
        handle: which.
        last_seen: what the browser has seen last, or None.
        show: what an event holds, for a state.
    """

    def __init__(
        self, calls: Calls, handle: str, last_seen: str | None, show: Callable[[str], Mapping[str, object]]
    ) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},  # the latter for nginx
        )
        del self.headers["Content-Length"]
        self._calls = calls
        self._handle = handle
        self._last_seen = last_seen
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends what there is, until either side has enough."""
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(leave)
            try:
                await self._stream(send)
            except TooManyTabs:
                await Response(status_code=503, headers={"Retry-After": "60"})(scope, receive, send)
            except OSError:
                pass  # how ASGI 2.4 says that the page was closed
            group.cancel_scope.cancel()

    async def _stream(self, send: Send) -> None:
        async with self._calls.follow(self._handle, self._last_seen) as tab:
            if tab is None or (self._last_seen is not None and view_of(self._last_seen).is_over and tab.empty()):
                # 204 tells a browser not to come back.
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _write(send, f"retry: {RETRY}\n\n")
            await self._tell(tab, send)
            await send({"type": "http.response.body"})

    async def _tell(self, tab: Tab, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    state = await tab.get()
            except TimeoutError:
                await _write(send, "event: beat\ndata: .\n\n")  # and no comment, so that the page hears it too
                continue
            if state is None:
                return
            await _write(send, f"id: {state}\ndata: {json.dumps(self._show(state))}\n\n")
            if view_of(state).is_over:
                return


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

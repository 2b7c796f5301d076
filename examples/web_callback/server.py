"""uvicorn, which lets open pages go when it ends."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette

from web_callback.calls import Calls

_GRACE = 15
"""Seconds for requests under way: longer than a call takes to be placed."""


class Server(uvicorn.Server):
    """Serves the application until SIGINT or SIGTERM.

    uvicorn waits for open connections, and a page that follows a call would hold one for as long as the call lasts.

    Args:
        app: what `create_app` made.
        options: uvicorn's.
    """

    def __init__(self, app: Starlette, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=_GRACE, **options))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends."""
        calls: Calls = self.lifespan.state["calls"]
        calls.let_go()
        await super().shutdown(sockets)

"""The service as an ASGI 3 application, for any ASGI server or test client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from tenios_async.simulator.service import Manner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from tenios_async.simulator.service import Service

    Message = MutableMapping[str, Any]


class SimulatorApp:
    """For `uvicorn`, `hypercorn` or a test client. A lost answer ends in an exception: ASGI cannot close a socket."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serves one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the simulator speaks http, not {scope['type']}")
        answer = self.service.handle(scope["method"], scope["path"], await _body(receive))
        if answer.manner is Manner.STALL:
            await anyio.sleep_forever()
        await anyio.sleep(self.service.latency)
        if answer.manner in (Manner.DROP, Manner.RESET):
            raise ConnectionResetError("the simulator loses this answer")
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


async def _body(receive: Callable[[], Awaitable[Message]]) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _lifespan(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

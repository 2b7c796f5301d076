"""The service behind `httpx.AsyncClient(transport=...)`: no socket, on asyncio and trio, in real or virtual time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import httpx

from tenios_async.simulator.service import Manner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tenios_async.simulator.service import Answer, Service

_DRIP_EVERY = 1.0


class SimulatorTransport(httpx.AsyncBaseTransport):
    """Answers as the service does, and raises the client's timeouts, which httpx's ASGITransport ignores.

    It tells `trace` extensions what httpcore would, so that a client can know whether its request has left.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange."""
        trace = _tracer(request)
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        await trace("connection.connect_tcp.started", {"host": request.url.host, "port": request.url.port})
        if not self.service.is_reachable:
            raise httpx.ConnectError("the simulator is unreachable", request=request)
        await trace("connection.connect_tcp.complete", {"return_value": None})
        sent = {"request": _Sent(request.method.encode())}
        await trace("http11.send_request_headers.started", sent)
        await trace("http11.send_request_headers.complete", {"return_value": None})
        await trace("http11.send_request_body.started", sent)
        body = await request.aread()
        answer = self.service.handle(request.method, request.url.path, body)
        await trace("http11.send_request_body.complete", {"return_value": None})
        await trace("http11.receive_response_headers.started", sent)
        await self._wait(answer, timeouts.get("read"), request)
        await trace("http11.receive_response_headers.complete", {"return_value": (answer.status_code,)})
        drip = _DRIP_EVERY if answer.manner is Manner.DRIP else 0.0
        return httpx.Response(answer.status_code, headers=list(answer.headers), stream=_Bytes(answer.body, drip))

    async def _wait(self, answer: Answer, read: float | None, request: httpx.Request) -> None:
        latency = math.inf if answer.manner is Manner.STALL else self.service.latency
        if read is not None and latency > read:
            await anyio.sleep(read)
            raise httpx.ReadTimeout("the simulator did not answer in time", request=request)
        await anyio.sleep(latency)
        if answer.manner is Manner.DROP:
            raise httpx.RemoteProtocolError("the simulator closed the connection", request=request)
        if answer.manner is Manner.RESET:
            raise httpx.ReadError("the simulator reset the connection", request=request)


@attrs.frozen
class _Sent:
    """What httpcore shows to trace functions: a request whose method is bytes."""

    method: bytes


class _Bytes(httpx.AsyncByteStream):
    def __init__(self, body: bytes, drip: float) -> None:
        self._body = body
        self._drip = drip

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self._drip:
            yield self._body
            return
        for byte in self._body:
            await anyio.sleep(self._drip)
            yield bytes([byte])


def _tracer(request: httpx.Request) -> Callable[[str, dict[str, Any]], Awaitable[None]]:
    told: Callable[[str, dict[str, Any]], Awaitable[None]] | None = request.extensions.get("trace")

    async def trace(name: str, info: dict[str, Any]) -> None:
        if told is not None:
            await told(name, info)

    return trace

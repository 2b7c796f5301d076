"""The service on a socket: asyncio and h11, with faults down to the byte."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Self

import h11

from tenios_async.simulator.service import Answer, Manner

if TYPE_CHECKING:
    from types import TracebackType

    from tenios_async.simulator.service import Service

_DRIP_EVERY = 1.0
_READ = 64 * 1024
_MAX_BODY = 1024 * 1024


class SimulatorServer:
    """`async with SimulatorServer(service) as server: ...` answers at `server.base_url`. For asyncio.

    Args:
        service: what it serves.
        host: an address of this machine.
        port: 0 takes a free one.
        allow_remote: lets `host` be an address that others can reach.

    Raises `ValueError` for a host that is not loopback, and `OSError` on entry where the port is taken.
    """

    def __init__(self, service: Service, *, host: str = "127.0.0.1", port: int = 0, allow_remote: bool = False) -> None:
        if not isinstance(allow_remote, bool):
            raise ValueError("allow_remote must be True or False")  # noqa: TRY004  # bad arguments raise ValueError
        if not allow_remote and not _is_loopback(host):
            raise ValueError(f"the simulator listens on loopback only, and {host} is not; allow_remote=True lets it")
        self.service = service
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def base_url(self) -> str:
        """Where it answers."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def __aenter__(self) -> Self:
        self._closing = False
        self._server = await asyncio.start_server(self._accept, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        assert self._server is not None  # noqa: S101  # entered
        self._closing = True
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Synchronous, so that no connection is between being accepted and being known."""
        if self._closing:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (ConnectionError, h11.RemoteProtocolError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = h11.Connection(h11.SERVER)
        while True:
            request, body = None, b""
            while not isinstance(event := wire.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    wire.receive_data(await reader.read(_READ))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data) and len(body) < _MAX_BODY:
                    body += event.data
                elif isinstance(event, h11.ConnectionClosed):
                    return
            assert request is not None  # noqa: S101  # h11 ends no message that it has not begun
            answer = self.service.handle(request.method.decode(), request.target.decode(), bytes(body))
            if not await self._answer(wire, writer, answer) or wire.our_state is not h11.DONE:
                return
            wire.start_next_cycle()

    async def _answer(self, wire: h11.Connection, writer: asyncio.StreamWriter, answer: Answer) -> bool:
        if answer.manner is Manner.STALL:
            await asyncio.Event().wait()
        if self.service.latency:
            await asyncio.sleep(self.service.latency)
        if answer.manner is Manner.DROP:
            return False
        if answer.manner is Manner.RESET:
            _reset(writer)
            return False
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        start = wire.send(h11.Response(status_code=answer.status_code, headers=headers, reason=b""))
        data = wire.send(h11.Data(data=answer.body))
        wire.send(h11.EndOfMessage())
        whole = (start or b"") + (data or b"")
        if answer.manner is Manner.DRIP:
            for byte in whole:
                writer.write(bytes([byte]))
                await asyncio.sleep(_DRIP_EVERY)
        else:
            writer.write(whole)
        await writer.drain()
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closing a socket that lingers for 0 s sends RST instead of FIN (RFC 9293 3.10.7.4; socket(7))."""
    import socket  # noqa: PLC0415  # only a fault needs it
    import struct  # noqa: PLC0415

    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

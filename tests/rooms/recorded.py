"""What real servers send, byte for byte. Run as a program, this file is the server that is named to it."""

from __future__ import annotations

import asyncio
import http.server
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    from pathlib import Path

CONNECTED = b'{"status": "CONNECTED"}'
PATHS = ("/length", "/chunks", "/nothing", "/close", "/long", "/missing")
PATIENCE = 30.0


def record(address: tuple[str, int], path: str, *, closing: bool) -> tuple[bytes, bool]:
    """The answer to one POST as it came, and whether the server then closed."""
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="POST",
        target=path,
        headers=[("Host", "127.0.0.1"), ("Content-Length", "2"), *([("Connection", "close")] if closing else [])],
    )
    stream, closes = b"", False
    with socket.create_connection(address, timeout=PATIENCE) as client:
        client.sendall(
            connection.send(request) + connection.send(h11.Data(b"{}")) + connection.send(h11.EndOfMessage())
        )
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                piece = client.recv(65536)
                stream, closes = stream + piece, not piece
                connection.receive_data(piece)
        while not closes and connection.their_state is h11.MUST_CLOSE:
            piece = client.recv(65536)
            stream, closes = stream + piece, not piece
    return stream, closes


class Program:
    """One of these servers, in a process of its own."""

    def __init__(self, name: str, errors: Path) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener, errors.open("wb") as log:
            self.address = listener.getsockname()
            command = [sys.executable, __file__, name, str(listener.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI app behind uvicorn and hypercorn."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    path, code, headers, pieces = scope["path"], 200, [(b"content-type", b"application/json")], [CONNECTED]
    if path == "/length":
        headers.append((b"Content-Length", b"%d" % len(CONNECTED)))
    elif path == "/chunks":
        pieces = [CONNECTED[:9], CONNECTED[9:]]
    elif path == "/nothing":
        code, pieces = 204, []
    elif path == "/close":
        headers.append((b"connection", b"close"))
    elif path == "/long":
        pieces = [b"x" * 10_000] * 7
    else:
        code = 404
    await send({"type": "http.response.start", "status": code, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


def by_uvicorn(listener: socket.socket, *, http: Any) -> None:
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, http=http, lifespan="off")).run(sockets=[listener])


def by_hypercorn(listener: socket.socket) -> None:
    import hypercorn.asyncio
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    asyncio.run(hypercorn.asyncio.serve(app, config))


def by_aiohttp(listener: socket.socket) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/nothing":
            return web.Response(status=204)
        if request.path == "/length":
            return web.Response(body=CONNECTED, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if request.path == "/close":
            response.force_close()
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in [b"x" * 10_000] * 7 if request.path == "/long" else [CONNECTED[:9], CONNECTED[9:]]:
            await response.write(piece)
        return response

    program = web.Application()
    program.add_routes([web.post(path, answer) for path in PATHS if path != "/missing"])
    web.run_app(program, sock=listener, print=None)


class Handler(http.server.BaseHTTPRequestHandler):
    """For Python's own, of HTTP/1.0, where the end of the connection ends an answer."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(204 if self.path == "/nothing" else 200)
        if self.path == "/length" or (self.path == "/close" and self.protocol_version == "HTTP/1.1"):
            self.send_header("Content-Length", str(len(CONNECTED)))
        if self.path == "/close":
            self.send_header("Connection", "close")
        is_chunked = self.protocol_version == "HTTP/1.1" and self.path in ("/chunks", "/long")
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pieces = {"/nothing": [], "/long": [b"x" * 10_000] * 7}.get(self.path, [CONNECTED[:9], CONNECTED[9:]])
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")


class Handler11(Handler):
    protocol_version = "HTTP/1.1"


def by_http_server(listener: socket.socket, *, handler: type[Handler]) -> None:
    server = http.server.ThreadingHTTPServer(listener.getsockname(), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever()


SERVERS: dict[str, Any] = {
    "uvicorn with h11": lambda listener: by_uvicorn(listener, http="h11"),
    "uvicorn with httptools": lambda listener: by_uvicorn(listener, http="httptools"),
    "hypercorn": by_hypercorn,
    "aiohttp": by_aiohttp,
    "http.server": lambda listener: by_http_server(listener, handler=Handler),
    "http.server 1.1": lambda listener: by_http_server(listener, handler=Handler11),
}


if __name__ == "__main__":
    SERVERS[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])))

"""The server of the benchmark: answers every whole POST over HTTP/1.1 with the same small JSON, plain and over TLS.

It says its ports and its certificate authority in one line of JSON and ends when its standard input is closed. It does
little, so that the client is what is measured: uvloop where it is installed, no HTTP library, one write per answer.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import re
import ssl
import sys
from email.utils import formatdate

import trustme

try:
    import uvloop
except ImportError:
    uvloop = None

HOST = "127.0.0.1"
PATH = "/callback/status"
ACCESS_KEY = "00000000-1111-2222-3333-444444444444"
CALLBACK_ID = 4711
STATUS = "CONNECTED"

_BACKLOG = 2048
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_START = f"POST {PATH} HTTP/1.1\r\n".encode()
_REQUEST = json.dumps({"access_key": ACCESS_KEY, "id": CALLBACK_ID}).encode()
_ANSWER = json.dumps({"status": STATUS}).encode()


class _Answer:
    """The bytes of the answer, with the date of this second."""

    def __init__(self) -> None:
        self.bytes = b""

    def renew(self) -> None:
        self.bytes = (
            f"HTTP/1.1 200 OK\r\nServer: responder\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(_ANSWER)}\r\nConnection: keep-alive\r\n\r\n"
        ).encode() + _ANSWER
        asyncio.get_running_loop().call_later(1, self.renew)


class _Connection(asyncio.Protocol):
    """Reads a request to the end of its body and answers it; closes where it is not the one that is expected."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._came + data if self._came else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            begin = end + 4
            found = _LENGTH.search(data, 0, begin)
            if found is None or not data.startswith(_START):
                self._transport.abort()
                return
            until = begin + int(found[1])
            if len(data) < until:
                break
            if data[begin:until] != _REQUEST:
                self._transport.abort()
                return
            self._transport.write(self._answer.bytes)
            data = data[until:]
        self._came = data


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(HOST).configure_cert(context)
    answer = _Answer()
    answer.renew()
    servers = {
        name: await loop.create_server(lambda: _Connection(answer), HOST, 0, ssl=tls, backlog=_BACKLOG)
        for name, tls in (("plain", None), ("tls", context))
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    using = f"uvloop {importlib.metadata.version('uvloop')}" if uvloop else "asyncio"
    print(json.dumps({**ports, "ca": authority.cert_pem.bytes().decode(), "loop": using}), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    os._exit(0)  # connections that are open still need no farewell


def main() -> None:
    """Serves until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int, help="the processor core to stay on")
    core = parser.parse_args().core
    if core is not None:
        os.sched_setaffinity(0, {core})
    (uvloop or asyncio).run(_serve())


if __name__ == "__main__":
    main()

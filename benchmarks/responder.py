"""The server of `polling.py`: answers every whole POST over HTTP/1.1 with the same small JSON, plain and over TLS.

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
from typing import TYPE_CHECKING, Any

import trustme

try:
    import uvloop
except ImportError:
    uvloop = None

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

HOST = "127.0.0.1"
PATH = "/callback/status"
ACCESS_KEY = "00000000-1111-2222-3333-444444444444"
CALLBACK_ID = 4711
STATUS = "CONNECTED"
BACKLOG = 2048
LOOP = f"uvloop {importlib.metadata.version('uvloop')}" if uvloop else "asyncio"

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_START = f"POST {PATH} HTTP/1.1\r\n".encode()
_REQUEST = json.dumps({"access_key": ACCESS_KEY, "id": 0}).encode().removesuffix(b"0}")


class Answers:
    """The bytes of the answer for each state, with the date of this second."""

    def __init__(self, states: Iterable[str]) -> None:
        self._states = tuple(states)
        self.by_state: dict[str, bytes] = {}
        self._renew()

    def _renew(self) -> None:
        date = formatdate(usegmt=True)
        for state in self._states:
            body = json.dumps({"status": state}).encode()
            self.by_state[state] = (
                f"HTTP/1.1 200 OK\r\nServer: responder\r\nDate: {date}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
            ).encode() + body
        asyncio.get_running_loop().call_later(1, self._renew)


class Connection(asyncio.Protocol):
    """Reads each request to the end of its body; closes where it is not the one that is expected."""

    def __init__(self) -> None:
        self._came = b""

    def asked(self, body: bytes) -> bool:
        """Answers, now or later; False closes the connection."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self.transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: D102
        data = self._came + data if self._came else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            begin = end + 4
            found = _LENGTH.search(data, 0, begin)
            if found is None or not data.startswith(_START):
                self.transport.abort()
                return
            until = begin + int(found[1])
            if len(data) < until:
                break
            if not self.asked(data[begin:until]):
                self.transport.abort()
                return
            data = data[until:]
        self._came = data


class _SameAnswer(Connection):
    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def asked(self, body: bytes) -> bool:
        if is_expected := body.startswith(_REQUEST):
            self.transport.write(self._answers.by_state[STATUS])
        return is_expected


def run(server: Coroutine[Any, Any, None], core: int | None) -> None:
    """Runs a server to its end, on one core of the processor if one is named."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    (uvloop or asyncio).run(server)


def arguments(description: str | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--core", type=int, help="the processor core to stay on")
    return parser.parse_args()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(HOST).configure_cert(context)
    answers = Answers([STATUS])
    servers = {
        name: await loop.create_server(lambda: _SameAnswer(answers), HOST, 0, ssl=tls, backlog=BACKLOG)
        for name, tls in (("plain", None), ("tls", context))
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    print(json.dumps({**ports, "ca": authority.cert_pem.bytes().decode(), "loop": LOOP}), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    os._exit(0)  # connections that are open still need no farewell


if __name__ == "__main__":
    run(_serve(), arguments(__doc__).core)

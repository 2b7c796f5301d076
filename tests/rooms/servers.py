"""Real servers, each in processes of its own: nginx, and uvicorn with a small app.

The listening socket is made here and inherited by the server, so nobody else can have the port, and while one server
goes and another comes the kernel keeps who connects waiting: no connect is refused. What a server received it writes
to a log, a line for each request. Run as a program, this file is the uvicorn server.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0
"""Seconds after which a server that does not come or go is a failure."""
KEEPALIVE_REQUESTS = 1_000_000


@dataclass(frozen=True)
class Request:
    """One request as a server logged it."""

    process: int
    connection: int
    """uvicorn: the client's port; nginx: the connection's number."""
    path: str
    number: str | None = None
    """Whom to call. nginx does not tell."""


class RealServer:
    """A server that runs.

    Args:
        directory: for its files.
        certificate: a file with key and chain; None is plain HTTP.
        keepalive_timeout: whole seconds after which it closes an idle connection.
        keepalive_requests: answers after which it closes a connection; the last says `Connection: close`.
        tls_version: the only one it speaks, as nginx writes it.
        init_takes: seconds from the log to the answer of a call; nginx always answers at once.
    """

    def __init__(
        self,
        directory: Path,
        certificate: Path | None = None,
        *,
        keepalive_timeout: int = 75,
        keepalive_requests: int = KEEPALIVE_REQUESTS,
        tls_version: str | None = None,
        init_takes: float = 0.0,
    ) -> None:
        self._directory = directory
        self._requests, self._errors = directory / "requests", directory / "errors"
        self._requests.touch()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._socket.setblocking(False)  # what inherits it expects that
        self.port = self._socket.getsockname()[1]
        self._scheme = "http" if certificate is None else "https"
        self._options = {
            "certificate": certificate and str(certificate),
            "keepalive_timeout": keepalive_timeout,
            "keepalive_requests": keepalive_requests,
            "tls_version": tls_version,
            "init_takes": init_takes,
        }
        self._process = self._start()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{host}:{self.port}"

    def requests(self) -> list[Request]:
        """Those it has logged so far: uvicorn before it answers, nginx after it answered."""
        whole, _, _ = self._requests.read_text().rpartition("\n")
        return [Request(**json.loads(line)) for line in whole.splitlines()]

    def connections(self) -> set[int]:
        return {request.connection for request in self.requests()}

    def processes(self) -> list[int]:
        """Who answered, in order."""
        return list(dict.fromkeys(request.process for request in self.requests()))

    def restart(self) -> None:
        """Gracefully; returns when the old process has gone and the new one is there. Not for the client's thread."""

    def stop(self) -> None:
        """What it received is final when this returns."""
        self._socket.close()
        try:
            self._end()
        finally:
            if self._process.poll() is None:  # where a promise is broken
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]: ...

    def _end(self) -> None: ...

    def _run(self, ready: Callable[[int], Path], *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with self._errors.open("ab") as errors:
            process = subprocess.Popen(
                command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                pass_fds=[self._socket.fileno()], start_new_session=True,
            )  # fmt: skip
        until(lambda: ready(process.pid).exists() or process.poll() is not None, f"{command[0]} does not start")
        if process.poll() is not None:
            raise AssertionError(f"{command[0]} ended at once: {self._errors.read_text()}")  # where a promise is broken
        return process


class Nginx(RealServer):
    """nginx as a master and one worker. It answers every call with the same id."""

    program = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))

    def restart(self) -> None:
        old = self.processes()[-1]  # the worker; it has answered something
        os.kill(self._process.pid, signal.SIGHUP)
        until(lambda: not _is_alive(old), "the old worker of nginx does not go")

    def _start(self) -> subprocess.Popen[bytes]:
        assert self.program is not None, "nginx is not installed"
        config = self._directory / "nginx.conf"
        config.write_text(self._config())
        # How nginx hands its sockets to the program that replaces it.
        return self._run(
            lambda _: self._directory / "pid",
            *(self.program, "-p", str(self._directory), "-c", str(config)),
            NGINX=f"{self._socket.fileno()};",
        )

    def _end(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(PATIENCE)

    def _config(self) -> str:
        certificate, tls_version = self._options["certificate"], self._options["tls_version"]
        lines = [
            "daemon off;",
            "user root;" if os.geteuid() == 0 else "",  # the directory is not for others
            "worker_processes 1;",
            "pid pid;",
            f"error_log {self._errors};",
            "events { worker_connections 1024; }",
            "http {",
            *(
                f"{kind}_temp_path {self._directory / kind};"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
            "log_format request escape=json",
            """'{"process": $pid, "connection": $connection, "path": "$uri"}';""",
            f"access_log {self._requests} request;",
            "default_type application/json;",
            f"keepalive_timeout {self._options['keepalive_timeout']}s;",
            f"keepalive_requests {self._options['keepalive_requests']};",
            f"ssl_protocols {tls_version};" if tls_version else "",
            "server {",
            f"listen 127.0.0.1:{self.port}{' ssl' if certificate else ''};",
            f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if certificate else "",
            """location = /callback/status { return 200 '{"status": "CONNECTED"}'; }""",
            """location = /callback/init { return 200 '{"id": 10}'; }""",
            "}",
            "}",
        ]
        return "\n".join(filter(None, lines)) + "\n"


class Uvicorn(RealServer):
    """uvicorn over the event loop and the parser it would choose itself without uvloop."""

    def restart(self) -> None:
        self._end()
        self._process = self._start()

    def crash(self) -> None:
        """Ends it at once, whatever it was doing, and starts another. Not for the client's thread."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        options = self._options | {
            "fd": self._socket.fileno(), "requests": str(self._requests), "ready": str(self._directory),
        }  # fmt: skip
        return self._run(lambda pid: self._directory / str(pid), sys.executable, __file__, json.dumps(options))

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)


@contextlib.contextmanager
def running(
    server: type[RealServer], directory: Path, certificate: Path | None = None, **options: Any
) -> Iterator[Any]:
    """A server from start to stop; the options are those of `RealServer`."""
    started = server(directory, certificate, **options)
    try:
        yield started
    finally:
        started.stop()


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Blocks until something outside this process is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class App:
    """The ASGI app; logs each request when it has the whole body, and then answers."""

    def __init__(self, requests: int, ready: Path, *, keepalive_requests: int, init_takes: float) -> None:
        self._requests = requests
        self._ready = ready
        self._keepalive_requests = keepalive_requests
        self._init_takes = init_takes
        self._answers: collections.Counter[int] = collections.Counter()
        self._id = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body, port = b"", scope["client"][1]
        more = True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        number = json.loads(body).get("callback_number")
        seen = {"process": os.getpid(), "connection": port, "path": scope["path"], "number": number}
        os.write(self._requests, json.dumps(seen).encode() + b"\n")
        if scope["path"] == "/callback/init":
            await asyncio.sleep(self._init_takes)
        code, answer = self._answer(scope["path"])
        content = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        self._answers[port] += 1
        if self._answers[port] == self._keepalive_requests:
            del self._answers[port]
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == "/callback/status":
            return 200, {"status": "CONNECTED"}
        assert path == "/callback/init"
        self._id += 1
        return 200, {"id": self._id}

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        (self._ready / str(os.getpid())).touch()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def serve(options: dict[str, Any]) -> None:
    """Runs uvicorn until a signal ends it."""
    import uvicorn

    def make_context(_: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = default()
        if version := options["tls_version"]:
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
        return context

    requests = os.open(options["requests"], os.O_WRONLY | os.O_APPEND)
    config = uvicorn.Config(
        App(
            requests,
            Path(options["ready"]),
            keepalive_requests=options["keepalive_requests"],
            init_takes=options["init_takes"],
        ),
        loop="asyncio",
        http="httptools",
        lifespan="on",
        log_level="warning",
        ssl_certfile=options["certificate"],
        ssl_context_factory=make_context if options["certificate"] else None,
        timeout_keep_alive=options["keepalive_timeout"],
        timeout_graceful_shutdown=5,  # it waits for a connection that came while it was closing the others
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options["fd"])])


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))

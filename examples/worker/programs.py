"""Starts the programs of the example and listens to what they say; for `demo.py` and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import ClassVar, Self, TypeVar

_T = TypeVar("_T")

EXAMPLES = Path(__file__).parents[1]


class Ended(Exception):
    """A program ended before it said what was waited for."""


class Program:
    """One program: `async with Program("redis-server", "--port", "6379") as redis`. It is killed at the end.

    Each is in a process group of its own, with what it starts; `alive` has the groups that were not killed yet.

    Args:
        command: with its arguments.
        env: variables that it has on top of ours.
        echo: a pattern; what matches it is printed.
    """

    alive: ClassVar[set[int]] = set()

    def __init__(self, *command: str, env: Mapping[str, str] | None = None, echo: str | None = None) -> None:
        self.command = command
        self._env = {**os.environ, **(env or {})}
        self._echo = echo
        self._has_changed = asyncio.Event()
        self._is_over = False
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            cwd=EXAMPLES,
            env=self._env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.alive.add(self._process.pid)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        kill_group(self._process.pid)
        self.alive.discard(self._process.pid)
        await self._process.wait()
        await self._reader

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Waits for a line that matches, the first or a later one. Raises `Ended`."""
        while True:
            self._has_changed.clear()
            found = [match for line in self.lines if (match := re.search(pattern, line))]
            if len(found) >= times:
                return found[times - 1]
            if self._is_over:
                raise Ended(f"{self.command} ended without {pattern!r}:\n" + "\n".join(self.lines))
            await self._has_changed.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Writes a line to it."""
        _given(self._process.stdin).write(f"{line}\n".encode())

    def stop(self) -> None:
        """Asks it to end."""
        self._process.terminate()

    async def end(self) -> int:
        """Waits for its end, and gives its exit code."""
        _given(self._process.stdin).close()
        await self._reader
        return await self._process.wait()

    async def _read(self) -> None:
        async for line in _given(self._process.stdout):
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            if self._echo and (match := re.search(self._echo, text)):
                print(match[match.re.groups], flush=True)
            self._has_changed.set()
        self._is_over = True
        self._has_changed.set()


class Worker(Program):
    """`taskiq worker` for a queue, with one process that works and one that starts it again when it dies."""

    def __init__(self, queue: str, *, env: Mapping[str, str], echo: str | None = None) -> None:
        options = ("--workers", "1", "--max-async-tasks", "1000", "--log-format", "%(name)s: %(message)s")
        super().__init__(
            sys.executable, "-m", "taskiq", "worker", *options, f"worker.tasks:{queue}", env=env, echo=echo
        )

    async def listens(self, times: int = 1) -> None:
        """Waits until it takes jobs; for the second time, after it was started again."""
        await self.says("Listening started", times)

    async def kill(self, times: int = 1) -> None:
        """`kill -9` for the process that works; the first or a later one."""
        os.kill(await self.worker_pid(times), signal.SIGKILL)

    async def worker_pid(self, times: int = 1) -> int:
        """The process that works; the first or a later one."""
        return int((await self.says(r"[Ss]tarted .*with pid (\d+)", times))[1])


@contextlib.asynccontextmanager
async def redis_server(folder: Path, port: int = 0) -> AsyncGenerator[str]:
    """A Redis that keeps nothing, on a free port of this machine unless one is given. Gives its URL."""
    for _ in range(10):
        number = port or _free_port()
        options = {"--port": number, "--bind": "127.0.0.1", "--save": "", "--appendonly": "no", "--dir": folder}
        async with Program("redis-server", *[str(word) for option in options.items() for word in option]) as redis:
            try:
                await redis.says("Ready to accept connections")
            except Ended:
                if any("Address already in use" in line for line in redis.lines) and not port:
                    continue
                raise
            yield f"redis://127.0.0.1:{number}"
            return
    raise OSError("no free port for Redis was found")


def kill_group(pid: int) -> None:
    """Ends a program and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _given(stream: _T | None) -> _T:
    """Every program is started with pipes."""
    if stream is None:
        raise TypeError("there is no pipe")
    return stream


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

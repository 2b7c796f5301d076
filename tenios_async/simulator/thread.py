"""The server in a thread of its own, for tests that are not asynchronous and for programs that they start."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from tenios_async.simulator.server import SimulatorServer

if TYPE_CHECKING:
    from tenios_async.simulator.service import Service


class ServerThread:
    """Answers at `url` from when it is made until `stop()`. Raises what keeps it from that."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._is_up = threading.Event()
        self._failure: BaseException | None = None
        self._url = ""
        self._thread = threading.Thread(target=self._run, name="tenios-simulator", daemon=True)
        self._thread.start()
        self._is_up.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._url

    def stop(self) -> None:
        """Ends it. May be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # told to whoever made it
            self._failure = failure
        finally:
            self._is_up.set()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with SimulatorServer(self._service) as server:
            self._url = server.base_url
            self._is_up.set()
            await self._over.wait()

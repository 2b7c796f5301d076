"""What a test holds in its hand: a service, ways to it, and questions to ask it afterwards."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import anyio

from tenios_async.simulator.assertions import Assertions
from tenios_async.simulator.scripts import Script
from tenios_async.simulator.service import Service
from tenios_async.simulator.transport import SimulatorTransport

if TYPE_CHECKING:
    from collections.abc import Generator

    import httpx

    from tenios_async import TeniosClient
    from tenios_async.simulator.service import Fault
    from tenios_async.simulator.thread import ServerThread

_KEY = "simulated-access-key"
_VENDOR = "https://api.tenios.com"


class Simulator(Assertions):
    """A TENIOS for one test. Every call is answered and ends, unless scripted otherwise.

    Ask for `url` and it is a server, in real time. Otherwise it is in this process, and goes by the event loop's clock.

    Attributes:
        service: the model: its faults, its counts, its callbacks.
        base_url: what a client in this process may be given; nothing listens there.
    """

    base_url = "https://simulator.invalid"

    def __init__(self) -> None:
        self.service: Service = Service(clock=self._now, script=Script.talk())
        self._server: ServerThread | None = None

    @property
    def url(self) -> str:
        """Where it answers over HTTP from the first time on that this is asked for: for programs, or for other threads.

        Raises `RuntimeError` once calls were placed in this process, by another clock.
        """
        if self._server is None:
            from tenios_async.simulator.thread import ServerThread  # noqa: PLC0415  # needs h11

            if self.service.requests:
                raise RuntimeError("calls were placed in this process already; ask for `url` before the first")
            self._server = ServerThread(self.service)
        return self._server.url

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which a program finds `url`: `subprocess.run(..., env=os.environ | simulator.environ)`."""
        hosts = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"]))
        return {"TENIOS_BASE_URL": self.url, "TENIOS_ACCESS_KEY": _KEY, "NO_PROXY": hosts, "no_proxy": hosts}

    def client(self, **options: Any) -> TeniosClient:
        """A `TeniosClient` that talks to this simulator; options are the client's."""
        from tenios_async import TeniosClient  # noqa: PLC0415  # httpx alone is enough for the rest

        return TeniosClient(_KEY, base_url=self.base_url, http_client=self.http_client(), **options)

    def http_client(self) -> httpx.AsyncClient:
        """An `httpx.AsyncClient` that talks to this simulator, whatever the URL. There is nothing to close."""
        import httpx  # noqa: PLC0415

        return httpx.AsyncClient(transport=self._transport())

    @contextlib.contextmanager
    def intercept(self, base_url: str = _VENDOR) -> Generator[Self]:
        """Answers what any `TeniosClient`, or `httpx.AsyncClient`, sends to `base_url` meanwhile, whoever made it.

        Not those with a transport of their own. Requests to anywhere else go there.
        """
        import httpx  # noqa: PLC0415

        simulated, host = self._transport(), httpx.URL(base_url).host
        real = httpx.AsyncHTTPTransport.handle_async_request

        async def handle(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
            if request.url.host == host:
                return await simulated.handle_async_request(request)
            return await real(transport, request)

        with mock.patch.object(httpx.AsyncHTTPTransport, "handle_async_request", handle):
            yield self

    @contextlib.contextmanager
    def unreachable(self) -> Generator[None]:
        """No connection can be had meanwhile: nothing is sent, and nobody is called. Not for a server."""
        self._must_be_here()
        self.service.is_reachable = False
        try:
            yield
        finally:
            self.service.is_reachable = True

    def script(self, number: str, script: Script) -> None:
        """Calls to this number go by this script."""
        self.service.script(number, script)

    def fail_init(self, *faults: Fault, number: str | None = None) -> None:
        """The next inits (to this number, if one is given) meet these faults, one each."""
        self.service.fail_init(*faults, number=number)

    def fail_status(self, *faults: Fault) -> None:
        """The next status requests meet these faults, one each."""
        self.service.fail_status(*faults)

    def close(self) -> None:
        """Ends the server, if there is one. The fixture does so."""
        if self._server is not None:
            self._server.stop()

    @property
    def _service(self) -> Service:
        return self.service

    def _transport(self) -> SimulatorTransport:
        self._must_be_here()
        return SimulatorTransport(self.service)

    def _must_be_here(self) -> None:
        if self._server is not None:
            raise RuntimeError("this simulator is a server now, in real time: give your client its `url` as base_url")

    def _now(self) -> float:
        return anyio.current_time() if self._server is None else time.monotonic()

"""What a test holds in its hand: a service, a way to it, and questions to ask it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from tenios_async.simulator.scripts import Script
from tenios_async.simulator.service import Service
from tenios_async.simulator.transport import SimulatorTransport

if TYPE_CHECKING:
    import httpx

    from tenios_async import TeniosClient
    from tenios_async.simulator.service import Fault


class Simulator:
    """An in-process TENIOS on the event loop's clock. Every call is answered and ends, unless scripted otherwise.

    Attributes:
        service: the model: its faults, its counts, its callbacks.
        base_url: what a client under test may be given; nothing listens there.
    """

    base_url = "https://simulator.invalid"

    def __init__(self) -> None:
        self.service: Service = Service(clock=anyio.current_time, script=Script.talk())

    def client(self, **options: Any) -> TeniosClient:
        """A `TeniosClient` that talks to this simulator; options are the client's."""
        from tenios_async import TeniosClient  # noqa: PLC0415  # httpx alone is enough for the rest

        return TeniosClient("simulated-access-key", base_url=self.base_url, http_client=self.http_client(), **options)

    def http_client(self) -> httpx.AsyncClient:
        """An `httpx.AsyncClient` that talks to this simulator, whatever the URL. There is nothing to close."""
        import httpx  # noqa: PLC0415

        return httpx.AsyncClient(transport=SimulatorTransport(self.service))

    def script(self, number: str, script: Script) -> None:
        """Calls to this number go by this script."""
        self.service.script(number, script)

    def fail_init(self, *faults: Fault, number: str | None = None) -> None:
        """The next inits meet these faults, one each."""
        self.service.fail_init(*faults, number=number)

    def fail_status(self, *faults: Fault) -> None:
        """The next status requests meet these faults, one each."""
        self.service.fail_status(*faults)

    def times_called(self, number: str) -> int:
        """How many inits for this number arrived."""
        return self.service.inits[number]

    def assert_nobody_called_twice(self) -> None:
        """Raises `AssertionError` if any number was asked to be called more than once."""
        self.service.assert_nobody_called_twice()

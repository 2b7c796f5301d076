"""Virtual time on both loops: a ten-hour call takes milliseconds, and every instant is exact."""

import anyio
import httpx
import pytest
import trio.testing

from tenios_async import Polling, TeniosClient

from ..virtual_time import virtual_loop


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": virtual_loop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Vendor(httpx.AsyncBaseTransport):
    """Answers by a timeline of (seconds since the first request, state) and writes down every instant it was asked."""

    def __init__(self, timeline=(), *, latency=0.0, init=None):
        self.timeline = timeline
        self.latency = latency
        self.init = init or (lambda: httpx.Response(200, json={"id": 10}))
        self.began = None
        self.inits = 0
        self.polls = []
        self.open = 0

    async def handle_async_request(self, request):
        await request.aread()
        now = anyio.current_time()
        self.began = now if self.began is None else self.began
        self.open += 1
        try:
            if request.url.path.endswith("/init"):
                self.inits += 1
                await anyio.sleep(self.latency)
                return self.init()
            self.polls.append(round(now - self.began, 6))
            await anyio.sleep(self.latency)
        finally:
            self.open -= 1
        found = [what for begins, what in self.timeline if begins <= now - self.began][-1]
        return found() if callable(found) else httpx.Response(200, json={"status": found})

    def client(self, **options):
        options.setdefault("polling", Polling(jitter=0))
        http_client = httpx.AsyncClient(transport=self)
        return TeniosClient("CANARY-KEY", base_url="https://vendor.test", http_client=http_client, **options)


@pytest.fixture
def vendor():
    return Vendor

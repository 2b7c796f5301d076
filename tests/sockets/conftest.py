import importlib.util
import sys
from pathlib import Path

import httpx
import pytest_asyncio

import tenios_async

_spec = importlib.util.spec_from_file_location("misbehaving", Path(__file__).with_name("misbehaving.py"))
sys.modules["misbehaving"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["misbehaving"])


@pytest_asyncio.fixture(params=["own", "callers"])
async def client_for(request):
    """Opens a client on either room: over an httpx client of its own, or over a caller's, which stays the caller's."""
    callers = []

    def open_client(url, **options):
        if request.param == "own":
            return tenios_async.TeniosClient("CANARY-KEY", base_url=url, **options)
        callers.append(httpx.AsyncClient(verify=options.pop("ssl_context", True), follow_redirects=True))
        return tenios_async.TeniosClient("CANARY-KEY", base_url=url, http_client=callers[-1], **options)

    yield open_client
    for http_client in callers:
        assert not http_client.is_closed
        await http_client.aclose()

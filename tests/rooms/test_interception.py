"""Whatever lives by patching httpx or httpcore finds a default client's requests, also when it starts late."""

import logging
import os
import socket
import subprocess
import sys
import textwrap

import httpx
import pytest
import respx
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenios_async import AttemptOutcome, CallbackAttempt, TeniosClient
from tenios_async.simulator import Script, Service, SimulatorServer

pytestmark = pytest.mark.asyncio
NUMBER = "+491234567890"
URL = "https://api.tenios.com/callback"


@pytest.fixture(autouse=True)
def nobody_connects(monkeypatch):
    """A name that is looked up is a request that got away."""

    def refuse(host, *_, **__):
        raise AssertionError(f"somebody asked for {host}")  # where a promise is broken

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


async def test_respx():
    async with TeniosClient("key") as tenios:
        with respx.mock:
            init = respx.post(f"{URL}/init").respond(json={"id": 10})
            respx.post(f"{URL}/status").respond(json={"status": "CONNECTED"})
            callback = await tenios.init_callback("config", NUMBER)
            assert await tenios.callback_status(callback) == "CONNECTED"
            assert tenios.transport == "httpx"
        assert init.call_count == 1
        assert tenios.transport == "pool"


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_respx_that_starts_after_a_request_was_made(using):
    """A live connection is in the pool, and still the mock gets the next request."""
    service = Service(script=Script.ended())
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as tenios:
        callback = await tenios.init_callback("config", NUMBER)
        with respx.mock(using=using, base_url=server.base_url) as router:
            router.post("/callback/status").respond(json={"status": "CONNECTED"})
            assert await tenios.callback_status(callback) == "CONNECTED"
        assert service.polls.total() == 0
        assert await tenios.callback_status(callback) == "DISCONNECTED"
        assert service.polls.total() == 1


async def test_pytest_httpx(httpx_mock):
    httpx_mock.add_response(url=f"{URL}/init", json={"id": 10})
    async with TeniosClient("key") as tenios:
        assert (await tenios.init_callback("config", NUMBER)).id == 10
    assert len(httpx_mock.get_requests()) == 1


async def test_pytest_httpx_that_starts_after_the_client_was_opened(request):
    async with TeniosClient("key") as tenios:
        httpx_mock = request.getfixturevalue("httpx_mock")
        httpx_mock.add_response(url=f"{URL}/status", json={"status": "CALLING_A"})
        assert await tenios.callback_status(10) == "CALLING_A"


async def test_opentelemetry_that_starts_and_ends_while_the_client_is_open():
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with SimulatorServer(Service()) as server, TeniosClient("key", base_url=server.base_url) as tenios:
        callback = await tenios.init_callback("config", NUMBER)
        HTTPXClientInstrumentor().instrument(tracer_provider=provider)
        try:
            await tenios.callback_status(callback)
            await tenios.init_callback("config", NUMBER)
        finally:
            HTTPXClientInstrumentor().uninstrument()
        await tenios.callback_status(callback)
    urls = [span.attributes["http.url"] for span in spans.get_finished_spans()]
    assert urls == [f"{server.base_url}/callback/status", f"{server.base_url}/callback/init"]


AUTOMATIC = """
    import asyncio, sys
    assert "tenios_async" not in sys.modules
    from tenios_async import TeniosClient
    from tenios_async.simulator import Script, Service, SimulatorServer

    async def main():
        async with SimulatorServer(Service()) as server, TeniosClient("key", base_url=server.base_url) as tenios:
            callback = await tenios.init_callback("config", "+491234567890")
            await tenios.callback_status(callback)

    asyncio.run(main())
"""


async def test_opentelemetry_that_was_there_before_this_library(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(AUTOMATIC))
    environment = os.environ | {
        "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
    }  # fmt: skip
    launcher = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", launcher, sys.executable, str(script)], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("/callback/init") >= 1
    assert done.stdout.count('"kind": "SpanKind.CLIENT"') == 2


@pytest.mark.parametrize(
    ("owner", "name"),
    [(httpx.AsyncClient, "send"), (httpx.AsyncHTTPTransport, "handle_async_request")],
)
async def test_anything_else_that_replaces_a_method(monkeypatch, owner, name):
    """As Sentry, New Relic and home-made fixtures do."""
    seen = []
    original = getattr(owner, name)

    async def replaced(self, request, *args, **kwargs):
        seen.append(request.url.path)
        return await original(self, request, *args, **kwargs)

    async with SimulatorServer(Service()) as server, TeniosClient("key", base_url=server.base_url) as tenios:
        await tenios.init_callback("config", NUMBER)
        monkeypatch.setattr(owner, name, replaced)
        await tenios.init_callback("config", NUMBER)
    assert seen == ["/callback/init"]


async def test_a_class_that_was_swapped(monkeypatch):
    """As older instrumentors do."""

    class Instrumented(httpx.AsyncClient):
        pass

    async with TeniosClient("key") as tenios:
        assert tenios.transport == "pool"
        monkeypatch.setattr(httpx, "AsyncClient", Instrumented)
        assert tenios.transport == "httpx"


@pytest.mark.parametrize(
    ("variables", "url", "room"),
    [
        ({}, "https://api.tenios.com", "pool"),
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "https://api.tenios.com", "httpx"),
        ({"ALL_PROXY": "http://proxy.test:3128"}, "https://api.tenios.com", "httpx"),
        ({"HTTP_PROXY": "http://proxy.test:3128"}, "https://api.tenios.com", "pool"),
        ({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "tenios.com"}, "https://api.tenios.com", "pool"),
        ({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "other.com"}, "https://api.tenios.com", "httpx"),
        ({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "*"}, "https://api.tenios.com", "pool"),
    ],
)
async def test_the_environment_chooses_too(monkeypatch, caplog, variables, url, room):
    """And the client says which room it is and why."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.DEBUG, "tenios_async")
    async with TeniosClient("key", base_url=url) as tenios:
        assert tenios.transport == room
    assert f"requests travel by {room}: " in caplog.text
    (record,) = [record for record in caplog.records if vars(record).get("tenios_event") == "transport"]
    assert record.tenios_transport == room
    assert record.tenios_reason in record.getMessage()


@pytest.mark.parametrize(
    ("proxy", "says"),
    [("ftp://proxy.test", "https://"), ("socks5://proxy.test", "SOCKS"), ("http://u:secret@proxy.test:port", "a port")],
)
async def test_a_proxy_that_cannot_be_used_is_one_clear_error(monkeypatch, proxy, says):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        await TeniosClient("key").__aenter__()
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9"])
@pytest.mark.parametrize("name", ["missing", "empty"])
async def test_a_trust_store_that_cannot_be_used_is_one_clear_error(monkeypatch, tmp_path, proxy, name):
    (tmp_path / "empty").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
    if proxy is not None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    attempt = CallbackAttempt()
    with pytest.raises(ValueError, match="SSL_CERT_FILE"):
        async with TeniosClient("key", base_url="https://127.0.0.1:9") as tenios:
            await tenios.init_callback("config", NUMBER, attempt=attempt)
    assert attempt.outcome in (None, AttemptOutcome.NOT_SENT)


async def test_without_httptools(monkeypatch):
    monkeypatch.setitem(sys.modules, "httptools", None)
    async with SimulatorServer(Service()) as server, TeniosClient("key", base_url=server.base_url) as tenios:
        assert tenios.transport == "httpx"
        assert (await tenios.init_callback("config", NUMBER)).id == 10


async def test_the_import_brings_no_http_library():
    """An HTTP library costs more than all the rest; it is imported when its room is entered."""
    code = (
        "import sys, tenios_async; tenios_async.TeniosClient('key')"
        "; print([n for n in ('httpx', 'httpcore', 'httptools') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


LATE = """
    import asyncio, sys
    from tenios_async import TeniosClient

    async def answer(reader, writer):
        await reader.readuntil(b"}")
        writer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 22\\r\\n\\r\\n{"status":"REQUESTED"}')
        writer.close()

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, TeniosClient("key", base_url=url) as tenios:
            assert await tenios.callback_status(10) == "REQUESTED"
            assert "httpx" not in sys.modules

            import respx
            with respx.mock(base_url=url) as router:
                router.post("/callback/status").respond(json={"status": "CONNECTED"})
                assert await tenios.callback_status(10) == "CONNECTED"
            assert await tenios.callback_status(10) == "REQUESTED"

    asyncio.run(main())
"""


async def test_respx_of_a_program_that_imports_httpx_later():
    """Until then nothing of it is imported, and nothing of it can be replaced."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LATE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

"""The service on a real socket: plain httpx, raw bytes, and nothing left behind."""

import asyncio
import contextlib
import json
import socket
import warnings

import httpx
import pytest

from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorServer, server

pytestmark = pytest.mark.asyncio
NUMBER = "+491234567890"
INIT = {"access_key": "key", "callback_config_id": "config", "callback_number": NUMBER, "delay": 0}


def port_of(running):
    return httpx.URL(running.base_url).port


def post(body):
    raw = json.dumps(body).encode()
    return b"POST /callback/init HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)


class ObservedService(Service):
    """A service that a test can wait for."""

    def __init__(self):
        super().__init__(script=Script((("ACCEPTED", 0), ("DISCONNECTED", 0))))
        self.asked = asyncio.Event()

    def handle(self, method, path, body):
        answer = super().handle(method, path, body)
        self.asked.set()
        return answer


@pytest.fixture
def service():
    return ObservedService()


@pytest.fixture
def quick_drip(monkeypatch):
    monkeypatch.setattr(server, "_DRIP_EVERY", 0.0)


async def test_a_callback_over_one_connection(service):
    """Connections are kept alive: two requests, one local port."""
    async with SimulatorServer(service) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        for sent in ({**INIT}, {**INIT, "callback_number": "+4912"}):
            writer.write(post(sent))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert "id" in json.loads(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()
    assert [callback.id for callback in service.callbacks.values()] == [10, 11]


async def test_plain_httpx(service):
    async with SimulatorServer(service) as running, httpx.AsyncClient(base_url=running.base_url) as http:
        assert (await http.post("/callback/init", json=INIT)).json() == {"id": 10}
        assert (await http.post("/callback/status", json={"access_key": "k", "id": 10})).json() == {
            "status": "DISCONNECTED"
        }
        assert (await http.get("/callback/status")).status_code == 405
        assert (await http.post("/nothing")).json()["error_code"] == "NOT_FOUND"
    service.assert_nobody_called_twice()


async def test_pipelined_requests_are_answered_in_turn(service):
    async with SimulatorServer(service) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        writer.write(post(INIT) + post({**INIT, "callback_number": "+4912"}))
        seen = b""
        while seen.count(b'{"id"') < 2:
            seen += await asyncio.wait_for(reader.read(4096), 5)
        writer.close()
        await writer.wait_closed()
    assert seen.index(b'{"id": 10}') < seen.index(b'{"id": 11}')


@pytest.mark.parametrize(
    ("manner", "error"),
    [(Manner.DROP, httpx.RemoteProtocolError), (Manner.RESET, httpx.ReadError), (Manner.STALL, httpx.ReadTimeout)],
)
async def test_an_answer_is_lost(service, manner, error):
    """The call was accepted; the next request finds the server well."""
    service.fail_init(Fault.lost(manner))
    async with SimulatorServer(service) as running, httpx.AsyncClient(base_url=running.base_url, timeout=0.3) as http:
        with pytest.raises(error):
            await http.post("/callback/init", json=INIT)
        assert len(service.callbacks) == 1
        assert (await http.post("/callback/status", json={"access_key": "k", "id": 10}, timeout=5)).status_code == 200


async def test_a_reset_is_a_reset(service):
    """RST, not FIN: the peer's read fails."""
    service.fail_init(Fault.lost(Manner.RESET))
    async with SimulatorServer(service) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        writer.write(post(INIT))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_a_dropped_answer_is_an_end_of_stream(service):
    service.fail_init(Fault.lost(Manner.DROP))
    async with SimulatorServer(service) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        writer.write(post(INIT))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.usefixtures("quick_drip")
async def test_a_dripping_answer_is_whole_in_the_end(service):
    service.fail_init(Fault(before=False, manner=Manner.DRIP))
    async with SimulatorServer(service) as running, httpx.AsyncClient(base_url=running.base_url) as http:
        assert (await http.post("/callback/init", json=INIT)).json() == {"id": 10}


@pytest.mark.parametrize(
    ("fault", "status_code", "accepted"),
    [
        (Fault.busy("2"), 429, 0),
        (Fault.error(503), 503, 0),
        (Fault.error(500, accepted=True), 500, 1),
        (Fault.garbage(), 200, 1),
    ],
)
async def test_a_wrong_answer(service, fault, status_code, accepted):
    service.fail_init(fault)
    async with SimulatorServer(service) as running, httpx.AsyncClient(base_url=running.base_url) as http:
        answer = await http.post("/callback/init", json=INIT)
    assert (answer.status_code, len(service.callbacks)) == (status_code, accepted)
    assert answer.headers.get("Retry-After") == ("2" if status_code == 429 else None)


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"POST\r\n\r\n", b"", post(INIT)[:-5]])
async def test_noise_ends_the_connection_and_not_the_server(service, noise):
    async with SimulatorServer(service) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        writer.write(noise)
        writer.write_eof()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        async with httpx.AsyncClient(base_url=running.base_url) as http:
            assert (await http.post("/callback/init", json=INIT)).status_code == 200
    assert service.inits == {NUMBER: 1}


async def test_a_body_without_end_is_refused(service):
    """2 MiB are read and none of it is believed."""
    async with SimulatorServer(service) as running, httpx.AsyncClient(base_url=running.base_url) as http:
        answer = await http.post("/callback/init", content=json.dumps({**INIT, "agent_announcement": "x" * 2_000_000}))
    assert answer.status_code == 400
    assert not service.callbacks


@pytest.mark.parametrize("manner", [None, Manner.STALL, Manner.DRIP])
async def test_nothing_is_left_behind(service, manner):
    """It closes with an idle, a stalled and a dripping connection open, and takes every task with it."""
    before = asyncio.all_tasks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with SimulatorServer(service) as running:
            port = port_of(running)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if manner is None:
                writer.write(post(INIT))
                await reader.readuntil(b"\r\n\r\n")
            else:
                service.fail_init(Fault.lost(manner))
                writer.write(post(INIT))
                await asyncio.wait_for(service.asked.wait(), 5)
        assert asyncio.all_tasks() == before
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()


@pytest.mark.parametrize("turns", range(5))
async def test_it_closes_while_a_connection_is_arriving(service, turns):
    """Whatever turn of the loop the connection is in, between the kernel's queue and its task."""
    before = asyncio.all_tasks()
    async with SimulatorServer(service) as running, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        for _ in range(turns):
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert asyncio.all_tasks() == before


async def test_a_connection_that_asyncio_hands_over_while_it_closes_is_dropped(service):
    async with SimulatorServer(service) as running, asyncio.timeout(5):
        running._closing = True
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert not running._tasks


async def test_a_port_in_use_is_an_oserror(service):
    async with SimulatorServer(service) as running:
        with pytest.raises(OSError, match=str(port_of(running))):
            await SimulatorServer(service, port=port_of(running)).__aenter__()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
async def test_loopback_only(service, host):
    with pytest.raises(ValueError, match="loopback only") as caught:
        SimulatorServer(service, host=host)
    assert "\n" not in str(caught.value)


async def test_remote_when_asked_for(service):
    with pytest.raises(ValueError, match="True or False"):
        SimulatorServer(service, host="0.0.0.0", allow_remote="false")
    async with SimulatorServer(service, host="0.0.0.0", allow_remote=True) as running, httpx.AsyncClient() as http:
        answer = await http.post(f"http://127.0.0.1:{port_of(running)}/callback/init", json=INIT)
    assert answer.status_code == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="a machine without IPv6")
async def test_a_base_url_with_ipv6(service):
    assert SimulatorServer(service, host="::1", port=8080).base_url == "http://[::1]:8080"

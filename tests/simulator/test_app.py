"""The service as an ASGI application, driven by httpx's own ASGI transport and by hand."""

import anyio
import httpx
import pytest

from tenios_async.simulator import Fault, Manner, Service, SimulatorApp

pytestmark = pytest.mark.anyio
INIT = {"access_key": "key", "callback_config_id": "config", "callback_number": "+491234567890", "delay": "0"}


@pytest.fixture
def service():
    return Service(clock=anyio.current_time)


@pytest.fixture
def http(service):
    return httpx.AsyncClient(transport=httpx.ASGITransport(SimulatorApp(service)), base_url="https://simulator.invalid")


async def test_a_callback(service, http):
    answer = await http.post("/callback/init", json=INIT)
    assert (answer.status_code, answer.json()) == (200, {"id": 10})
    assert answer.headers["content-type"] == "application/json"
    answer = await http.post("/callback/status", json={"access_key": "key", "id": "10"})
    assert answer.json() == {"status": "REQUESTED"}
    service.assert_nobody_called_twice()


async def test_not_the_api(http):
    assert (await http.get("/callback/init")).status_code == 405
    assert (await http.post("/")).status_code == 404


@pytest.mark.parametrize("manner", [Manner.DROP, Manner.RESET])
async def test_a_lost_answer_is_an_exception(service, http, manner):
    service.fail_init(Fault.lost(manner))
    with pytest.raises(ConnectionResetError):
        await http.post("/callback/init", json=INIT)
    assert len(service.callbacks) == 1


async def test_a_stall_and_latency(service, http):
    service.latency = 3
    began = anyio.current_time()
    await http.post("/callback/init", json=INIT)
    assert anyio.current_time() - began == pytest.approx(3)
    service.fail_init(Fault.lost(Manner.STALL))
    with anyio.move_on_after(3600) as scope:
        await http.post("/callback/init", json=INIT)
    assert scope.cancelled_caught


async def test_a_body_in_pieces(service):
    pieces = [b'{"access_key":"k","callback_config_id":"c",', b'"callback_number":"+4912","delay":0}']
    messages = [{"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]} for piece in pieces]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    await SimulatorApp(service)({"type": "http", "method": "POST", "path": "/callback/init"}, receive, send)
    assert sent[0]["status"] == 200
    assert service.inits == {"+4912": 1}


async def test_lifespan(service):
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    await SimulatorApp(service)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_websocket_is_refused(service):
    with pytest.raises(ValueError, match="websocket"):
        await SimulatorApp(service)({"type": "websocket"}, None, None)

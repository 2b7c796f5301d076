"""The service without a socket, on asyncio and trio, in virtual time."""

import json

import anyio
import httpx
import pytest

from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorTransport

pytestmark = pytest.mark.anyio
NUMBER = "+491234567890"
INIT = {"access_key": "key", "callback_config_id": "config", "callback_number": NUMBER, "delay": 0}


@pytest.fixture
def service():
    return Service(clock=anyio.current_time, script=Script.talk(seconds=180))


@pytest.fixture
def http(service):
    return httpx.AsyncClient(transport=SimulatorTransport(service), base_url="https://simulator.invalid", timeout=5)


async def status_of(http):
    answer = await http.post("/callback/status", json={"access_key": "key", "id": 10})
    return answer.json()["status"]


async def test_a_three_minute_call(service, http):
    """Every state at its own instant, and no real time."""
    answer = await http.post("/callback/init", json=INIT)
    assert (answer.status_code, answer.json()) == (200, {"id": 10})
    began, seen = anyio.current_time(), []
    while not seen or seen[-1][1] != "DISCONNECTED":
        state = await status_of(http)
        if not seen or seen[-1][1] != state:
            seen.append((round(anyio.current_time() - began, 3), state))
        await anyio.sleep(0.5)
    assert seen == [
        (0, "REQUESTED"),
        (0.5, "ACCEPTED"),
        (1, "CALLING_A"),
        (7, "CALLING_B"),
        (13, "CONNECTED"),
        (193, "DISCONNECTED"),
    ]
    service.assert_nobody_called_twice()


async def test_latency_takes_its_time(service, http):
    service.latency = 2
    began = anyio.current_time()
    await http.post("/callback/init", json=INIT)
    assert anyio.current_time() - began == pytest.approx(2)


@pytest.mark.parametrize("slow", ["stall", "latency"])
async def test_the_read_timeout_is_the_clients(service, http, slow):
    if slow == "stall":
        service.fail_init(Fault.lost(Manner.STALL))
    else:
        service.latency = 60
    began = anyio.current_time()
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/callback/init", json=INIT)
    assert anyio.current_time() - began == pytest.approx(5)
    assert service.inits == {NUMBER: 1}
    assert len(service.callbacks) == 1


async def test_a_stall_without_a_timeout_ends_when_the_caller_says(service, http):
    service.fail_init(Fault.lost(Manner.STALL))
    began = anyio.current_time()
    with anyio.move_on_after(3600) as scope:
        await http.post("/callback/init", json=INIT, timeout=None)
    assert scope.cancelled_caught
    assert anyio.current_time() - began == pytest.approx(3600)


@pytest.mark.parametrize(
    ("manner", "error"), [(Manner.DROP, httpx.RemoteProtocolError), (Manner.RESET, httpx.ReadError)]
)
async def test_a_lost_answer_is_the_clients_error(service, http, manner, error):
    service.fail_init(Fault.lost(manner))
    with pytest.raises(error) as caught:
        await http.post("/callback/init", json=INIT)
    assert caught.value.request.url.path == "/callback/init"
    assert len(service.callbacks) == 1


async def test_a_dripping_answer_is_whole_in_the_end(service, http):
    service.fail_init(Fault(before=False, manner=Manner.DRIP))
    began = anyio.current_time()
    answer = await http.post("/callback/init", json=INIT)
    assert answer.json() == {"id": 10}
    assert anyio.current_time() - began == pytest.approx(len(answer.content))


async def test_busy_says_when(service, http):
    service.fail_init(Fault.busy("3"))
    answer = await http.post("/callback/init", json=INIT)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")


EVENTS = [
    f"{name}.{moment}"
    for name in (
        "connection.connect_tcp",
        "http11.send_request_headers",
        "http11.send_request_body",
        "http11.receive_response_headers",
    )
    for moment in ("started", "complete")
]


async def test_trace_events_are_those_of_httpcore(http):
    told = []

    async def trace(name, info):
        told.append((name, info))

    await http.post("/callback/init", json=INIT, extensions={"trace": trace})
    assert [name for name, _ in told] == EVENTS
    assert dict(told)["http11.send_request_headers.started"]["request"].method == b"POST"


@pytest.mark.parametrize("event", EVENTS[:5])
async def test_a_trace_function_that_raises_before_the_body_keeps_the_request_here(service, http, event):
    async def trace(name, _):
        if name == event:
            raise LookupError(event)

    with pytest.raises(LookupError):
        await http.post("/callback/init", json=INIT, extensions={"trace": trace})
    assert (service.inits, service.callbacks) == ({}, {})


async def test_a_lost_answer_was_never_received(service, http):
    told = []

    async def trace(name, _):
        told.append(name)

    service.fail_init(Fault.lost())
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/callback/init", json=INIT, extensions={"trace": trace})
    assert told == EVENTS[:-1]


async def test_the_body_is_read_once_the_headers_have_left(http):
    """A streaming body that is asked for too early would have been spent before the client knew."""
    told = []

    async def trace(name, _):
        told.append(name)

    async def body():
        assert "http11.send_request_headers.started" in told
        yield json.dumps(INIT).encode()

    answer = await http.post("/callback/init", content=body(), extensions={"trace": trace})
    assert answer.json() == {"id": 10}


async def test_many_at_once(service, http):
    async with anyio.create_task_group() as tasks:
        for index in range(50):
            tasks.start_soon(
                lambda index=index: http.post("/callback/init", json={**INIT, "callback_number": f"+49{index}"})
            )
    assert len(service.callbacks) == 50
    service.assert_nobody_called_twice()

"""The oracle itself, under plain httpx: what it counts can be believed."""

import ssl

import httpx
import pytest

from .misbehaving import PLACED, Server, after, answer, close, finish, hold, over_tls, reply, reset, silent

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """On trio, plain httpx itself leaves a generator behind when a write fails."""
    return "asyncio"


INIT = {"callback_number": "+491234567890"}


async def test_every_whole_init_is_counted_by_number():
    async with Server(answer(PLACED)) as server, httpx.AsyncClient() as http:
        for _ in range(2):
            assert (await http.post(server.url + "/callback/init", json=INIT)).json() == {"id": 10}
        await http.post(server.url + "/callback/init", json={"callback_number": "+4930"})
        await http.post(server.url + "/callback/status", json={"id": 10})
    assert server.inits == {"+491234567890": 2, "+4930": 1}
    assert server.statuses == 1
    assert len(server.peers) == 1


async def test_an_init_that_is_cut_short_is_no_init_but_its_bytes_are_counted():
    async with Server(after(5, reset)) as server, httpx.AsyncClient() as http:
        with pytest.raises(httpx.TransportError):
            await http.post(server.url + "/callback/init", json=INIT)
    assert not server.inits
    assert server.received == b"POST "


@pytest.mark.parametrize("ending", [finish, close, reset])
async def test_each_way_to_end_a_connection_is_seen_by_the_client(ending):
    async with Server(answer(b"HTTP/1.1 200 OK\r\n", ending)) as server, httpx.AsyncClient() as http:
        with pytest.raises(httpx.TransportError):
            await http.post(server.url + "/callback/init", json=INIT)
    assert server.inits == {"+491234567890": 1}


async def test_each_connection_has_its_behaviour_and_the_last_repeats():
    async with (
        Server(answer(reply(503, b"", "Connection: close")), answer(PLACED)) as server,
        httpx.AsyncClient() as http,
    ):
        codes = [(await http.post(server.url + "/callback/init", json=INIT)).status_code for _ in range(3)]
    assert codes == [503, 200, 200]
    assert len(server.peers) == 2


async def test_silence_and_a_held_answer_are_up_to_the_test():
    async with Server(silent, hold(PLACED)) as server, httpx.AsyncClient() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(server.url + "/callback/init", json=INIT, timeout=0.2)
        await server.until_client_left()
        (await server.until_peer(0)).released.set()
        with pytest.raises(httpx.ReadTimeout):
            await http.post(server.url + "/callback/init", json=INIT, timeout=0.2)
    assert server.inits == {"+491234567890": 2}


async def test_certificates_are_what_they_are_called(certificates):
    script = [over_tls(context, answer(PLACED)) for context in certificates[2:]]
    async with Server(*script, scheme="https") as server:
        for context in certificates[2:]:
            async with httpx.AsyncClient(verify=certificates.trusting) as http:
                if context is certificates.good:
                    assert (await http.post(server.url + "/callback/init", json=INIT)).is_success
                else:
                    with pytest.raises((httpx.ConnectError, ssl.SSLError)):
                        await http.post(server.url + "/callback/init", json=INIT)
    assert server.inits == {"+491234567890": 1}

"""Rule 1, row by row, on real sockets: a phone never rings twice by mistake."""

import asyncio
import socket
import ssl

import anyio
import httpx
import pytest
import trustme
from misbehaving import OK, Misbehaving, answer

from tenios_async import (
    AttemptOutcome,
    BadCredentials,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    ConnectionFailed,
    RateLimited,
    TeniosClient,
)

NUMBER = "+491234567890"
ERROR = b'{"error_code":"BAD_CREDENTIALS","error_message":"Bad credentials","fields":[]}'
pytestmark = pytest.mark.asyncio


async def place(client, attempt, **options):
    async with client:
        return await client.init_callback("config", NUMBER, attempt=attempt, **options)


def answering(data):
    def behave(connection):
        while connection.read():
            connection.send(data)

    return behave


async def test_a_whole_answer_is_a_placed_call(client_for):
    attempt = CallbackAttempt()
    with Misbehaving(answering(OK)) as server:
        callback = await place(client_for(server.url), attempt)
    assert (callback.id, attempt.outcome, attempt.callback) == (10, AttemptOutcome.PLACED, callback)
    assert server.inits == {NUMBER: 1}


UNKNOWN = {
    "500": answer(500), "503 with a body": answer(503, ERROR), "429 of a proxy": answer(429, b"slow down"),
    "400 of a proxy": answer(400, b"<html>"), "204": answer(204), "garbage": answer(200, b"<html>"),
    "no id": answer(200, b"{}"), "id true": answer(200, b'{"id":true}'), "deep": answer(200, b"[" * 60_000),
    "long id": answer(200, b'{"id":' + b"1" * 5000 + b"}"), "too long": answer(200, b" " * 70_000 + b'{"id":1}'),
    "gzip": answer(200, b'{"id":1}', "Content-Encoding: gzip"), "not http": b"hello\r\n\r\n",
    "truncated": OK.replace(b"10\r\n", b"90\r\n"), "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    **{f"{code}": answer(code, b"", "Location: /callback/init") for code in (301, 302, 303, 307, 308)},
}  # fmt: skip


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN)
async def test_an_answer_that_proves_nothing(client_for, data):
    def behave(connection):
        connection.read()
        connection.send(data)

    attempt = CallbackAttempt()
    with Misbehaving(behave) as server, pytest.raises(CallbackOutcomeUnknown) as caught:
        await place(client_for(server.url), attempt)
    assert caught.value.may_have_dialled
    assert (attempt.outcome, attempt.error) == (AttemptOutcome.UNKNOWN, caught.value)
    assert server.inits == {NUMBER: 1}
    assert server.connections == 1


@pytest.mark.parametrize("rst", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("after", [0, 1, 9, 16, len(OK) - 11, len(OK) - 1])
async def test_a_connection_that_breaks_in_the_answer(client_for, after, rst):
    def behave(connection):
        connection.read()
        connection.send(OK[:after])
        if rst:
            connection.reset()

    attempt = CallbackAttempt()
    with Misbehaving(behave) as server, pytest.raises(CallbackOutcomeUnknown):
        await place(client_for(server.url), attempt)
    assert attempt.outcome is AttemptOutcome.UNKNOWN
    assert server.inits == {NUMBER: 1}


@pytest.mark.parametrize("rst", [False, True], ids=["fin", "rst"])
async def test_a_connection_that_breaks_at_once_counts_as_sent(client_for, rst):
    """The bytes may have crossed the close on the wire."""
    attempt = CallbackAttempt()
    with Misbehaving(lambda c: c.reset() if rst else None) as server, pytest.raises(CallbackOutcomeUnknown):
        await place(client_for(server.url), attempt)
    assert attempt.outcome is AttemptOutcome.UNKNOWN
    assert server.connections == 1


async def test_no_answer_in_time(client_for):
    def behave(connection):
        connection.read()
        connection.read()

    attempt = CallbackAttempt()
    with Misbehaving(behave) as server, pytest.raises(CallbackOutcomeUnknown):
        await place(client_for(server.url), attempt, timeout=0.2)
    assert attempt.outcome is AttemptOutcome.UNKNOWN
    assert server.inits == {NUMBER: 1}


@pytest.mark.parametrize(
    ("data", "cls"), [(answer(400, ERROR), BadCredentials), (answer(429, ERROR.replace(b"BAD_C", b"C")), RateLimited)]
)
async def test_a_proven_refusal(client_for, data, cls):
    attempt = CallbackAttempt()
    with Misbehaving(answering(data)) as server, pytest.raises(cls) as caught:
        await place(client_for(server.url), attempt)
    assert (attempt.outcome, attempt.error) == (AttemptOutcome.REFUSED, caught.value)
    assert server.inits == {NUMBER: 1}


async def not_sent(client, **options):
    attempt = CallbackAttempt()
    with pytest.raises(ConnectionFailed) as caught:
        await place(client, attempt, **options)
    assert not caught.value.may_have_dialled
    assert attempt.outcome is AttemptOutcome.NOT_SENT


async def test_a_refused_connection(client_for):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        await not_sent(client_for(f"http://127.0.0.1:{unused.getsockname()[1]}"), timeout=0.3)


async def test_a_name_that_does_not_resolve(client_for):
    await not_sent(client_for("https://tenios.invalid"), timeout=0.3)


async def test_a_connect_that_takes_too_long(client_for):
    """A listener whose backlog is full lets nobody in."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        await not_sent(client_for(f"http://127.0.0.1:{full.getsockname()[1]}"), timeout=0.3)
        for filler in fillers:
            filler.close()


def tls(*names):
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return server, trusting


async def test_tls_with_a_private_authority(client_for):
    server_context, trusting = tls("127.0.0.1")
    with Misbehaving(answering(OK), context=server_context) as server:
        assert (await place(client_for(server.url, ssl_context=trusting), CallbackAttempt())).id == 10


async def test_a_certificate_nobody_vouches_for(client_for):
    server_context, _ = tls("127.0.0.1")
    with Misbehaving(answering(OK), context=server_context) as server:
        await not_sent(client_for(server.url))
    assert (server.keys, server.connections) == (0, 1)


async def test_a_certificate_for_another_host(client_for):
    server_context, trusting = tls("example.test")
    with Misbehaving(answering(OK), context=server_context) as server:
        await not_sent(client_for(server.url, ssl_context=trusting))
    assert (server.keys, server.connections) == (0, 1)


async def test_a_server_that_is_gone_before_the_handshake(client_for):
    with Misbehaving(lambda connection: connection.sock.recv(1)) as server:
        await not_sent(client_for(server.url.replace("http:", "https:")), timeout=1)
    assert b"CANARY" not in server.received


@pytest.mark.parametrize("code", [403, 407, 502])
async def test_a_proxy_that_refuses_to_connect(monkeypatch, code):
    def behave(connection):
        connection.read()
        connection.send(answer(code))

    with Misbehaving(behave) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await not_sent(TeniosClient("CANARY-KEY", base_url="https://api.tenios.invalid"), timeout=1)
    assert b"CONNECT api.tenios.invalid:443" in proxy.received
    assert b"CANARY" not in proxy.received


async def test_no_free_connection_in_time(client_for):
    """A second call waits for the only connection, and its time is up."""

    def behave(connection):
        connection.read()
        connection.wait()
        connection.send(OK)

    with Misbehaving(behave) as server:
        http_client = httpx.AsyncClient(limits=httpx.Limits(max_connections=1))
        for client in (
            TeniosClient("CANARY-KEY", base_url=server.url, max_connections=1),
            TeniosClient("CANARY-KEY", base_url=server.url, http_client=http_client),
        ):
            server.release.clear()
            server.arrived.clear()
            server.inits.clear()
            async with client:
                first = asyncio.create_task(client.init_callback("config", "+4912"))
                await asyncio.to_thread(server.arrived.wait)
                attempt = CallbackAttempt()
                with pytest.raises(ConnectionFailed):
                    await client.init_callback("config", NUMBER, attempt=attempt, timeout=0.1)
                assert attempt.outcome is AttemptOutcome.NOT_SENT
                server.release.set()
                assert (await first).id == 10
            assert server.inits == {"+4912": 1}
        await http_client.aclose()


async def test_an_objection_before_sending(client_for):
    """before_send runs with a connection in hand; if it raises, not a byte leaves."""

    class Objection(Exception):
        pass

    async def before_send():
        seen.append(server.connections)
        raise Objection

    seen = []
    attempt = CallbackAttempt(before_send)
    with Misbehaving(answering(OK)) as server, pytest.raises(Objection):
        await place(client_for(server.url), attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert server.received == b""
    assert len(seen) == 1


async def test_cancelled_before_a_byte_left(client_for):
    started = asyncio.Event()

    async def before_send():
        started.set()
        await asyncio.Event().wait()

    attempt = CallbackAttempt(before_send)
    with Misbehaving(answering(OK)) as server:
        task = asyncio.create_task(place(client_for(server.url), attempt))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert server.received == b""


def holding(connection):
    connection.read()
    connection.wait()
    connection.send(OK)
    connection.read()


@pytest.mark.parametrize("how", ["native", "timeout", "anyio"])
@pytest.mark.parametrize("answers", [True, False])
async def test_cancelled_after_the_byte_left(client_for, how, answers):
    """The id is learned within the grace, and the cancellation goes on."""
    attempt = CallbackAttempt()
    with Misbehaving(holding) as server:
        client = client_for(server.url, cancel_grace=5.0 if answers else 0.05)

        async def cancelled():
            if how == "anyio":
                with anyio.CancelScope() as scope:
                    asyncio.get_running_loop().call_soon_threadsafe(stops.append, scope.cancel)
                    await place(client, attempt)
                assert scope.cancelled_caught
                raise asyncio.CancelledError
            if how == "timeout":
                async with asyncio.timeout(None) as limit:
                    stops.append(lambda: limit.reschedule(0))
                    await place(client, attempt)
            await place(client, attempt)

        stops = []
        task = asyncio.create_task(cancelled())
        await asyncio.to_thread(server.arrived.wait)
        (stops[0] if stops else task.cancel)()
        if answers:
            await asyncio.sleep(0)
            server.release.set()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await task
    assert attempt.outcome is (AttemptOutcome.PLACED if answers else AttemptOutcome.UNKNOWN)
    assert (attempt.callback.id if answers else attempt.callback) == (10 if answers else None)
    assert server.inits == {NUMBER: 1}


async def test_a_second_cancellation_waits_no_longer(client_for):
    attempt = CallbackAttempt()
    with Misbehaving(holding) as server:
        task = asyncio.create_task(place(client_for(server.url, cancel_grace=1000), attempt))
        await asyncio.to_thread(server.arrived.wait)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert attempt.outcome is AttemptOutcome.UNKNOWN
    assert server.inits == {NUMBER: 1}


@pytest.mark.parametrize("answers", [True, False])
async def test_closing_grants_running_calls_the_same(client_for, answers):
    attempt = CallbackAttempt()
    with Misbehaving(holding) as server:
        client = client_for(server.url, cancel_grace=5.0 if answers else 0.05)
        task = asyncio.create_task(client.init_callback("config", NUMBER, attempt=attempt))
        await asyncio.to_thread(server.arrived.wait)
        closing = asyncio.create_task(client.aclose())
        if answers:
            server.release.set()
            assert (await task).id == 10
        else:
            with pytest.raises(CallbackOutcomeUnknown):
                await task
        await closing
    assert server.inits == {NUMBER: 1}


class Retrying(httpx.AsyncBaseTransport):
    """What people write around a transport."""

    def __init__(self):
        self.inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request):
        try:
            return await self.inner.handle_async_request(request)
        except httpx.TransportError:
            return await self.inner.handle_async_request(request)

    async def aclose(self):
        await self.inner.aclose()


class TwiceAuth(httpx.Auth):
    def auth_flow(self, request):
        yield request
        yield request


@pytest.mark.parametrize("options", [{"transport": Retrying()}, {"auth": TwiceAuth()}], ids=["transport", "auth"])
async def test_nothing_below_can_send_twice(options):
    def behave(connection):
        connection.read()
        connection.reset()

    attempt = CallbackAttempt()
    with Misbehaving(behave) as server:
        async with httpx.AsyncClient(**options) as http_client:
            with pytest.raises(CallbackOutcomeUnknown):
                await place(TeniosClient("CANARY-KEY", base_url=server.url, http_client=http_client), attempt)
            assert not http_client.is_closed
    assert server.inits == {NUMBER: 1}
    assert attempt.outcome is AttemptOutcome.UNKNOWN


async def test_a_transport_that_tells_nothing_proves_nothing():
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise httpx.ConnectError("so it says")

    async with httpx.AsyncClient(transport=Silent()) as http_client:
        with pytest.raises(CallbackOutcomeUnknown):
            await place(TeniosClient("KEY", base_url="https://x.test", http_client=http_client), CallbackAttempt())


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to_other", [False, True])
async def test_redirects_are_not_followed(client_for, code, to_other):
    """The key goes where it was meant to go, once."""
    with Misbehaving(answering(OK)) as other:
        target = other.url + "/callback/init" if to_other else "/callback/init"
        with Misbehaving(answering(answer(code, b"", f"Location: {target}"))) as server:
            with pytest.raises(CallbackOutcomeUnknown):
                await place(client_for(server.url), CallbackAttempt())
            assert (server.keys, other.connections) == (1, 0)


async def test_a_status_poll_survives_a_connection_closed_while_idle(client_for):
    """A read that meets a closing idle connection goes again; the server has the last word on how often."""
    body = b'{"status":"CONNECTED"}'

    def behave(connection):
        connection.read()
        connection.send(answer(200, body))

    with Misbehaving(behave) as server:
        async with client_for(server.url) as client:
            for _ in range(5):
                assert await client.callback_status(10) == "CONNECTED"
    assert server.statuses == 5

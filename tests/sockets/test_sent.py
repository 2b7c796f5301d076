"""Rule 1, the rows after a byte may have left: refused on proof, unknown without. On asyncio and trio, in both rooms."""

import sys
import threading

import anyio
import httpx
import pytest

from tenios_async import (
    ApiError,
    AttemptOutcome,
    BadCredentials,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    TeniosClient,
    TeniosError,
)

from .conftest import KEY
from .misbehaving import (
    CONNECTED,
    PLACED,
    Server,
    after,
    answer,
    close,
    drip,
    finish,
    hold,
    refusal,
    reply,
    reset,
    silent,
)
from .placing import CONFIG, NUMBER, assert_placed, assert_unknown, place

pytestmark = pytest.mark.anyio
SOON = 0.3
BAD_CREDENTIALS = refusal("BAD_CREDENTIALS", "Bad credentials")


async def test_a_whole_answer_is_a_placed_call(client):
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        outcome = await place(tenios)
    assert_placed(*outcome, server)


PROVES_NOTHING = {
    "500": reply(500), "503 with a TENIOS body": reply(503, BAD_CREDENTIALS), "429 of a proxy": reply(429, b"slow down"),
    "429 without a body": reply(429, b"", "Retry-After: 1"), "400 of a proxy": reply(400, b"<html>"),
    "403 of a firewall": reply(403, b"<html>"), "404 of a router": reply(404, b"{}"), "407": reply(407, b"{}"),
    "204": reply(204), "html": reply(200, b"<html>"), "no id": reply(200, b"{}"), "id true": reply(200, b'{"id":true}'),
    "id null": reply(200, b'{"id":null}'), "id empty": reply(200, b'{"id":""}'), "id 1.5": reply(200, b'{"id":1.5}'),
    "deep": reply(200, b"[" * 60_000), "long id": reply(200, b'{"id":' + b"1" * 5000 + b"}"),
    "NaN": reply(200, b'{"id":NaN}'), "not UTF-8": reply(200, b'{"id":"\xff"}'), "a list": reply(200, b"[10]"),
    "too long": reply(200, b" " * 70_000 + b'{"id":1}'), "gzip": reply(200, b'{"id":1}', "Content-Encoding: gzip"),
    "not http": b"hello\r\n\r\n", "truncated": PLACED[:-1], "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("data", PROVES_NOTHING.values(), ids=PROVES_NOTHING)
async def test_an_answer_that_proves_nothing(client, data):
    async with Server(answer(data, finish)) as server, client(server.url) as tenios:
        outcome = await place(tenios)
    assert_unknown(*outcome, server)


@pytest.mark.parametrize("ending", [finish, close, reset])
@pytest.mark.parametrize("count", [0, 1, 9, len(PLACED) - 11, len(PLACED) - 1])
async def test_a_connection_that_breaks_in_the_answer(client, count, ending):
    async with Server(answer(PLACED[:count], ending)) as server, client(server.url) as tenios:
        outcome = await place(tenios)
    assert_unknown(*outcome, server)


@pytest.mark.parametrize("ending", [finish, close, reset])
@pytest.mark.parametrize("count", [1, 40, 150])
async def test_a_connection_that_breaks_in_the_request(client, count, ending):
    """What the server has not read may be read by whatever stands behind it: it counts as sent."""
    async with Server(after(count, ending)) as server, client(server.url) as tenios:
        attempt, error = await place(tenios)
    assert type(error) is CallbackOutcomeUnknown
    assert attempt.outcome is AttemptOutcome.UNKNOWN
    assert len(server.peers) == 1


@pytest.mark.parametrize("ending", [finish, close, reset])
async def test_a_connection_that_breaks_as_it_is_accepted(client, ending):
    """The client may learn of it before it has written, which is proof, or only afterwards, which is none."""
    left = []

    async def before_send():
        left.append(len(server.peers))

    async with Server(after(0, ending)) as server, client(server.url) as tenios:
        attempt, error = await place(tenios, before_send=before_send, timeout=SOON)
    proven, unproven = (ConnectionFailed, AttemptOutcome.NOT_SENT), (CallbackOutcomeUnknown, AttemptOutcome.UNKNOWN)
    assert (type(error), attempt.outcome) == (unproven if left else proven)
    assert len(left) <= 1


async def test_no_answer_in_time(client):
    """And what was given up hangs up: the server is not left with a connection."""
    async with Server(silent) as server, client(server.url) as tenios:
        outcome = await place(tenios, timeout=SOON)
        await server.until_client_left()
    assert_unknown(*outcome, server)


async def test_a_slow_drip_cannot_outlive_the_deadline(client):
    """Each byte comes well within any read timeout; the answer as a whole does not."""
    pieces = (bytes([byte]) for byte in PLACED)
    async with Server(drip(pieces, 0.1)) as server, client(server.url) as tenios:
        started = anyio.current_time()
        outcome = await place(tenios, timeout=SOON)
        assert anyio.current_time() - started < 0.1 * len(PLACED) / 2
    assert_unknown(*outcome, server)


REFUSED = [
    (400, "BAD_CREDENTIALS", BadCredentials), (403, "FORBIDDEN", PermissionDenied), (404, "UNKNOWN_METHOD", NotFound),
    (429, "TOO_MANY", RateLimited), (400, "VALIDATION_ERROR", InvalidRequest), (409, "CONFLICT", ApiError),
]  # fmt: skip


@pytest.mark.parametrize(("status_code", "error_code", "cls"), REFUSED)
async def test_a_refusal_with_an_error_body_of_tenios_is_proof(client, status_code, error_code, cls):
    async with Server(answer(reply(status_code, refusal(error_code)))) as server, client(server.url) as tenios:
        attempt, error = await place(tenios)
    assert isinstance(error, cls)
    assert error.error_code == error_code
    assert not error.may_have_dialled
    assert (attempt.outcome, attempt.error) == (AttemptOutcome.REFUSED, error)
    assert server.inits == {NUMBER: 1}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_redirects_are_not_followed(client, code, elsewhere):
    """The key goes where it was meant to go, once; also where the caller's client would follow."""
    async with Server(answer(PLACED)) as other:
        target = f"{other.url if elsewhere else ''}/callback/init"
        async with Server(answer(reply(code, b"", f"Location: {target}"))) as server, client(server.url) as tenios:
            outcome = await place(tenios)
    assert_unknown(*outcome, server)
    assert server.received.count(KEY.encode()) == 1
    assert not other.peers


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirected_poll_does_not_take_the_key_elsewhere(client, code):
    async with Server(answer(CONNECTED)) as other:
        location = f"Location: {other.url}/callback/status"
        async with Server(answer(reply(code, b"", location))) as server, client(server.url) as tenios:
            with pytest.raises(ProtocolError):
                await tenios.callback_status(10)
    assert server.statuses == 1
    assert not other.peers


def retrying(package):
    """What people write around a transport."""

    class Retrying(package.AsyncBaseTransport):
        def __init__(self):
            self.inner = package.AsyncHTTPTransport()

        async def handle_async_request(self, request):
            try:
                return await self.inner.handle_async_request(request)
            except package.TransportError:
                return await self.inner.handle_async_request(request)

        async def aclose(self):
            await self.inner.aclose()

    return Retrying()


def twice_auth(package):
    return type("TwiceAuth", (package.Auth,), {"auth_flow": lambda _, request: iter([request, request])})()


@pytest.mark.parametrize(("option", "make", "peers"), [("transport", retrying, 2), ("auth", twice_auth, 1)])
async def test_nothing_below_can_send_twice(package, option, make, peers):
    """The retry may connect; then the call is over."""
    made = {option: make(package)}
    async with Server(answer(b"", reset)) as server, package.AsyncClient(**made) as http_client:
        async with TeniosClient(KEY, base_url=server.url, http_client=http_client) as tenios:
            outcome = await place(tenios)
        assert not http_client.is_closed
    assert_unknown(*outcome, server, peers=peers)


async def test_an_auth_flow_of_the_callers_client_is_left_out(package):
    """It may send twice, also what is safe to send twice."""
    async with (
        Server(answer(reply(200, b'{"status": "CONNECTED"}'))) as server,
        package.AsyncClient(auth=twice_auth(package)) as http,
    ):
        async with TeniosClient(KEY, base_url=server.url, http_client=http) as tenios:
            assert await tenios.callback_status(10) == "CONNECTED"
            assert tenios.transport == package.__name__
            assert tenios.connections is None
    assert server.received.count(b"POST ") == 1


async def test_a_transport_that_tells_nothing_proves_nothing(package):
    class Silent(package.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise package.ConnectError("so it says")

    async with package.AsyncClient(transport=Silent()) as http_client:
        async with TeniosClient(KEY, base_url="https://x.test", http_client=http_client) as tenios:
            attempt, error = await place(tenios)
    assert type(error) is CallbackOutcomeUnknown
    assert attempt.outcome is AttemptOutcome.UNKNOWN


async def test_an_init_takes_no_connection_that_may_have_gone_stale(monkeypatch):
    """Through httpx: two calls, two connections, though the server would keep the first alive."""
    monkeypatch.setitem(sys.modules, "httptools", None)
    async with Server(answer(PLACED)) as server, TeniosClient(KEY, base_url=server.url) as tenios:
        await tenios.init_callback(CONFIG, "+4930123456")
        await tenios.init_callback(CONFIG, NUMBER)
    assert server.inits == {"+4930123456": 1, NUMBER: 1}
    assert len(server.peers) == 2


async def test_a_status_poll_survives_a_connection_closed_while_idle(client):
    """A read that meets a closing idle connection goes again."""
    async with Server(answer(CONNECTED, close)) as server, client(server.url) as tenios:
        for _ in range(5):
            assert await tenios.callback_status(10) == "CONNECTED"
    assert server.statuses == 5


async def test_a_status_poll_that_meets_a_closing_connection_goes_once_more(client):
    def close_at_the_second(peer):
        peer.read_request()
        peer.send(CONNECTED)
        peer.read_request()
        peer.close()

    async with Server(close_at_the_second, answer(CONNECTED)) as server, client(server.url) as tenios:
        for _ in range(2):
            assert await tenios.callback_status(10) == "CONNECTED"
    assert server.statuses == 3


async def test_polls_share_a_connection(client):
    async with Server(answer(CONNECTED)) as server, client(server.url) as tenios:
        for _ in range(5):
            await tenios.callback_status(10)
    assert len(server.peers) == 1


@pytest.mark.parametrize("answers", [True, False])
async def test_closing_grants_running_calls_the_grace(client, answers):
    attempt = CallbackAttempt()

    async def call():
        if answers:
            assert (await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)).id == 10
        else:
            with pytest.raises(CallbackOutcomeUnknown):
                await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)

    grace = 5.0 if answers else 0.05
    async with (
        Server(hold(PLACED)) as server,
        client(server.url, cancel_grace=grace) as tenios,
        anyio.create_task_group() as group,
    ):
        group.start_soon(call)
        await server.until_request()
        group.start_soon(tenios.aclose)
        await anyio.lowlevel.checkpoint()
        if answers:
            server.release()
    assert attempt.outcome is (AttemptOutcome.PLACED if answers else AttemptOutcome.UNKNOWN)
    assert server.inits == {NUMBER: 1}


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_as_many_polls_at_once_as_connections_are_allowed(certificates):
    """On trio, where a stock client has no room for so many. None is answered before all have arrived."""
    arrived = threading.Barrier(25)

    def together(peer):
        request = peer.read_request()
        arrived.wait(20)
        peer.send(CONNECTED)
        return request

    async with Server(together) as server, TeniosClient(KEY, base_url=server.url, max_connections=25) as tenios:
        async with anyio.create_task_group() as group:
            for number in range(25):
                group.start_soon(tenios.callback_status, number)
        assert len(server.peers) == 25


class Endless(httpx.AsyncByteStream):
    """Gives one piece after another and never lets the loop go on, as what is read from memory does."""

    async def __aiter__(self):
        while True:
            yield b" " * 65536


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # on trio httpx's generators cannot be left without a warning
async def test_an_answer_without_end_that_cannot_be_cancelled():
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    async with httpx.AsyncClient(transport=transport) as http_client:
        async with TeniosClient(KEY, http_client=http_client) as tenios:
            with pytest.raises(ProtocolError, match="longer than 65536 bytes"):
                await tenios.callback_status(10)


async def test_what_a_transport_of_ones_own_raises_in_groups_is_told_by_its_first():
    """As a task group raises it, for instance one that tries several addresses."""

    def refuse(_):
        raise ExceptionGroup("all have failed", [ExceptionGroup("", [OSError("no route")]), OSError("refused")])

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http_client:
        async with TeniosClient(KEY, http_client=http_client) as tenios:
            with pytest.raises(TeniosError, match=r"OSError: no route"):
                await tenios.callback_status(10)


async def test_a_client_of_another_kind_is_refused():
    class Wrapped(httpx.AsyncClient):
        """One's own, which is one all the same."""

    async with Wrapped() as wrapped:
        TeniosClient(KEY, http_client=wrapped)
        with httpx.Client() as synchronous:
            for stranger in (object(), synchronous):
                with pytest.raises(ValueError, match=r"must be an httpx\.AsyncClient"):
                    TeniosClient(KEY, http_client=stranger)

"""Rule 1, first row: nothing left, so no phone rings and trying again is safe. On asyncio and trio, in both rooms."""

import asyncio
import contextlib
import socket

import anyio
import httpx
import httpx2
import pytest

from tenios_async import AttemptOutcome, CallbackAttempt, ClientMisuse, ConnectionFailed, TeniosClient

from .conftest import KEY
from .misbehaving import PLACED, Server, answer, close, finish, hold, on_release, over_tls, reply, reset, silent, tunnel
from .placing import CONFIG, NUMBER, assert_not_sent, assert_placed, assert_unknown, place

pytestmark = pytest.mark.anyio

SOON = 0.3
"""Seconds: too few for a second try to connect, which comes after 0.375 at the earliest."""


@contextlib.contextmanager
def full_backlog():
    """The address of a listener that accepts nobody and whose queue is full: further SYNs are dropped."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield "http://{}:{}".format(*listener.getsockname())


async def test_a_name_that_does_not_resolve(client, monkeypatch):
    def nobody(host, *_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    async with client("https://api.tenios.invalid") as tenios:
        assert_not_sent(*await place(tenios, timeout=SOON))


async def test_a_refused_connection(client):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{bound.getsockname()[1]}") as tenios:
            assert_not_sent(*await place(tenios, timeout=SOON))


async def test_a_connect_that_takes_too_long(client):
    with full_backlog() as url:
        async with client(url) as tenios:
            assert_not_sent(*await place(tenios, timeout=SOON))


async def test_cancelled_while_it_connects(client):
    attempt = CallbackAttempt()
    with full_backlog() as url:
        async with client(url) as tenios:
            with anyio.move_on_after(0.1) as scope:
                await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert scope.cancelled_caught
    assert attempt.outcome is AttemptOutcome.NOT_SENT


@pytest.mark.parametrize("ending", [finish, close, reset])
async def test_a_tls_handshake_that_is_cut_off(client, ending):
    def behave(peer):
        peer.read(5)
        ending(peer)

    async with Server(behave, scheme="https") as server, client(server.url) as tenios:
        outcome = await place(tenios, timeout=SOON)
    assert_not_sent(*outcome, server)


async def test_a_server_that_does_not_speak_tls(client):
    def behave(peer):
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with Server(behave, scheme="https") as server, client(server.url) as tenios:
        outcome = await place(tenios, timeout=SOON)
    assert_not_sent(*outcome, server)


async def test_a_tls_handshake_that_never_goes_on(client):
    async with Server(on_release(reset), scheme="https") as server, client(server.url) as tenios:
        outcome = await place(tenios, timeout=SOON)
    assert_not_sent(*outcome, server)


async def test_cancelled_in_the_tls_handshake(client):
    attempt = CallbackAttempt()
    async with Server(on_release(reset), scheme="https") as server, client(server.url) as tenios:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: tenios.init_callback(CONFIG, NUMBER, attempt=attempt))
                await server.until_peer()
                scope.cancel()
    assert scope.cancelled_caught
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert server.received.count(KEY.encode()) == 0


async def test_a_tls_handshake_that_was_given_up_leaves_no_connection_behind(client):
    """A server that stalls must not cost a file descriptor per call."""
    async with Server(silent, scheme="https") as server, client(server.url) as tenios:
        await place(tenios, timeout=SOON)
        await server.until_client_left()


@pytest.mark.parametrize("certificate", ["other_host", "untrusted", "expired"])
async def test_a_certificate_that_does_not_hold_is_not_tried_again(client, certificates, certificate):
    """The key goes to nobody, and a certificate does not get better within the deadline."""
    behave = over_tls(getattr(certificates, certificate), answer(PLACED))
    async with Server(behave, scheme="https") as server, client(server.url) as tenios:
        outcome = await place(tenios, timeout=30)
    assert_not_sent(*outcome, server)
    assert len(server.peers) == 1


async def test_the_trust_store_is_that_of_httpx(monkeypatch, tmp_path, certificates):
    """Without an `ssl_context`: what httpx trusts, here through SSL_CERT_FILE."""
    authority = tmp_path / "authority.pem"
    authority.write_bytes(certificates.authority)
    async with Server(over_tls(certificates.good, answer(PLACED)), scheme="https") as server:
        async with TeniosClient(KEY, base_url=server.url) as tenios:
            assert_not_sent(*await place(tenios), server)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        async with TeniosClient(KEY, base_url=server.url) as tenios:
            outcome = await place(tenios)
    assert_placed(*outcome, server)


async def test_a_certificate_that_holds(client, certificates):
    async with Server(over_tls(certificates.good, answer(PLACED)), scheme="https") as server:
        async with client(server.url) as tenios:
            outcome = await place(tenios)
    assert_placed(*outcome, server)


@pytest.mark.parametrize("code", [301, 401, 403, 407, 429, 500, 502, 503])
async def test_a_proxy_that_refuses_to_connect(client, code):
    async with Server(answer(reply(code, b"no"), finish)) as proxy:
        async with client("https://api.tenios.invalid", proxy=proxy.url) as tenios:
            outcome = await place(tenios, timeout=SOON)
    assert_not_sent(*outcome, proxy)
    assert set(proxy.connects) == {"api.tenios.invalid:443"}
    assert KEY.encode() not in proxy.received


@pytest.mark.parametrize("ending", [finish, close, reset])
async def test_a_proxy_that_hangs_up_on_the_connect(client, ending):
    async with Server(answer(b"", ending)) as proxy:
        async with client("https://api.tenios.invalid", proxy=proxy.url) as tenios:
            outcome = await place(tenios, timeout=SOON)
    assert_not_sent(*outcome, proxy)
    assert proxy.connects


async def test_a_proxy_that_never_answers_the_connect(client):
    async with Server(silent) as proxy, client("https://api.tenios.invalid", proxy=proxy.url) as tenios:
        outcome = await place(tenios, timeout=SOON)
    assert_not_sent(*outcome, proxy)


async def test_a_proxy_whose_tunnel_leads_to_somebody_else(client, certificates):
    async with Server(tunnel(over_tls(certificates.untrusted, answer(PLACED)))) as proxy:
        async with client("https://api.tenios.invalid", proxy=proxy.url) as tenios:
            outcome = await place(tenios, timeout=SOON)
    assert_not_sent(*outcome, proxy)


async def test_a_proxy_whose_tunnel_holds(client, certificates):
    """A CONNECT is no init: the headers that count are those of our own POST."""
    async with Server(tunnel(over_tls(certificates.good, answer(PLACED)))) as proxy:
        async with client("https://api.tenios.invalid", proxy=proxy.url) as tenios:
            outcome = await place(tenios)
    assert_placed(*outcome, proxy)
    assert len(proxy.connects) == 1


async def test_a_proxy_whose_tunnel_breaks_after_the_init(client, certificates):
    async with Server(tunnel(over_tls(certificates.good, answer(b"", reset)))) as proxy:
        async with client("https://api.tenios.invalid", proxy=proxy.url) as tenios:
            outcome = await place(tenios)
    assert_unknown(*outcome, proxy)


async def test_a_plain_proxy_that_takes_the_init_and_fails_proves_nothing(client):
    """Without TLS there is no CONNECT: the proxy gets the POST itself, and may have passed it on."""
    async with Server(answer(reply(502, b"<html>"))) as proxy:
        async with client("http://127.0.0.1:9", proxy=proxy.url) as tenios:
            outcome = await place(tenios)
    assert_unknown(*outcome, proxy)


async def test_no_connection_is_free_in_time(package):
    """The one connection is held by a call that waits for its answer."""
    limits = package.Limits(max_connections=1)
    async with Server(hold(PLACED)) as server, package.AsyncClient(limits=limits) as http:
        for options in ({"max_connections": 1}, {"http_client": http}):
            before = server.inits.total()
            async with TeniosClient(KEY, base_url=server.url, **options) as tenios:
                async with anyio.create_task_group() as group:
                    server.request_arrived.clear()
                    group.start_soon(tenios.init_callback, CONFIG, "+4930123456")
                    await server.until_request()
                    outcome = await place(tenios, timeout=SOON)
                    server.release()
            assert_not_sent(*outcome)
            assert server.inits[NUMBER] == 0
            assert server.inits.total() == before + 1


class Objection(Exception):
    """What a caller's before_send raises."""


async def test_an_objection_before_sending(client):
    """It comes out as it is; a connection was in hand, and not a byte has left on it."""

    async def object_():
        await server.until_peer()
        raise Objection

    attempt = CallbackAttempt(object_)
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with pytest.raises(Objection):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert isinstance(attempt.error, Objection)
    assert server.received == b""
    assert len(server.peers) == 1


OBJECTIONS = [OSError("disk full"), TimeoutError(), httpx.ConnectError("not mine"), httpx2.ConnectError("not mine")]


@pytest.mark.parametrize("objection", OBJECTIONS)
async def test_an_objection_that_looks_like_a_network_error_is_still_an_objection(client, objection):
    """A ledger that cannot write must not be taken for a fault to try again after."""
    calls = []

    async def object_():
        calls.append(1)
        raise objection

    attempt = CallbackAttempt(object_)
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with pytest.raises(type(objection)) as caught:
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert caught.value is objection
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert len(calls) == 1
    assert server.received == b""


async def test_an_objection_on_a_connection_that_is_reused_leaves_no_byte_either(certificates, package):
    async def object_():
        raise Objection

    attempt = CallbackAttempt(object_)
    async with Server(answer(PLACED)) as server, package.AsyncClient(verify=certificates.trusting) as http:
        async with TeniosClient(KEY, base_url=server.url, http_client=http) as tenios:
            await tenios.init_callback(CONFIG, "+4930123456")
            before = server.received
            with pytest.raises(Objection):
                await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert server.received == before


async def test_cancelled_in_before_send(client):
    """A connection was in hand; not a byte has left."""

    async def wait():
        scope.cancel()
        await anyio.sleep_forever()

    attempt = CallbackAttempt(wait)
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with anyio.CancelScope() as scope:
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert scope.cancelled_caught
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert attempt.error is None  # nobody has closed the client
    assert server.received == b""


@pytest.mark.parametrize("objection", [asyncio.CancelledError, SystemExit])
async def test_what_before_send_raises_by_itself_is_its_objection_though_it_is_no_exception(client, objection):
    """Say, the cancellation of a task of its own that it awaits; nobody has cancelled the caller."""

    async def object_():
        raise objection

    attempt = CallbackAttempt(object_)
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with pytest.raises(objection):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
        assert (await tenios.init_callback(CONFIG, NUMBER)).id == 10
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert isinstance(attempt.error, objection)
    assert server.inits[NUMBER] == 1


async def test_what_is_raised_in_the_step_in_which_it_leaves(client):
    """The last word: nothing leaves, on a new connection and on one that was used."""
    calls = []

    def at_send():
        calls.append(len(server.peers))
        raise Objection

    attempt = CallbackAttempt(at_send=at_send)
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        await tenios.init_callback(CONFIG, "+4930123456")
        with pytest.raises(Objection):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert len(calls) == 1
    assert server.inits == {"+4930123456": 1}


@pytest.mark.parametrize("last", [1, 2])
async def test_the_last_word_is_asked_before_each_part_of_it_leaves(client, room, anyio_backend_name, last):
    """Over httpx the headers leave first, and a program may be suspended before the body does, which rings."""
    calls = []

    def at_send():
        calls.append(len(calls))
        if len(calls) == last:
            raise Objection

    attempt = CallbackAttempt(at_send=at_send)
    is_in_one = room == "own" and anyio_backend_name == "asyncio"
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with contextlib.nullcontext() if is_in_one and last == 2 else pytest.raises(Objection):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    if is_in_one and last == 2:
        assert (attempt.outcome, server.inits[NUMBER]) == (AttemptOutcome.PLACED, 1)
    else:
        assert (attempt.outcome, server.inits[NUMBER]) == (AttemptOutcome.NOT_SENT, 0)
        assert NUMBER.encode() not in server.received
    assert len(calls) == (1 if is_in_one else last)


async def test_a_client_closed_by_before_send_does_not_wait_for_itself(client):
    async def close_it():
        await tenios.aclose()

    attempt = CallbackAttempt(close_it)
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with pytest.raises((ClientMisuse, ConnectionFailed)):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt, timeout=1000)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert server.received == b""


@pytest.mark.parametrize("hooks", [{"before_send": 3}, {"at_send": 3}, {"at_send": anyio.sleep}])
def test_hooks_that_are_none(hooks):
    with pytest.raises(ValueError, match="function"):
        CallbackAttempt(**hooks)


async def test_a_before_send_that_is_not_async(client):
    attempt = CallbackAttempt(lambda: None)
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with pytest.raises(ValueError, match="async"):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert server.received == b""


class Guard:
    def __init__(self, _): ...

    def __await__(self):
        pytest.fail("nobody awaits it")


async def guard(_):
    pytest.fail("nobody awaits it")


@pytest.mark.parametrize("give", [guard, Guard], ids=["a coroutine", "another awaitable"])
async def test_an_at_send_that_gives_what_would_have_to_be_awaited(client, give):
    """A guard that is never asked lets everything pass. Nobody is warned of the coroutine either."""
    attempt = CallbackAttempt(at_send=lambda: give(NUMBER))
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with pytest.raises(ValueError, match="at_send must be a plain function"):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert server.inits[NUMBER] == 0
    assert NUMBER.encode() not in server.received


async def test_the_deadline_passes_in_before_send(client):
    """before_send is part of the operation, and nothing has left."""
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        outcome = await place(tenios, before_send=anyio.sleep_forever, timeout=SOON)
    assert_not_sent(*outcome, server)
    assert server.received == b""


async def test_a_connection_fault_is_tried_again_and_before_send_runs_once(client, monkeypatch):
    """The port refuses; before the second try it listens."""
    calls = []

    async def before_send():
        calls.append(1)

    async def sleep_and_listen(seconds, sleep=anyio.sleep):
        late.listen(8)
        await sleep(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep_and_listen)
    late = Late(answer(PLACED))
    async with late as server, client(server.url) as tenios:
        outcome = await place(tenios, before_send=before_send, timeout=30)
    assert_placed(*outcome, server)
    assert calls == [1]


class Late(Server):
    """A server whose port is taken but refuses until `listen`."""

    def __init__(self, *script):
        super().__init__(*script)
        self._listener.close()
        self._listener = socket.socket()
        self._listener.bind(self.address)

    async def __aenter__(self):
        return self

    def listen(self, backlog):
        self._listener.listen(backlog)
        self._acceptor.start()

"""The pool against nginx and uvicorn over TLS: keep-alive, both ways to close, a restart and a crash under load, certificates."""

import asyncio
import contextlib
import functools
import itertools
import ssl
from collections import Counter

import pytest
import trustme

from tenios_async import (
    AttemptOutcome,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    ConnectionFailed,
    ProtocolError,
    RequestTimeout,
    TeniosClient,
)

from .servers import Nginx, Uvicorn, running

STATUS, INIT = "/callback/status", "/callback/init"
NUMBER = "+491234567890"
WORKERS = 50
PLACERS = 5
RESTARTS = 3


@pytest.fixture(params=[Nginx, Uvicorn])
def kind(request):
    if request.param is Nginx and Nginx.program is None:
        pytest.skip("nginx is not installed (on Debian: apt-get install nginx)")
    return request.param


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine on a loop of that package."""
    package = pytest.importorskip(request.param)

    def run_on(main):
        with asyncio.Runner(loop_factory=package.new_event_loop) as runner:
            return runner.run(main)

    return run_on


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certify(tmp_path_factory):
    """Makes the file with a key and a certificate for some names."""

    def make(authority, *names):
        path = tmp_path_factory.mktemp("certificate") / "server.pem"
        authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
        return path

    return make


@pytest.fixture
def certificate(authority, certify):
    return certify(authority, "127.0.0.1", "localhost")


@pytest.fixture
def open_client(authority):
    """A client that trusts the authority, and travels by the pool: use it with a URL and `async with`."""

    @contextlib.asynccontextmanager
    async def make(url, **options):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with TeniosClient("key", base_url=url, ssl_context=context, **options) as tenios:
            assert tenios.transport == "pool"
            yield tenios
            assert tenios.transport == "pool"

    return make


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # it is another process that is waited for
            await asyncio.sleep(0.005)


async def poll_often(tenios, times):
    for _ in range(times):
        assert await tenios.callback_status(10) == "CONNECTED"


async def poll_together(tenios, workers, times):
    await asyncio.gather(*(poll_often(tenios, times) for _ in range(workers)))


def test_one_after_the_other_travel_by_one_connection(kind, run, tmp_path, certificate, open_client):
    async def main():
        async with open_client(server.url()) as tenios:
            await poll_often(tenios, 200)

    with running(kind, tmp_path, certificate) as server:
        run(main())
    assert [request.path for request in server.requests()] == [STATUS] * 200
    assert len(server.connections()) == 1


def test_many_at_once_travel_by_as_many_connections_as_allowed(kind, run, tmp_path, certificate, open_client):
    async def main():
        async with open_client(server.url(), max_connections=4) as tenios:
            await poll_together(tenios, workers=40, times=10)

    with running(kind, tmp_path, certificate) as server:
        run(main())
    assert len(server.requests()) == 400
    assert len(server.connections()) == 4


@pytest.mark.parametrize("answers", [1, 10])
def test_a_server_that_says_close(kind, run, tmp_path, certificate, open_client, answers):
    """With each answer, or with each tenth."""

    async def main():
        async with open_client(server.url(), max_connections=4) as tenios:
            for polls in range(1, 101):
                await poll_often(tenios, 1)
                is_kept = polls % answers != 0
                assert len(tenios._rooms._pool._idle) == is_kept
            await until(lambda: len(server.requests()) == 100)
            one_by_one.extend(server.requests())
            await poll_together(tenios, workers=20, times=10)

    one_by_one = []
    with running(kind, tmp_path, certificate, keepalive_requests=answers) as server:
        run(main())
    runs = itertools.groupby(one_by_one, lambda request: request.connection)
    assert [len(list(requests)) for _, requests in runs] == [answers] * (100 // answers)
    assert len(server.requests()) == 300


def test_a_server_that_closes_idle_connections(kind, run, tmp_path, certificate, open_client):
    """They leave the pool before anybody asks for one; the next poll and the next call find new ones."""

    async def main():
        async with open_client(server.url()) as tenios:
            await poll_together(tenios, workers=20, times=1)
            pool = tenios._rooms._pool
            await until(lambda: not pool._idle and not pool._open)
            await asyncio.gather(poll_often(tenios, 1), tenios.init_callback("config", NUMBER))

    with running(kind, tmp_path, certificate, keepalive_timeout=1) as server:
        run(main())
    assert Counter(request.path for request in server.requests()) == {STATUS: 21, INIT: 1}


class Load:
    """Polls and calls without a pause, until it is told to stop."""

    def __init__(self, tenios, *expected):
        self.tenios = tenios
        self.expected = expected
        self.is_over = False
        self.polls = Counter()
        self.attempts = {}

    async def poll(self):
        while not self.is_over:
            with contextlib.suppress(*self.expected):
                self.polls[await self.tenios.callback_status(10)] += 1

    async def place(self):
        while not self.is_over:
            number = f"+49{len(self.attempts):010}"
            attempt = self.attempts[number] = CallbackAttempt()
            with contextlib.suppress(ConnectionFailed, CallbackOutcomeUnknown):
                await self.tenios.init_callback("config", number, attempt=attempt)

    async def go_on(self):
        """Returns when many more polls were answered, and calls placed."""
        polls = self.polls["CONNECTED"] + 20 * WORKERS
        attempts = len(self.attempts) + 4 * PLACERS
        await until(lambda: self.polls["CONNECTED"] >= polls and len(self.attempts) >= attempts)

    async def last(self, *, during):
        """Goes on before, while and after the server does that, several times."""
        async with asyncio.TaskGroup() as group:
            for work in [self.poll] * WORKERS + [self.place] * PLACERS:
                group.create_task(work())
            for _ in range(RESTARTS):
                await self.go_on()
                await asyncio.to_thread(during)
            await self.go_on()
            self.is_over = True

    def numbers(self, outcome):
        return {number for number, attempt in self.attempts.items() if attempt.outcome is outcome}

    def check(self, server):
        """A call that was placed was received once, no other one twice, and one that was not sent never."""
        placed, unknown = self.numbers(AttemptOutcome.PLACED), self.numbers(AttemptOutcome.UNKNOWN)
        assert placed | unknown | self.numbers(AttemptOutcome.NOT_SENT) == self.attempts.keys()
        received = Counter(request.number for request in server.requests() if request.path == INIT)
        assert len(placed) <= received.total() <= len(placed | unknown)
        if isinstance(server, Uvicorn):
            assert set(received.values()) == {1}
            assert placed <= received.keys() <= placed | unknown


def test_a_restart_under_load(kind, run, tmp_path, certificate, open_client):
    """The server finishes what it has begun. Polls are answered, and all of them once it is over."""

    async def main():
        async with open_client(server.url()) as tenios:
            load = Load(tenios, ConnectionFailed, RequestTimeout)
            await load.last(during=server.restart)
            await poll_together(tenios, WORKERS, times=4)
            return load

    with running(kind, tmp_path, certificate, init_takes=0.05) as server:
        load = run(main())
    assert len(server.processes()) == RESTARTS + 1
    load.check(server)


def test_a_crash_under_load(run, tmp_path, certificate, open_client):
    """The server finishes nothing: calls it had received are not known to be placed, and are not sent again."""

    async def main():
        async with open_client(server.url()) as tenios:
            load = Load(tenios, ConnectionFailed, RequestTimeout, ProtocolError)
            await load.last(during=server.crash)
            await poll_together(tenios, WORKERS, times=4)
            return load

    with running(Uvicorn, tmp_path, certificate, init_takes=0.05) as server:
        load = run(main())
    assert len(server.processes()) == RESTARTS + 1
    load.check(server)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("fault", ["untrusted", "other name", None])
def test_certificate_and_host_name_are_checked(
    kind, run, tmp_path, authority, certificate, certify, open_client, fault, host
):
    async def main():
        async with open_client(server.url(host)) as tenios:
            attempt = CallbackAttempt()
            for ask in (
                functools.partial(tenios.callback_status, 10),
                functools.partial(tenios.init_callback, "config", NUMBER, attempt=attempt),
            ):
                with contextlib.nullcontext() if fault is None else pytest.raises(ConnectionFailed, match="CERT"):
                    await ask()
            return attempt.outcome

    if fault == "untrusted":
        certificate = certify(trustme.CA(), host)
    elif fault == "other name":
        certificate = certify(authority, *{"127.0.0.1", "localhost", "elsewhere.invalid"} - {host})
    with running(kind, tmp_path, certificate) as server:
        outcome = run(main())
    if fault is None:
        assert [request.path for request in server.requests()] == [STATUS, INIT]
    else:
        assert outcome is AttemptOutcome.NOT_SENT
        assert server.requests() == []


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_each_version_of_tls(kind, run, tmp_path, certificate, open_client, version):
    async def main():
        async with open_client(server.url()) as tenios:
            await poll_often(tenios, 2)
            assert (await tenios.init_callback("config", NUMBER)).id
            sockets = [connection._transport for connection in tenios._rooms._pool._open]
            return {socket.get_extra_info("ssl_object").version() for socket in sockets}

    with running(kind, tmp_path, certificate, tls_version=version) as server:
        assert run(main()) == {version}
    assert [request.path for request in server.requests()] == [STATUS, STATUS, INIT]

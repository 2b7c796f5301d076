"""Rules 1 and 3: broken off at each await there is, nothing is left behind and no phone rings twice.

A server that a client has not hung up on fails the test at its end, and so does any warning.
"""

import asyncio
import functools
import gc
import math
import sys
from itertools import pairwise

import anyio
import anyio.lowlevel
import httpcore
import pytest

from tenios_async import (
    AttemptOutcome,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    ClientMisuse,
    ConnectionFailed,
    Polling,
    Rate,
    TeniosClient,
)
from tenios_async._pool import PoolExchange

from .conftest import KEY
from .misbehaving import Server, hold, over_tls, reply, silent, tunnel
from .placing import CONFIG, NUMBER
from .stepping import AtAwait, Counted, Steps, counting, every_k

QUICK = Polling.fixed(0.001)


def call(peer):
    """Places each call, and tells of it in three polls."""
    states = iter(["REQUESTED", "CALLING_A", "DISCONNECTED"])
    while (request := peer.read_request()) is not None:
        body = b'{"id": 10}' if request.path == "/callback/init" else b'{"status": "%s"}' % next(states).encode()
        peer.send(reply(200, body))


async def follow(tenios, seen):
    async for transition in tenios.watch_callback(10, polling=QUICK):
        seen.append(transition.status)


def stepping(package, k, act):
    """A transport that calls `act` at the k-th await of the network."""

    class Stepping(package.AsyncHTTPTransport):
        reached = False

        async def handle_async_request(self, request):
            step = AtAwait(super().handle_async_request(request), k, act)
            try:
                return await step
            finally:
                self.reached = step.reached

    return Stepping()


@pytest.mark.anyio
async def test_a_watch_is_cancelled(client):
    for k in every_k():
        seen, steps = [], Steps(k)
        async with Server(call) as server, client(server.url) as tenios:
            with anyio.CancelScope() as scope, counting(steps):
                steps.act = scope.cancel
                await Counted(follow(tenios, seen), steps)
            await anyio.lowlevel.checkpoint()
        if not steps.reached:
            break
    assert seen[-1] == "DISCONNECTED"
    assert k > 3


async def give_up(work, k):
    """Cancels it natively at the k-th await of it and of the tasks that it makes; whether it got there."""
    steps = Steps(k)
    with counting(steps):
        task = asyncio.create_task(work)
        steps.act = task.cancel
        await asyncio.wait([task])
    return steps.reached


@pytest.mark.asyncio
async def test_a_watch_is_cancelled_natively(client):
    for k in every_k():
        seen = []
        before = asyncio.all_tasks()
        async with Server(call) as server, client(server.url) as tenios:
            reached = await give_up(follow(tenios, seen), k)
            assert asyncio.all_tasks() == before
        if not reached:
            break
    assert seen[-1] == "DISCONNECTED"


@pytest.mark.anyio
async def test_a_cancelled_step_is_repeated_and_nothing_is_lost(client):
    """Each k-th await of a watch is cut through, and the next `anext` goes on."""
    for k in every_k():
        seen, cuts = [], 0
        async with Server(call, answering_last) as server, client(server.url) as tenios:
            watch = tenios.watch_callback(10, polling=QUICK)
            while not seen or not seen[-1].is_terminal:
                steps = Steps(k)
                with anyio.CancelScope() as scope, counting(steps):
                    steps.act = scope.cancel
                    seen.append(await Counted(watch.__anext__(), steps))
                cuts += scope.cancelled_caught
                if cuts > 30:
                    break
        chain = [transition.status for transition in seen]
        assert len(set(chain)) == len(chain)
        for before, after in pairwise(seen):
            assert after.previous == before.status
        if not cuts:
            break
    assert chain == ["REQUESTED", "CALLING_A", "DISCONNECTED"]


def answering_last(peer):
    while peer.read_request() is not None:
        peer.send(reply(200, b'{"status": "DISCONNECTED"}'))


@pytest.mark.anyio
async def test_a_call_being_placed_is_cancelled(package):
    """At each await of the network. What the attempt says holds against what the server received."""
    outcomes = set()
    for k in every_k():
        attempt = CallbackAttempt()
        async with Server(call) as server:
            scope = anyio.CancelScope()
            transport = stepping(package, k, scope.cancel)
            async with package.AsyncClient(transport=transport) as http:
                async with TeniosClient(KEY, base_url=server.url, http_client=http, cancel_grace=5) as tenios:
                    with scope:
                        await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
        outcomes.add(attempt.outcome)
        assert server.inits.total() == (attempt.outcome is AttemptOutcome.PLACED)
        if not transport.reached:
            break
    assert outcomes == {AttemptOutcome.NOT_SENT, AttemptOutcome.PLACED}


@pytest.mark.asyncio
async def test_a_poll_given_up_keeps_no_place_in_a_callers_pool_and_disturbs_nobody_there(package):
    """At each await, while one of two connections is in use."""
    for k in every_k():
        async with (
            Server(hold(reply(200, b'{"status": "DISCONNECTED"}')), answering_last) as server,
            package.AsyncClient(limits=package.Limits(max_connections=2)) as http,
            TeniosClient(KEY, base_url=server.url, http_client=http) as tenios,
            asyncio.TaskGroup() as group,
        ):
            other = group.create_task(tenios.callback_status(1))
            await server.until_request()
            reached = await give_up(tenios.callback_status(2), k)
            assert await tenios.callback_status(3) == "DISCONNECTED"
            server.release()
            assert await other == "DISCONNECTED"
        if not reached:
            break


@pytest.mark.asyncio
async def test_a_poll_given_up_keeps_no_place_in_a_callers_pool_behind_a_proxy(package, certificates):
    """At each await: in the tunnel, in its TLS handshake, and with what goes through."""
    for k in every_k():
        async with (
            Server(tunnel(over_tls(certificates.good, answering_last))) as proxy,
            package.AsyncClient(
                proxy=proxy.url, verify=certificates.trusting, limits=package.Limits(max_connections=1)
            ) as http,
            TeniosClient(KEY, base_url="https://api.tenios.invalid", http_client=http) as tenios,
        ):
            reached = await give_up(tenios.callback_status(1), k)
            assert await tenios.callback_status(2) == "DISCONNECTED"
        if not reached:
            break


@pytest.mark.asyncio
async def test_a_connection_that_fails_as_it_is_closed_leaves_none_of_the_others_open(monkeypatch, package):
    closed = []

    async def failing(connection):
        closed.append(connection)
        raise OSError("it could not be closed")

    async with Server(answering_last) as server, package.AsyncClient() as http:
        pool = http._transport._pool
        origin = sys.modules[type(pool).__module__.partition(".")[0]].Origin(b"http", b"tenios.test", 80)
        lost = [pool.create_connection(origin) for _ in range(2)]
        pool._connections += lost  # as httpcore loses them: no request has one, and they are in use for ever
        monkeypatch.setattr(type(lost[0]), "aclose", failing)
        monkeypatch.setattr(type(lost[0]), "is_connected", lambda _: True, raising=False)  # or httpx2 drops them itself
        async with TeniosClient(KEY, base_url=server.url, http_client=http) as tenios:
            assert await give_up(tenios.callback_status(1), 2)
    assert closed == lost


@pytest.mark.anyio
async def test_a_poll_ends_with_its_client_wherever_it_is(client):
    """In its TLS handshake, waiting for its answer, waiting for its turn."""
    async with Server(silent) as server:
        for url, options in (
            (server.url.replace("http://", "https://"), {}),
            (server.url, {}),
            (server.url, {"rate_limit": Rate(1, per=1000)}),
        ):
            before = len(server.peers)
            async with client(url, **options) as tenios, anyio.create_task_group() as group:

                async def ask(number, tenios=tenios):
                    with pytest.raises(ClientMisuse, match="closed"):
                        await tenios.callback_status(number, timeout=math.inf)

                group.start_soon(ask, 1)
                group.start_soon(ask, 2)
                while len(server.peers) == before:
                    await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
                await tenios.aclose()


def test_the_loop_ends():
    """`asyncio.run` returns while a watch is at its k-th await."""
    for k in every_k():
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            server = runner.run(Server(call).__aenter__())

            async def whole(server=server):
                async with TeniosClient(KEY, base_url=server.url, polling=QUICK) as tenios:
                    await follow(tenios, [])

            async def main(whole=whole, k=k):
                stop = asyncio.Event()
                step = AtAwait(whole(), k, stop.set)

                async def run():
                    await step
                    stop.set()

                task = asyncio.create_task(run())
                await stop.wait()
                return step.reached, task

            reached, task = runner.run(main())
        gc.collect()
        assert task.done()
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(server.__aexit__())
        if not reached:
            break


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_closes_though_a_poll_was_cancelled_as_its_connection_came_up(monkeypatch, loop):
    """Uvloop closes such a connection by itself, and tells nobody."""
    made = PoolExchange.made

    async def main():
        async with Server(call) as server, TeniosClient(KEY, base_url=server.url) as tenios:
            task = asyncio.create_task(tenios.callback_status(10))

            def made_and_cancelled(pool, connection):
                made(pool, connection)
                task.cancel()

            monkeypatch.setattr(PoolExchange, "made", made_and_cancelled)
            await asyncio.wait([task])
            assert task.cancelled()
            assert not server.requests

    with asyncio.Runner(loop_factory=pytest.importorskip(loop).new_event_loop) as runner:
        runner.run(main())


def test_the_loop_ends_in_the_turn_in_which_a_poll_is_begun(package):
    tenios = TeniosClient(KEY, base_url="http://127.0.0.1:9", http_client=package.AsyncClient())
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        loop = runner.get_loop()
        poll = loop.create_task(tenios.callback_status(1))
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert poll.cancelled()
    gc.collect()


@pytest.mark.asyncio
async def test_a_poll_that_is_closed_where_it_waits_sends_nothing_and_is_not_told_of(package):
    told = []
    async with Server(call) as server, package.AsyncClient() as http:
        async with TeniosClient(KEY, base_url=server.url, http_client=http, observers=[told.append]) as tenios:
            poll = tenios.callback_status(1)
            poll.send(None)
            poll.close()
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    assert not server.requests
    assert not told


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ["ensure_future", "wait"])
async def test_nothing_leaves_once_it_was_told_that_nothing_was_sent(monkeypatch, package, where):
    """Though what a signal's handler raises has met whoever waits for it, in the step in which it was begun."""
    attempt = CallbackAttempt()
    alarms = [RuntimeError("the alarm")]
    does = getattr(asyncio, where)

    def interrupted(*args):
        doing = does(*args)
        if not alarms:
            return doing
        if where == "wait":
            doing.close()
        raise alarms.pop()

    async with Server(call) as server, package.AsyncClient() as http:
        async with TeniosClient(KEY, base_url=server.url, http_client=http) as tenios:
            before = asyncio.all_tasks()
            monkeypatch.setattr(asyncio, where, interrupted)
            with pytest.raises(ConnectionFailed, match="the alarm"):
                await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
            assert attempt.outcome is AttemptOutcome.NOT_SENT
            assert where != "wait" or asyncio.all_tasks() == before
            await tenios.callback_status(10)
    assert not server.inits


@pytest.mark.asyncio
async def test_nothing_leaves_by_a_transport_that_goes_on_after_the_end_was_told(package):
    """While `before_send` is still at work, say at a ledger."""

    class Detached(package.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            self.sending = asyncio.ensure_future(super().handle_async_request(request))
            return await asyncio.shield(self.sending)

    is_over, transport = asyncio.Event(), Detached()
    attempt = CallbackAttempt(before_send=is_over.wait)
    async with Server(call) as server, package.AsyncClient(transport=transport) as http:
        async with TeniosClient(KEY, base_url=server.url, http_client=http) as tenios:
            with pytest.raises(ConnectionFailed):
                await tenios.init_callback(CONFIG, NUMBER, attempt=attempt, timeout=0.1)
            assert attempt.outcome is AttemptOutcome.NOT_SENT
            is_over.set()
            await asyncio.wait([transport.sending])
            assert "not sent any more" in str(transport.sending.exception())
    assert server.received == b""


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["call", "poll"])
async def test_an_answer_that_comes_though_its_transport_was_cancelled_after_the_grace_counts(package, what):
    """The cancellation goes on, and the answer to a poll is nobody's."""

    class Stubborn(package.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            sending = asyncio.ensure_future(self.send(request))
            try:
                return await asyncio.shield(sending)
            except asyncio.CancelledError:
                server.release()
                with anyio.CancelScope(shield=True):
                    return await sending

        async def send(self, request):
            response = await super().handle_async_request(request)
            return package.Response(response.status_code, content=await response.aread())

    attempt = CallbackAttempt()
    answer = b'{"id": 10}' if what == "call" else b'{"status": "CONNECTED"}'
    async with Server(hold(reply(200, answer))) as server, package.AsyncClient(transport=Stubborn()) as http:
        async with TeniosClient(KEY, base_url=server.url, http_client=http, cancel_grace=0.01) as tenios:
            placing = functools.partial(tenios.init_callback, CONFIG, NUMBER, attempt=attempt)
            task = asyncio.create_task(placing() if what == "call" else tenios.callback_status(10))
            await server.until_request()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (attempt.callback and attempt.callback.id) == (10 if what == "call" else None)


@pytest.mark.anyio
async def test_what_nobody_foresaw_proves_nothing_of_a_call_that_has_left(monkeypatch, client):
    attempt = CallbackAttempt()

    def fail(*_):
        raise MemoryError

    async with Server(call) as server, client(server.url) as tenios:
        monkeypatch.setattr("tenios_async._placing.parse_init", fail)
        with pytest.raises(CallbackOutcomeUnknown, match="MemoryError"):
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert attempt.outcome is AttemptOutcome.UNKNOWN
    assert server.inits.total() == 1


def over_our_own_httpx(server, certificates, **options):
    tenios = TeniosClient(KEY, base_url=server.url, ssl_context=certificates.trusting, **options)
    tenios._rooms._why_httpx, tenios._rooms._is_settled = "it is about this room", True
    return tenios


@pytest.mark.anyio
async def test_what_fails_as_a_client_is_closed_leaves_nothing_else_open(monkeypatch, certificates):
    """Of two idle connections, each in an httpx client of its own."""
    close, closed = httpcore.AsyncHTTPConnection.aclose, []

    async def failing(connection):
        closed.append(connection)
        await close(connection)
        raise OSError("it could not be closed")

    async with Server(hold(reply(200, b'{"status": "DISCONNECTED"}')), answering_last) as server:
        tenios = over_our_own_httpx(server, certificates)
        async with anyio.create_task_group() as group:
            group.start_soon(tenios.callback_status, 1)
            await server.until_request()
            await tenios.callback_status(2)
            server.release()
        monkeypatch.setattr(httpcore.AsyncHTTPConnection, "aclose", failing)
        with pytest.raises(OSError, match="could not be closed"):
            await tenios.aclose()
        assert len(closed) == 2


@pytest.mark.anyio
async def test_a_poll_that_finds_no_client_of_our_own_keeps_no_place(monkeypatch, certificates):
    """Say, since what the environment says of proxies is wrong now."""
    async with Server(hold(reply(200, b'{"status": "DISCONNECTED"}')), answering_last) as server:
        tenios = over_our_own_httpx(server, certificates, max_connections=2)
        async with tenios, anyio.create_task_group() as group:
            group.start_soon(tenios.callback_status, 1)
            await server.until_request()
            with monkeypatch.context() as wrong:
                wrong.setenv("ALL_PROXY", "nonsense://nowhere")
                for _ in range(2):
                    with pytest.raises(ConnectionFailed):
                        await tenios.callback_status(2)
            assert await tenios.callback_status(3) == "DISCONNECTED"
            server.release()

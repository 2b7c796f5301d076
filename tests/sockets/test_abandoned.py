"""Rules 1 and 3: broken off at each await there is, nothing is left behind and no phone rings twice.

A server that a client has not hung up on fails the test at its end, and so does any warning.
"""

import asyncio
import gc
import math
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from tenios_async import AttemptOutcome, CallbackAttempt, ClientMisuse, Polling, Rate, TeniosClient

from .conftest import KEY
from .misbehaving import Server, hold, reply, silent
from .placing import CONFIG, NUMBER
from .stepping import AtAwait, every_k

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
        seen = []
        async with Server(call) as server, client(server.url) as tenios:
            with anyio.CancelScope() as scope:
                step = AtAwait(follow(tenios, seen), k, scope.cancel)
                await step
            await anyio.lowlevel.checkpoint()
        if not step.reached:
            break
    assert seen[-1] == "DISCONNECTED"
    assert k > 3


@pytest.mark.asyncio
async def test_a_watch_is_cancelled_natively(client):
    for k in every_k():
        seen = []
        before = asyncio.all_tasks()
        async with Server(call) as server, client(server.url) as tenios:
            step = AtAwait(follow(tenios, seen), k, lambda: task.cancel())  # noqa: B023, PLW0108

            async def run(step=step):
                await step

            task = asyncio.create_task(run())
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled() is step.reached
            assert asyncio.all_tasks() == before
        if not step.reached:
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
                with anyio.CancelScope() as scope:
                    step = AtAwait(watch.__anext__(), k, scope.cancel)
                    seen.append(await step)
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
async def test_a_poll_cancelled_natively_keeps_no_place_in_a_callers_pool_and_disturbs_nobody_there(package):
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
            step = AtAwait(tenios.callback_status(2), k, lambda: task.cancel())  # noqa: B023, PLW0108

            async def run(step=step):
                await step

            task = asyncio.create_task(run())
            await asyncio.wait([task])
            assert await tenios.callback_status(3) == "DISCONNECTED"
            server.release()
            assert await other == "DISCONNECTED"
        if not step.reached:
            break


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

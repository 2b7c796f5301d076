"""A monitor over real sockets, by the pool and by httpx: everything is told, and nothing is left wherever it is broken off.

A server that a client has not hung up on fails the test at its end, and so does any warning.
"""

import asyncio
import gc
import json
import threading
from collections import defaultdict

import anyio
import httpx
import pytest

from tenios_async import Callback, Polling, TeniosClient

from .conftest import KEY
from .misbehaving import Server, reply
from .stepping import AtAwait, every_k

QUICK = Polling.fixed(0.001)
CHAIN = ["REQUESTED", "CALLING_A", "CONNECTED", "DISCONNECTED"]
CALLS = range(4)


class Calls:
    """A behaviour: each call is one state further whenever it is asked for."""

    def __init__(self):
        self.asked = defaultdict(int)
        self._lock = threading.Lock()

    def __call__(self, peer):
        while (request := peer.read_request()) is not None:
            number = json.loads(request.body)["id"]
            with self._lock:
                state = CHAIN[min(self.asked[number], len(CHAIN) - 1)]
                self.asked[number] += 1
            peer.send(reply(200, b'{"status": "%s"}' % state.encode()))


async def follow(tenios, told, tokens=None):
    """Follows all calls, or those of the tokens; writes down what is told, and when left what is still open."""
    monitor = tenios.monitor(polling=QUICK, max_in_flight=2)
    try:
        async with monitor:
            for callback in CALLS if tokens is None else tokens:
                monitor.add(callback)
            monitor.seal()
            async for transition in monitor:
                told[transition.callback.id].append(str(transition.status))
    finally:
        if tokens is not None:
            tokens[:] = monitor.callbacks


@pytest.mark.asyncio
async def test_every_call_is_followed_to_its_end(client):
    calls, told = Calls(), defaultdict(list)
    async with Server(calls) as server, client(server.url) as tenios:
        await follow(tenios, told)
    assert told == dict.fromkeys(CALLS, CHAIN)
    assert calls.asked == dict.fromkeys(CALLS, len(CHAIN))  # none after the end
    assert len(server.peers) <= 2


@pytest.mark.asyncio
@pytest.mark.parametrize("native", [True, False])
async def test_cancelled_at_each_await_of_the_network_and_gone_on_with(native):
    """No task and no connection in use remains, and the tokens take it up without repeating or losing anything."""
    for k in every_k():
        calls, told, tokens = Calls(), defaultdict(list), [Callback(number) for number in CALLS]
        before = asyncio.all_tasks()
        async with Server(calls) as server:
            scope = anyio.CancelScope()
            transport = Stepping(k, lambda: task.cancel() if native else scope.cancel())  # noqa: B023

            async def run(tenios, told=told, tokens=tokens, scope=scope):
                with scope:
                    await follow(tenios, told, tokens)

            async with (
                httpx.AsyncClient(transport=transport) as http,
                TeniosClient(KEY, base_url=server.url, http_client=http) as tenios,
            ):
                task = asyncio.create_task(run(tenios))
                await asyncio.wait([task])
                assert asyncio.all_tasks() == before
                assert task.cancelled() is (native and transport.reached)
                seen_before = {number: list(seen) for number, seen in told.items()}
                assert {token.id: token.status for token in tokens} == {
                    number: (seen_before.get(number) or [None])[-1]
                    for number in CALLS
                    if "DISCONNECTED" not in seen_before.get(number, ())
                }
                await follow(tenios, told, tokens)
        assert tokens == []
        for number in CALLS:
            assert [CHAIN.index(state) for state in told[number]] == sorted(map(CHAIN.index, set(told[number])))
            assert told[number][-1] == "DISCONNECTED"
        if not transport.reached:
            break
    assert k > len(CALLS) * len(CHAIN)


class Stepping(httpx.AsyncHTTPTransport):
    """Calls `act` at the k-th await of the network, counted over all requests."""

    def __init__(self, k, act):
        super().__init__()
        self.left, self.act, self.reached = k, act, False

    async def handle_async_request(self, request):
        return await AtAwait(super().handle_async_request(request), 1, self._count)

    def _count(self):
        self.left -= 1
        if self.left == 0:
            self.reached = True
            self.act()


@pytest.mark.asyncio
async def test_cancelled_at_each_step_of_its_reader(client):
    for k in every_k():
        calls, told = Calls(), defaultdict(list)
        before = asyncio.all_tasks()
        async with Server(calls) as server, client(server.url) as tenios:
            with anyio.CancelScope() as scope:
                step = AtAwait(follow(tenios, told), k, scope.cancel)
                await step
            left = asyncio.all_tasks() - before
            assert not [task for task in left if "CallbackMonitor" in repr(task)]
        if not step.reached:
            break
    assert told == dict.fromkeys(CALLS, CHAIN)
    assert k > 1


def test_the_loop_ends():
    """`asyncio.run` returns while the reader of a monitor is at its k-th await."""
    for k in every_k():
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            server = runner.run(Server(Calls()).__aenter__())

            async def whole(server=server):
                async with TeniosClient(KEY, base_url=server.url) as tenios:
                    await follow(tenios, defaultdict(list))

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

"""A hundred thousand requests and more on real sockets, most of them cancelled somewhere: nothing is lost."""

import asyncio
import contextlib
import gc
import random

import anyio
import httpx
import pytest

from tenios_async import TeniosClient

REQUESTS = {"pool": 50_000, "httpx": 4000}  # each way
TURNS = {"pool": 19, "httpx": 60}
"""Of the loop, in which a request gets anywhere."""
WORKERS = 60
CONNECTIONS = 20
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{"status": "CONNECTED"}'


class Responder(asyncio.Protocol):
    """Answers a few turns of the loop later, or when it is let go."""

    open: set["Responder"]
    held: list["Responder"] | None
    chance: random.Random

    def connection_made(self, transport):
        self.transport = transport
        self.open.add(self)

    def data_received(self, data):
        if self.held is not None:
            self.held.append(self)
        else:
            self.answer(self.chance.randrange(4))

    def answer(self, turns=0):
        if turns:
            asyncio.get_running_loop().call_soon(self.answer, turns - 1)
        elif not self.transport.is_closing():
            self.transport.write(ANSWER)

    def connection_lost(self, exc):
        self.open.discard(self)


async def natively(turns, function, *args):
    """A task that is cancelled after so many turns of the loop."""
    task = asyncio.ensure_future(function(*args))
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return not task.cancelled() and task.result()


async def through_anyio(turns, function, *args):
    """A cancel scope that ends after so many turns of the loop."""

    def count_down(turns):
        scope.cancel() if turns == 0 else loop.call_soon(count_down, turns - 1)

    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        count_down(turns)
        return await function(*args)
    return False


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # it is the kernel that is waited for
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def client(room, url):
    """With the pool, or over a caller's httpx client, either of so many connections."""
    async with contextlib.AsyncExitStack() as stack:
        options = {"max_connections": CONNECTIONS}
        if room == "httpx":
            callers = httpx.AsyncClient(limits=httpx.Limits(max_connections=CONNECTIONS))
            options = {"http_client": await stack.enter_async_context(callers)}
        # A slow machine is none of the faults that are looked for.
        yield await stack.enter_async_context(TeniosClient("key", base_url=url, timeout=100, **options))


@pytest.mark.asyncio
@pytest.mark.timeout(240)
@pytest.mark.parametrize("room", ["pool", "httpx"])
@pytest.mark.parametrize("cancel", [natively, through_anyio])
async def test_a_cancel_storm(monkeypatch, cancel, room):
    chance = random.Random(1)
    monkeypatch.setattr(Responder, "open", set(), raising=False)
    monkeypatch.setattr(Responder, "held", None, raising=False)
    monkeypatch.setattr(Responder, "chance", chance, raising=False)
    loop = asyncio.get_running_loop()
    faults = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    server = await loop.create_server(Responder, "127.0.0.1", 0, backlog=1000)
    port = server.sockets[0].getsockname()[1]
    tasks = asyncio.all_tasks()
    answered = 0

    async def work():
        nonlocal answered
        for _ in range(REQUESTS[room] // WORKERS):
            seen = await cancel(chance.choice([*range(1, TURNS[room]), 2000]), tenios.callback_status, 10)
            answered += seen == "CONNECTED"

    async with client(room, f"http://127.0.0.1:{port}") as tenios:
        assert tenios.transport == room
        await asyncio.gather(*(work() for _ in range(WORKERS)))
        assert REQUESTS[room] / 100 < answered < REQUESTS[room] / 2
        assert asyncio.all_tasks() == tasks

        # As on the first day: so many at once as there are slots, and no more.
        monkeypatch.setattr(Responder, "held", [])
        polls = [asyncio.ensure_future(tenios.callback_status(10, timeout=30)) for _ in range(CONNECTIONS * 2)]
        await until(lambda: len(Responder.held) >= CONNECTIONS)
        assert len(Responder.held) == CONNECTIONS
        held, Responder.held = Responder.held, None
        for connection in held:
            connection.answer()
        assert set(await asyncio.gather(*polls)) == {"CONNECTED"}

    await until(lambda: not Responder.open)
    server.close()
    await server.wait_closed()
    assert asyncio.all_tasks() == tasks
    gc.collect()  # a socket that nobody closed would warn now, and warnings are errors
    assert not faults

"""The application without a server: requests and event streams straight to ASGI, in virtual time."""

import asyncio
import contextlib
import json
import re

import anyio
import httpx

from tenios_async import Polling
from web_callback.app import create_app
from web_callback.limits import Limit, Limits
from web_callback.numbers import Numbers

from ...batch.memory import MemoryLedger

NUMBER = "+49221123456"
TYPED = "0221 123456"
URL = "http://testserver"


class World:
    """One application on a simulated TENIOS. Started anew on the same ledger it is what a restart leaves."""

    def __init__(self, simulator, ledger=None, limits=None):
        self.simulator = simulator
        self.ledger = ledger or MemoryLedger()
        self.limits = limits or unlimited()

    @contextlib.asynccontextmanager
    async def running(self, **options):
        app = create_app(
            "config",
            ledger=lambda: self.ledger,
            numbers=Numbers(["DE"]),
            limits=self.limits,
            tenios=lambda: self.simulator.client(polling=Polling(jitter=0)),
            **options,
        )
        async with app.router.lifespan_context(app) as state:

            async def asgi(scope, receive, send):
                await app({**scope, "state": dict(state)}, receive, send)

            yield Visitor(asgi)


class Visitor:
    """A browser, as far as HTTP goes."""

    def __init__(self, asgi, address="203.0.113.7"):
        self.asgi = asgi
        self.address = address

    def at(self, address):
        return Visitor(self.asgi, address)

    async def get(self, path, **options):
        return await self._ask("GET", path, **options)

    async def post(self, path, **options):
        return await self._ask("POST", path, **options)

    async def _ask(self, method, path, **options):
        transport = httpx.ASGITransport(self.asgi, client=(self.address, 50000))
        async with httpx.AsyncClient(transport=transport, base_url=URL) as http:
            return await http.request(method, path, **options)

    async def handle(self):
        """Of a fresh form."""
        return handle_in(await self.get("/"))

    async def send(self, typed=TYPED, handle=None, **options):
        return await self.post("/calls", data={"handle": handle or await self.handle(), "number": typed}, **options)

    async def call(self, typed=TYPED):
        """Where a new call shows how it goes."""
        answer = await self.send(typed)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    @contextlib.asynccontextmanager
    async def stream(self, path, last_seen=None):
        """An open page's events."""
        stream = Stream()
        headers = [] if last_seen is None else [(b"last-event-id", last_seen.encode())]
        scope = {"type": "http", "method": "GET", "path": f"{path}/events", "headers": headers, "query_string": b""}
        async with anyio.create_task_group() as group:

            async def serve():
                await self.asgi(scope, stream.receive, stream.send)
                stream.chunks.put_nowait(None)

            group.start_soon(serve)
            yield stream
            stream.closed.set()


class Stream:
    def __init__(self):
        self.closed = anyio.Event()
        self.chunks = asyncio.Queue()
        self.start = None

    async def receive(self):
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.start = message
        elif message.get("body"):
            self.chunks.put_nowait(message["body"].decode())

    async def next(self):
        """The next event, as its fields; None at the end."""
        chunk = await self.chunks.get()
        if chunk is None:
            return None
        assert chunk.endswith("\n\n")
        return dict(line.split(": ", 1) for line in chunk.strip().splitlines())

    async def state(self):
        """The next state that is told, or None at the end."""
        while (event := await self.next()) is not None:
            if "id" in event:
                assert set(json.loads(event["data"])) == {"news", "steps", "title", "is_over"}
                return event["id"]
        return None

    async def states(self):
        """All to the end."""
        found = []
        while (state := await self.state()) is not None:
            found.append(state)
        return found


def handle_in(page):
    (handle,) = re.findall(r'name="handle" value="([^"]*)"', page.text)
    return handle


def heading(page):
    (text,) = re.findall("<h1>(.*?)</h1>", page.text)
    return text


def alert(page):
    (text,) = re.findall('role="alert">(.*?)</p>', page.text)
    return text


def unlimited():
    return Limits(*(Limit((1000, 60)) for _ in range(3)))

"""A wall clock that jumps, and a process that is suspended and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from tenios_async import Callback, Polling, TeniosClient, WatchInterrupted
from tenios_async.simulator import Answer, Script, Service, SimulatorServer

from ..rooms.network import Network, with_length
from ..virtual_time import virtual_loop
from .experiment import Skipped, Tally, experiment
from .machines import ending, running, until
from .rooms import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVES = 10
FOLLOWED = 20
INTERVAL = 0.2
JUMPS = (-86400, -3600, -1, 1, 3600, 86400)
BEGAN = datetime(2026, 3, 29, 0, 59, tzinfo=UTC)
"""A minute before clocks in Germany go on by an hour; UTC does not care."""


class Jumping(datetime):
    """The wall clock: virtual time, and the jumps so far."""

    jumps = timedelta()

    @classmethod
    def now(cls, tz=None):
        return BEGAN + timedelta(seconds=anyio.current_time()) + cls.jumps


@contextlib.contextmanager
def wall_clock() -> Iterator[None]:
    """That one, wherever the library looks at one."""
    looked_at = [m for name, m in sys.modules.items() if name.startswith("tenios_async.") and "_models" not in name]
    owners = [module for module in looked_at if getattr(module, "datetime", None) is datetime]
    assert owners
    for module in owners:
        module.datetime = Jumping
    Jumping.jumps = timedelta()
    try:
        yield
    finally:
        for module in owners:
            module.datetime = datetime


class Life:
    """A watch, a watch whose time runs out, and a monitor of two more; all that a seed draws of them.

    Attributes:
        seen: every instant in which the server was asked, and what came out when.
    """

    def __init__(self, seed: int, *, is_jumping: bool) -> None:
        self.seen: list[object] = []
        self._chance = random.Random(seed)
        self._is_jumping = is_jumping
        self._service = Service(clock=anyio.current_time)
        self._called = [f"+4915799900{index:03}" for index in range(4)]
        for number in self._called:
            ringing, talk = (self._chance.uniform(0.5, 60) for _ in range(2))
            self._service.script(number, Script.talk(ringing=ringing, seconds=talk))
        self._jumps = [(self._chance.uniform(1, 100), self._chance.choice(JUMPS)) for _ in range(6)]
        self._patience = self._chance.uniform(1, 60)

    async def live(self) -> None:
        options = {"base_url": "http://127.0.0.1:1", "polling": Polling(jitter=0)}
        async with Network([self._serve]), TeniosClient(KEY, **options) as tenios:
            callbacks = [
                await tenios.init_callback("config-id", number, delay=index)
                for index, number in enumerate(self._called)
            ]
            async with anyio.create_task_group() as group:
                group.start_soon(self._jump)
                group.start_soon(self._watch, tenios, callbacks[0], 7200)
                group.start_soon(self._watch, tenios, callbacks[1], self._patience)
                await self._monitor(tenios, callbacks[2:])

    async def _jump(self) -> None:
        for after, seconds in self._jumps:
            await anyio.sleep(after)
            if self._is_jumping:
                Jumping.jumps += timedelta(seconds=seconds)

    async def _serve(self, peer) -> None:
        while True:
            request = await peer.request()
            self.seen.append((anyio.current_time(), request.target, request.fields.get("id")))
            peer.send(
                with_length(self._service.handle("POST", request.target, json.dumps(request.fields).encode()).body)
            )

    async def _watch(self, tenios: TeniosClient, callback: Callback, timeout: float) -> None:
        try:
            async for transition in tenios.watch_callback(callback, timeout=timeout):
                self._note(transition)
        except WatchInterrupted as error:
            self.seen.append((anyio.current_time(), type(error)))

    async def _monitor(self, tenios: TeniosClient, callbacks: list[Callback]) -> None:
        async with tenios.monitor() as monitor:
            for callback in callbacks:
                monitor.add(callback)
            monitor.seal()
            async for result in monitor:
                self._note(result)

    def _note(self, result) -> None:
        self.seen.append((anyio.current_time(), result.callback.id, result.callback.status, result.elapsed))


def live(seed: int, *, is_jumping: bool) -> list[object]:
    life = Life(seed, is_jumping=is_jumping)
    with wall_clock(), asyncio.Runner(loop_factory=virtual_loop) as runner:
        runner.run(life.live())
    assert sum(isinstance(what[1], str) for what in life.seen) > 10, "hardly anything was asked"
    return life.seen


@experiment(
    "The wall clock jumps, by a second, an hour or a day, back or forth",
    "every poll, every end and every deadline is in the very instant in which it is without the jumps",
    trials=LIVES,
    passes=100,
)
def clock_jumps(chance: random.Random, tally: Tally) -> None:
    for _ in range(LIVES):
        seed = chance.randrange(1 << 32)
        assert live(seed, is_jumping=True) == live(seed, is_jumping=False)
        tally.trial("the same")


WATCHING = f"""
import asyncio, sys
from tenios_async import Polling, TeniosClient

async def main(url):
    async with TeniosClient("{KEY}", base_url=url, polling=Polling.fixed({INTERVAL})) as tenios:
        async with tenios.monitor() as monitor:
            for callback in range(10, 10 + {FOLLOWED}):
                monitor.add(callback)
            monitor.seal()
            ended = [result async for result in monitor]
    print(len([result for result in ended if result.status.is_terminal]))

asyncio.run(main(sys.argv[1]))
"""


class Asked(Service):
    """Says that each call goes on until the test says that it is over; when it was asked for each."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, list[float]] = {}
        self.is_over = False

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        self.asked.setdefault(json.loads(body)["id"], []).append(time.monotonic())
        return Answer(200, b'{"status": "%b"}' % (b"DISCONNECTED" if self.is_over else b"CONNECTED"))


@experiment(
    "A process that follows calls is suspended, and goes on",
    "what was missed is not made up for: no burst of polls; it sees each end",
    trials=1,
    passes=50,
)
def suspended(chance: random.Random, tally: Tally) -> None:
    if not hasattr(signal, "SIGSTOP"):
        raise Skipped("this system cannot suspend a process")

    async def main() -> None:
        service = Asked()
        async with (
            SimulatorServer(service) as server,
            running(sys.executable, "-c", WATCHING, server.base_url) as process,
        ):
            await until(lambda: len(service.asked) >= FOLLOWED)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.1)  # what it has sent is read
            before, stopped = {key: len(times) for key, times in service.asked.items()}, time.monotonic()
            await asyncio.sleep(chance.uniform(1, 3))
            assert before == {key: len(times) for key, times in service.asked.items()}
            went_on = time.monotonic()
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(5 * INTERVAL)
            service.is_over = True
            assert await ending(process) == b"%d\n" % FOLLOWED
        for times in service.asked.values():
            since = [at for at in times if at > stopped]
            assert len(since) <= (times[-1] - went_on) / INTERVAL + 2, "a burst of polls"
        tally.trial("no burst")

    asyncio.run(main())

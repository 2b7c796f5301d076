"""What a monitor of many callbacks costs: memory, CPU for each poll, how late looks go out; and what a rate limit does.

CPU and memory over real sockets, the responder on another core. For CPU, a client and a monitor take turns of a tenth
of a second: a machine whose other guests come and go is another one a second later. A monitor of few and one of many
are compared by what each costs beside such a client, for where both are in memory each makes the other's cache cold.
The rate limit in virtual time, seeded: calls come at random moments and live as the built-in model says, at a tenth of
the polls that they would have. Static beside it: the best intervals, one for each state, that make as many polls; found
by search, on lives of the same model.

A missed target makes it exit with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import random
import statistics
import sys
import tracemalloc
from bisect import bisect_right
from contextlib import asynccontextmanager, suppress
from time import process_time
from typing import TYPE_CHECKING

import httpx
import looptime
from followers import schedule
from lifecycles import STATES, Lateness, Model
from peers import Server
from polling import Target, machine, pin, prepare, responder, say
from responder import ACCESS_KEY
from schedules import UNSEEN, Trial, by_state, ours

from tenios_async import Callback, Polling, Rate, TeniosClient, Transition
from tenios_async._watch import RESOLUTION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from lifecycles import Life

    from tenios_async import CallbackMonitor

MANY, FEW = 100_000, 1_000
IN_FLIGHT = 50
RUSHED = Polling(speed=10_000, min_interval=RESOLUTION / 10, max_interval=RESOLUTION)
"""By which a look is always due."""
TURN = 0.1
"""Seconds for which one polls while the other rests."""
LAG_WINDOW = 15.0
BUSY, LESS_BUSY = 0.5, 0.35
"""The part of the time for which a process that has some to spare is not busy; what is aimed at where it was."""
SLOWEST = 0.25
"""Times as fast as in life that calls go at least, to leave it some."""
LIMIT, TIMES, LATENCY = 2.0, 10.0, 0.05
"""Polls a second, how many times as many there would be without the limit, and the seconds that each takes."""
ARRIVALS, BEGINS, ENDS = 6000.0, 1000.0, 5000.0
"""Seconds for which calls come, and those in which the calls come that count."""


@asynccontextmanager
async def monitored(
    server: Server, count: int, polling: Polling, *, over: float = 0.0
) -> AsyncIterator[CallbackMonitor]:
    """A monitor of so many callbacks, added in so many seconds, each looked at once at least; somebody reads it."""
    client = TeniosClient(ACCESS_KEY, base_url=server.origin, polling=polling)
    callbacks = [Callback(number) for number in range(count)]
    async with client, client.monitor(max_in_flight=IN_FLIGHT) as monitor, asyncio.TaskGroup() as group:
        seen_all = asyncio.get_running_loop().create_future()

        async def read() -> None:
            seen = 0
            async for result in monitor:
                if not isinstance(result, Transition):
                    raise TypeError(f"a watch was interrupted: {result}")
                seen += 1
                if seen == count:
                    seen_all.set_result(None)

        reader = group.create_task(read())
        for number, callback in enumerate(callbacks, start=1):
            monitor.add(callback)
            if number % 100 == 0:
                await asyncio.sleep(over * 100 / count)
        await seen_all
        yield monitor
        reader.cancel()


async def memory(server: Server, count: int) -> float:
    """Bytes for each callback, beyond the caller's own `Callback` and its id."""
    async with monitored(server, FEW, Polling()):
        pass  # connections, caches and modules
    own = [Callback(number) for number in range(count)]
    tracemalloc.start()
    callers = tracemalloc.get_traced_memory()[0]
    copies = [Callback(number) for number in range(count)]
    callers = tracemalloc.get_traced_memory()[0] - callers
    del own, copies
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    async with monitored(server, count, Polling(min_interval=600, max_interval=600)):
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return (used - callers) / count


async def cpu(server: Server, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Microseconds of CPU for one poll, round by round: by `callback_status`, and by a monitor with looks due."""
    bare, monitored_ = [], []
    async with monitored(server, count, RUSHED) as monitor, TeniosClient(ACCESS_KEY, base_url=server.origin) as client:
        await _polls_cost(monitor)
        await _bare_polls_cost(client)
        gc.collect()
        for _ in range(rounds):
            bare.append(await _bare_polls_cost(client))
            monitored_.append(await _polls_cost(monitor))
    return bare, monitored_


async def _bare_polls_cost(client: TeniosClient) -> float:
    polls, time, callback = 0, asyncio.get_running_loop().time, Callback(1)
    until = time() + TURN

    async def work() -> None:
        nonlocal polls
        while time() < until:
            await client.callback_status(callback)
            polls += 1

    began = process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())
    return (process_time() - began) / polls * 1e6


async def _polls_cost(monitor: CallbackMonitor) -> float:
    """The same of a monitor, which rests afterwards: it may have no look in flight."""
    polls, began = -_polls(monitor), process_time()
    monitor._max_in_flight = IN_FLIGHT  # noqa: SLF001
    monitor._dispatch()  # noqa: SLF001
    await asyncio.sleep(TURN)
    monitor._max_in_flight = 0  # noqa: SLF001
    while monitor._workers:  # noqa: ASYNC110, SLF001
        await asyncio.sleep(0.001)
    used = process_time() - began
    return used / (polls + _polls(monitor)) * 1e6


async def lag(server: Server, count: int, speed: float) -> tuple[float, float]:
    """Seconds from due to sent at the 99th percentile, and how busy this process was. Calls go as fast as that."""
    lags: list[float] = []
    loop = asyncio.get_running_loop()
    async with monitored(server, count, schedule(Polling().cost, speed), over=LAG_WINDOW / speed) as monitor:
        take = monitor._take  # noqa: SLF001

        def noting(now: float, **how: bool) -> object:
            if (taken := take(now, **how)) is not None:
                lags.append(loop.time() - taken[0][1]._next_look)  # noqa: SLF001
            return taken

        monitor._take = noting  # type: ignore[method-assign]  # noqa: SLF001
        began = process_time()
        await asyncio.sleep(LAG_WINDOW)
        busy = (process_time() - began) / LAG_WINDOW
    return statistics.quantiles(lags, n=100)[98], busy


def _polls(monitor: CallbackMonitor) -> int:
    return sum(watched._polls for watched in monitor._open.values())  # noqa: SLF001


class Calls(httpx.AsyncBaseTransport):
    """A service in virtual time: callbacks that live as they were drawn, and when each was asked for."""

    def __init__(self, lives: list[tuple[float, Life]]) -> None:
        self.lives = lives
        self.begins = [[began + second for second, _ in life] for began, life in lives]
        self.polls: list[list[float]] = [[] for _ in lives]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answers with the state as of now."""
        number = json.loads(await request.aread())["id"]
        now = asyncio.get_running_loop().time()
        self.polls[number].append(now - self.lives[number][0])
        status = self.lives[number][1][bisect_right(self.begins[number], now) - 1][1]
        await asyncio.sleep(LATENCY)
        return httpx.Response(200, json={"status": status})


class Waits:
    """The longest that a look of a monitor was due, by the interval it was due after."""

    def __init__(self, monitor: CallbackMonitor) -> None:
        self.longest = 0.0
        self._take = monitor._take  # noqa: SLF001
        self._now = asyncio.get_running_loop().time
        monitor._take = self.take  # type: ignore[method-assign]  # noqa: SLF001

    def take(self, now: float, **how: bool) -> object:
        """In place of the monitor's own."""
        taken = self._take(now, **how)
        if taken is not None and (wait := taken[0][1].wait) > RESOLUTION and self._now() < ARRIVALS:
            waited = self._now() - taken[0][1]._next_look  # noqa: SLF001
            self.longest = max(self.longest, waited / (wait * taken[0][1].stretch))
        return taken


async def follow(service: Calls) -> float:
    """Follows each call from its beginning to its end, under the limit; gives the longest wait."""
    http_client = httpx.AsyncClient(transport=service)
    client = TeniosClient(ACCESS_KEY, base_url="https://limited.test", http_client=http_client, rate_limit=Rate(LIMIT))
    async with client, client.monitor() as monitor, asyncio.TaskGroup() as group:
        waits, loop = Waits(monitor), asyncio.get_running_loop()

        async def add() -> None:
            for number, (began, _) in enumerate(service.lives):
                await asyncio.sleep(began - loop.time())
                monitor.add(Callback(number), timeout=math.inf)
            monitor.seal()

        group.create_task(add())
        async for _ in monitor:
            pass
    return waits.longest


def limited(seed: int = 1) -> tuple[Lateness, float]:
    """Lateness under a limit that binds, and the longest wait."""
    random.seed(seed)  # the jitter's
    rng, model = random.Random(seed), Model.load()
    usual = Trial(model, 1, 3000).run(ours(Polling())).polls_each
    now, lives = 0.0, []
    while now < ARRIVALS:
        lives.append((now, model.draw(rng)))
        now += rng.expovariate(LIMIT * TIMES / usual)
    service = Calls(lives)
    with asyncio.Runner(loop_factory=lambda: looptime.patch_event_loop(asyncio.new_event_loop(), start=0.0)) as runner:
        longest = runner.run(follow(service))
    seen = Lateness()
    for (began, life), polls in zip(lives, service.polls, strict=True):
        if BEGINS < began < ENDS:
            seen.add(life, polls, {})
    return seen, longest


def static(polls: float) -> float:
    """The mean lateness of the best intervals, one for each state and one before the first look, with so many polls."""
    trial = Trial(Model.load(), 1, 1500)

    def done(intervals: Mapping[str, float]) -> Lateness:
        return trial.run(by_state(intervals))

    def best(cost: float, intervals: dict[str, float]) -> Lateness:
        """By one state after the other, in ever smaller steps."""
        seen = done(intervals)
        for step in (2.0, 1.4, 1.2, 1.1):
            for state in (*intervals, *intervals):
                for factor in (step, 1 / step):
                    while (moved := done(intervals | {state: intervals[state] * factor})).total(cost) < seen.total(
                        cost
                    ):
                        intervals[state] *= factor
                        seen = moved
        return seen

    intervals, low, high = dict.fromkeys((UNSEEN, *STATES), 60.0), 1.0, 10_000.0
    points: list[tuple[float, float]] = []
    for _ in range(9):
        cost = math.sqrt(low * high)
        seen = best(cost, intervals)
        points.append((seen.polls_each, seen.mean))
        low, high = (cost, high) if seen.polls_each > polls else (low, cost)
    (x0, y0), (x1, y1) = sorted(points, key=lambda point: abs(math.log(point[0] / polls)))[:2]
    return y0 if x0 == x1 else y0 + (y1 - y0) * (polls - x0) / (x1 - x0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--callbacks", type=int, default=MANY)
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.callbacks = 2, 2 * FEW
    return options


def main() -> int:
    """Measures, prints, and says whether the targets are met."""
    options = arguments()
    prepare()
    many, targets = options.callbacks, []
    with suppress(KeyboardInterrupt), responder(pin()) as answering:
        server = Server(answering["plain"], answering["ca"], is_tls=False, concurrency=IN_FLIGHT)
        samples: dict[int, tuple[list[float], list[float]]] = {}
        for count in (FEW, many):
            say(f"CPU, {count:,} callbacks")
            samples[count] = asyncio.run(cpu(server, count, options.rounds))
        say("lag")
        speed = 1.0
        late, busy = asyncio.run(lag(server, many, speed))
        while busy >= BUSY and speed > SLOWEST:
            speed = max(SLOWEST, speed * LESS_BUSY / busy)
            say(f"lag, with calls {speed:.2f} times as fast as in life")
            late, busy = asyncio.run(lag(server, many, speed))
        say("memory")
        used = asyncio.run(memory(server, many))
        about = machine(answering["loop"], is_apart=True)
    print("\n".join(f"- {name}: {text}" for name, text in about.items()) + f"\n- {options.rounds} rounds; medians\n")
    print("| | |\n|---|---:|")
    for count, (bare, looks) in samples.items():
        print(f"| CPU for one poll: a monitor of {count:,} | {statistics.median(looks):.1f} µs |")
        print(f"| `callback_status`, {IN_FLIGHT} at a time, by turns with it | {statistics.median(bare):.1f} µs |")
    print(f"| a look at one of {many:,}, from due to sent, 99th percentile | {late * 1e3:.1f} ms |")
    print(f"| this process meanwhile, calls {speed:.2f} times as fast as in life | {busy:.0%} busy |")
    print(f"| memory for each of {many:,} | {used:,.0f} bytes |")
    say("the rate limit")
    seen, longest = limited()
    mean = static(seen.polls_each)
    print(f"| mean lateness at {1 / TIMES:.0%} of the polls, {seen.polls_each:.2f} a callback | {seen.mean:.1f} s |")
    print(f"| as many polls, static | {mean:.1f} s |")

    ratios = {
        count: [look / poll for poll, look in zip(bare, looks, strict=True)] for count, (bare, looks) in samples.items()
    }
    to_few = statistics.median(ratios[many]) / statistics.median(ratios[FEW])
    targets = [
        Target(f"CPU for one poll of {many:,} / `callback_status`", ratios[many], 1.5),
        Target(f"the same / that of {FEW:,}", [to_few], 1.2),
        Target("memory / 1 KiB", [used / 1024], 1.0),
        Target("lag / 50 ms", [late / 0.05], 1.0),
        Target("busy meanwhile / half of the time", [busy / BUSY], 1.0),
        Target("mean lateness under the limit / static", [seen.mean / mean], 1.2),
        Target("longest that a look was due / its interval", [longest], 3.0),
    ]
    if not options.quick:
        print("\n| target | ratio | limit | |\n|---|---:|---:|---|")
        for target in targets:
            verdict = "met" if target.is_met else "**missed**"
            print(f"| {target.name} | {target.ratio:.3f} | {target.limit:.3g} | {verdict} |")
    return 1 if not options.quick and not all(target.is_met for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())

"""What machines do to a campaign that several of them share, over and over: the simulator counts who was rung.

Workers are killed (`kill -9`) and suspended at random, connections are cut, PostgreSQL is restarted and crashes, jobs
are delivered twice, answers are lost. Nobody is rung twice, and everything ends.

As a program (`make soak-distributed`) it does so for as long as it is told, and prints each seed.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tenios_async import CallbackRequest
from tenios_async.batch import NewRow, RowState, controls
from tenios_async.batch.campaign import KIND
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorServer

from .server import running

PROGRAM = Path(__file__).with_name("shared_worker.py")
WORKERS = 3
AT_ONCE = 40
"""Calls that one worker places at once, at the most."""
HEARTBEAT, LEFT_ALONE = 0.5, 3.0
RATE = 25.0
WEIGHTS = {"kill": 6, "suspend": 6, "cut": 4, "restart": 1, "crash": 1, "twice": 4, "lost": 4}
LIFE = Script((("CALLING_A", 0.3), ("CALLING_B", 0.5), ("DISCONNECTED", 0.7)))


class Workers:
    """Those that are alive."""

    def __init__(self, process, chance):
        self._process = process
        self._chance = chance
        self.alive = set()
        self.suspended = set()

    async def start(self):
        self._process.stdin.write(b"go\n")
        await self._process.stdin.drain()
        self.alive.add(int(await self._process.stdout.readline()))

    def signal(self, number):
        """To one of them, drawn by lot; gives its process id, in a list that is empty where there is none."""
        self.look()
        victims = sorted(self.alive - self.suspended)
        drawn = self._chance.sample(victims, min(1, len(victims)))
        for victim in drawn:
            with suppress(ProcessLookupError):
                os.kill(victim, number)
        return drawn

    def resume(self, pid):
        self.suspended.discard(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def look(self):
        for pid in list(self.alive):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                self.alive.discard(pid)
                self.suspended.discard(pid)


@asynccontextmanager
async def workers(chance, *arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, *map(str, arguments), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    hands = Workers(process, chance)
    try:
        yield hands
    finally:
        for pid in hands.alive:  # where a promise is broken
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.stdin.close()
        await process.wait()


async def survive(server, url, folder, *, seconds: float, seed: int, patience: float = 200.0) -> Counter:
    """A campaign that lasts about as long as the disasters do, and is then left to end; checks what must hold."""
    chance = random.Random(seed)
    where = PostgresURL.parse(url)
    numbers = [f"+49157999{index:05}" for index in range(int(seconds * RATE))]

    def fill(session):
        session.put_all([NewRow(number, CallbackRequest("config", number)) for number in numbers])

    PostgresSession.create(where, {"kind": KIND}, fill, with_jobs=True)
    with PostgresSession.write(where) as session:
        session.set(controls.at_rate(RATE))
        session.connection.execute("UPDATE controls SET since = 'Infinity'")  # however many doubts, it does not stop
    service, log = Service(script=LIFE), folder / "ends"
    happened = Counter()
    async with SimulatorServer(service) as simulator:
        async with workers(chance, url, simulator.base_url, HEARTBEAT, LEFT_ALONE, log) as hands:
            for _ in range(WORKERS):
                await hands.start()
            resumed, drawn = set(), _drawn(chance)
            until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < until:
                await asyncio.sleep(chance.uniform(0.2, 1.5))
                await _strike(what := next(drawn), chance, server, where, service, hands, resumed)
                happened[what] += 1
                hands.look()
                while len(hands.alive) < WORKERS:
                    await hands.start()
            await asyncio.gather(*resumed)
            async with asyncio.timeout(patience):
                while hands.alive:  # they end when everything has
                    await asyncio.sleep(0.2)
                    hands.look()
    _check(where, service, numbers, happened, log)
    return happened


def _drawn(chance):
    """Each disaster once, and then as often as its weight says, without end."""
    yield from chance.sample(list(WEIGHTS), len(WEIGHTS))
    while True:
        yield from chance.choices(list(WEIGHTS), WEIGHTS.values())


async def _strike(what, chance, server, url, service, hands, resumed):
    if what == "kill":
        hands.signal(signal.SIGKILL)
    elif what == "suspend":
        for victim in hands.signal(signal.SIGSTOP):
            hands.suspended.add(victim)
            resumed.add(asyncio.create_task(_resume(hands, victim, chance.expovariate(1 / 3))))
    elif what == "cut":
        await asyncio.to_thread(server.cut_connections, chance.random())
    elif what in ("restart", "crash"):
        how = "fast" if what == "restart" else "immediate"
        await asyncio.to_thread(server.restart, how, away=chance.uniform(0, 1))
    elif what == "twice":
        await asyncio.to_thread(_deliver_again, url)
    else:
        service.fail_init(Fault.lost(chance.choice([Manner.DROP, Manner.RESET, Manner.STALL])))


async def _resume(hands, pid, seconds):
    await asyncio.sleep(seconds)
    hands.resume(pid)


def _deliver_again(url):
    """The jobs of rows in every state."""
    from tenios_async.batch import jobs

    with PostgresSession.read(url) as session:
        rows = [row_id for (row_id,) in session.query("SELECT id FROM calls ORDER BY random() LIMIT 20")]
        jobs.defer_placing(session.connection, rows)
        shard = "SELECT shard FROM calls ORDER BY random() LIMIT 1"
        with session.transaction():
            jobs.defer_watching(session.connection, [found for (found,) in session.query(shard)])


def _check(url, service, numbers, happened, log):
    ends = log.read_text() if log.exists() else ""
    service.assert_nobody_called_twice()
    with PostgresSession.read(url) as session:
        rows = list(session.rows())
    counts = Counter(row.standing.state for row in rows)
    assert len(rows) == len(numbers)
    assert not counts[RowState.QUEUED] + counts[RowState.SENDING] + counts[RowState.PLACED], (counts, ends)
    for row in rows:
        assert service.inits[row.key] == 1 or (row.standing.state is RowState.UNKNOWN and not service.inits[row.key])
    struck = sum(happened[what] for what in ("kill", "suspend", "cut"))
    struck += WORKERS * (happened["restart"] + happened["crash"])
    assert counts[RowState.UNKNOWN] <= AT_ONCE * struck + happened["lost"]
    happened.update({f"{state}": count for state, count in counts.items()})


def main(words=None) -> None:
    """One campaign after another; an assertion ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=120, help="of one campaign")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args(words)
    with running() as server:
        for number in range(max(1, round(options.minutes * 60 / options.seconds))):
            seed = options.seed + number
            print(f"--seed {seed} --seconds {options.seconds:g} --minutes 0", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                url = server.url(f"campaign_{number}")
                happened = asyncio.run(
                    survive(server, url, Path(folder), seconds=options.seconds, seed=seed, patience=300)
                )
            print("  nobody was rung twice:", ", ".join(f"{count} {what}" for what, count in happened.items()))


if __name__ == "__main__":
    main()

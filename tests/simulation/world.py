"""A whole campaign in virtual time: client, pool, monitor, runner and ledger against the simulator, with faults.

A seed draws them: slow and lost answers, broken connections, outages, a slow disk, crashes and restarts, a person who
resolves.

What must hold is checked whenever a call arrives, and at the end: once faults stop, every row ends.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta

import anyio

from tenios_async import CallbackRequest, TeniosClient
from tenios_async.batch import LedgerFailed, RowState, placing
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.runner import Runner
from tenios_async.batch.standing import SEND_WITHIN, called, crash, not_called
from tenios_async.simulator import Script, Service

from ..batch.memory import FileLedger, MemoryLedger
from ..faults.experiment import folder
from ..faults.rooms import KEY
from ..rooms.network import Network, with_length
from ..virtual_time import virtual_loop

URL = "http://127.0.0.1:1"
LIVES = [
    Script((("DISCONNECTED", 0.0),)),
    Script.talk(ringing=2, seconds=5),
    Script.agent_silent(ring_duration=5),
    Script.customer_silent(ringing=1, ring_duration=8),
]


class Died(LedgerFailed):
    """What a program that was killed would have written is not written."""


class Slow:
    """A ledger whose commits take time, and which a crash cuts off: what was committed stays, the rest never was."""

    def __init__(self, chance):
        self.chance = chance
        self.slowest = 0.05
        self.life = 0
        self.began = {}
        """When the last change of each row was asked for."""
        self.committed = lambda: None
        """Called after each commit."""

    async def change_all(self, changes):
        life = self.life
        for number, _ in changes:
            self.began[number] = anyio.current_time()
        await anyio.sleep(self.chance.random() * self.slowest)
        self.check(life)
        results = await super().change_all(changes)
        self.committed()
        await anyio.sleep(self.chance.random() * self.slowest)
        self.check(life)
        return results

    def check(self, life):
        if life != self.life:
            raise Died("the program was killed")

    def crash(self):
        """Everything that is on its way to the disk is lost; the next life finds what is on it."""
        self.life += 1


class MemoryDisk(Slow, MemoryLedger):
    def __init__(self, requests, chance):
        MemoryLedger.__init__(self, requests, latency=0)
        Slow.__init__(self, chance)

    def recover(self):
        for row in self.all:
            if row.standing.state is RowState.SENDING:
                self.all[row.id - 1] = row.at(crash()(row.standing))

    def resolve(self, row, at, *, was_called):
        move = called("A. Person", at, None) if was_called else not_called("A. Person", at)
        self.all[row.id - 1] = row.at(move(row.standing))


class FileDisk(Slow, FileLedger):
    """The ledger's own file. A crash leaves what is in it and in its log, and nobody has closed either."""

    def __init__(self, requests, chance, folder):
        Slow.__init__(self, chance)
        FileLedger.__init__(self, folder / "0" / "campaign.db", requests)

    def crash(self):
        super().crash()
        left = self.path.parent.with_name(str(self.life))
        left.mkdir()
        for file in self.path.parent.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copy(file, left)
        self.path = left / self.path.name

    def recover(self):
        if self.file is None or self.file.path != self.path:
            if self.file is not None:
                self.file.close()  # of the program that was killed
            self.file = LedgerFile.write(self.path)
            self.file.recover()

    def resolve(self, row, at, *, was_called):
        """As the command does it, beside whoever writes."""
        with LedgerFile.read(self.path) as ledger, ledger.transaction():
            ledger.resolve(row, at, who="A. Person", was_called=was_called)


class World:
    """One seed's life."""

    def __init__(self, seed, folder, *, contacts=12):
        self.chance = random.Random(seed)
        numbers = [f"+49157999{index:05}" for index in range(contacts)]
        requests = [CallbackRequest("config", number) for number in numbers]
        on_disk = folder is not None
        self.disk = FileDisk(requests, self.chance, folder) if on_disk else MemoryDisk(requests, self.chance)
        self.disk.committed = self._check_always
        self.service = Service(clock=anyio.current_time, seed=seed)
        for number in numbers:
            self.service.script(number, self.chance.choice(LIVES))
        self.has_faults = True
        self.concurrency = 0
        """Of the life that is lived."""
        self.outage_ends = 0.0
        self.told = []
        self.crashes = 0
        self.network = None

    def run(self):
        with asyncio.Runner(loop_factory=virtual_loop) as runner:
            runner.run(self._run())

    async def _run(self):
        for _ in range(self.chance.randrange(5)):
            await self._live(self.chance.uniform(0.01, 25))
            self._resolve()
        self.has_faults = False
        self.disk.slowest = 0.05
        self.disk.recover()
        in_doubt = self._in_doubt()
        await self._live(None)
        assert self._in_doubt() <= in_doubt, "in doubt, and nothing went wrong"
        self._check_end()

    async def _live(self, seconds):
        """One run of the program; killed after so many seconds, or left to end."""
        self.disk.recover()
        async with Network([self._serve]) as network:
            self.network = network
            async with anyio.create_task_group() as group:
                group.start_soon(self._work, group.cancel_scope)
                if seconds is not None:
                    group.start_soon(self._misfortune)
                    await anyio.sleep(seconds)
                    self._kill()
                    group.cancel_scope.cancel()

    async def _work(self, scope):
        self.concurrency = self.chance.randint(1, 15)
        options = {
            "concurrency": self.concurrency,
            "rate": self.chance.choice([2.0, 50.0]),
            "max_unknown": 1.0,
            "hook": lambda row, transition: self.told.append((row.id, transition.callback.id)),
        }
        try:
            async with TeniosClient(KEY, base_url=URL, timeout=self.chance.choice([2, 30])) as client:
                await Runner(self.disk, client, **options).run()
        except LedgerFailed:
            assert self.has_faults
        scope.cancel()

    def _kill(self):
        """What is written to a socket already may arrive; nothing more is written."""
        self.crashes += 1
        self.disk.crash()
        for peer in self.network.peers:
            peer.write = lambda _: None

    async def _misfortune(self):
        """A network that goes away, and a disk that is slow, now and then."""
        while True:
            await anyio.sleep(self.chance.expovariate(1 / 10))
            if self.chance.random() < 0.5:
                self.outage_ends = anyio.current_time() + self.chance.uniform(0.5, 150)
            self.disk.slowest = self.chance.choice([0.05, 0.05, 1.0, 12.0])

    def _resolve(self):
        """A person finds out what became of some of the calls in doubt, and says the truth."""
        self.disk.recover()
        for row in list(self.disk.all):
            if row.standing.state is not RowState.UNKNOWN or self.chance.random() < 0.5:
                continue
            at = datetime.now(UTC) + timedelta(hours=1)
            self.disk.resolve(row, at, was_called=self.service.inits[row.key] > 0)

    async def _serve(self, peer):
        """One connection of the server's."""
        while True:
            request = await peer.request()
            if request.target.endswith("init"):
                self._check_call(request.fields["callback_number"])
            fate = self.chance.random() if self.has_faults else 1.0
            if self.has_faults and anyio.current_time() < self.outage_ends:
                peer.reset(ConnectionResetError())  # on its way there or back: nobody can tell
                if self.chance.random() < 0.5:
                    self._handle(request)
                return
            if fate < 0.03:
                peer.send(with_length(b"busy", status="503 Service Unavailable"))
                continue
            answer = self._handle(request)
            await anyio.sleep(self.chance.expovariate(1 / 0.1))
            if fate < 0.06:
                peer.finish()
                return
            if fate < 0.08:
                await anyio.sleep(60)
            if fate < 0.10:
                peer.send(with_length(b"<html>", status="200 OK"))
                continue
            whole = with_length(answer.body, status=f"{answer.status_code} whatever")
            if fate < 0.12:
                peer.send(whole[: self.chance.randrange(len(whole))])
                peer.finish()
                return
            peer.send(whole)

    def _handle(self, request):
        return self.service.handle("POST", request.target, json.dumps(request.fields).encode())

    def _check_call(self, number):
        """A phone is about to ring: for the first time, and it is on the disk."""
        row = next(row for row in self.disk.all if row.key == number)
        assert row.standing.state is not RowState.QUEUED, "not written down"
        assert self.service.inits[number] == 0, "rung twice"
        assert anyio.current_time() - self.disk.began[row.id] <= SEND_WITHIN, "too long after it was written down"
        self._check_always()

    def _check_always(self):
        """At each step: whenever a call arrives, and after each commit."""
        rows = self.disk.all
        states = Counter(row.standing.state for row in rows)
        assert states[RowState.SENDING] <= self.concurrency, "more at once than it may"
        known = {row.id: row.standing.callback_id for row in rows}
        for row in rows:
            rung = self.service.inits[row.key]
            assert rung <= 1, "rung twice"
            assert not rung or row.standing.state is not RowState.QUEUED, "rung, and to be dialled again"
            assert rung or row.standing.state not in (RowState.PLACED, RowState.FINISHED), "placed, and nobody was rung"
        assert all(known[row_id] == callback_id for row_id, callback_id in self.told), "an id that was told of is gone"

    def _in_doubt(self):
        return {row.id for row in self.disk.all if row.standing.state is RowState.UNKNOWN}

    def _check_end(self):
        self.service.assert_nobody_called_twice()
        for row in self.disk.all:
            standing = row.standing
            assert standing.state in (RowState.FINISHED, RowState.UNKNOWN), row  # nobody is refused here
            if standing.state is RowState.FINISHED:
                assert self.service.inits[row.key] == 1, row
            if standing.callback_id is not None:
                assert self.service.callbacks[standing.callback_id].number == row.key
        known = {(row.id, row.standing.callback_id) for row in self.disk.all}
        assert set(self.told) <= known


ON_DISK = 8
"""One life in so many has the ledger's own file; the others have rows in memory, moved by the same table of states."""


def live(seed):
    """One life; an assertion says what went wrong."""
    real, placing.awake = placing.awake, anyio.current_time
    drawn = random.getstate()
    random.seed(seed)  # the client's jitter is drawn from it
    try:
        with folder() as path:
            world = World(seed, path if seed % ON_DISK == 0 else None)
            world.run()
            world.disk.close()
            return world
    except BaseException as error:  # where a promise is broken
        error.add_note(f"again: tests.simulation.world.live({seed})")
        raise
    finally:
        placing.awake = real
        random.setstate(drawn)

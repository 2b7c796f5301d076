"""kill -9 in the middle of a campaign, over and over: the simulator counts who was rung, and is the oracle.

`tests/faults/killing.py` does it in CI, and thousands of times in `make soak`.
"""

import asyncio
import os
import random
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from tenios_async import CallbackRequest
from tenios_async.batch import NewRow, RowState
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorServer

WORKER = Path(__file__).with_name("worker.py")
PLACING = 5
"""Calls that the worker has under way at once."""
REQUESTS, SECONDS = 40, 0.03
"""A worker is killed at one of so many requests, or within so long after it."""
MANNERS = [Manner.DROP, Manner.RESET] * 10 + [Manner.STALL]
"""How the answer to a call is lost that was placed."""


class Killer(Service):
    """Answers like TENIOS, and kills whoever asks at a request that was drawn: before it is carried out, after, or later."""

    def __init__(self, chance: random.Random, **options):
        super().__init__(**options)
        self._chance = chance
        self._victim = None
        self._left = None
        self._when = "before"
        self._timers = []
        self.kills = 0

    def draw(self, victim):
        self._victim = victim
        self._when = self._chance.choice(("before", "after", "later", "later"))
        self._left = self._chance.randint(self._when != "later", REQUESTS)
        if self._left == 0:
            self._kill_later()

    def let_live(self):
        self._left = None
        for timer in self._timers:
            timer.cancel()

    def handle(self, method, path, body):
        when = None
        if self._left is not None:
            self._left -= 1
            when = self._when if self._left == 0 else None
        if when == "before":
            self._kill()
        answer = super().handle(method, path, body)
        if when == "after":
            self._kill()
        elif when == "later":
            self._kill_later()
        return answer

    def _kill_later(self):
        self._timers.append(asyncio.get_running_loop().call_later(self._chance.uniform(0, SECONDS), self._kill))

    def _kill(self):
        self.kills += 1
        os.kill(self._victim, signal.SIGKILL)


@asynccontextmanager
async def worker(*arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, WORKER, *map(str, arguments), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def survive(folder: Path, *, kills: int, seed: int, contacts: int, faults: bool) -> dict[RowState, int]:
    """Kills a campaign that often, resumes it until it is done, and checks what must hold. Gives where the rows ended."""
    chance = random.Random(seed)
    path, told = folder / "campaign.db", folder / "told"
    numbers = [f"+49157999{index:05}" for index in range(contacts)]

    def fill(ledger: LedgerFile) -> None:
        with ledger.transaction():
            for number in numbers:
                ledger.put(NewRow(number, CallbackRequest("config", number)))

    LedgerFile.create(path, {"kind": "campaign"}, fill)
    script = Script((("DISCONNECTED", 0.0),))
    service = Killer(chance, script=script)
    async with SimulatorServer(service) as server, worker(path, server.base_url, told) as process:
        code, spoilt = None, 0
        while service.kills < kills or code != 0:
            if faults and chance.random() < 0.5:
                spoilt += 1
                service.fail_init(Fault.lost(chance.choice(MANNERS)))
            process.stdin.write(b"go\n")
            victim = int(await process.stdout.readline())
            if service.kills < kills:
                service.draw(victim)
            code = int(await process.stdout.readline())
            service.let_live()
            assert code in (0, -signal.SIGKILL)
            if code == 0:
                assert service.kills >= kills, "the contacts were used up before the kills"
    with LedgerFile.read(path) as ledger:
        rows = list(ledger.rows())
    counts = dict.fromkeys(RowState, 0)
    for row in rows:
        counts[row.standing.state] += 1
        rung = service.inits[row.key]
        assert rung <= 1, "rung twice"
        if row.standing.state is RowState.FINISHED:
            assert rung == 1
    service.assert_nobody_called_twice()
    assert counts[RowState.QUEUED] == counts[RowState.SENDING] == counts[RowState.PLACED] == 0
    assert counts[RowState.UNKNOWN] <= kills * PLACING + spoilt
    known = {str(row.standing.callback_id) for row in rows}
    assert set(told.read_text().split()) <= known
    return counts

"""kill -9 in the middle of a campaign: at any moment, and right before and right after each write to the disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tenios_async import CallbackRequest
from tenios_async.batch import NewRow, RowState
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.simulator import Script, Service, SimulatorServer

from ..batch.kills import survive
from .experiment import Skipped, Tally, experiment, folder
from .rooms import CONFIG, numbers

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
KILLS = 100
CONTACTS = 4


def needs_fork() -> None:
    if not hasattr(os, "fork"):
        raise Skipped("this system has no fork")


@experiment(
    "kill -9 at a random moment of a campaign; in half of them answers are lost too",
    "at most one init across all restarts; every id that was told of is kept; it ends",
    trials=KILLS,
    passes=30,
)
def kill_at_random(chance: random.Random, tally: Tally) -> None:
    needs_fork()
    for faults in (False, True):
        with folder() as path:
            seed = chance.randrange(1 << 32)
            asyncio.run(survive(path, kills=KILLS // 2, seed=seed, contacts=25 * KILLS // 2, faults=faults))
        for _ in range(KILLS // 2):
            tally.trial("survived")


class Death(NamedTuple):
    """Where a program dies: before or after the write of that number; the 0th there is none."""

    write: int
    side: str


@contextmanager
def dying() -> Iterator[subprocess.Popen[str]]:
    """The program that dies where it is told; see there."""
    command = [sys.executable, "-m", "tests.faults.dying"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        process.stdin.close()


def make(path: Path, called: list[str]) -> None:
    def fill(ledger: LedgerFile) -> None:
        with ledger.transaction():
            for number in called:
                ledger.put(NewRow(number, CallbackRequest(CONFIG, number)))

    LedgerFile.create(path, {"kind": "campaign"}, fill)


async def work(program: subprocess.Popen[str], path: Path, url: str, death: Death) -> tuple[int, int]:
    """One run: how it ended, and how many writes it made."""
    print(path, url, death.write, death.side, file=program.stdin, flush=True)
    return tuple(map(int, (await asyncio.to_thread(program.stdout.readline)).split()))


def check(path: Path, service: Service, called: list[str]) -> dict[RowState, int]:
    """What must hold once a campaign has ended; gives where the rows did."""
    service.assert_nobody_called_twice()
    with LedgerFile.read(path) as ledger:
        rows = list(ledger.rows())
        told = path.with_name("told").read_text().split() if path.with_name("told").exists() else []
        assert set(told) <= {str(row.standing.callback_id) for row in rows}, "an id that was told of is gone"
        assert [row.key for row in rows] == called
        for row in rows:
            assert row.standing.state in (RowState.FINISHED, RowState.UNKNOWN), row
            if row.standing.state is RowState.FINISHED:
                assert service.inits[row.key] == 1
                assert service.callbacks[row.standing.callback_id].number == row.key
        return ledger.counts()


@experiment(
    "kill -9 right before and right after each write to the disk, from the first to the last of a campaign",
    "at most one init across the restart; every id that was told of is kept; it ends",
    trials=None,
    passes=50,
)
def kill_at_every_write(chance: random.Random, tally: Tally) -> None:
    del chance
    needs_fork()

    async def trial(program: subprocess.Popen[str], death: Death) -> bool:
        fresh = numbers()
        called = [next(fresh) for _ in range(CONTACTS)]
        service = Service(script=Script((("DISCONNECTED", 0.0),)))
        with folder() as parent:
            path = parent / "campaign.db"
            make(path, called)
            async with SimulatorServer(service) as server:
                code, writes = await work(program, path, server.base_url, death)
                if code == 0:
                    assert writes < death.write
                    return False
                assert code < 0, "it did not die but fail"
                code, _ = await work(program, path, server.base_url, Death(0, "before"))
                assert code == 0, "what a crash leaves was refused"
            counts = check(path, service, called)
        tally.trial(f"{counts[RowState.UNKNOWN]} in doubt")
        return True

    async def main() -> None:
        with dying() as program:
            for side in ("before", "after"):
                write = 1
                while await trial(program, Death(write, side)):
                    write += 1
                assert write > CONTACTS, "hardly anything was written"

    asyncio.run(main())

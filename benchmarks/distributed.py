"""How many contacts a second 1, 2 and 4 workers work off together, beside one program with its ledger in a file.

Every call ends at once, so that what is measured is placing, following and writing down: from the moment at which all
programs stand ready. Workers, PostgreSQL (with its own defaults, fsync on) and the simulator share this machine. CPU is
that of the workers in this time, without PostgreSQL's and the simulator's.

Then the rate limit over 4 workers: half of what they have just reached without one, so that it is the limit that keeps
them from placing more. What arrives in the worst second must not exceed it by more than 5 %, or this exits with 1.
Where the average stays below it by more than 5 %, something else held them up: it says that this proves nothing, and
exits with 2.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign import ledger_of, rows
from polling import machine, pin, prepare, say

from tenios_async import TeniosClient
from tenios_async.batch import Campaign, controls
from tenios_async.batch.campaign import KIND
from tenios_async.batch.distributed import ENGINES, Worker
from tenios_async.batch.postgres import PostgresLedger
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.simulator import Script, Service, SimulatorServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "batch"))
from server import running

CONTACTS, CONCURRENCY = 4_000, 200
WORKERS = (1, 2, 4)
SHARE, SECONDS = 0.5, 30.0
"""Of the pace without a limit, that is allowed; and for how long."""
ALLOWED = 0.05
SIZE = "SELECT pg_total_relation_size('calls') + pg_total_relation_size('transitions')"
AT_ONCE = Script((("DISCONNECTED", 0.0),))


def make(url: PostgresURL, contacts: int, rate: float | None) -> None:
    """Makes a campaign that waits until all workers are there."""

    def fill(session: PostgresSession) -> None:
        for some in rows(contacts):
            session.put_all(some)

    PostgresSession.create(url, {"kind": KIND}, fill, with_jobs=True)
    with PostgresSession.write(url) as session:
        session.set(controls.paused(is_paused=True), *([] if rate is None else [controls.at_rate(rate)]))


def begin(url: PostgresURL, workers: Sequence[subprocess.Popen[str]]) -> None:
    """Lets them begin once all are there."""
    with PostgresSession.write(url) as session:
        while next(session.query("SELECT count(*) FROM procrastinate_workers")) != (len(workers) * ENGINES,):
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError("a worker ended before it began")
            time.sleep(0.05)
        session.set(controls.going_on())


async def work(url: str, base_url: str) -> None:
    """One worker, until the campaign is over; prints its CPU and its share."""
    async with PostgresLedger(url) as ledger, TeniosClient("key", base_url=base_url) as client:
        before = time.process_time()
        progress = await Worker(ledger, client, concurrency=CONCURRENCY).run()
        print(json.dumps({"cpu": time.process_time() - before, "placed": progress.placed_now}))


async def work_alone(contacts: int, base_url: str) -> None:
    """One program with its ledger in a file; prints the same."""
    with ledger_of(contacts) as path:
        async with Campaign(path) as campaign, TeniosClient("key", base_url=base_url) as client:
            before = time.process_time()
            progress = await campaign.run(client, concurrency=CONCURRENCY)
            print(json.dumps({"cpu": time.process_time() - before, "placed": progress.placed_now}))


class Noting(Service):
    """Keeps the moments at which calls arrive."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.moments: list[float] = []

    def handle(self, method: str, path: str, body: bytes) -> Any:
        """Answers, and notes."""
        if path.endswith("init"):
            self.moments.append(time.perf_counter())
        return super().handle(method, path, body)


async def serve() -> None:
    """Answers until standard input is closed; then prints the moments."""
    service = Noting(script=AT_ONCE)
    async with SimulatorServer(service) as server:
        print(server.base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"moments": service.moments, "most": max(service.inits.values(), default=0)}), flush=True)


@contextmanager
def simulator(core: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """A simulator in a process of its own: its base URL, and at the end what it has noted."""
    noted: dict[str, Any] = {}
    command = [sys.executable, __file__, "--serve", *([] if core is None else [str(core)])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield process.stdout.readline().strip(), noted
        noted.update(json.loads(process.communicate()[0]))
    finally:
        process.kill()
        process.wait()


def sample_alone(contacts: int, core: int | None) -> dict[str, Any]:
    """One campaign, worked by one program with its ledger in a file."""
    with simulator(core) as (base_url, noted):
        results = run([["--work-alone", str(contacts), base_url]])
    return found(contacts, results, noted)


def sample(url: str, workers: int, contacts: int, core: int | None, rate: float | None = None) -> dict[str, Any]:
    """One campaign, worked by so many programs."""
    make(PostgresURL.parse(url), contacts, rate)
    with simulator(core) as (base_url, noted):
        results = run([["--work", url, base_url]] * workers, lambda programs: begin(PostgresURL.parse(url), programs))
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        ((size,),) = session.query(SIZE)
    return {**found(contacts, results, noted), "bytes": float(size) / contacts}


def run(
    commands: list[list[str]], started: Callable[[Sequence[subprocess.Popen[str]]], None] = lambda _: None
) -> list[dict[str, Any]]:
    """What each of these programs has printed."""
    programs = [
        subprocess.Popen([sys.executable, __file__, *command], stdout=subprocess.PIPE, text=True)  # noqa: S603
        for command in commands
    ]
    started(programs)
    return [json.loads(program.communicate()[0].splitlines()[-1]) for program in programs]


def found(contacts: int, results: list[dict[str, Any]], noted: dict[str, Any]) -> dict[str, Any]:
    """The figures of one campaign."""
    moments = sorted(noted["moments"])
    if len(moments) != contacts or noted["most"] != 1:
        raise RuntimeError(f"{len(moments)} calls, one of them {noted['most']} times, instead of {contacts}, once")
    return {
        "per_second": (contacts - 1) / (moments[-1] - moments[0]),
        "cpu": sum(result["cpu"] for result in results) / contacts,
        "worst": worst(moments),
        "shares": [result["placed"] for result in results],
    }


def worst(moments: list[float]) -> int:
    """The most calls within one second, wherever it begins."""
    return max(bisect.bisect_left(moments, moment + 1.0) - index for index, moment in enumerate(moments))


def main() -> int:
    """Measures, prints, and says whether the rate limit held."""
    if sys.argv[1:2] == ["--serve"]:
        if len(sys.argv) > 2:  # noqa: PLR2004
            os.sched_setaffinity(0, {int(sys.argv[2])})
        asyncio.run(serve())
        return 0
    if sys.argv[1:2] == ["--work"]:
        asyncio.run(work(sys.argv[2], sys.argv[3]))
        return 0
    if sys.argv[1:2] == ["--work-alone"]:
        asyncio.run(work_alone(int(sys.argv[2]), sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-rate", action="store_true", help="the rate limit, and what it is measured against")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    options = parser.parse_args()
    contacts, seconds = (300, 4.0) if options.quick else (CONTACTS, SECONDS)
    prepare()
    everywhere = os.sched_getaffinity(0)
    core = pin()
    os.sched_setaffinity(0, everywhere)
    shared: dict[int, list[dict[str, Any]]] = {workers: [] for workers in WORKERS}
    local: list[dict[str, Any]] = []
    limited: list[tuple[int, dict[str, Any]]] = []
    with running() as server:
        for round_ in range(1 if options.quick else options.rounds):
            say(f"round {round_ + 1}")
            if not options.only_rate:
                local.append(sample_alone(contacts, core))
            for workers in WORKERS[-1:] if options.only_rate else WORKERS:
                shared[workers].append(sample(server.url(f"n{round_}_{workers}"), workers, contacts, core))
            rate = round(shared[WORKERS[-1]][-1]["per_second"] * SHARE)
            limited.append((rate, sample(server.url(f"rate{round_}"), WORKERS[-1], round(rate * seconds), core, rate)))
    for label, value in machine("h11, the simulator", is_apart=False).items():
        print(f"- {label}: {value}")
    if not options.only_rate:
        show_pace(local, shared)
    code = show_limit(limited)
    return 0 if options.quick else code


def show_limit(samples: list[tuple[int, dict[str, Any]]]) -> int:
    """How the limit was kept in each round, and the exit code."""
    print(f"\n| allowed, over {WORKERS[-1]} workers | on average | in the worst second |\n|---:|---:|---:|")
    for rate, sample_ in samples:
        print(f"| {rate} | {sample_['per_second']:.1f} | {sample_['worst']} |")
    is_kept = all(sample_["worst"] <= rate * (1 + ALLOWED) for rate, sample_ in samples)
    is_binding = all(sample_["per_second"] >= rate * (1 - ALLOWED) for rate, sample_ in samples)
    print(f"\nexceeded by at most {ALLOWED:.0%}: {'yes' if is_kept else 'NO'}")
    if not is_binding:
        print(f"VOID: the average stayed below the limit by more than {ALLOWED:.0%}, so that something else held it")
    return 1 if not is_kept else 0 if is_binding else 2


def show_pace(local: list[dict[str, Any]], shared: dict[int, list[dict[str, Any]]]) -> None:
    """The table, and what a contact takes."""
    print("\n| | contacts a second | CPU for each (µs) |\n|---|---:|---:|")
    show("one program, SQLite", local)
    for workers, samples in shared.items():
        show(f"{workers} worker{'s' if workers > 1 else ''}, PostgreSQL", samples)
    size = statistics.median(sample_["bytes"] for samples in shared.values() for sample_ in samples)
    print(f"\na contact takes {size:,.0f} bytes in the ledger's tables and their indexes")


def show(name: str, samples: list[dict[str, Any]]) -> None:
    """One line of the table."""
    pace = statistics.median(sample_["per_second"] for sample_ in samples)
    cpu = statistics.median(sample_["cpu"] for sample_ in samples)
    print(f"| {name} | {pace:,.0f} | {cpu * 1e6:,.0f} |")


if __name__ == "__main__":
    sys.exit(main())

"""How many contacts a second 1, 2 and 4 workers work off together, beside one program with its ledger in a file.

Every call ends at once, so that what is measured is placing, following and writing down. Workers, PostgreSQL (with its
own defaults, fsync on) and the simulator share this machine. Then the rate limit over 4 workers: the calls that arrive
in the worst second. CPU is that of the workers, without PostgreSQL's and the simulator's.

A rate limit that is exceeded by more than 5 % makes it exit with 1.
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

from campaign import number
from campaign import sample as sample_local
from polling import machine, pin, prepare, say

from tenios_async import CallbackRequest, TeniosClient
from tenios_async.batch import NewRow, controls
from tenios_async.batch.campaign import KIND
from tenios_async.batch.distributed import Worker
from tenios_async.batch.postgres import PostgresLedger
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.simulator import Script, Service, SimulatorServer

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "batch"))
from server import running

CONTACTS, CONCURRENCY = 4_000, 200
WORKERS = (1, 2, 4)
RATE, RATED = 100.0, 2_000
"""Calls a second, and how many of them."""
ALLOWED = 0.05
SIZE = "SELECT pg_total_relation_size('calls') + pg_total_relation_size('transitions')"
AT_ONCE = Script((("DISCONNECTED", 0.0),))


def make(url: PostgresURL, contacts: int, rate: float | None) -> float:
    """Makes a campaign; seconds that took."""

    def fill(session: PostgresSession) -> None:
        for first in range(0, contacts, 1000):
            some = range(first, min(contacts, first + 1000))
            session.put_all([NewRow(number(n), CallbackRequest("config", number(n)), n + 2) for n in some])

    began = time.perf_counter()
    PostgresSession.create(url, {"kind": KIND}, fill, with_jobs=True)
    if rate is not None:
        with PostgresSession.write(url) as session:
            session.set(controls.at_rate(rate))
    return time.perf_counter() - began


async def work(url: str, base_url: str) -> None:
    """One worker, until the campaign is over; prints its CPU and its share."""
    async with PostgresLedger(url) as ledger, TeniosClient("key", base_url=base_url) as client:
        before = time.process_time()
        progress = await Worker(ledger, client, concurrency=CONCURRENCY).run()
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


def sample(url: str, workers: int, contacts: int, core: int | None, rate: float | None = None) -> dict[str, Any]:
    """One campaign, worked by so many programs."""
    make(PostgresURL.parse(url), contacts, rate)
    with simulator(core) as (base_url, noted):
        command = [sys.executable, __file__, "--work", url, base_url]
        programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(workers)]  # noqa: S603
        results = [json.loads(program.communicate()[0].splitlines()[-1]) for program in programs]
    moments = sorted(noted["moments"])
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        ((size,),) = session.query(SIZE)
    if len(moments) != contacts or noted["most"] != 1:
        raise RuntimeError(f"{len(moments)} calls, one of them {noted['most']} times, instead of {contacts}, once")
    seconds = moments[-1] - moments[0]
    return {
        "per_second": contacts / seconds,
        "cpu": sum(result["cpu"] for result in results) / contacts,
        "worst": worst(moments),
        "bytes": float(size) / contacts,
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-rate", action="store_true", help="the rate limit and nothing else")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    options = parser.parse_args()
    contacts, rated = (300, 200) if options.quick else (CONTACTS, RATED)
    prepare()
    everywhere = os.sched_getaffinity(0)
    core = pin()
    os.sched_setaffinity(0, everywhere)
    found: dict[int, list[dict[str, Any]]] = {workers: [] for workers in WORKERS}
    local: list[dict[str, float]] = []
    limited: list[dict[str, Any]] = []
    with running() as server:
        for round_ in range(1 if options.quick else options.rounds):
            say(f"round {round_ + 1}")
            limited.append(sample(server.url(f"rate{round_}"), WORKERS[-1], rated, core, RATE))
            if options.only_rate:
                continue
            local.append(sample_local("ours", contacts, core))
            for workers in WORKERS:
                found[workers].append(sample(server.url(f"n{round_}_{workers}"), workers, contacts, core))
    for label, value in machine("h11, the simulator", is_apart=False).items():
        print(f"- {label}: {value}")
    if not options.only_rate:
        show_pace(local, found)
    most = max(sample_["worst"] for sample_ in limited)
    pace = statistics.median(sample_["per_second"] for sample_ in limited)
    print(f"\n{RATE:g} calls a second over {WORKERS[-1]} workers: {pace:.1f}, in the worst second {most}")
    is_kept = most <= RATE * (1 + ALLOWED)
    print(f"within {ALLOWED:.0%} of the limit: {'yes' if is_kept else 'NO'}")
    return 0 if options.quick or is_kept else 1


def show_pace(local: list[dict[str, float]], found: dict[int, list[dict[str, Any]]]) -> None:
    """The table, and what a contact takes."""
    print("\n| | contacts a second | CPU for each (µs) |\n|---|---:|---:|")
    show("one program, SQLite", local)
    for workers, samples in found.items():
        show(f"{workers} worker{'s' if workers > 1 else ''}, PostgreSQL", samples)
    size = statistics.median(sample_["bytes"] for samples in found.values() for sample_ in samples)
    print(f"\na contact takes {size:,.0f} bytes in the ledger's tables and their indexes")


def show(name: str, samples: list[dict[str, Any]]) -> None:
    """One line of the table."""
    pace = statistics.median(sample_["per_second"] for sample_ in samples)
    cpu = statistics.median(sample_["cpu"] for sample_ in samples)
    print(f"| {name} | {pace:,.0f} | {cpu * 1e6:,.0f} |")


if __name__ == "__main__":
    sys.exit(main())

"""How many contacts a campaign works off in a second, on two cores with the simulator on one of them.

Every call ends at once, so that what is measured is placing, following and writing down. Beside it a plain script:
httpx and `asyncio.gather` with a semaphore, an init and a status request for each contact, and nothing written down.
Each sample is a process of its own; the two take turns. Memory: what a campaign of 200,000 contacts adds to its
process.

A missed target makes it exit with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from polling import Target, machine, pin, prepare, say, verdict

from tenios_async import CallbackRequest, TeniosClient
from tenios_async.batch import Campaign, NewRow
from tenios_async.batch.campaign import KIND
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.simulator import Script, Service, SimulatorServer

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTACTS, PLAIN_CONTACTS, MANY = 20_000, 2_000, 200_000
"""The plain script is timed over fewer: its pace does not change, and its patience is not what is measured."""
CONCURRENCY = 200
AT_ONCE = Script((("DISCONNECTED", 0.0),))
LEAST, TIMES, MEGABYTES = 1000.0, 8.0, 300.0
"""Contacts a second, how many times as many as the plain script, and how much memory may be added."""


def number(index: int) -> str:
    """A phone number for each contact."""
    return f"+49301{index:07}"


def rows(contacts: int) -> Iterator[list[NewRow]]:
    """Whom to call, some at a time."""
    for first in range(0, contacts, 1000):
        some = range(first, min(contacts, first + 1000))
        yield [NewRow(number(index), CallbackRequest("config", number(index)), index + 2) for index in some]


@contextmanager
def ledger_of(contacts: int) -> Iterator[Path]:
    """A campaign that nobody has worked yet, on this disk."""

    def fill(ledger: LedgerFile) -> None:
        with ledger.transaction():
            for some in rows(contacts):
                ledger.put_all(some)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "campaign.db"
        LedgerFile.create(path, {"kind": KIND}, fill)
        yield path


async def ours(url: str, contacts: int) -> float:
    """Seconds for a campaign with its ledger on this disk."""
    with ledger_of(contacts) as path:
        async with TeniosClient("key", base_url=url) as client, Campaign(path) as campaign:
            began = time.perf_counter()
            progress = await campaign.run(client, concurrency=CONCURRENCY)
            seconds = time.perf_counter() - began
        if progress.finished.total() != contacts:
            raise RuntimeError(f"not all have ended: {progress}")
    return seconds


async def plain(url: str, contacts: int) -> float:
    """Seconds for the script that one would write in a hurry."""
    semaphore = asyncio.Semaphore(CONCURRENCY)
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:

        async def call(index: int) -> None:
            async with semaphore:
                fields: dict[str, Any] = {"callback_config_id": "config", "callback_number": number(index), "delay": 0}
                placed = await client.post("/callback/init", json={"access_key": "key", **fields})
                status = None
                while status != "DISCONNECTED":
                    asked = await client.post("/callback/status", json={"access_key": "key", "id": placed.json()["id"]})
                    status = asked.json()["status"]

        began = time.perf_counter()
        await asyncio.gather(*(call(index) for index in range(contacts)))
        return time.perf_counter() - began


@contextmanager
def simulator(core: int | None) -> Iterator[str]:
    """A simulator in a process on that core; its base URL."""
    command = [sys.executable, __file__, "--serve", *([] if core is None else [str(core)])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own words
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


async def serve() -> None:
    """Answers until it is killed."""
    async with SimulatorServer(Service(script=AT_ONCE)) as server:
        print(server.base_url, flush=True)
        await asyncio.Event().wait()


def sample(what: str, contacts: int, core: int | None) -> dict[str, float]:
    """One run in a process of its own, against a simulator of its own."""
    with simulator(core) as url:
        command = [sys.executable, __file__, "--one", what, str(contacts), url]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)  # noqa: S603


def one(what: str, contacts: int, url: str) -> None:
    """Prints what one run took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = asyncio.run({"ours": ours, "plain": plain}[what](url, contacts))
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    per_second = contacts / seconds
    print(json.dumps({"per_second": per_second, "cpu": time.process_time() / contacts, "megabytes": added / 1024}))


def main() -> int:
    """Measures, prints, and says whether the targets are met."""
    if sys.argv[1:2] == ["--serve"]:
        if len(sys.argv) > 2:  # noqa: PLR2004
            os.sched_setaffinity(0, {int(sys.argv[2])})
        asyncio.run(serve())
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    options = parser.parse_args()
    contacts, few, many = (500, 200, 2000) if options.quick else (CONTACTS, PLAIN_CONTACTS, MANY)
    prepare()
    core = pin()
    samples: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    for number_ in range(1 if options.quick else options.rounds):
        say(f"round {number_ + 1}")
        for what, count in (("ours", contacts), ("plain", few)):
            samples[what].append(sample(what, count, core))
    say(f"a campaign of {many:,}")
    large = sample("ours", many, core)
    for label, value in machine("h11, the simulator", is_apart=core is not None).items():
        print(f"- {label}: {value}")
    print("\n| | contacts a second | CPU for each (µs) |\n|---|---:|---:|")
    names = {
        "ours": f"a campaign of {contacts:,}, every step on the disk",
        "plain": f"httpx and gather, {few:,}, no ledger",
    }
    for what, name in names.items():
        pace = statistics.median(found["per_second"] for found in samples[what])
        cpu = statistics.median(found["cpu"] for found in samples[what])
        print(f"| {name} | {pace:,.0f} | {cpu * 1e6:,.0f} |")
    print(f"| a campaign of {many:,} | {large['per_second']:,.0f} | {large['cpu'] * 1e6:,.0f} |")
    targets = [
        Target("1,000 contacts a second / ours", [LEAST / found["per_second"] for found in samples["ours"]], 1),
        Target(
            "8 times the plain script / ours",
            [
                TIMES * theirs["per_second"] / found["per_second"]
                for found, theirs in zip(samples["ours"], samples["plain"], strict=True)
            ],
            1,
        ),
        Target(f"memory that {many:,} contacts add / 300 MB", [large["megabytes"] / MEGABYTES], 1),
    ]
    print("\n" + verdict(targets))
    return 0 if options.quick or all(target.is_met for target in targets) else 1


if __name__ == "__main__":
    sys.exit(main())

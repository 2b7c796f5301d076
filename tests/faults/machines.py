"""What a machine does to a program: another one on its ledger, no file descriptors, a network that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tenios_async.simulator import Script, Service, SimulatorServer

from .experiment import Skipped, Tally, experiment, folder
from .killing import ROOT, check, make
from .rooms import numbers

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 200.0
"""Seconds after which a program that does not end is a failure."""
AT_ONCE = Script((("DISCONNECTED", 0.0),))


async def program(path: Path, url: str, *options: str, before: tuple[str, ...] = ()) -> asyncio.subprocess.Process:
    command = [*before, sys.executable, "-m", "tests.faults.campaigning", str(path), url, *options]
    return await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)


async def ending(process: asyncio.subprocess.Process) -> bytes:
    """What it printed; it does not outlive the experiment."""
    try:
        return (await asyncio.wait_for(process.communicate(), PATIENCE))[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def campaign(process: asyncio.subprocess.Process) -> tuple[str, int]:
    """How it ended, and how many connections found no descriptor."""
    said, without = (await ending(process)).split()
    return said.decode(), int(without)


def needs_posix() -> None:
    if sys.platform == "win32":
        raise Skipped("this is about a system like Unix")


@experiment(
    "Further programs are started on a ledger while one works on it",
    "they are refused and disturb nothing; nobody is called twice; it ends",
    trials=2,
    passes=50,
)
def two_programs(chance: random.Random, tally: Tally) -> None:
    needs_posix()

    async def trial(parent: Path) -> None:
        service, called = Service(script=AT_ONCE), list(itertools.islice(numbers(), 600))
        service.latency = 1.0  # a second for each thirty of them, until the others have been there
        path = parent / "campaign.db"
        make(path, called)
        async with SimulatorServer(service) as server:
            first = await program(path, server.base_url)
            while not service.inits:  # noqa: ASYNC110  # the other program is what is waited for
                await asyncio.sleep(0.01)
            await asyncio.sleep(chance.random() / 2)
            others = [await program(path, server.base_url) for _ in range(chance.choice([1, 2]))]
            assert {await campaign(each) for each in others} == {("refused", 0)}
            service.latency = 0.0
            assert await campaign(first) == ("ended", 0)
        check(path, service, called)
        tally.trial(f"{len(others)} refused")

    for _ in range(2):
        with folder() as parent:
            asyncio.run(trial(parent))


@experiment(
    "A program that may open hardly any file more",
    "its campaign is slowed without loss: each row ends, and was rung at most once",
    trials=2,
    passes=30,
)
def out_of_descriptors(chance: random.Random, tally: Tally) -> None:
    needs_posix()

    async def trial(parent: Path, left: int) -> None:
        service, called = Service(script=AT_ONCE), list(itertools.islice(numbers(), 6))
        service.latency = chance.uniform(0, 0.02)
        path = parent / "campaign.db"
        make(path, called)
        async with SimulatorServer(service) as server:
            worker = await program(path, server.base_url, f"descriptors={left}")
            said, without = await campaign(worker)
            assert said == "ended"
        assert without or left >= len(called), "it had descriptors enough"
        counts = check(path, service, called)
        assert counts["FINISHED"] == len(called), counts
        tally.trial("finished, short of descriptors" if without else "finished")

    for left in (1, 8):
        with folder() as parent:
            asyncio.run(trial(parent, left))


INSIDE, OUTSIDE = "10.79.0.2", "10.79.0.1"


@contextlib.contextmanager
def wire() -> Iterator[tuple[str, str]]:
    """A network namespace behind a pair of interfaces: its name, and that of our end. It is gone afterwards."""
    name = f"tenios{os.getpid()}"
    ours, theirs = f"tn{os.getpid()}a"[-15:], f"tn{os.getpid()}b"[-15:]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):  # where the machine lacks it
        raise Skipped("no network namespace can be made here: that takes root and iproute2 on Linux") from None
    try:
        try:
            ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
            ip("addr", "add", f"{OUTSIDE}/30", "dev", ours)
            ip("link", "set", ours, "up")
            ip("-n", name, "addr", "add", f"{INSIDE}/30", "dev", theirs)
            ip("-n", name, "link", "set", theirs, "up")
        except subprocess.CalledProcessError:  # where the machine lacks it
            raise Skipped("no pair of interfaces can be made here") from None
        yield name, ours
    finally:
        ip("netns", "del", name)


@experiment(
    "The network goes away, its packets swallowed or its hosts unreachable, and returns",
    "the campaign waits and resumes: each row ends, and was rung at most once",
    trials=2,
    passes=20,
)
def network_away(chance: random.Random, tally: Tally) -> None:
    async def trial(parent: Path, namespace: str, end: list[str]) -> None:
        service, called = Service(script=AT_ONCE), list(itertools.islice(numbers(), 60))
        service.latency = 0.05
        path = parent / "campaign.db"
        make(path, called)
        async with SimulatorServer(service, host=OUTSIDE, allow_remote=True) as server:
            worker = await program(path, server.base_url, before=("ip", "netns", "exec", namespace))
            while service.inits.total() < 10:  # noqa: ASYNC110  # the other program is what is waited for
                await asyncio.sleep(0.01)
            subprocess.run([*end, "down"], check=True, capture_output=True)
            await asyncio.sleep(chance.uniform(0.5, 3))
            rung = service.inits.total()
            subprocess.run([*end, "up"], check=True, capture_output=True)
            (said, _), runs = await campaign(worker), 1
            while said == "stopped":  # ten in doubt, one after another: a person looks, and goes on
                worker, runs = await program(path, server.base_url, before=("ip", "netns", "exec", namespace)), runs + 1
                said, _ = await campaign(worker)
            assert said == "ended"
        assert rung < len(called), "it was over before the network went away"
        check(path, service, called)
        tally.trial(f"{runs} runs")

    with wire() as (namespace, interface):
        ours = ["ip", "link", "set", interface]
        theirs = ["ip", "-n", namespace, "link", "set", f"{interface[:-1]}b"]
        for end in (ours, theirs):  # packets are swallowed; there is no way any more, and connects fail at once
            with folder() as parent:
                asyncio.run(trial(parent, namespace, end))

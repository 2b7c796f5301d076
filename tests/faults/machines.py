"""What a machine does to a program: another one on its ledger, no file descriptors, a network that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from tenios_async.simulator import Script, Service, SimulatorServer

from .experiment import Skipped, Tally, experiment, folder
from .killing import ROOT, check, make
from .rooms import numbers

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

PATIENCE = 100.0
"""Seconds after which a program that does not come so far, or to its end, is a failure."""
AT_ONCE = Script((("DISCONNECTED", 0.0),))


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """It does not outlive the experiment."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until(reached: Callable[[], bool]) -> None:
    """Another program is waited for."""
    async with asyncio.timeout(PATIENCE):
        while not reached():  # noqa: ASYNC110  # it says nothing; what the server received is looked at
            await asyncio.sleep(0.01)


async def ending(process: asyncio.subprocess.Process) -> bytes:
    """What it printed."""
    return (await asyncio.wait_for(process.communicate(), PATIENCE))[0]


def working(
    path: Path, url: str, *options: str, before: tuple[str, ...] = ()
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """A program that works a campaign."""
    return running(*before, sys.executable, "-m", "tests.faults.campaigning", str(path), url, *options)


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
        others = chance.choice([1, 2])
        async with SimulatorServer(service) as server, working(path, server.base_url) as first:
            await until(lambda: bool(service.inits))
            await asyncio.sleep(chance.random() / 2)
            async with contextlib.AsyncExitStack() as stack:
                each = [await stack.enter_async_context(working(path, server.base_url)) for _ in range(others)]
                assert {await campaign(other) for other in each} == {("refused", 0)}
            service.latency = 0.0
            assert await campaign(first) == ("ended", 0)
        check(path, service, called)
        tally.trial(f"{others} refused")

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
        async with SimulatorServer(service) as server, working(path, server.base_url, f"descriptors={left}") as worker:
            said, without = await campaign(worker)
            assert said == "ended"
        assert without or left >= len(called), "it had descriptors enough"
        counts = check(path, service, called)
        assert counts["FINISHED"] == len(called), counts
        tally.trial("finished, short of descriptors" if without else "finished")

    for left in (1, 8):
        with folder() as parent:
            asyncio.run(trial(parent, left))


class Wire(NamedTuple):
    """A network namespace behind a pair of interfaces."""

    namespace: str
    interface: str
    """That of our end."""
    address: str
    """That of our end."""


def network() -> tuple[str, str]:
    """Two addresses that are a network of their own: another run, or what a killed one left behind, may have one too."""

    def is_free(prefix: str) -> bool:
        return not subprocess.run(["ip", "addr", "show", "to", prefix], check=True, capture_output=True).stdout

    drawn = ((secrets.randbelow(256), secrets.randbelow(64) * 4) for _ in range(64))
    third, fourth = next((third, fourth) for third, fourth in drawn if is_free(f"10.79.{third}.{fourth}/30"))
    return f"10.79.{third}.{fourth + 1}", f"10.79.{third}.{fourth + 2}"


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """It is gone afterwards."""
    mark = secrets.token_hex(4)
    name, ours, theirs = f"tenios-{mark}", f"tn-{mark}a", f"tn-{mark}b"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):  # where the machine lacks it
        raise Skipped("no network namespace can be made here: that takes root and iproute2 on Linux") from None
    try:
        outside, inside = network()
        try:
            ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        except subprocess.CalledProcessError:  # where the machine lacks it
            raise Skipped("no pair of interfaces can be made here") from None
        try:
            ip("addr", "add", f"{outside}/30", "dev", ours)
            ip("link", "set", ours, "up")
            ip("-n", name, "addr", "add", f"{inside}/30", "dev", theirs)
            ip("-n", name, "link", "set", theirs, "up")
            yield Wire(name, ours, outside)
        finally:
            ip("link", "del", ours)  # a namespace lives as long as a program in it, and its interfaces with it
    finally:
        ip("netns", "del", name)


@experiment(
    "The network goes away, its packets swallowed or its hosts unreachable, and returns",
    "the campaign waits and resumes: each row ends, and was rung at most once",
    trials=2,
    passes=20,
)
def network_away(chance: random.Random, tally: Tally) -> None:
    async def trial(parent: Path, wired: Wire, end: list[str]) -> None:
        inside = ("ip", "netns", "exec", wired.namespace)
        service, called = Service(script=AT_ONCE), list(itertools.islice(numbers(), 60))
        service.latency = 0.05
        path = parent / "campaign.db"
        make(path, called)
        async with SimulatorServer(service, host=wired.address, allow_remote=True) as server:
            async with working(path, server.base_url, before=inside) as worker:
                await until(lambda: service.inits.total() >= 10)
                subprocess.run([*end, "down"], check=True, capture_output=True)
                await asyncio.sleep(chance.uniform(0.5, 3))
                rung = service.inits.total()
                subprocess.run([*end, "up"], check=True, capture_output=True)
                (said, _), runs = await campaign(worker), 1
            while said == "stopped":  # ten in doubt, one after another: a person looks, and goes on
                async with working(path, server.base_url, before=inside) as worker:
                    (said, _), runs = await campaign(worker), runs + 1
            assert said == "ended"
        assert rung < len(called), "it was over before the network went away"
        check(path, service, called)
        tally.trial(f"{runs} runs")

    with wire() as wired:
        ours = ["ip", "link", "set", wired.interface]
        theirs = ["ip", "-n", wired.namespace, "link", "set", f"{wired.interface[:-1]}b"]
        for end in (ours, theirs):  # packets are swallowed; there is no way any more, and connects fail at once
            with folder() as parent:
                asyncio.run(trial(parent, wired, end))

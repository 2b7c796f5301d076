"""Connections that close while they are taken up again, and servers that do not read, do not answer, or drip."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import anyio

from tenios_async import AttemptOutcome, RequestTimeout

from ..sockets.misbehaving import Server, close, finish, on_release, reset, silent
from .experiment import Tally, experiment
from .rooms import ALL_ROOMS, ROOMS, answered, assert_honest, client, numbers, place

if TYPE_CHECKING:
    from tenios_async import TeniosClient

    from ..sockets.misbehaving import Behaviour, Peer

REUSED = 200
"""In each room."""
IN_THE_INSTANT = 0.0015
"""Seconds around the moment in which a connection is used again."""
SLOW_EACH = 5
"""Trials of each way to be slow, in each room."""
DEADLINE = 3.0
"""Seconds a call may take, at most and half of it at least: more than one byte drips in them."""
LATE = 0.25
"""Seconds after its deadline in which a call must have ended."""


def closing(chance: random.Random) -> Behaviour:
    """Answers the first call, and ends the connection about when the second comes: before, while or after it is read."""

    def behave(peer: Peer) -> None:
        request = peer.read_request()
        peer.send(answered(request))
        way = chance.random()
        if way < 0.7:
            time.sleep(chance.uniform(0, IN_THE_INSTANT))  # the server's own pause, not the test's
        else:
            peer.read_request()
        chance.choice([finish, close, reset])(peer)

    return behave


@experiment(
    "A keep-alive connection is closed in the instant of reuse; all rooms",
    "no second init; what may have arrived is UNKNOWN",
    trials=REUSED * len(ALL_ROOMS),
    passes=50,
)
def closed_as_it_is_reused(chance: random.Random, tally: Tally) -> None:
    async def main(room: str) -> None:
        fresh, outcomes = numbers(), {}
        # Each has chances of its own: a thread each draws from them.
        behaviours = (closing(random.Random(chance.random())) for _ in range(8 * REUSED))
        async with Server(*behaviours) as server:
            for _ in range(REUSED):
                async with client(room, server.url, keeps_alive=True) as tenios:
                    first, second = next(fresh), next(fresh)
                    outcomes[first], _ = await place(tenios, first)
                    assert outcomes[first] is AttemptOutcome.PLACED
                    until = time.perf_counter() + chance.uniform(0, IN_THE_INSTANT)
                    while time.perf_counter() < until:  # noqa: ASYNC110  # finer than a loop sleeps
                        await asyncio.sleep(0)
                    outcomes[second], _ = await place(tenios, second)
                tally.trial(f"{room}: {outcomes[second]}")
        assert_honest(outcomes, server.inits)
        if room == "own httpx":
            assert set(outcomes.values()) == {AttemptOutcome.PLACED}, "a call takes a new connection there"

    for room in ALL_ROOMS:
        asyncio.run(main(room))


def dripping(peer: Peer) -> None:
    """One byte a second; each comes well within any timeout of a read."""
    rest = iter(answered(peer.read_request()))
    while not peer.released.is_set():
        peer.send(bytes([next(rest)]))
        peer.released.wait(1)


SLOW = {"never reads": on_release(lambda _: None), "never answers": silent, "drips": dripping}


@experiment(
    "A server accepts and never reads; never answers; drips a byte a second",
    "a call ends as UNKNOWN and a poll in RequestTimeout, within the deadline and 0.25 s",
    trials=len(SLOW) * len(ROOMS) * 2 * SLOW_EACH * 2,
    passes=10,
)
def slow(chance: random.Random, tally: Tally) -> None:
    async def one(room: str, behave: Behaviour, number: str, *, long: bool) -> None:
        """A call, long enough to fill what the kernels hold or not, and a poll."""
        timeout = chance.uniform(DEADLINE / 2, DEADLINE)
        async with Server(behave, receive_buffer=1) as server, client(room, server.url, timeout=timeout) as tenios:
            async with anyio.create_task_group() as group:
                group.start_soon(ask, tenios, timeout)
                began = anyio.current_time()
                outcome, error = await place(tenios, number, agent_announcement="\U0001f4de" * 15_000 if long else None)
                tally.measured("after the deadline", anyio.current_time() - began - timeout, "s", bound=LATE)
            server.release()
            await server.until_client_left()
        assert outcome is AttemptOutcome.UNKNOWN, error
        assert_honest({number: outcome}, server.inits)
        assert server.inits.total() <= 1
        tally.trial(outcome)

    async def ask(tenios: TeniosClient, timeout: float) -> None:
        began = anyio.current_time()
        try:
            await tenios.callback_status(10)
        except RequestTimeout:
            tally.trial("RequestTimeout")
        else:
            raise AssertionError("answered")  # where a promise is broken
        tally.measured("after the deadline", anyio.current_time() - began - timeout, "s", bound=LATE)

    async def main() -> None:
        fresh = numbers()
        for behave in SLOW.values():
            async with anyio.create_task_group() as group:
                for room in ROOMS:
                    for turn in range(2 * SLOW_EACH):
                        group.start_soon(lambda *a, long=turn % 2 == 0: one(*a, long=long), room, behave, next(fresh))

    anyio.run(main)

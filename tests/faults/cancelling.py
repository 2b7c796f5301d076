"""A call and a poll are cancelled at the k-th await there is, in whichever task, for every k; so is what a ledger places."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import anyio
import trio

from tenios_async import AttemptOutcome, CallbackAttempt, CallbackRequest, TeniosClient
from tenios_async.batch import RowState

from ..batch.memory import MemoryLedger
from ..sockets.certificates import certificates
from ..sockets.misbehaving import Server, over_tls
from ..sockets.stepping import Steps, counting, every_k
from .cutting import answering
from .experiment import Tally, experiment
from .rooms import CONFIG, ROOMS, client, numbers, own_id, place

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    Work = Callable[[], Awaitable[object]]

GRACE = 5.0
"""Seconds for the id of a call that has left: enough for any server on this machine, so that none is in doubt."""


async def natively(work: Work, steps: Steps) -> None:
    task = asyncio.ensure_future(work())
    steps.act = task.cancel
    await asyncio.wait([task])
    steps.act = None
    if not task.cancelled():
        task.result()


async def by_a_scope(work: Work, steps: Steps) -> None:
    with anyio.CancelScope() as scope:
        steps.act = scope.cancel
        await work()
    steps.act = None


def living() -> set[asyncio.Task[Any]] | int:
    """The tasks there are; on trio how many."""
    return trio.lowlevel.current_statistics().tasks_living if trio.lowlevel.in_trio_run() else asyncio.all_tasks()


async def call(tenios: TeniosClient, number: str, cancel, steps: Steps) -> str:
    """One call; what its attempt says, which nothing may contradict."""
    attempt = CallbackAttempt()
    await cancel(lambda: tenios.init_callback(CONFIG, number, attempt=attempt), steps)
    if attempt.outcome in (None, AttemptOutcome.NOT_SENT):
        return "NOT_SENT"
    assert attempt.outcome is AttemptOutcome.PLACED, "the server answers within the grace"
    assert attempt.callback.id == own_id(number)
    return attempt.outcome


async def poll(tenios: TeniosClient, number: str, cancel, steps: Steps) -> str:
    """A status poll, which rings nobody."""
    await cancel(lambda: tenios.callback_status(own_id(number)), steps)
    return "NOT_SENT"


async def call_by_ledger(tenios: TeniosClient, number: str, cancel, steps: Steps) -> str:
    """The same through a ledger: what is written down is the outcome, whatever the caller has heard."""
    ledger, request = MemoryLedger(latency=0), CallbackRequest(CONFIG, number)
    await cancel(lambda: ledger.place_once(tenios, request, key="key"), steps)
    row = await ledger.by_key("key")
    if row is None or row.standing.state is RowState.QUEUED:
        return "NOT_SENT"
    assert row.standing.state is RowState.PLACED, "the server answers within the grace"
    assert row.callback.id == own_id(number)
    return row.standing.state


async def cancelled_everywhere(room: str, cancel, calling, tally: Tally, *, is_tls: bool) -> None:
    """One connection: a slot that is lost, or a task that is left, is noticed by the next call."""
    behave = over_tls(certificates().good, answering) if is_tls else answering
    options = {"cancel_grace": GRACE, "max_connections": 1}
    fresh, outcomes = numbers(), {}
    async with Server(behave, scheme="https" if is_tls else "http") as server:
        for k in every_k(1000):
            steps, number = Steps(k), next(fresh)
            async with own_client(room, server.url, options) as tenios:
                tasks = living()
                with counting(steps):
                    end = outcomes[number] = await calling(tenios, number, cancel, steps)
                assert living() == tasks, "a task is left"
                number = next(fresh)
                outcomes[number], error = await place(tenios, number, timeout=GRACE)
                assert error is None, "the pool is not whole"
            if not steps.reached:
                break
            tally.trial(end)
    for number, outcome in outcomes.items():
        assert server.inits[number] == (outcome == "PLACED")


def own_client(room: str, url: str, options: dict[str, Any]):
    if trio.lowlevel.in_trio_run() and room == "pool":  # which is asyncio's: what is the library's own on trio
        return TeniosClient("CANARY-KEY-0123456789", base_url=url, ssl_context=certificates().trusting, **options)
    return client(room, url, certificates().trusting, **options)


@experiment(
    "A call, and a poll, is cancelled at its k-th await, for every k: natively and by anyio, on asyncio and trio, plain "
    "and TLS, through the client and through a ledger; both rooms",
    "at most one init, its id known and recorded, the pool whole, no task left",
    trials=None,
    passes=10,
)
def cancel_at_every_await(chance: random.Random, tally: Tally) -> None:
    del chance
    for backend, is_tls, room, calling in itertools.product(
        ("asyncio", "trio"), (False, True), ROOMS, (call, call_by_ledger, poll)
    ):
        for cancel in (natively, by_a_scope) if backend == "asyncio" else (by_a_scope,):

            async def main(room=room, cancel=cancel, calling=calling, is_tls=is_tls) -> None:
                await cancelled_everywhere(room, cancel, calling, tally, is_tls=is_tls)

            anyio.run(main, backend=backend)

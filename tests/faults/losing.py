"""Answers that are lost although the call was placed, and answers that come when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from tenios_async import CallbackRequest
from tenios_async.batch import RowState
from tenios_async.batch.runner import Runner
from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorServer

from ..batch.memory import MemoryLedger
from .experiment import Tally, experiment
from .rooms import CONFIG, ROOMS, client, numbers

if TYPE_CHECKING:
    from tenios_async.simulator import Answer

CALLS = 200
IN_ONE_CAMPAIGN = 10
TIMEOUT = 0.2
GRACE = 0.05
FATES = (Manner.DROP, Manner.RESET, Manner.STALL, "late", "late", "in time")


class Losing(Service):
    """Places each call; its answer is lost, or comes about when its caller gives up, or at once."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(script=Script((("DISCONNECTED", 0.0),)))
        self.chance = chance
        self.has_faults = True
        self.lost = 0

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        self.latency = 0.0
        if self.has_faults and path.endswith("/init"):
            self.lost += 1
            fate = self.chance.choice(FATES)
            if fate == "late":
                self.latency = TIMEOUT * self.chance.uniform(0.8, 2)
            elif fate != "in time":
                self.fail_init(Fault.lost(fate))
        return super().handle(method, path, body)


async def campaign(room: str, chance: random.Random, requests: list[CallbackRequest], tally: Tally) -> None:
    service, ledger = Losing(chance), MemoryLedger(requests, latency=0)
    options = {"timeout": TIMEOUT, "cancel_grace": GRACE}
    async with SimulatorServer(service) as server:
        while (await ledger.counts())[RowState.QUEUED]:  # ten in a row end a run
            async with client(room, server.base_url, **options) as tenios:
                run = asyncio.ensure_future(Runner(ledger, tenios, concurrency=4, max_unknown=1).run())
                if chance.random() < 0.3:
                    await asyncio.wait([run], timeout=TIMEOUT * chance.random() * 2)
                    run.cancel()
                await asyncio.gather(run, return_exceptions=True)
                assert run.cancelled() or run.exception() is None, run.exception()
            for row in ledger.all:
                assert row.standing.state is not RowState.SENDING
        lost = service.lost  # not all, where a machine is so slow that a client gives up before the server reads
        assert lost <= len(requests)
        service.has_faults = False
        async with client(room, server.base_url) as tenios:
            await Runner(ledger, tenios, max_unknown=1).run()
        assert service.inits.total() == lost == service.lost, "dialled again"
    service.assert_nobody_called_twice()
    for row in ledger.all:
        standing = row.standing
        assert standing.state in (RowState.UNKNOWN, RowState.FINISHED)
        if standing.callback_id is not None:
            assert service.callbacks[standing.callback_id].number == row.key, "the id of another call"
        assert (standing.state is RowState.UNKNOWN) == (standing.callback_id is None)
        tally.trial(standing.state)


@experiment(
    "TENIOS places the call and its answer is lost, or comes after the client gave up",
    "in doubt, and never dialled again; a late id is never given to another row",
    trials=CALLS,
    passes=50,
)
def answers_lost_or_late(chance: random.Random, tally: Tally) -> None:
    async def main() -> None:
        fresh = numbers()
        campaigns = []
        for index in range(CALLS // IN_ONE_CAMPAIGN):
            requests = [CallbackRequest(CONFIG, next(fresh)) for _ in range(IN_ONE_CAMPAIGN)]
            own = random.Random(chance.random())
            campaigns.append(campaign(ROOMS[index % len(ROOMS)], own, requests, tally))
        for first in range(0, len(campaigns), 4):
            await asyncio.gather(*campaigns[first : first + 4])

    asyncio.run(main())

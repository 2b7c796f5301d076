"""One shard is followed, in virtual time: what others have placed, what they settle meanwhile, and what is lost."""

from datetime import UTC, datetime

import anyio
import pytest

from tenios_async import CallbackRequest, CallbackStatus, ClientMisuse, PermissionDenied, Polling, WatchInterrupted
from tenios_async.batch.following import ShardWatch
from tenios_async.batch.standing import intend, lose, place, see
from tenios_async.simulator import Fault, Script
from tenios_async.simulator.fixture import Simulator

from ..virtual_time import virtual_loop
from .memory import MemoryLedger

pytestmark = pytest.mark.anyio
MINUTE = Script((("CALLING_A", 0.0), ("DISCONNECTED", 60.0)))
ENDLESS = Script((("CALLING_A", 0.0), ("CALLING_B", 1e6)))


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": virtual_loop}


class Shard(MemoryLedger):
    """Calls of one shard, and who follows them."""

    def __init__(self, calls, script=MINUTE):
        super().__init__([CallbackRequest("config", f"+49123{index:06d}") for index in range(calls)])
        self.simulator = Simulator()
        self.service = self.simulator.service
        self.service._script = script
        self.client = self.simulator.client()
        self.told, self.pieces = [], []

    async def load(self, row_ids):
        return [self.all[row_id - 1] for row_id in row_ids]

    async def placed(self, shard):
        return {row.id for row in await self.followed()}

    async def place(self, *row_ids):
        """By some worker."""
        for row_id in row_ids:
            callback = await self.client.init_callback(self.all[row_id - 1].request)
            await self.change_all([(row_id, intend("a", datetime.now(UTC))), (row_id, place("a", callback))])

    async def end(self, row_id):
        """Somebody else has seen its end."""
        await self.change(row_id, see("a", CallbackStatus.DISCONNECTED, datetime.now(UTC), 1))

    async def follow(self, seconds=1000.0):
        def hook(row, transition):
            self.told.append((row.id, str(transition.status)))

        watch = ShardWatch(self, self, self.client, 0, polling=Polling.fixed(1.0), hook=hook)
        async with self.client:
            with anyio.move_on_after(seconds):
                await watch.run()
        return watch

    def write_slowly(self, seconds):
        """From now on."""
        change_all = self.change_all

        async def slowly(changes):
            self.pieces.append(len(changes))
            await anyio.sleep(seconds)
            return await change_all(changes)

        self.change_all = slowly

    def said(self):
        """What is known of each end."""
        return [(row.standing.status, row.standing.reason) for row in self.all]


async def test_what_is_placed_meanwhile_is_followed_to_its_end_too():
    shard = Shard(3)
    async with anyio.create_task_group() as group:
        await shard.place(1, 2)

        async def place_later():
            await anyio.sleep(30)
            await shard.place(3)

        group.start_soon(place_later)
        watch = await shard.follow()
    assert shard.said() == [(CallbackStatus.DISCONNECTED, None)] * 3
    assert watch.polls == shard.service.polls.total() >= 3 * 60


async def test_a_call_that_somebody_else_has_settled_is_not_asked_about_any_more():
    shard = Shard(2, script=ENDLESS)
    await shard.place(1, 2)
    async with anyio.create_task_group() as group:

        async def settle():
            await anyio.sleep(10)
            await shard.end(1)

        group.start_soon(settle)
        await shard.follow(1000)
    settled, open_ = shard.service.polls.values()
    assert settled < 15
    assert open_ > 900


async def test_a_call_that_somebody_else_settles_just_now_is_not_asked_about(monkeypatch):
    """Between the two questions of who is placed, and of what is known of them."""
    shard = Shard(2)
    await shard.place(1, 2)
    placed = shard.placed

    async def placed_then_settled(number):
        found = await placed(number)
        if 1 in found:
            await shard.change(1, lose("a", "nobody knows it", datetime.now(UTC)))
        return found

    monkeypatch.setattr(shard, "placed", placed_then_settled)
    await shard.follow()
    assert len(shard.service.polls) == 1
    assert shard.states() == {"FINISHED": 2}


async def test_a_call_that_has_ended_is_not_asked_about_while_its_end_is_written_down():
    """And its end is told once."""
    shard = Shard(3)
    await shard.place(1, 2)
    await shard.change_all([(3, intend("a", datetime.now(UTC))), (3, place("a", shard.all[0].callback))])
    del shard.service.callbacks[11]
    shard.write_slowly(10)
    await shard.follow()
    assert shard.told == [(1, "CALLING_A"), (1, "DISCONNECTED")]
    assert sum(shard.pieces) == 4
    assert shard.states() == {"FINISHED": 3}


async def test_what_is_seen_does_not_pile_up_before_a_slow_ledger(monkeypatch):
    monkeypatch.setattr("tenios_async.batch.recording.UNWRITTEN", 5)
    shard = Shard(30)
    await shard.place(*range(1, 31))
    shard.write_slowly(10)
    await shard.follow()
    assert max(shard.pieces) == 5
    assert shard.states() == {"FINISHED": 30}


async def test_what_was_seen_by_the_time_it_is_cancelled_is_written_down():
    """Also what waits while something else is being written."""
    shard = Shard(2)
    await shard.place(1)
    await anyio.sleep(2)
    await shard.place(2)
    shard.write_slowly(4)
    with anyio.move_on_after(61):
        await shard.follow()
    assert shard.all[1].standing.status is CallbackStatus.DISCONNECTED


async def test_who_may_see_nothing_at_all_is_told_so():
    shard = Shard(2)
    await shard.place(1, 2)
    shard.simulator.fail_status(*[Fault(403)] * 20)
    with pytest.raises(PermissionDenied):
        await shard.follow()
    assert shard.states() == {"PLACED": 2}


async def test_one_id_for_two_calls():
    """Whatever TENIOS does, nobody waits for ever."""
    shard = Shard(2)
    await shard.place(1)
    await shard.change_all([(2, intend("a", datetime.now(UTC))), (2, place("a", shard.all[0].callback))])
    await shard.follow()
    assert shard.said() == [(CallbackStatus.DISCONNECTED, None), (None, "TENIOS gave its id to two calls")]


async def test_a_call_that_tenios_does_not_know_ends_unobserved():
    shard = Shard(2)
    await shard.place(1, 2)
    del shard.service.callbacks[10]
    await shard.follow()
    (lost, why), followed = shard.said()
    assert (lost, "does not know" in why) == (None, True)
    assert followed == (CallbackStatus.DISCONNECTED, None)


async def test_an_outage_is_sat_out_however_long():
    shard = Shard(1)
    await shard.place(1)
    shard.simulator.fail_status(*[Fault(500)] * 600)
    await shard.follow(10_000)
    assert shard.said() == [(CallbackStatus.DISCONNECTED, None)]
    assert shard.service._faults == []


async def test_a_client_that_is_closed_meanwhile_ends_it_with_one_error():
    shard = Shard(5)
    await shard.place(1, 2, 3, 4, 5)

    async def close():
        await anyio.sleep(5)
        await shard.client.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        with pytest.raises(WatchInterrupted) as caught:
            await shard.follow()
    assert isinstance(caught.value.__cause__, ClientMisuse)
    assert shard.states() == {"PLACED": 5}


async def test_an_error_that_is_nobodys_comes_out(monkeypatch):
    async def placed(shard):
        raise LookupError("not there")

    shard = Shard(1)
    monkeypatch.setattr(shard, "placed", placed)
    with pytest.raises(ExceptionGroup) as caught:
        await shard.follow()
    assert caught.group_contains(LookupError, match="not there")

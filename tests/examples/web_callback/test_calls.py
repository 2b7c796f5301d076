"""One poll loop for all pages of a call, in virtual time: who joins late, who leaves, who comes back, what a restart leaves."""

import asyncio

import pytest

from tenios_async import CallbackOutcomeUnknown, CallbackRequest, ConnectionFailed, Polling
from tenios_async.simulator import Fault, Script
from web_callback.calls import Calls, TooManyTabs, new_handle
from web_callback.limits import Limit, Limits, TooMany

from ...batch.memory import MemoryLedger
from .world import NUMBER, unlimited

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]
REQUEST = CallbackRequest("config", NUMBER)
TALK = ["REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "DISCONNECTED"]


@pytest.fixture
def ledger():
    return MemoryLedger()


@pytest.fixture
def start(tenios_simulator, ledger):
    """An application; started again on the same ledger it is what a restart leaves."""

    def make(limits=None, **options):
        client = tenios_simulator.client(polling=Polling(jitter=0), **options)
        return Calls(client, ledger, limits or unlimited())

    return make


async def place(calls):
    handle = new_handle()
    await calls.place(handle, REQUEST, "203.0.113.7")
    return handle


async def until_the_end(calls, handle, last_seen=None):
    states = []
    async with calls.follow(handle, last_seen) as tab:
        while not states or states[-1] not in ("DISCONNECTED", "CALL_A_FAILED", "CALL_B_FAILED"):
            states.append(await tab.get())
    return states


async def test_ten_pages_cost_no_more_polls_than_one(start, tenios_simulator):
    async with start() as calls:
        one, ten = await place(calls), await place(calls)
        first = asyncio.create_task(until_the_end(calls, one))
        others = [asyncio.create_task(until_the_end(calls, ten)) for _ in range(10)]
        assert {tuple(states) for states in await asyncio.gather(first, *others)} == {tuple(TALK)}
    assert tenios_simulator.service.polls[10] == tenios_simulator.service.polls[11] > 10


@pytest.mark.parametrize(
    ("script", "end"),
    [
        (Script.talk(), "DISCONNECTED"),
        (Script.agent_silent(), "CALL_A_FAILED"),
        (Script.customer_silent(), "CALL_B_FAILED"),
    ],
)
async def test_every_ending_is_told_once_and_kept(start, tenios_simulator, ledger, script, end):
    tenios_simulator.script(NUMBER, script)
    async with start() as calls:
        handle = await place(calls)
        states = await until_the_end(calls, handle)
        assert (states[-1], len(states)) == (end, len(set(states)))
        polls = tenios_simulator.service.polls.total()
        assert await calls.state(handle) == end
        assert await until_the_end(calls, handle) == [end]
    assert tenios_simulator.service.polls.total() == polls
    assert (await ledger.by_key(handle)).callback.status == end


async def test_who_joins_late_gets_the_state_so_far_and_then_the_rest(start):
    async with start() as calls:
        handle = await place(calls)
        async with calls.follow(handle) as tab:
            while await tab.get() != "CALLING_B":
                pass
            assert (await until_the_end(calls, handle)) == ["CALLING_B", "CONNECTED", "DISCONNECTED"]


@pytest.mark.parametrize(("last_seen", "told"), [("CALLING_A", 3), ("CALLING_B", 2), ("nothing we said", 3), (None, 3)])
async def test_who_comes_back_gets_what_was_missed(start, last_seen, told):
    async with start() as calls:
        handle = await place(calls)
        async with calls.follow(handle) as tab:
            while await tab.get() != "CALLING_B":
                pass
            assert await until_the_end(calls, handle, last_seen) == TALK[-told:]


async def test_the_last_to_leave_stops_the_polling_and_who_comes_back_goes_on(start, tenios_simulator):
    polls = tenios_simulator.service.polls
    tenios_simulator.script(NUMBER, Script.talk(seconds=3600))
    async with start() as calls:
        handle = await place(calls)
        async with calls.follow(handle) as first:
            async with calls.follow(handle):
                while await first.get() != "CALLING_A":
                    pass
            before = polls[10]
            while await first.get() != "CONNECTED":
                pass
            assert polls[10] > before, "one page is still open"
        asked = polls[10]
        await asyncio.sleep(1800)
        assert polls[10] == asked
        assert await until_the_end(calls, handle) == ["CONNECTED", "DISCONNECTED"]
    tenios_simulator.assert_nobody_called_twice()


async def test_a_restart_in_the_middle_goes_on_where_it_was(start, tenios_simulator):
    async with start() as calls:
        handle = await place(calls)
        async with calls.follow(handle) as tab:
            while await tab.get() != "CALLING_A":
                pass
    async with start() as calls:
        await calls.place(handle, REQUEST, "203.0.113.7")
        assert await until_the_end(calls, handle, "CALLING_A") == ["CALLING_B", "CONNECTED", "DISCONNECTED"]
    async with start() as calls:
        assert await until_the_end(calls, handle) == ["DISCONNECTED"]
    tenios_simulator.assert_nobody_called_twice()


async def test_a_form_that_is_sent_ten_times_at_once_rings_once_and_counts_once(start, tenios_simulator):
    tenios_simulator.service.latency = 1.0
    async with start(Limits(*(Limit((1, 60)) for _ in range(3)))) as calls:
        handle = new_handle()
        await asyncio.gather(*(calls.place(handle, REQUEST, "203.0.113.7") for _ in range(10)))
        await calls.place(handle, REQUEST, "203.0.113.7")
        with pytest.raises(TooMany):
            await place(calls)
    assert tenios_simulator.times_called(NUMBER) == 1


async def test_who_leaves_while_it_is_placed_does_not_stop_it(start, tenios_simulator):
    tenios_simulator.service.latency = 5.0  # longer than the library stays for who is cancelled
    async with start() as calls:
        handle = new_handle()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await calls.place(handle, REQUEST, "203.0.113.7")
        async with calls.follow(handle) as tab:  # opened meanwhile, it waits for it
            assert await tab.get() == "REQUESTED"
    assert tenios_simulator.times_called(NUMBER) == 1


async def test_leaving_the_application_waits_for_what_is_being_placed(start, tenios_simulator, ledger):
    tenios_simulator.service.latency = 5.0  # longer than the library stays for who is cancelled
    async with start() as calls:
        handle = new_handle()
        waiting = asyncio.create_task(calls.place(handle, REQUEST, "203.0.113.7"))
        await asyncio.sleep(0.5)
    assert (await ledger.by_key(handle)).callback.id == 10
    await waiting


async def test_a_doubt_is_a_state_and_stays_one(start, tenios_simulator):
    tenios_simulator.fail_init(Fault.lost())
    async with start() as calls:
        handle = await place(calls)
        for _ in range(3):
            await calls.place(handle, REQUEST, "203.0.113.7")
            assert await calls.state(handle) == "UNKNOWN"
            async with calls.follow(handle) as tab:
                assert tab.get_nowait() == "UNKNOWN"
                await asyncio.sleep(60)
                assert tab.empty()
    assert (tenios_simulator.times_called(NUMBER), tenios_simulator.service.polls.total()) == (1, 0)


async def test_what_was_not_sent_may_be_asked_for_again_at_once(start, tenios_simulator, ledger):
    ledger.full = True
    async with start(Limits(number=Limit((1, 60)))) as calls:
        handle = new_handle()
        with pytest.raises(CallbackOutcomeUnknown):  # a ledger that fails while it is placed: nobody can tell
            await calls.place(handle, REQUEST, "203.0.113.7")
        with pytest.raises(TooMany):
            await calls.place(handle, REQUEST, "203.0.113.7")
    ledger.full = False

    async def no_connection(*_, **__):
        raise ConnectionFailed("no connection")

    async with start(Limits(number=Limit((1, 60)))) as calls:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tenios_async.TeniosClient.init_callback", no_connection)
            with pytest.raises(ConnectionFailed):
                await calls.place(handle, REQUEST, "203.0.113.7")
        assert await calls.state(handle) == "NOT_SENT"
        await calls.place(handle, REQUEST, "203.0.113.7")
        assert await calls.state(handle) == "REQUESTED"
    assert tenios_simulator.times_called(NUMBER) == 1


async def test_a_call_that_cannot_be_asked_for_is_lost_until_somebody_looks_again(start, tenios_simulator):
    tenios_simulator.fail_status(Fault(400))
    async with start() as calls:
        handle = await place(calls)
        async with calls.follow(handle) as tab:
            assert [await tab.get(), await tab.get()] == ["REQUESTED", "LOST"]
        assert await until_the_end(calls, handle) == TALK


async def test_pages_are_told_also_when_it_cannot_be_written_down(start, ledger, caplog):
    async with start() as calls:
        handle = await place(calls)
        ledger.full = True
        assert await until_the_end(calls, handle) == TALK
    said = {record.message for record in caplog.records if record.name == "web_callback"}
    assert said == {"what was seen of a call could not be written down"}


async def test_a_page_that_nobody_follows_asks_once(start, tenios_simulator):
    polls = tenios_simulator.service.polls
    async with start() as calls:
        handle = await place(calls)
        await asyncio.sleep(3)
        assert await calls.state(handle) == "CALLING_A"
        assert polls[10] == 1
        async with calls.follow(handle) as tab:
            assert tab.get_nowait() == "CALLING_A"
            await asyncio.sleep(0.1)
            asked = polls[10]
            assert await calls.state(handle) == "CALLING_A"
            assert polls[10] == asked, "the page's own loop knows"
        tenios_simulator.fail_status(Fault.error(500))
        assert await calls.state(handle) == "CALLING_A", "the last that is known"


async def test_a_handle_that_was_never_given(start, tenios_simulator, ledger):
    """Also where the ledger has other keys, which are easy to guess."""
    async with start() as calls:
        await ledger.place_once(tenios_simulator.client(), REQUEST, key="order 4711")
        assert await calls.state("order 4711") is None
        async with calls.follow("order 4711") as tab:
            assert tab is None
        assert await calls.state(new_handle()) is None
        async with calls.follow(new_handle()) as tab:
            assert tab is None


async def test_one_call_has_room_for_so_many_pages(start):
    async with start() as calls:
        handle = await place(calls)
        gone, full = asyncio.Event(), asyncio.Barrier(21)

        async def look():
            async with calls.follow(handle):
                await full.wait()
                await gone.wait()

        pages = [asyncio.create_task(look()) for _ in range(20)]
        await full.wait()
        with pytest.raises(TooManyTabs):
            await calls.follow(handle).__aenter__()
        gone.set()
        await asyncio.gather(*pages)
        async with calls.follow(handle) as tab:
            assert tab is not None

"""A campaign at work, in virtual time: who is rung, when, how many at once, and what stops it."""

import asyncio
import math
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from tenios_async import CallbackAttempt, CallbackRequest, CallbackStatus, ClientMisuse, WatchInterrupted
from tenios_async.batch import LedgerFailed, RowState
from tenios_async.batch.runner import Runner
from tenios_async.batch.standing import called, crash, intend, not_called, place
from tenios_async.simulator import Fault, Manner, Script
from tenios_async.simulator.fixture import Simulator

from ..virtual_time import virtual_loop
from .memory import MemoryLedger

pytestmark = pytest.mark.anyio
SHORT = Script((("DISCONNECTED", 0.0),))


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": virtual_loop}


class Town:
    """A simulator, contacts, and the instants at which each was dialled."""

    def __init__(self, contacts, *, script=SHORT, delay=0, latency=0.1, **options):
        self.numbers = [f"+49123{index:06d}" for index in range(contacts)]
        self.ledger = MemoryLedger([CallbackRequest("config", number, delay) for number in self.numbers])
        self.simulator = Simulator()
        self.service = self.simulator.service
        self.service._script = script
        self.service.latency = latency
        self.dialled = []
        self.live = self.most_live = 0
        handle = self.service.handle

        def handle_and_note(method, path, body):
            before = len(self.service.callbacks)
            answer = handle(method, path, body)
            if len(self.service.callbacks) > before:
                self.dialled.append(anyio.current_time())
            return answer

        self.service.handle = handle_and_note
        self.options = options
        self.seen = []

    async def run(self, **options):
        async with self.simulator.client() as client:
            self.runner = Runner(self.ledger, client, **{"hook": self.tell, **self.options, **options})
            return await self.runner.run()

    def tell(self, row, transition):
        self.seen.append((row.key, str(transition.status)))

    def assert_nobody_twice(self):
        self.service.assert_nobody_called_twice()


async def test_everybody_is_called_once_and_followed_to_the_end():
    town = Town(30, script=Script.talk())
    progress = await town.run()
    assert town.ledger.states() == {"FINISHED": 30}
    assert sorted(town.service.inits) == town.numbers
    assert progress.finished == {CallbackStatus.DISCONNECTED: 30}
    assert (progress.queued, progress.placing, progress.following.total(), progress.total) == (0, 0, 0, 30)
    assert [status for key, status in town.seen if key == town.numbers[0]][-1] == "DISCONNECTED"
    town.assert_nobody_twice()


async def test_a_second_run_has_nothing_to_do():
    town = Town(3)
    await town.run()
    await town.run()
    assert town.service.inits.total() == 3


async def test_what_is_open_goes_on_and_counts_as_under_way():
    """An earlier run has left more calls than may be under way: no new one until enough of them have ended."""
    town = Town(5, script=Script.talk())
    with anyio.move_on_after(3):
        await town.run(concurrency=4)
    assert town.ledger.states() == {"PLACED": 4, "QUEUED": 1}
    progress = await town.run(concurrency=2)
    assert town.ledger.states() == {"FINISHED": 5}
    talk = town.service.callbacks[13].accepted_at + 43
    assert town.dialled[4] > talk
    assert progress.placed_now == 1
    town.assert_nobody_twice()


@pytest.mark.parametrize("concurrency", [1, 7])
async def test_no_more_calls_are_under_way_than_asked_for(concurrency):
    town = Town(20, script=Script.talk(ringing=1, seconds=5))
    most = 0

    def tell(*_):
        nonlocal most
        most = max(most, town.runner.progress.following.total() + town.runner.progress.placing)

    await town.run(concurrency=concurrency, hook=tell)
    assert most <= concurrency
    starts = town.dialled
    assert len(starts) == 20
    for later, earlier in zip(starts[concurrency:], starts, strict=False):
        assert later - earlier >= 8  # the life of one call


async def test_the_rate_is_even():
    town = Town(10)
    await town.run(rate=4)
    gaps = [later - earlier for earlier, later in zip(town.dialled, town.dialled[1:], strict=False)]
    assert gaps == pytest.approx([0.25] * 9)


async def test_a_limit():
    town = Town(10)
    progress = await town.run(limit=4)
    assert town.ledger.states() == {"FINISHED": 4, "QUEUED": 6}
    assert "as many" in progress.stopped
    assert progress.left == progress.seconds_left == 0
    assert (await town.run(limit=100)).stopped is None
    assert town.ledger.states() == {"FINISHED": 10}


async def test_the_stop_file_stops_before_the_next_byte(tmp_path):
    """Also those that were about to leave."""
    town = Town(50)

    def tell(*_):
        (tmp_path / "stop").touch()

    progress = await town.run(concurrency=5, stop_file=tmp_path / "stop", hook=tell, rate=20)
    assert "stop file" in progress.stopped
    placed = town.service.inits.total()
    assert 0 < placed < 20
    assert town.ledger.states() == {"FINISHED": placed, "QUEUED": 50 - placed}
    assert (await town.run(stop_file=tmp_path / "stop")).placed_now == 0


async def test_the_stop_file_ends_the_waiting_too(tmp_path):
    """For the hours, for the rate, and for calls to end."""
    stop_file = tmp_path / "stop"
    for options in ({"hours": Hours(5000, 6000)}, {"rate": 1 / 5000}, {"concurrency": 1}):
        town = Town(3, script=Script.talk() if "concurrency" in options else SHORT)
        async with anyio.create_task_group() as group:

            async def stop():
                await anyio.sleep(2.5)
                stop_file.touch()

            group.start_soon(stop)
            began = anyio.current_time()
            progress = await town.run(stop_file=stop_file, **options)
        assert "stop file" in progress.stopped
        assert progress.waiting_for is None
        assert town.service.inits.total() == (0 if "hours" in options else 1)
        if "concurrency" not in options:
            assert anyio.current_time() - began == 3.0
        stop_file.unlink()


class Hours:
    """Open from one instant of the virtual clock to another; the wall clock stands still here."""

    def __init__(self, opens, closes):
        self.opens, self.closes = opens, closes
        self.began = datetime.now(UTC)

    def is_open(self, at):
        return self.opens <= anyio.current_time() + (at - datetime.now(UTC)).total_seconds() < self.closes

    def opens_at(self, at):
        return datetime.now(UTC) + timedelta(seconds=self.opens - anyio.current_time())


async def test_nobody_is_called_outside_the_hours():
    town = Town(50)
    with anyio.move_on_after(200):
        await town.run(hours=Hours(100, 110), rate=2)
    assert 100 <= town.dialled[0] <= 131
    assert town.dialled[-1] < 110
    assert "hours" in town.runner.progress.waiting_for


async def test_the_hours_are_about_when_the_phone_rings():
    town = Town(3, delay=60)
    await town.run(hours=Hours(100, 110))
    assert 40 <= town.dialled[0] <= town.dialled[-1] < 50


async def test_wrong_credentials_stop_placing_and_give_the_row_back():
    town = Town(200)
    town.service._access_key = "another"
    progress = await town.run(concurrency=10)
    assert "configuration id" in progress.stopped
    assert town.ledger.states() == {"QUEUED": 200}
    assert town.service.inits.total() <= 10


async def test_403_stops_placing_and_gives_the_row_back():
    town = Town(20)
    town.simulator.fail_init(Fault(403), number=town.numbers[3])
    progress = await town.run(concurrency=1)
    assert "403" in progress.stopped or "access key" in progress.stopped
    assert town.ledger.states() == {"FINISHED": 3, "QUEUED": 17}
    await town.run()
    assert town.ledger.states() == {"FINISHED": 20}
    assert town.service.inits[town.numbers[3]] == 2  # the first was refused


async def test_a_refusal_of_one_call_is_kept():
    town = Town(5)
    town.simulator.fail_init(Fault(400), number=town.numbers[2])
    await town.run()
    assert town.ledger.states() == {"FINISHED": 4, "REFUSED": 1}
    assert town.ledger.all[2].standing.reason == "SIMULATED"
    assert town.service.inits[town.numbers[2]] == 1


async def test_too_many_requests_give_the_row_back_and_wait():
    town = Town(5)
    town.simulator.fail_init(Fault.busy("40"))
    await town.run(concurrency=1)
    assert town.ledger.states() == {"FINISHED": 5}
    assert town.dialled[0] >= 40


async def test_ten_in_doubt_in_a_row_stop_it():
    town = Town(100)
    town.simulator.fail_init(*[Fault.lost(Manner.DROP)] * 100)
    progress = await town.run(concurrency=1)
    assert town.ledger.states() == {"UNKNOWN": 10, "QUEUED": 90}
    assert "resolve" in progress.stopped
    town.assert_nobody_twice()


async def test_too_large_a_share_in_doubt_stops_it():
    town = Town(1000)
    for number in town.numbers[::5]:
        town.simulator.fail_init(Fault.lost(Manner.RESET), number=number)
    progress = await town.run(concurrency=1, max_unknown=0.01)
    assert town.ledger.states()["UNKNOWN"] == 6
    assert "6 of the last 26" in progress.stopped
    town.assert_nobody_twice()


async def test_a_doubt_is_never_dialled_again():
    town = Town(4)
    town.simulator.fail_init(Fault.lost(Manner.DROP), number=town.numbers[1])
    for _ in range(3):
        await town.run()
    assert town.ledger.states() == {"FINISHED": 3, "UNKNOWN": 1}
    assert town.service.inits.total() == 4


async def test_what_a_person_gives_back_while_it_runs_is_called_in_the_same_run():
    town = Town(3, script=Script.talk())
    lost = town.ledger.all[0]
    ago = datetime.now(UTC) - timedelta(hours=1)
    await town.ledger.change(1, intend("old", ago))
    await town.ledger.change(1, crash())
    given_back = False

    async def give_back(*_):
        nonlocal given_back
        if not given_back:
            given_back = True
            await town.ledger.change(1, not_called("somebody", datetime.now(UTC)))

    await town.run(hook=give_back, concurrency=1)
    assert town.service.inits[lost.key] == 1
    assert town.ledger.states() == {"FINISHED": 3}


async def test_the_network_goes_away_and_comes_back():
    """No call is lost or placed twice, and the calls that are open are followed again."""
    import httpx

    town = Town(20, script=Script.talk())
    transport = town.simulator.http_client()._transport
    real = transport.handle_async_request

    async def handle_async_request(request):
        if 5 <= anyio.current_time() <= 400:
            await request.extensions["trace"]("connection.connect_tcp.started", {})
            raise httpx.ConnectError("no network", request=request)
        return await real(request)

    transport.handle_async_request = handle_async_request
    town.simulator.http_client = lambda: httpx.AsyncClient(transport=transport)
    waited_for = set()

    async def look():
        while True:
            await anyio.sleep(10)
            waited_for.add(
                (anyio.current_time() < 450, town.runner.progress.waiting_for)
            )  # the last pause is over then

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await town.run(rate=2, concurrency=20)
        group.cancel_scope.cancel()
    assert any("TENIOS: " in (why or "") for is_away, why in waited_for if is_away)
    assert {why for is_away, why in waited_for if not is_away} <= {None}
    assert town.ledger.states() == {"FINISHED": 20}
    assert not [instant for instant in town.dialled if 5 <= instant <= 400]
    town.assert_nobody_twice()


async def test_a_disk_that_fills_stops_it_at_once():
    town = Town(100)

    def tell(*_):
        town.ledger.full = True

    with pytest.raises(LedgerFailed, match="full"):
        await town.run(concurrency=2, hook=tell)
    assert town.service.inits.total() < 10
    town.assert_nobody_twice()


async def test_cancelled_keeps_what_is_open_and_goes_on_later():
    for instant in range(0, 60, 7):
        town = Town(12, script=Script.talk(ringing=1, seconds=2), latency=0.3)
        with anyio.move_on_after(instant / 20):
            await town.run(concurrency=4)
        assert set(town.ledger.states()) <= {"QUEUED", "PLACED", "FINISHED"}
        await town.run(concurrency=4)
        assert town.ledger.states() == {"FINISHED": 12}
        town.assert_nobody_twice()


async def test_a_call_that_tenios_does_not_know_ends_unobserved():
    town = Town(2)
    town.simulator.fail_status(*[Fault(404)] * 200)
    with anyio.move_on_after(5):
        await town.run()
    town.service._faults.clear()
    gone = town.service.callbacks.pop(10)
    assert gone is not None
    await town.run()
    assert town.ledger.states() == {"FINISHED": 2}
    standing = town.ledger.all[0].standing
    assert (standing.status, "does not know" in standing.reason) == (None, True)


async def test_credentials_that_are_refused_to_a_poll_stop_placing_and_keep_what_is_open():
    """They were right when it began: a key is changed in the middle of a campaign."""
    town = Town(20, script=Script.talk())

    async def change_the_key():
        await anyio.sleep(5)
        town.simulator.fail_status(*[Fault(403)] * 20)

    async with anyio.create_task_group() as group:
        group.start_soon(change_the_key)
        progress = await town.run(concurrency=3)
    assert "What is open is kept" in progress.stopped
    assert town.ledger.states() == {"PLACED": 3, "QUEUED": 17}
    town.service._faults.clear()
    await town.run()
    assert town.ledger.states() == {"FINISHED": 20}
    town.assert_nobody_twice()


async def test_a_client_that_is_closed_meanwhile_ends_it_with_one_error_and_keeps_what_is_open():
    town = Town(5, script=Script.talk())
    client = town.simulator.client()

    async def close():
        await anyio.sleep(5)
        await client.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        with pytest.raises(WatchInterrupted) as caught:
            await Runner(town.ledger, client, concurrency=3).run()
    assert isinstance(caught.value.__cause__, ClientMisuse)
    assert town.ledger.states() == {"PLACED": 3, "QUEUED": 2}
    await town.run()
    assert town.ledger.states() == {"FINISHED": 5}
    town.assert_nobody_twice()


async def test_an_error_of_a_ledger_of_ones_own_comes_out():
    town = Town(5)

    async def queued(limit, after=0):
        raise LookupError("not there")

    town.ledger.queued = queued
    with pytest.raises(ExceptionGroup) as caught:
        await town.run()
    assert caught.group_contains(LookupError, match="not there")
    assert not town.service.inits


async def test_what_is_seen_does_not_pile_up_before_a_slow_disk(monkeypatch):
    """The polls wait for it, and nothing is lost."""
    monkeypatch.setattr("tenios_async.batch.recording.UNWRITTEN", 5)
    town = Town(60, script=Script.talk(ringing=1, seconds=1))
    written = []
    change_all = town.ledger.change_all

    async def slowly(changes):
        if all(row.standing.state is not RowState.QUEUED for row in town.ledger.all):
            written.append(len(changes))
            await anyio.sleep(20)
        return await change_all(changes)

    town.ledger.change_all = slowly
    await town.run()
    assert max(written) == 5
    assert town.ledger.states() == {"FINISHED": 60}


async def test_a_hook_that_waits_for_a_task_which_was_cancelled_ends_nothing(caplog):
    town = Town(3)

    async def waiting(*_):
        task = asyncio.ensure_future(anyio.sleep(1))
        task.cancel()
        await task

    await town.run(hook=waiting)
    assert town.ledger.states() == {"FINISHED": 3}
    assert len([record for record in caplog.records if vars(record).get("tenios_event") == "hook_failed"]) == 3


async def test_a_slow_hook_is_told_of_every_end_before_the_run_is_over():
    town = Town(10)
    told = []

    async def slowly(row, transition):
        await anyio.sleep(3)
        told.append(row.key)

    await town.run(hook=slowly, rate=2)
    assert sorted(told) == town.numbers


async def test_who_cancels_a_campaign_while_its_hook_waits_ends_it(caplog):
    town = Town(3)
    is_waiting = asyncio.Event()

    async def waiting(*_):
        is_waiting.set()
        await anyio.sleep(60)

    running = asyncio.ensure_future(town.run(hook=waiting))
    await is_waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not [record for record in caplog.records if vars(record).get("tenios_event") == "hook_failed"]


async def test_a_hook_that_raises_ends_nothing(caplog):
    town = Town(3)

    async def raising(*_):
        raise RuntimeError("in a hook")

    await town.run(hook=raising)
    assert town.ledger.states() == {"FINISHED": 3}
    assert len([record for record in caplog.records if vars(record).get("tenios_event") == "hook_failed"]) == 3


async def test_a_call_that_was_given_back_before_its_id_came_is_followed_to_its_end():
    """A person said that it was not called, and looked again."""
    town = Town(1)
    now = datetime.now(UTC)
    async with town.simulator.client() as client:
        callback = await client.init_callback(town.ledger.all[0].request)
    late = [place("a", callback), called("somebody", now, callback)]
    for move in (intend("a", now - timedelta(hours=1)), crash(), not_called("somebody", now), *late):
        await town.ledger.change(1, move)
    progress = await town.run()
    assert progress.finished == {CallbackStatus.DISCONNECTED: 1}
    assert town.ledger.all[0].standing.status is CallbackStatus.DISCONNECTED
    assert town.service.inits.total() == 1


async def test_the_polls_of_earlier_runs_are_counted_too():
    town = Town(1, script=Script.talk())
    with anyio.move_on_after(10):
        await town.run()
    before, asked = town.ledger.all[0].standing.polls, town.service.polls.total()
    assert before > 0
    await town.run()
    assert town.ledger.all[0].standing.polls == before + town.service.polls.total() - asked


async def test_one_id_for_two_calls():
    """Whatever TENIOS does, nobody waits for ever."""
    town = Town(1)
    row = town.ledger.all[0]
    attempt = CallbackAttempt()
    async with town.simulator.client() as client:
        callback = await client.init_callback(row.request, attempt=attempt)
    town.ledger.all.append(type(row)(2, "+49999", row.request, row.standing))
    for number in (1, 2):
        await town.ledger.change(number, intend("a", datetime.now(UTC)))
        await town.ledger.change(number, place("a", callback))
    await town.run()
    assert town.ledger.states() == {"FINISHED": 2}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        *(({"concurrency": value}, "concurrency must be a whole number") for value in (0, 1.0, True, "5", None)),
        *(({"rate": value}, "rate must be a number") for value in (0, -1, math.nan, True, "5/s", None)),
        *(({"limit": value}, "limit must be a whole number") for value in (-1, 0.5, math.nan, True, "5", None)),
        *(({"max_unknown": value}, "a share from 0 to 1") for value in (2, -0.1, math.nan, True, "5%", None)),
        ({"hours": "9-18"}, "hours must be Hours, for instance"),
    ],
)
async def test_bad_arguments(options, match):
    town = Town(1)
    with pytest.raises(ValueError, match=match):
        await town.run(**options)
    assert (town.ledger.states(), town.dialled) == ({"QUEUED": 1}, [])


async def test_a_limit_may_be_any_whole_number():
    for limit, placed in ((0, 0), (1, 1), (1.0, 1), (math.inf, 3)):
        town = Town(3)
        await town.run(limit=limit)
        assert len(town.dialled) == placed

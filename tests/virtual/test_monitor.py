"""Many callbacks in one monitor, in virtual time: what is told, in which order, how many polls at once, what remains."""

import asyncio
import gc
import json
import math
import os
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenios_async import (
    Callback,
    CallbackMonitor,
    CallbackOutcomeUnknown,
    ClientMisuse,
    Ended,
    Polled,
    Polling,
    Rate,
    TeniosClient,
    Transition,
    Transitioned,
    WatchInterrupted,
    WatchTimeout,
)
from tenios_async._monitor import AT_ONCE

from ..virtual_time import virtual_loop

pytestmark = pytest.mark.anyio
TALK = [
    (0, "REQUESTED"),
    (0.6, "ACCEPTED"),
    (1.2, "CALLING_A"),
    (7, "CALLING_B"),
    (15, "CONNECTED"),
    (60, "DISCONNECTED"),
]
CHAIN = [state for _, state in TALK]


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": virtual_loop}


class Fleet(httpx.AsyncBaseTransport):
    """A service with many callbacks: each lives by its own timeline, or the common one; every poll is written down."""

    def __init__(self, timelines=None, *, common=TALK, latency=0.05):
        self.timelines = timelines or {}
        self.common = common
        self.latency = latency
        self.polls = defaultdict(list)
        self.answered = defaultdict(list)
        self.in_flight = self.most_in_flight = 0

    async def handle_async_request(self, request):
        number = json.loads(await request.aread())["id"]
        self.polls[number].append(anyio.current_time())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await anyio.sleep(self.latency)
        finally:
            self.in_flight -= 1
        now = anyio.current_time()
        found = [what for begins, what in self.timelines.get(number, self.common) if begins <= now][-1]
        self.answered[number].append(found)
        return found() if callable(found) else httpx.Response(200, json={"status": found})

    def client(self, **options):
        options.setdefault("polling", Polling(jitter=0))
        http_client = httpx.AsyncClient(transport=self)
        return TeniosClient("CANARY-KEY", base_url="https://vendor.test", http_client=http_client, **options)


async def collect(monitor):
    told = defaultdict(list)
    async for result in monitor:
        told[result.callback.id].append(result)
    return told


def states(results):
    return [str(result.status) for result in results]


async def test_each_is_followed_to_its_end():
    fleet = Fleet({3: [(0, "CALLING_A"), (30, "CALL_A_FAILED")], 4: [(0, "CONNECTED"), (600, "DISCONNECTED")]})
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        assert isinstance(monitor, CallbackMonitor)
        for number in range(5):
            monitor.add(number)
        assert len(monitor) == 5
        monitor.seal()
        told = await collect(monitor)
        assert len(monitor) == 0
        assert monitor.callbacks == ()
    assert states(told[0]) == states(told[1]) == states(told[2]) == CHAIN
    assert states(told[3]) == ["CALLING_A", "CALL_A_FAILED"]
    assert states(told[4]) == ["CONNECTED", "DISCONNECTED"]


async def test_the_looks_are_those_of_a_watch():
    watched, monitored = Fleet(), Fleet()
    async with watched.client() as tenios:
        async for _ in tenios.watch_callback(1):
            pass
        shift = anyio.current_time()
    monitored.common = [(begins + shift, state) for begins, state in TALK]
    async with monitored.client() as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        monitor.seal()
        await collect(monitor)
    assert [at - shift for at in monitored.polls[1]] == pytest.approx(watched.polls[1], abs=0.002)


async def test_only_so_many_polls_at_once_the_one_due_first_first():
    fleet = Fleet(common=[(0, "CONNECTED"), (100, "DISCONNECTED")], latency=1)
    async with fleet.client() as tenios, tenios.monitor(max_in_flight=3) as monitor:
        for number in range(10):
            monitor.add(number)
        monitor.seal()
        await collect(monitor)
    assert fleet.most_in_flight == 3
    first = [fleet.polls[number][0] for number in range(10)]
    assert first == pytest.approx([0, 0, 0, 1, 1, 1, 2, 2, 2, 3])


async def test_a_slow_reader_slows_the_polls_and_loses_nothing():
    fleet, told = Fleet(common=[(0, "CONNECTED"), (100, "DISCONNECTED")], latency=0), defaultdict(list)
    async with fleet.client() as tenios, tenios.monitor(max_in_flight=2) as monitor:
        for number in range(8):
            monitor.add(number)
        monitor.seal()
        await anyio.sleep(50)
        assert len(fleet.polls) <= 4
        async for result in monitor:
            told[result.callback.id].append(result)
            await anyio.sleep(10)
    assert set(told) == set(range(8))
    assert all(states(results) in (["CONNECTED", "DISCONNECTED"], ["DISCONNECTED"]) for results in told.values())


async def test_added_and_discarded_at_any_time():
    fleet = Fleet()
    async with fleet.client() as tenios, tenios.monitor() as monitor, anyio.create_task_group() as group:
        monitor.add(1)

        async def later():
            await anyio.sleep(10)
            monitor.add("2")
            with pytest.raises(ValueError, match="already"):
                monitor.add(2)
            await anyio.sleep(0.02)  # its first poll is under way
            assert monitor.discard(2) == Callback("2")
            assert monitor.discard(2) is None
            monitor.add(3)
            await anyio.sleep(10)
            assert monitor.discard(1).status == "CONNECTED"
            monitor.seal()
            with pytest.raises(ClientMisuse, match="sealed"):
                monitor.add(4)

        group.start_soon(later)
        told = await collect(monitor)
    assert set(told) == {1, 3}
    assert states(told[1]) == CHAIN[:-1]
    assert states(told[3]) == CHAIN[3:]
    assert len(fleet.polls["2"]) == 1


async def test_what_was_not_read_yet_is_not_told_once_discarded():
    fleet = Fleet(common=[(0, "CONNECTED"), (100, "DISCONNECTED")])
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        monitor.add(2)
        await anyio.sleep(1)
        token = monitor.discard(1)
        assert token.status is None
        assert (await anext(monitor)).callback.id == 2


async def test_the_reader_learns_at_once_that_nothing_is_left():
    async with Fleet().client() as tenios, tenios.monitor() as monitor, anyio.create_task_group() as group:
        monitor.add(1)
        ended = []

        async def read():
            await collect(monitor)
            ended.append(anyio.current_time())

        group.start_soon(read)
        await anyio.sleep(20)
        monitor.seal()
        await anyio.sleep(1)
        monitor.discard(1)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        assert ended == [21]


async def test_tokens_on_exit_go_on_without_repeating_or_losing_anything():
    fleet, told = Fleet(), defaultdict(list)
    async with fleet.client() as tenios:
        monitor = tenios.monitor()
        async with monitor:
            for number in range(4):
                monitor.add(number)
            while not any("CALLING_B" in states(results) for results in told.values()):
                result = await anext(monitor)
                told[result.callback.id].append(result)
        with pytest.raises(StopAsyncIteration):
            await anext(monitor)
        tokens = [token.to_json() for token in monitor.callbacks]
        assert len(tokens) == 4
        async with tenios.monitor() as another:
            for token in tokens:
                another.add(Callback.from_json(token))
            another.seal()
            for number, results in (await collect(another)).items():
                told[number] += results
    for number in range(4):
        assert states(told[number]) == CHAIN


async def test_tokens_of_an_end_that_nobody_read():
    fleet = Fleet(common=[(0, "CALLING_A"), (5, "CALL_A_FAILED")])
    async with fleet.client() as tenios:
        async with tenios.monitor() as monitor:
            monitor.add(1)
            await anext(monitor)
            await anyio.sleep(60)
            assert len(monitor) == 0
        assert [token.status for token in monitor.callbacks] == ["CALLING_A"]


async def test_tokens_of_an_interruption_that_nobody_read():
    """The call may be going on: another monitor looks again."""
    fleet = Fleet(common=[(0, "CALLING_A")])
    async with fleet.client() as tenios:
        async with tenios.monitor() as monitor:
            monitor.add(1, timeout=10)
            await anext(monitor)
            await anyio.sleep(60)
            assert len(monitor) == 0
        assert [(token.id, token.status) for token in monitor.callbacks] == [(1, "CALLING_A")]


async def test_a_cancelled_anext_loses_nothing():
    fleet, told = Fleet(), []
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        monitor.seal()
        while True:
            with anyio.move_on_after(0.7):
                try:
                    told.append(await anext(monitor))
                except StopAsyncIteration:
                    break
    assert states(told) == CHAIN


async def test_failures_are_those_of_a_watch():
    outage = [(0, "CALLING_A"), (3, lambda: httpx.Response(502, text="<html>"))]
    refused = [(0, lambda: httpx.Response(403, json={"error_code": "X", "error_message": "no", "fields": []}))]
    fleet = Fleet({1: outage, 2: refused, 3: [(0, "CONNECTED")]})
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        monitor.add(2)
        monitor.add(3, timeout=1000)
        monitor.seal()
        told = await collect(monitor)
    assert [type(result) for result in told[1]] == [Transition, WatchInterrupted]
    assert told[1][-1].callback.status == "CALLING_A"
    assert told[1][-1].__cause__ is told[1][-1].cause
    assert [type(result) for result in told[2]] == [WatchInterrupted]
    assert [type(result) for result in told[3]] == [Transition, WatchTimeout]
    assert anyio.current_time() == pytest.approx(1000, abs=0.1)


async def test_a_client_closed_underneath():
    fleet = Fleet(common=[(0, "CALLING_A")])
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        monitor.seal()
        assert (await anext(monitor)).status == "CALLING_A"
        await tenios.aclose()
        (interrupted,) = (await collect(monitor))[1]
    assert isinstance(interrupted.cause, ClientMisuse)
    assert interrupted.callback.status == "CALLING_A"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no tasks that begin at once")
async def test_looks_that_end_as_they_begin_keep_no_place():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with Fleet().client() as tenios, tenios.monitor(max_in_flight=1) as monitor:
        await tenios.aclose()
        for key in (1, 2):
            monitor.add(key)
            assert type(await anext(monitor)) is WatchInterrupted


async def test_observers_are_told_as_by_a_watch():
    events = []
    fleet = Fleet(common=[(0, "CALLING_A"), (5, "CALL_A_FAILED")])
    async with fleet.client(observers=[events.append]) as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        monitor.seal()
        await collect(monitor)
    told = Counter(type(event) for event in events)
    assert told[Polled] == len(fleet.polls[1])
    assert (told[Transitioned], told[Ended]) == (2, 1)


async def test_misuse():
    async with Fleet().client() as tenios:
        monitor = tenios.monitor()
        with pytest.raises(ClientMisuse, match="async with"):
            monitor.add(1)
        with pytest.raises(ClientMisuse, match="async with"):
            monitor.discard(1)
        with pytest.raises(ClientMisuse, match="async with"):
            await anext(monitor)
        for options in ({"max_in_flight": 0}, {"max_in_flight": True}, {"max_in_flight": 1.5}, {"polling": 2}):
            with pytest.raises(ValueError, match="must be"):
                tenios.monitor(**options)
        async with monitor, anyio.create_task_group() as group:
            for bad in (None, True, "", 1.5):
                with pytest.raises(ValueError, match="id"):
                    monitor.add(bad)
            with pytest.raises(ValueError, match="timeout"):
                monitor.add(1, timeout=0)
            monitor.add(1)
            await anext(monitor)
            group.start_soon(collect, monitor)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(ClientMisuse, match="one anext"):
                await anext(monitor)
            group.cancel_scope.cancel()
        with pytest.raises(ClientMisuse, match="one use"):
            await monitor.__aenter__()
    with pytest.raises(ClientMisuse, match="closed"):
        tenios.monitor()


@pytest.mark.parametrize("native", [True, False])
async def test_abandoned_at_any_moment_leaves_nothing(native):
    """Cancelled at many moments; warnings are errors, no task remains and no request stays open."""
    for tenth in range(0, 80, 3):
        fleet = Fleet(latency=0.13)
        async with fleet.client() as tenios:
            before = asyncio.all_tasks()

            async def follow(tenios=tenios):
                async with tenios.monitor(max_in_flight=2) as monitor:
                    for number in range(5):
                        monitor.add(number)
                    await collect(monitor)

            if native:
                task = asyncio.ensure_future(follow())
                await asyncio.wait([task], timeout=tenth / 10)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            else:
                with anyio.move_on_after(tenth / 10):
                    await follow()
            assert fleet.in_flight == 0
            assert asyncio.all_tasks() == before
        gc.collect()


def test_a_loop_that_ends_underneath_leaves_nothing():
    fleet = Fleet()

    async def main():
        tenios = fleet.client()
        monitor = await tenios.monitor().__aenter__()
        monitor.add(1)
        asyncio.get_running_loop().call_later(3.02, asyncio.current_task().cancel)
        await collect(monitor)

    with asyncio.Runner(loop_factory=virtual_loop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(main())
    gc.collect()
    assert fleet.in_flight == 0


async def test_a_look_that_somebody_cancels_is_made_again():
    """By somebody who cancels all that is there, and goes on himself."""
    before, fleet = asyncio.all_tasks(), Fleet({1: [(0, "CONNECTED"), (40, "DISCONNECTED")]}, latency=2.0)
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        await anyio.sleep(1)
        at_work = asyncio.all_tasks() - before
        for task in at_work:
            task.cancel()
        monitor.add(2)
        monitor.seal()
        told = await collect(monitor)
    assert at_work
    assert states(told[1]) == ["CONNECTED", "DISCONNECTED"]
    assert states(told[2])[-1] == "DISCONNECTED"


async def test_many_come_and_go_before_their_time():
    """What was discarded does not pile up until its next look, a day off."""
    fleet = Fleet(common=[(0, "REQUESTED")], latency=0)
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        gc.collect()
        before = len(gc.get_objects())
        for number in range(2000):
            callback = Callback(number, delay=86_400, placed_at=datetime.now(UTC))
            monitor.add(callback)
            await anext(monitor)
            monitor.discard(callback)
        gc.collect()
        assert len(gc.get_objects()) - before < 10_000
        assert monitor.callbacks == ()


async def test_under_a_rate_limit_all_wait_longer_by_one_factor():
    """200 talks on 4 polls a second, a tenth of what they would have: each is looked at in turn, and none fails."""
    fleet = Fleet(common=[(0, "CONNECTED"), (1000, "DISCONNECTED")], latency=0.05)
    async with fleet.client(rate_limit=Rate(4)) as tenios, tenios.monitor() as monitor:
        for number in range(200):
            monitor.add(number)
        monitor.seal()
        told = await collect(monitor)
    assert all(states(results) == ["CONNECTED", "DISCONNECTED"] for results in told.values())
    every = sorted(at for polls in fleet.polls.values() for at in polls)
    assert min(b - a for a, b in pairwise(every)) == pytest.approx(0.25, abs=0.005)
    late = [b - a for polls in fleet.polls.values() for a, b in pairwise(polls) if a > 300 and b < 1000]
    assert 40 < sum(late) / len(late) < 60  # 200 talks / 4 a second
    assert max(late) < 2 * sum(late) / len(late)
    used = len([at for at in every if 300 < at < 1000]) / 700
    assert used > 0.9 * 4


async def test_where_the_limit_binds_less_the_looks_come_sooner_again():
    timelines = {number: [(0, "CONNECTED"), (400, "DISCONNECTED")] for number in range(1, 200)}
    fleet = Fleet({**timelines, 0: [(0, "CONNECTED"), (2000, "DISCONNECTED")]})
    async with fleet.client(rate_limit=Rate(2)) as tenios, tenios.monitor() as monitor:
        for number in range(200):
            monitor.add(number)
        monitor.seal()
        await collect(monitor)
    intervals = [b - a for a, b in pairwise(fleet.polls[0]) if a > 700]
    assert max(intervals) < 30


@pytest.mark.parametrize("turn", [60.0, 2.0])
async def test_a_turn_may_be_waited_for_longer_than_a_poll_may_take(turn):
    """For a watch as well: what waits for its turn has not failed."""
    rate = Rate(1, per=turn)
    fleet = Fleet(common=[(0, "CONNECTED"), (120 * turn, "DISCONNECTED")])
    async with fleet.client(rate_limit=rate) as tenios, tenios.monitor() as monitor:
        for number in range(10):
            monitor.add(number, timeout=math.inf)
        monitor.seal()
        told = await collect(monitor)
    assert all(states(results) == ["CONNECTED", "DISCONNECTED"] for results in told.values())
    began = anyio.current_time()
    fleet = Fleet(common=[(0, "CONNECTED"), (began + 60 * turn, "DISCONNECTED")])
    async with fleet.client(rate_limit=rate) as tenios, anyio.create_task_group() as group:

        async def watch(number):
            seen = [str(seen.status) async for seen in tenios.watch_callback(number, timeout=math.inf)]
            assert seen[-1] == "DISCONNECTED"

        for number in range(30):
            group.start_soon(watch, number)


async def test_a_watch_that_gets_no_turn_in_its_time():
    fleet = Fleet(common=[(0, "CONNECTED")])
    async with fleet.client(rate_limit=Rate(1, per=100)) as tenios:
        await tenios.callback_status(1)
        with pytest.raises(WatchTimeout):
            await anext(tenios.watch_callback(2, timeout=30))
    assert anyio.current_time() == pytest.approx(30, abs=0.1)
    assert 2 not in fleet.polls


class Player:
    """Adds, discards, dawdles and gives up waiting, as told."""

    def __init__(self, monitor, known):
        self.monitor, self.known = monitor, known
        self.told, self.discarded = defaultdict(list), {}
        self.added, self.once_discarded, self.pauses, self.beats = {0}, set(), [], []
        monitor.add(0)

    async def act(self, acts):
        for wait, what, number in acts:
            await anyio.sleep(wait)
            if what == "add" and number in self.known and (number not in self.added or number in self.discarded):
                self.added.add(number)
                self.monitor.add(self.discarded.pop(number, Callback(number)))
            elif what == "discard" and (token := self.monitor.discard(number)) is not None:
                self.discarded[number] = token
                self.once_discarded.add(number)
            elif what in ("pause", "beat"):
                {"pause": self.pauses, "beat": self.beats}[what].append(wait)
        self.monitor.seal()

    async def read(self):
        while True:
            with anyio.move_on_after(self.beats.pop() + 0.01 if self.beats else math.inf):
                try:
                    result = await anext(self.monitor)
                except StopAsyncIteration:
                    return
                assert result.callback.id not in self.discarded
                self.told[result.callback.id].append(result)
                if self.pauses:
                    await anyio.sleep(self.pauses.pop())


LIVES = st.lists(st.floats(0.01, 40), min_size=5, max_size=5)
ACTS = st.tuples(st.floats(0, 20), st.sampled_from(["add", "discard", "pause", "beat"]), st.integers(0, 5))


@settings(deadline=None, max_examples=60)
@given(
    lives=st.lists(LIVES, min_size=1, max_size=6),
    acts=st.lists(ACTS, max_size=20),
    room=st.integers(1, 4),
    latency=st.sampled_from([0, 0.05, 3]),
)
@example(lives=[[10.0] * 5], acts=[(1, "discard", 0), (5, "add", 0)], room=1, latency=0.05)
def test_whatever_is_done(lives, acts, room, latency):
    """In order, each transition once, none after an end or a discard, no poll after an end, never too many at once."""
    begins = [[sum(durations[:n]) for n in range(len(CHAIN))] for durations in lives]
    fleet = Fleet({n: list(zip(times, CHAIN, strict=True)) for n, times in enumerate(begins)}, latency=latency)

    async def main():
        async with fleet.client() as tenios, tenios.monitor(max_in_flight=room) as monitor:
            player = Player(monitor, range(len(lives)))
            async with anyio.create_task_group() as group:
                group.start_soon(player.act, acts)
                await player.read()
            assert monitor.callbacks == ()
            return player

    with asyncio.Runner(loop_factory=virtual_loop) as runner:
        player = runner.run(main())
    assert fleet.most_in_flight <= room
    for number, results in player.told.items():
        seen = states(results)
        assert [CHAIN.index(state) for state in seen] == sorted({CHAIN.index(state) for state in seen})
        assert [result.previous for result in results[1:]] == seen[:-1]
        assert seen[-1] == "DISCONNECTED" or number in player.discarded
    for number in fleet.answered.keys() - player.once_discarded:
        assert fleet.answered[number].count("DISCONNECTED") == 1


async def test_the_room_of_what_is_discarded_unread_goes_to_others():
    fleet = Fleet(common=[(0, "CONNECTED"), (100, "DISCONNECTED")])
    async with fleet.client() as tenios, tenios.monitor(max_in_flight=1) as monitor:
        monitor.add(1)
        monitor.add(2)
        await anyio.sleep(1)
        monitor.discard(1)
        with anyio.fail_after(1):
            assert (await anext(monitor)).callback.id == 2


async def test_the_token_is_of_before_the_first_that_was_not_read():
    fleet = Fleet()
    async with fleet.client() as tenios:
        async with tenios.monitor() as monitor:
            monitor.add(1)
            monitor.add(2)
            await anyio.sleep(10)
            assert monitor.discard(2).status is None
        assert [(token.id, token.status) for token in monitor.callbacks] == [(1, None)]


async def test_who_waits_for_a_monitor_that_is_left_waits_no_longer():
    async with Fleet(latency=50).client() as tenios:
        with anyio.fail_after(1):
            async with anyio.create_task_group() as group, tenios.monitor() as monitor:
                monitor.add(1)
                await group.start(reading, monitor)
                await anyio.lowlevel.checkpoint()


class ByState(Polling):
    """Two seconds for CALLING_A and twenty for everything else, as far as a limit allows."""

    def next_look(self, status, *, stretch=1.0, **_):
        return (2.0 if status == "CALLING_A" else 20.0) * stretch


def mean_interval(polls):
    gaps = [b - a for times in polls for a, b in pairwise(times)]
    return sum(gaps) / len(gaps)


async def reading(monitor, *, task_status=anyio.TASK_STATUS_IGNORED):
    task_status.started()
    async for _ in monitor:
        pass


async def test_the_common_factor_is_right_also_where_many_were_discarded():
    """One state is looked at ten times as often as another, whatever has come and gone before."""
    fleet = Fleet({n: [(0, "CALLING_A" if n % 2 else "CONNECTED")] for n in range(80)})
    async with fleet.client(rate_limit=Rate(1), polling=ByState()) as tenios, tenios.monitor() as monitor:
        async with anyio.create_task_group() as group:
            await group.start(reading, monitor)
            for number in range(40):
                monitor.add(number, timeout=math.inf)
            for number in range(40):
                await anyio.sleep(5)
                assert monitor.discard(number) is not None
                monitor.add(40 + number, timeout=math.inf)
            await anyio.sleep(3800)
            group.cancel_scope.cancel()
    settled = [[at for at in fleet.polls[number] if at > 1000] for number in range(40, 80)]
    seldom, often = mean_interval(settled[::2]), mean_interval(settled[1::2])
    assert seldom / often == pytest.approx(10, rel=0.1)
    assert sum(map(len, settled)) / 3000 == pytest.approx(1, rel=0.1)


async def test_an_observer_may_discard():
    """And the limit is shared out among those that remain."""
    chosen = []

    def tell(event):
        if isinstance(event, Transitioned) and event.transition.callback.id >= 20:
            chosen.append(monitor.discard(event.transition.callback))

    fleet = Fleet({n: [(0, "CALLING_A" if n % 2 else "CONNECTED")] for n in range(100)})
    client = fleet.client(rate_limit=Rate(1), polling=ByState(), observers=[tell])
    async with client as tenios, tenios.monitor() as monitor:
        async with anyio.create_task_group() as group:
            await group.start(reading, monitor)
            for number in range(100):
                monitor.add(number, timeout=math.inf)
            await anyio.sleep(2000)
            group.cancel_scope.cancel()
        assert len(monitor) == 20
    assert [token.status for token in chosen] == [None] * 80  # nobody was told of it
    settled = [[at for at in fleet.polls[number] if at > 200] for number in range(20)]
    assert mean_interval(settled[::2]) / mean_interval(settled[1::2]) == pytest.approx(10, rel=0.1)


async def test_when_most_are_discarded_the_others_come_sooner():
    fleet = Fleet(common=[(0, "CALLING_A")])
    async with fleet.client(rate_limit=Rate(1), polling=ByState()) as tenios, tenios.monitor() as monitor:
        async with anyio.create_task_group() as group:
            await group.start(reading, monitor)
            for number in range(500):
                monitor.add(number, timeout=math.inf)
            await anyio.sleep(2000)
            kept = max(range(500), key=lambda number: fleet.polls[number][-1])
            for number in set(range(500)) - {kept}:
                monitor.discard(number)
            await anyio.sleep(10)
            group.cancel_scope.cancel()
    assert len([at for at in fleet.polls[kept] if at > 2000]) >= 3


class Waiting(Fleet):
    """Writes down for how long each look was due when it was made, as a part of its interval."""

    def __init__(self, **options):
        super().__init__(**options)
        self.waits = []

    async def handle_async_request(self, request):
        machine = self.monitor._open[str(json.loads(await request.aread())["id"])]
        if machine.wait:
            self.waits.append((anyio.current_time() - machine._next_look) / (machine.wait * machine.stretch))
        return await super().handle_async_request(request)


@pytest.mark.parametrize("apart", [0.0, 0.05])
async def test_no_look_waits_for_long_where_many_are_added_at_once(apart):
    """Those that were looked at make way for those that were not yet."""
    fleet = Waiting(common=TALK)
    async with fleet.client(rate_limit=Rate(6)) as tenios, tenios.monitor() as fleet.monitor:
        async with anyio.create_task_group() as group:
            await group.start(reading, fleet.monitor)
            for number in range(300):
                fleet.monitor.add(number)
                await anyio.sleep(apart)
            fleet.monitor.seal()
    assert len(fleet.polls) == 300
    assert max(fleet.waits) < 3


async def test_monitors_of_one_client_share_its_rate():
    """By one factor, as if they were one."""
    fleet = Fleet({n: [(0, "CALLING_A" if n % 2 else "CONNECTED")] for n in range(80)})
    async with fleet.client(rate_limit=Rate(1), polling=ByState()) as tenios:
        async with tenios.monitor() as one, tenios.monitor() as other, anyio.create_task_group() as group:
            for monitor, numbers in ((one, range(20)), (other, range(20, 80))):
                await group.start(reading, monitor)
                for number in numbers:
                    monitor.add(number, timeout=math.inf)
            await anyio.sleep(4000)
            group.cancel_scope.cancel()
        for numbers in (range(20), range(20, 80)):
            settled = [[at for at in fleet.polls[number] if at > 1000] for number in numbers]
            assert mean_interval(settled[::2]) == pytest.approx(20 * 22, rel=0.15)
            assert mean_interval(settled[1::2]) == pytest.approx(2 * 22, rel=0.15)
        began = anyio.current_time()
        async with tenios.monitor() as alone, anyio.create_task_group() as group:
            await group.start(reading, alone)
            for number in range(20):
                alone.add(number, timeout=math.inf)
            await anyio.sleep(2000)
            group.cancel_scope.cancel()
    settled = [[at for at in fleet.polls[number] if at > began + 500] for number in range(1, 20, 2)]
    assert mean_interval(settled) == pytest.approx(2 * 5.5, rel=0.15)  # those that were left ask for nothing


@pytest.mark.parametrize("seconds", [2, 30], ids=["shorter-than-looks-are-early", "longer"])
@pytest.mark.parametrize("code", [429, 503])
async def test_a_retry_after_holds_all_looks_also_without_a_limit(code, seconds):
    """But not the end of a watch whose time is up meanwhile."""

    def answer():
        if anyio.current_time() >= 100 and not refused:
            refused.append(anyio.current_time())
            return httpx.Response(code, headers={"Retry-After": str(seconds)})
        return httpx.Response(200, json={"status": "CONNECTED"})

    def tell(event):
        if isinstance(event, Ended):
            ended.append((event.callback.id, anyio.current_time()))

    refused, ended = [], []
    fleet = Fleet(common=[(0, answer)], latency=0.0)
    client = fleet.client(observers=[tell])
    async with client as tenios, tenios.monitor() as monitor, anyio.create_task_group() as group:
        await group.start(reading, monitor)
        for number in range(100):
            monitor.add(number)
            await anyio.sleep(0.1)
        monitor.add(100, timeout=105)
        await anyio.sleep(150)
        group.cancel_scope.cancel()
    (held_at,) = refused
    polls = [at for times in fleet.polls.values() for at in times]
    assert not [at for at in polls if held_at < at < held_at + seconds - 0.1]
    assert {number for number, times in fleet.polls.items() if times[-1] > held_at + seconds - 0.1} >= set(range(100))
    assert ended == [(100, pytest.approx(115, abs=0.1))]


class RefusingCalls(Fleet):
    async def handle_async_request(self, request):
        if request.url.path.endswith("/init"):
            return httpx.Response(503)
        return await super().handle_async_request(request)


async def test_a_rate_that_recovers_is_used_at_once():
    """Calls that are refused halve the rate just as looks come back, which puts all others off; but not for long."""
    fleet = RefusingCalls(common=[(0, "CONNECTED")])
    client = fleet.client(rate_limit=Rate(2), polling=Polling.fixed(100))
    async with client as tenios, tenios.monitor() as monitor, anyio.create_task_group() as group:
        await group.start(reading, monitor)
        for number in range(100):
            monitor.add(number, timeout=math.inf)
        await anyio.sleep(100)
        for _ in range(4):
            with pytest.raises(CallbackOutcomeUnknown):
                await tenios.init_callback("config", "+491234567890")
        assert anyio.current_time() < 115
        await anyio.sleep(60)
        group.cancel_scope.cancel()
    assert [len(times) for times in fleet.polls.values()] == [2] * 100


class TakingCalls(Fleet):
    async def handle_async_request(self, request):
        if request.url.path.endswith("/init"):
            return httpx.Response(200, json={"id": 1000})
        return await super().handle_async_request(request)


async def test_what_calls_take_of_the_rate_is_not_planned_with():
    """The looks share what remains, still by one factor."""
    fleet = TakingCalls({n: [(0, "CALLING_A" if n % 2 else "CONNECTED")] for n in range(20)})
    async with fleet.client(rate_limit=Rate(1), polling=ByState()) as tenios, tenios.monitor() as monitor:
        async with anyio.create_task_group() as group:
            await group.start(reading, monitor)
            for number in range(20):
                monitor.add(number, timeout=math.inf)
            for _ in range(1000):
                await tenios.init_callback("config", "+491234567890")
            group.cancel_scope.cancel()
    settled = [[at for at in fleet.polls[number] if at > 200] for number in range(20)]
    assert mean_interval(settled[::2]) / mean_interval(settled[1::2]) == pytest.approx(10, rel=0.1)


async def test_a_plain_loop_pays_no_heed_to_a_delay_under_a_limit_either():
    fleet = Fleet(common=[(0, "ACCEPTED")])
    client = fleet.client(rate_limit=Rate(1), polling=Polling.fixed(2))
    async with client as tenios, tenios.monitor() as monitor, anyio.create_task_group() as group:
        await group.start(reading, monitor)
        for number in range(20):
            monitor.add(Callback(number, delay=3600, placed_at=datetime.now(UTC)))
            monitor.add(number + 20)
        await anyio.sleep(1000)
        group.cancel_scope.cancel()
    with_delay, without = (sum(len(fleet.polls[n]) for n in numbers) for numbers in (range(20), range(20, 40)))
    assert with_delay / without == pytest.approx(1, abs=0.06)


async def test_a_closed_client_ends_also_what_was_asleep():
    fleet, told = Fleet(common=[(0, "ACCEPTED")]), []
    async with fleet.client(rate_limit=Rate(1)) as tenios, tenios.monitor(max_in_flight=2) as monitor:
        for number in range(10):
            monitor.add(Callback(number, delay=3600, placed_at=datetime.now(UTC)))
        monitor.seal()
        await anyio.sleep(5)
        await tenios.aclose()
        told = await collect(monitor)
        assert monitor.callbacks == ()
    assert anyio.current_time() == pytest.approx(5, abs=0.1)
    assert sorted(told) == list(range(10))
    for results in told.values():
        assert isinstance(results[-1], WatchInterrupted)
        assert isinstance(results[-1].cause, ClientMisuse)
    assert [len(results) for results in told.values()].count(2) >= 2  # what had been seen before is told first


async def test_looks_that_are_due_again_at_once():
    """As in a simulator that is much faster than life; the others are not kept waiting."""
    fleet = Fleet(common=[(0, "CALLING_A"), (0.2, "DISCONNECTED")], latency=0.01)
    client = fleet.client(polling=Polling.fixed(0.0001))
    async with client as tenios, tenios.monitor(max_in_flight=2) as monitor:
        for number in range(4):
            monitor.add(number)
        monitor.seal()
        told = await collect(monitor)
    assert all(states(results) == ["CALLING_A", "DISCONNECTED"] for results in told.values())
    assert {len(polls) for polls in fleet.polls.values()} <= {10, 11, 12}


class Lingering(Fleet):
    """Gives a request up with some work of its own."""

    async def handle_async_request(self, request):
        try:
            return await super().handle_async_request(request)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)


async def test_once_left_by_a_cancellation_no_task_of_it_runs():
    fleet = Lingering(latency=5)
    async with fleet.client() as tenios:
        before = asyncio.all_tasks()
        with anyio.move_on_after(1) as scope:
            try:
                async with tenios.monitor() as monitor:
                    for number in range(3):
                        monitor.add(number)
                    await collect(monitor)
            finally:
                assert asyncio.all_tasks() == before
                assert fleet.in_flight == 0
        assert scope.cancelled_caught
        assert len(monitor.callbacks) == 3


class Faulty(Polling):
    def next_look(self, *_, **__):
        raise ZeroDivisionError


async def test_a_schedule_that_fails_is_the_readers_to_know():
    fleet = Fleet()
    async with fleet.client() as tenios, tenios.monitor(polling=Faulty(), max_in_flight=1) as monitor:
        for number in range(20):
            monitor.add(number)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await anext(monitor)
        await anyio.sleep(100)
        assert len(fleet.polls) == 1
        assert len(monitor.callbacks) == 20


async def test_one_that_is_sealed_before_it_is_entered_takes_nothing_and_ends():
    async with Fleet().client() as tenios:
        monitor = tenios.monitor()
        monitor.seal()
        async with monitor:
            with pytest.raises(ClientMisuse, match="sealed"):
                monitor.add(1)
            assert await collect(monitor) == {}


def uses_of(monitor):
    return (
        lambda: monitor.add(1),
        lambda: monitor.discard(0),
        monitor.seal,
        lambda: anext(monitor).send(None),
    )


async def test_another_thread_is_refused_and_nothing_was_done():
    """Nobody would look at what it adds before something else wakes the loop, nor see the wrong thread without debug mode."""
    async with Fleet().client() as tenios, tenios.monitor() as monitor:
        monitor.add(0)
        with ThreadPoolExecutor(1) as pool:
            for use in uses_of(monitor):
                with pytest.raises(ClientMisuse, match="another thread"):
                    pool.submit(use).result()
        monitor.add(2)
        monitor.seal()
        assert set(await collect(monitor)) == {0, 2}


def test_another_event_loop_is_refused():
    async def begin():
        monitor = await Fleet().client().monitor().__aenter__()
        monitor.add(0)
        return monitor

    async def go_on(monitor):
        for use in uses_of(monitor):
            with pytest.raises(ClientMisuse, match="another event loop"):
                use()

    with asyncio.Runner(loop_factory=virtual_loop) as runner:
        monitor = runner.run(begin())
    with asyncio.Runner(loop_factory=virtual_loop) as runner:
        runner.run(go_on(monitor))
    assert len(monitor) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_a_forked_child_is_refused():
    async with Fleet().client() as tenios, tenios.monitor() as monitor:
        monitor.add(0)
        child = os.fork()
        if child == 0:
            refused = 0
            for use in uses_of(monitor):
                try:
                    use()
                except ClientMisuse as error:
                    refused += "fork" in str(error)
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4  # the child ends at once


def test_it_says_that_it_needs_asyncio():
    async def main():
        async with Fleet().client() as tenios:
            with pytest.raises(ClientMisuse, match="asyncio"):
                await tenios.monitor().__aenter__()

    trio.run(main)


def test_one_that_was_never_entered_goes_quietly():
    tenios = Fleet().client()
    tenios.monitor()
    gc.collect()


@pytest.mark.parametrize(
    ("options", "apart"),
    [({}, 0.0), ({"polling": Polling.fixed(5)}, 0.01), ({"rate_limit": Rate(1000)}, 0.01)],
    ids=["by the schedule", "a fixed interval", "under a rate limit"],
)
async def test_looks_that_are_nearly_due_go_out_together(options, apart):
    fleet = Fleet(common=[(0, "CALLING_A")])
    async with fleet.client(**{"polling": Polling(jitter=0), **options}) as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        await anyio.sleep(0.01)
        monitor.add(2)
        await anyio.sleep(30)
        monitor.discard(1)
        monitor.discard(2)
    firsts, seconds = fleet.polls[1][1:3], fleet.polls[2][1:3]
    assert [b - a for a, b in zip(firsts, seconds, strict=True)] == pytest.approx([apart] * 2, abs=0.002)


async def test_a_new_callback_takes_along_who_is_nearly_due_but_an_answer_does_not():
    fleet = Fleet(common=[(0, "CALLING_A")], latency=0.5)
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        monitor.add(1)
        await anyio.sleep(30)
    first, due = fleet.polls[1][:2]
    wait = due - first

    async def second_look(*, after):
        fleet.polls.clear()
        async with fleet.client() as tenios, tenios.monitor() as monitor:
            monitor.add(1)
            await anyio.sleep(after)
            monitor.add(2)
            await anyio.sleep(wait)
        return fleet.polls[1][1] - fleet.polls[1][0]

    assert await second_look(after=0.9 * wait) == pytest.approx(0.9 * wait)
    assert await second_look(after=0.65 * wait) == pytest.approx(wait), "answered when it was nearly due"


async def test_nobody_is_looked_at_early_through_a_known_delay():
    fleet = Fleet(common=[(0, "REQUESTED"), (100, "CALLING_A")])
    async with fleet.client(polling=Polling(jitter=0)) as tenios, tenios.monitor() as monitor:
        placed_at = datetime.now(UTC)
        for number in range(1, 4):
            monitor.add(Callback(number, "config", 100, placed_at))
            await anyio.sleep(0.5)
        await anyio.sleep(200)
        for number in range(1, 4):
            monitor.discard(number)
    for number in range(1, 4):
        assert all(instant > 97 for instant in fleet.polls[number][1:])


async def test_no_more_looks_are_made_early_than_a_wake_up_is_worth():
    """A monitor of very many is awake nearly always; were all looks early then, all intervals would be shorter."""
    fleet = Fleet(common=[(0, "CALLING_A")])
    async with fleet.client() as tenios, tenios.monitor(max_in_flight=50) as monitor:
        monitor.add(0)
        await anyio.sleep(0.01)
        for number in range(1, 41):
            monitor.add(number)
        await anyio.sleep(5)
    first = fleet.polls[0][1]
    when = Counter(round(fleet.polls[number][1] - first, 2) for number in range(1, 41))
    assert when == {0.0: AT_ONCE - 1, 0.01: 41 - AT_ONCE}


async def test_nobodys_time_is_up_early_because_others_are_looked_at():
    fleet, ended = Fleet(common=[(0, "CONNECTED")]), {}
    async with fleet.client() as tenios, tenios.monitor() as monitor:
        for number in range(20):
            monitor.add(number, timeout=60 + number / 2)
        monitor.seal()
        async for result in monitor:
            if isinstance(result, WatchTimeout):
                ended[result.callback.id] = anyio.current_time()
    assert ended == {number: pytest.approx(60 + number / 2, abs=0.1) for number in range(20)}
